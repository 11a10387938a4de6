//! See `portcullis_fuzz::fields`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis_fuzz::fields(input));
