//! Storage: what a lane keeps. Epoch records, operators' state, an outbox for other lanes, and tables in three tiers: memory, local segments, cold files.
//!
//! Absent by intent: no sources, no operators, no network beyond object stores, no wall clock but where it is given in.

pub mod catalog;
pub mod cold;
pub mod durable;
mod encoding;
pub mod epoch;
pub mod export;
pub mod hot;
pub mod last;
pub mod mover;
pub mod options;
pub mod outbox;
pub mod panes;
mod prune;
pub mod quarantine;
pub mod state;
pub mod system;
pub mod table;
pub mod upkeep;
pub mod upload;
pub mod verify;
pub mod view;
pub mod warm;

#[cfg(test)]
mod testing;

pub use options::{ColdOptions, HotOptions, TableOptions, TableSpec, WarmOptions};
