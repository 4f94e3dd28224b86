//! See `targets::journal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::journal(data));
