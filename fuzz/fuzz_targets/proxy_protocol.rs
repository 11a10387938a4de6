//! See `portcullis_fuzz::proxy_protocol`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis_fuzz::proxy_protocol(input));
