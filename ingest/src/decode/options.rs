//! What a user says about the messages of a source: `decode = { … }` and `columns = { … }`.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The declared columns of a source, in the order of the configuration.
pub type Columns = IndexMap<String, ColumnOptions>;

/// How messages become rows.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecodeOptions {
    /// The form of a message.
    #[serde(default)]
    pub format: Format,
    /// Where the event time of a row stands.
    pub event_time: EventTimeOptions,
    /// Path of an array in the message (JSON only): each element becomes a row. Paths that begin with it are read from the element, all
    /// others from the message and repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explode: Option<String>,
}

/// The form of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON value a message; newline-delimited in files.
    #[default]
    Json,
    /// CSV records (RFC 4180).
    Csv,
}

/// Where the event time of a row stands and how it is written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventTimeOptions {
    /// JSON path (`$.ts`), or the header name of a CSV field.
    pub path: String,
    /// `rfc3339`, `unix_s`, `unix_ms`, `unix_us`, `unix_ns`, or a strptime pattern such as `%d.%m.%Y %H:%M:%S`.
    #[serde(default = "rfc3339")]
    pub format: String,
    /// Time zone of a pattern that names none: `UTC`, an offset (`+02:00`) or a name (`Europe/Berlin`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// What to do with a row that has none.
    #[serde(default)]
    pub on_missing: OnMissing,
    /// A row before this instant (RFC 3339) is a dead letter; default 2000-01-01T00:00:00Z, since a device without a clock says 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_time: Option<String>,
}

fn rfc3339() -> String {
    "rfc3339".into()
}

/// What to do with a row without an event time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMissing {
    /// Put its message aside.
    #[default]
    DeadLetter,
    /// Take the instant at which it reached us.
    Arrival,
}

/// One declared column.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnOptions {
    /// JSON path, by default `$.<name>`; for CSV the header name, by default the column's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `bool`, `int8` to `int64`, `uint8` to `uint64`, `float32`, `float64`, `decimal(p,s)`, `utf8` or `timestamp`.
    /// A timestamp is written as the event time is; where that is a number, RFC 3339 text is taken too.
    #[serde(rename = "type")]
    pub kind: String,
    /// Unit of the values, for people and tools; kept in the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Take a number or boolean that is written as text, and a number as text. CSV fields are always parsed.
    #[serde(default)]
    pub parse: bool,
}

/// How CSV is written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CsvOptions {
    /// The first record of a file names the fields. Without it they stand in the order of the declared columns, and the event time behind
    /// them unless its path is a column's.
    pub header: bool,
    /// The sign between fields, one ASCII character.
    pub delimiter: char,
    /// What an unquoted field says instead of a value.
    pub null: String,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { header: true, delimiter: ',', null: String::new() }
    }
}
