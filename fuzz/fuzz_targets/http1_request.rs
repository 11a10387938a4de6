//! See `portcullis_fuzz::http1_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis_fuzz::http1_request(input));
