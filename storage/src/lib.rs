//! Storage: what a lane keeps. Epoch records, operators' state, and tables in three tiers: memory, local segments, cold files.
//!
//! Absent by intent: no sources, no operators, no network beyond object stores, no wall clock but where it is given in.

pub mod epoch;
