//! HTTP/1.1 for both roles, sans-IO: bytes in, heads and body ranges out, and back (RFC 9112).
//!
//! The codec takes one reading of a message or none. What has two readings somewhere (bare LF,
//! folded lines, several lengths, odd codings) is refused, and what is sent is written anew from
//! what was understood, never relayed. Sockets, timeouts and the order of messages on a connection
//! are the proxy's; whether a target is allowed is the router's.
//!
//! ```text
//! parse_request  → RequestHead, RequestFacts    BodyDecoder → ranges of the input, trailers
//! parse_response → ResponseHead, ResponseFacts
//! encode_request, encode_response, encode_interim, encode_chunk, encode_last_chunk
//! ```

mod body;
mod chunked;
mod connection;
mod encode;
mod error;
mod lines;
mod request;
mod response;
mod scan;
mod target;

pub use body::{BodyDecoder, Step};
pub use encode::{
    Connection, Framing, RequestWire, ResponseWire, encode_chunk, encode_chunk_head,
    encode_interim, encode_last_chunk, encode_request, encode_response, request_framing,
    response_framing,
};
pub use error::{BodyError, HeadError, RequestError, ResponseError};
pub use lines::{HeadLimits, is_forbidden_trailer, is_framing_alias};
pub use request::{ParsedRequest, RequestContext, RequestFacts, parse_request};
pub use response::{ParsedResponse, ResponseFacts, ResponseKind, parse_response};
