//! See `portcullis_fuzz::chunked`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis_fuzz::chunked(input));
