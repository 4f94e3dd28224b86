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
//!
//! [verify.alerts.spikes]                      # the table of an `anomaly` or an `alert`
//! device = "device_id"
//! when = "kind = 'zscore'"                    # SQL over the table: which of its rows raise
//! labels = ["spike"]                          # what they should find
//! within = "5s"
//! precision = 0.9
//! recall = 0.9
//! ```
//! `where` and `select` are SQL over the truth: its signals by name, `device`, `site`, `seq`, `event_time`.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Span, positive, share};
use crate::fleet::Anomaly;

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
    /// Tables of what was found to be unusual, by name.
    pub alerts: IndexMap<String, AlertOptions>,
}

/// A table that should find what is labelled as unusual.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AlertOptions {
    /// Its column for the device.
    #[serde(default = "device")]
    pub device: String,
    /// Its column for the time at which something was found.
    #[serde(default = "event_time")]
    pub time: String,
    /// Which of its rows raise, as SQL over it; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The labels that it should find: `spike`, `shift`, `drift`, `stuck`.
    pub labels: Vec<String>,
    /// How long after the end of what is labelled it may still be found.
    #[serde(default)]
    pub within: Span,
    /// The share of its rows that must have found something, at least.
    #[serde(default)]
    pub precision: f64,
    /// The share of what is labelled that must be found, at least.
    #[serde(default)]
    pub recall: f64,
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

fn event_time() -> String {
    "event_time".to_owned()
}

fn sequence() -> String {
    "seq".to_owned()
}

impl Default for VerifyOptions {
    fn default() -> VerifyOptions {
        VerifyOptions { dead_letters: true, raw: IndexMap::new(), windows: IndexMap::new(), alerts: IndexMap::new() }
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
        for (table, alerts) in &self.alerts {
            let at = |key: &str| format!("verify.alerts.{table}.{key}");
            if let Some(label) = alerts.labels.iter().find(|label| Anomaly::ALL.iter().all(|known| known.as_str() != label.as_str())) {
                let known: Vec<_> = Anomaly::ALL.iter().map(|known| known.as_str()).collect();
                return Err(format!("{}: there is no {label:?}, but {}", at("labels"), known.join(", ")));
            }
            share(&at("precision"), alerts.precision)?;
            share(&at("recall"), alerts.recall)?;
        }
        Ok(())
    }
}
