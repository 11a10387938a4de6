//! OAuth 2.0 and OpenID Connect as a client: where an issuer's endpoints are, how the gateway
//! proves to them who it is, what it sends and how it reads their answers.
//!
//! This is no policy. It is what introspection, logins and credentials toward backends share; what
//! an answer means is for them to say.

pub(crate) mod answer;
pub(crate) mod assertion;
pub(crate) mod breaker;
pub(crate) mod client;
pub(crate) mod discovery;
pub(crate) mod endpoint;
pub(crate) mod form;
pub(crate) mod hidden;
pub(crate) mod kept;
