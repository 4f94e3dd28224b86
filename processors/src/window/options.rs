//! Options of the window operator.

use crate::BuildError;
use crate::duration::Duration;
use bytesize::ByteSize;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of a window, without `type` and `inputs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowOptions {
    /// Columns by which readings are grouped; at least one.
    pub key: Vec<String>,
    /// How time is cut.
    pub window: WindowShape,
    /// How long after its close a window still takes readings. Only "0s" so far.
    #[serde(default = "no_time")]
    pub allowed_lateness: Duration,
    /// Output columns, in this order: name = SQL with aggregates, for example `"max(t) - min(t)"`.
    pub select: IndexMap<String, String>,
    /// How many groups (key and window) may be held; readings of further ones are dead letters with reason `state_limit`.
    #[serde(default = "million")]
    pub max_keys: u64,
    /// How many bytes of groups may be held; readings of further groups are dead letters with reason `state_limit`, and with an
    /// aggregate that keeps every value (`median`, `time_weighted_avg`) all further readings.
    #[serde(default = "gibibyte")]
    #[schemars(with = "String")]
    pub max_state: ByteSize,
}

/// `window = { … }`: how time is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowShape {
    /// The kind of window.
    #[serde(rename = "type")]
    pub kind: WindowKind,
    /// Length of a window: more than nothing.
    pub size: Duration,
    /// Windows begin this much after multiples of `size` since 1970-01-01T00:00:00Z; less than `size`.
    #[serde(default = "no_time")]
    pub offset: Duration,
}

/// The kinds of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// Windows of one size, one after the other: each reading belongs to exactly one.
    Tumbling,
}

impl WindowOptions {
    /// What can be said without the input's columns.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let shape = &self.window;
        if self.key.is_empty() {
            return Err(BuildError::new("key", "a window needs at least one key column")
                .hint("lanes are split by key: a whole needs a second stage"));
        }
        if shape.size.0.0 == 0 {
            return Err(BuildError::new("window.size", "a window of no length holds no reading"));
        }
        if shape.offset >= shape.size {
            return Err(BuildError::new("window.offset", "the offset is not less than the size"));
        }
        if self.allowed_lateness.0.0 > 0 {
            let hint = "wait longer instead: `out_of_orderness` of the source's watermark; what comes later is kept in the late table";
            return Err(BuildError::new("allowed_lateness", "panes of closed windows are not possible yet").hint(hint));
        }
        if self.select.is_empty() {
            return Err(BuildError::new("select", "there is no aggregate"));
        }
        Ok(())
    }
}

/// A closed window is final at once.
fn no_time() -> Duration {
    Duration::from_secs(0)
}

/// 100,000 devices in ten open windows.
fn million() -> u64 {
    1_000_000
}

/// A million groups of about a kilobyte.
fn gibibyte() -> ByteSize {
    ByteSize::gib(1)
}
