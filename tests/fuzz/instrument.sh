#!/bin/sh
# In the place of rustc (RUSTC_WORKSPACE_WRAPPER): compiles the crates of the workspace, and not what they depend on, so that a fuzzer sees which of their
# branches an input takes. The flags are those of cargo-fuzz.
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0
