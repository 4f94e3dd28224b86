//! Gateway: questions to the tables from outside. Runs SQL under limits, speaks HTTP, renders results.
//!
//! Absent by intent: nothing here writes to a table, and no listener on an address that others can reach.

pub mod format;
pub mod http;
pub mod query;
