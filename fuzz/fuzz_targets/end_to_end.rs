//! See `portcullis_fuzz::end_to_end`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis_fuzz::end_to_end(input));
