//! See `portcullis_fuzz::http1_response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis_fuzz::http1_response(input));
