//! The fuzz targets' bodies: the oracles that the tests of `http1` use, under public names.
//!
//! `cargo +nightly fuzz run http1_request` where cargo-fuzz is installed; without it, on stable,
//! `cargo run --release --no-default-features --bin soak -- http1_request 10000000`.

use portcullis_wire::oracles;

/// A client's stream of requests.
pub fn http1_request(input: &[u8]) {
    oracles::http1_request(input);
}

/// One byte of choices, then a backend's response.
pub fn http1_response(input: &[u8]) {
    oracles::http1_response(input);
}

/// One byte that says where to cut, then a chunked body.
pub fn chunked(input: &[u8]) {
    oracles::chunked(input);
}

/// One byte of path rules, then a path.
pub fn path(input: &[u8]) {
    oracles::path(input);
}
