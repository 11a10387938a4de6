//! Names of fields that are the gateway's own, so that no policy writes them.

use portcullis_core::Known;
use portcullis_core::head::is_token;
use portcullis_core::known::is_alias;

/// Whose fields these are, and what to use instead.
pub(crate) type Owned = &'static [(&'static str, &'static str)];

pub(crate) const OWNED_IN_REQUESTS: Owned = &[
    ("client-cert", "see `forward_certificate` of the backend"),
    ("client-cert-chain", "see `forward_certificate` of the backend"),
    ("content-length", "framing is written by the gateway"),
    ("host", "see `host` of the backend"),
    ("x-forwarded-for", "forwarding fields are written by the gateway"),
    ("x-forwarded-host", "forwarding fields are written by the gateway"),
    ("x-forwarded-proto", "forwarding fields are written by the gateway"),
    ("forwarded", "forwarding fields are written by the gateway"),
    ("via", "forwarding fields are written by the gateway"),
    ("x-request-id", "the request id is the gateway's"),
    ("traceparent", "trace context is continued by the gateway"),
    ("tracestate", "trace context is continued by the gateway"),
];

pub(crate) const OWNED_IN_RESPONSES: Owned = &[
    ("content-length", "framing is written by the gateway"),
    ("x-request-id", "the request id is the gateway's"),
    ("ratelimit", "see `limits`"),
    ("ratelimit-policy", "see `limits`"),
];

/// Begins the names of the verified identity.
const IDENTITY: &[u8] = b"portcullis-";

/// # Errors
/// For the operator: why nobody may write it.
pub(crate) fn check_name(name: &str, owned: Owned) -> Result<(), String> {
    let bytes = name.as_bytes();
    if !is_token(bytes) {
        return Err(format!("`{name}` is not a field name"));
    }
    if Known::of(bytes).is_hop_by_hop() {
        return Err(format!("`{name}` concerns one connection only and never travels on"));
    }
    if bytes.len() >= IDENTITY.len() && is_alias(&bytes[..IDENTITY.len()], IDENTITY) {
        return Err(format!("`{name}` is the gateway's: it says who was verified"));
    }
    match owned.iter().find(|(owned, _)| is_alias(bytes, owned.as_bytes())) {
        Some((_, why)) => Err(format!("`{name}` cannot be edited: {why}")),
        None => Ok(()),
    }
}
