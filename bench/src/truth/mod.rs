//! What was sent, and what became of it: the folder that `tidegate simulate --truth DIR` leaves and `tidegate verify` reads.
//!
//! ```text
//! readings.parquet   a row for each message that was sent, in the order in which their fate was known
//! scenario.toml      the scenario as it was run, with what the command line changed
//! manifest.json      seed, start, counts and hashes; written last, so a folder without one is not whole
//! ```

mod columns;
mod counts;
mod manifest;
mod writer;

pub use columns::{RESERVED, truth_schema};
pub use counts::Counts;
pub use manifest::Manifest;
pub(crate) use manifest::hash_of;
pub use writer::{TruthSender, TruthWriter};

use crate::fleet::Reading;

/// The readings of a truth.
pub const READINGS: &str = "readings.parquet";
/// The scenario of a truth.
pub const SCENARIO: &str = "scenario.toml";
/// The manifest of a truth.
pub const MANIFEST: &str = "manifest.json";

/// Bytes of a payload that `dead_letters` keeps by default, and so the truth.
pub(crate) const PAYLOAD_BYTES: usize = 64 << 10;

/// A message that was sent, with its fate. Times are Unix microseconds of the simulator's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// What is true about it.
    pub reading: Reading,
    /// Its topic; empty for files.
    pub topic: String,
    /// Its bytes where nobody can use them, at most 64 KiB; else none.
    pub payload: Option<Vec<u8>>,
    /// All its bytes.
    pub length: usize,
    /// When it should have been sent.
    pub due_us: i64,
    /// When it was handed to the client.
    pub sent_us: i64,
    /// When the acknowledgement came; none if none came, or if QoS 0 has none.
    pub acknowledged_us: Option<i64>,
    /// How often it may have been sent: once, and once more for each connection that was lost before it was acknowledged.
    pub attempts: u32,
}
