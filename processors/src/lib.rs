//! Pure operators over batches of readings, and the watermark that drives them.
//!
//! Each operator is an options struct (what stands in the TOML, without `type` and `inputs`) and a function
//! `build(&options, &input_schema)` that gives a `flow::Operator` or says which key is wrong. Options are checked whole by `build`.
//!
//! Promised: the same calls in the same order give the same rows and the same state; a row that an expression fails on becomes a
//! dead letter of its own and never fails its batch. Absent by intent: files, network, clocks, randomness, async, threads.

pub mod alert;
pub mod anomaly;
pub mod deadband;
pub mod dedupe;
pub mod duration;
pub mod enrich;
mod error;
pub mod filter;
pub mod functions;
pub mod join;
mod keyed;
mod keys;
pub mod map;
pub mod presence;
pub mod rate;
mod refuse;
pub mod route;
pub mod sql;
#[cfg(test)]
mod testing;
mod timers;
pub mod union;
mod values;
pub mod watermark;
pub mod window;

pub use duration::Duration;
pub use error::BuildError;
