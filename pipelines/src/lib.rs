//! From a pipeline's file to running lanes: `spec` (what is written) → `plan` (what is meant) → `run` (lanes, threads, the journal and the
//! tables around them). Beside them: mistakes shown with their place, the command line, logs, the names of all metrics, the demo, and what is simulated, verified and replayed.
//!
//! Absent by intent: decoding, operators and storage, which are rooms of their own and only composed here.

pub mod cli;
pub mod demo;
pub mod diagnose;
pub mod frugal;
pub mod logs;
pub mod metrics;
pub mod plan;
pub mod relay;
pub mod replay;
pub mod run;
pub mod schema;
pub mod simulate;
pub mod spec;
pub mod tiers;
pub mod units;
pub mod verify;
