//! The fuzz targets' bodies: the oracles that the tests use, under public names.
//!
//! `cargo xtask fuzz` runs them. Where there is no cargo-fuzz, the example `soak` mutates their
//! corpora blindly: `cargo run --release --no-default-features --example soak -- path 10000000`.

use std::cell::RefCell;

use portcullis_testkit::end_to_end::EndToEnd;
use portcullis_wire::oracles;

/// A target's name and body.
pub type Target = (&'static str, fn(&[u8]));

/// All of them. Each has a file in `fuzz_targets` and a folder in `corpus`.
pub const TARGETS: [Target; 8] = [
    ("authority", authority),
    ("chunked", chunked),
    ("end_to_end", end_to_end),
    ("fields", fields),
    ("http1_request", http1_request),
    ("http1_response", http1_response),
    ("path", path),
    ("proxy_protocol", proxy_protocol),
];

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

/// One byte that says the scheme, then a Host field's value.
pub fn authority(input: &[u8]) {
    oracles::authority(input);
}

/// Field lines of a request.
pub fn fields(input: &[u8]) {
    oracles::fields(input);
}

/// The first bytes of a load balancer's connection.
pub fn proxy_protocol(input: &[u8]) {
    oracles::proxy_protocol(input);
}

/// One byte of choices, then what a client sends to a gateway. See [`EndToEnd::run`].
pub fn end_to_end(input: &[u8]) {
    thread_local!(static WORLD: RefCell<EndToEnd> = RefCell::new(EndToEnd::start()));
    WORLD.with_borrow_mut(|world| world.run(input));
}
