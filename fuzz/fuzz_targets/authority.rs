//! See `portcullis_fuzz::authority`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis_fuzz::authority(input));
