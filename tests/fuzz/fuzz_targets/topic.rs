//! See `targets::topic`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::topic(data));
