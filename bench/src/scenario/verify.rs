//! `[verify]`: which tables of the pipeline hold what of the truth.
//!
//! ```toml
//! [verify.raw.readings]                       # the table
//! device = "device_id"                        # its columns for device, sequence and values
//! sequence = "seq"
//! values = { temperature = "temperature" }    # column = signal
//! duplicates = "dropped"                      # a dedupe stands before it
//!
//! [verify.windows.per_minute]                 # the table
//! raw = "readings"                            # which says what of the unacknowledged arrived
//! late = "late_per_minute"
//! size = "1m"
//! key = { device_id = "device", site = "site" }
//! select = { n = "count(*)", mean = "avg(temperature)" }
//! ```
//! `where` and `select` are SQL over the truth: its signals by name, `device`, `site`, `seq`, `event_time`.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Span, positive};

/// The tables that are verified.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerifyOptions {
    /// Whether `dead_letters` must hold each broken reading, and nothing else.
    pub dead_letters: bool,
    /// Tables of single readings, by name.
    pub raw: IndexMap<String, RawOptions>,
    /// Tables of tumbling windows, by name.
    pub windows: IndexMap<String, WindowOptions>,
}

/// A table of single readings.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawOptions {
    /// Its column for the device.
    #[serde(default = "device")]
    pub device: String,
    /// Its column for the sequence.
    #[serde(default = "sequence")]
    pub sequence: String,
    /// Its columns for signals: column = signal.
    #[serde(default)]
    pub values: IndexMap<String, String>,
    /// What becomes of readings that were sent twice.
    #[serde(default)]
    pub duplicates: Duplicates,
    /// Which readings it holds; all that can be used if left out.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// What becomes of readings that were sent twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Duplicates {
    /// A dedupe by device and sequence leaves one.
    #[default]
    Dropped,
    /// Each is a row.
    Kept,
}

/// A table of tumbling windows over what a raw table holds.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WindowOptions {
    /// The raw table, of `[verify.raw]`, that holds the same readings.
    pub raw: String,
    /// The table of readings that came too late for their window; it has the raw table's columns for device and sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<String>,
    /// How long a window is.
    pub size: Span,
    /// Where windows begin, from the full `size`.
    #[serde(default)]
    pub offset: Span,
    /// Its key: column = SQL.
    pub key: IndexMap<String, String>,
    /// Its aggregates: column = SQL.
    pub select: IndexMap<String, String>,
}

fn device() -> String {
    "device_id".to_owned()
}

fn sequence() -> String {
    "seq".to_owned()
}

impl Default for VerifyOptions {
    fn default() -> VerifyOptions {
        VerifyOptions { dead_letters: true, raw: IndexMap::new(), windows: IndexMap::new() }
    }
}

impl VerifyOptions {
    pub(super) fn check(&self) -> Result<(), String> {
        for (table, window) in &self.windows {
            if !self.raw.contains_key(&window.raw) {
                return Err(format!("verify.windows.{table}.raw = {:?}: there is no [verify.raw.{}]", window.raw, window.raw));
            }
            positive(&format!("verify.windows.{table}.size"), window.size)?;
        }
        Ok(())
    }
}
