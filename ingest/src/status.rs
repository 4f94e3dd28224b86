//! What a source has done so far: counters and gauges that others read while it runs.

use std::sync::atomic::AtomicU64;

/// Counters and gauges of a source, over all its connections. Received = logged + rejected + in flight, in rows; a message that cannot
/// be decoded is one row, a redelivered one none.
#[derive(Debug, Default)]
pub struct SourceStatus {
    /// Connections that are up now.
    pub connected: AtomicU64,
    /// Connections made after the first of each.
    pub reconnects: AtomicU64,
    /// How often another client took our client id.
    pub takeovers: AtomicU64,
    /// Messages received and not yet acknowledged.
    pub unacked: AtomicU64,
    /// Rows received.
    pub received: AtomicU64,
    /// Rows that are durable.
    pub logged: AtomicU64,
    /// Rejected messages that are durable.
    pub rejected: AtomicU64,
    /// Messages recognised as redelivered, and dropped.
    pub redelivered: AtomicU64,
    /// Bytes of topics and payloads received, redelivered ones too.
    pub received_bytes: AtomicU64,
    /// Records that are there and not taken, of sources that know (Kafka).
    pub lag: AtomicU64,
    /// Records that were gone before they were read (Kafka, `on_gap`).
    pub missing: AtomicU64,
    /// Records without a value (Kafka).
    pub tombstones: AtomicU64,
}
