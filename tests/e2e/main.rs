//! The whole, from outside: the binary with real input, real Mosquitto and kill -9, judged by DuckDB.
//!
//! ```text
//! weather.rs    hourly weather of three stations, from a file and through Mosquitto with kill -9; the cold table for others
//! aging.rs      rows go through all tiers, cold on disk and in a bucket, under a reader that must not notice
//! cold_readers.rs  the cold table read by DuckDB, Polars, pyarrow and DataFusion, as storage/README.md says
//! failpoints.rs  the end of the process between any two durable steps; with the feature `failpoints` alone
//! flights.rs    336,776 flights as readings of aircraft, 2,512 of them without a key
//! flood.rs      ten times what a pipeline takes: its memory stays, the broker keeps the rest
//! functions.rs  aggregates over time in windows and in queries
//! power.rs      a disk that loses power, for kills.rs
//! recall.rs     what was hot is hot again after a restart
//! grown.rs      new columns, sources, windows and tables in a data directory that lives
//! http.rs       readings by HTTP, sent again after kill -9
//! kills.rs      SIGKILL at any moment, a frozen process, restarts of the broker
//! lookups.rs    a lookup table that changes, breaks and goes, across kill -9
//! cardinality.rs  two million ids: known devices are untouched, memory is bounded
//! bad_input.rs  bad messages between good ones
//! recovery.rs   a start after kill -9 with many devices and a long journal: how soon, and in how much memory
//! shared.rs     several processes share the partitions of a topic: one is killed, one joins, one is frozen, one leaves
//! refused.rs    a second run on the same data directory
//! revised.rs    windows that take readings after their close: one row each, provisional until it is final
//! simulate.rs   simulated fleets with many faults, held against their truth by `verify`; and truths that were changed by one row
//! tiers.rs      every file verified while rows move, exports, and damage that is found
//! rules.rs      config/prometheus, checked by promtool
//! real.rs       real data beside the repository, where it is there
//! ```

mod aging;
mod bad_input;
mod cardinality;
mod cold_readers;
#[cfg(feature = "failpoints")]
mod failpoints;
mod flights;
mod flood;
mod functions;
mod grown;
mod http;
mod kafka;
mod kills;
mod lookups;
mod power;
mod real;
mod recall;
mod recovery;
mod refused;
mod replay;
mod revised;
mod rules;
mod shared;
mod simulate;
mod stages;
mod tiers;
mod weather;
