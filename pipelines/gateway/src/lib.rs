//! Gateway: what comes from outside. Runs SQL under limits, renders results, and hands what is sent by HTTP to the source that it names.
//!
//! Absent by intent: no decoding, nothing here writes to a table, and no TLS: that is for a proxy before it.

pub mod access;
pub mod format;
pub mod http;
pub mod ingest;
pub mod query;
