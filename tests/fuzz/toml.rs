//! See `spec`.
#![no_main]

mod bounded;
mod spec;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bounded::run(spec::spec, data));
