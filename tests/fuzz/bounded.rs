//! Memory of a fuzzer: an input that needs more than `LIMIT` beyond what is there ends the process, which is a failure. libFuzzer's own limit of
//! allocations works with a sanitizer only.

use cap::Cap;
use std::alloc::System;

/// In bytes.
const LIMIT: usize = 64 << 20;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Runs an input through what is fuzzed.
pub(crate) fn run(what: fn(&[u8]), input: &[u8]) {
    MEMORY.set_limit(MEMORY.allocated() + LIMIT).expect("more than what is there");
    what(input);
}
