//! See `targets::decode`.
#![no_main]

#[path = "../bounded.rs"]
mod bounded;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bounded::run(targets::decode, data));
