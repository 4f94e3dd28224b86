//! Kafka: the records of a topic's partitions, each partition a log of its own that can be read again from an offset.
//!
//! Promises: what has been taken is said by the offset that the reader of a partition keeps, never by the group's committed one, which is
//! written for lag tools alone. Only committed records of transactions are read. A record that cannot be used is a dead letter with its topic,
//! partition and offset. What is missing of a partition (retention, a topic made anew) is told, and stops its reader unless
//! `on_gap` says otherwise. An absent broker is no error.
//!
//! ```text
//! Reader (a thread: discovers partitions, assigns them, serves the client) ──attach──► Partition (polled by its lane: decode) ──► rows
//! ```
//! Absent: rebalancing between processes (every partition is read by this one), patterns of topics, tombstones as deletions.

mod batch;
mod client;
mod connection;
mod ends;
mod options;
mod partition;
mod reader;

pub use connection::{Connection, Mechanism, Sasl, check_topic};
pub use ends::{ends, reach};
pub use options::{KafkaOptions, MetadataColumns, OnGap, Start};
pub use partition::{Partition, Read};
pub use reader::{Attach, Reader, Wanted, log_name};
