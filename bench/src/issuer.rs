//! What an identity provider has made: a token of 689 bytes, and the key set that it is verified
//! with. They are fixed, so that nothing random is counted; `portcullis token` made both, and
//! nobody has the key.

pub const NAME: &str = "https://idp.example.com/";
pub const AUDIENCE: &str = "orders";
/// With a line feed at the end.
pub const TOKEN: &str = include_str!("../issuer/token.jwt");
pub const KEY_SET: &str = include_str!("../issuer/jwks.json");
