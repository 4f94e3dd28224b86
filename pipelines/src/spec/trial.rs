//! `[[tests]]`: messages given to the pipeline, and the rows that its tables must hold afterwards.

use crate::diagnose::Problem;
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use flow::WallTime;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// One test of the pipeline.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestOptions {
    /// What it shows, in a sentence.
    pub name: String,
    /// Rows of lookup tables at the start, in place of those of their files. Columns have their declared names.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Vec<BTreeMap<String, serde_json::Value>>>")]
    pub lookups: LookupRows,
    /// What happens, in this order.
    pub given: Vec<Given>,
    /// Whether the input ends after that, so that windows close.
    #[serde(default = "yes")]
    pub end: bool,
    /// For each table or sink named, all rows that it must hold or have published, in any order. The columns that some row of the table names are compared; a
    /// column that a row leaves out must be null. Times are texts as `2026-01-01T00:00:00Z`.
    #[schemars(with = "BTreeMap<String, Vec<BTreeMap<String, serde_json::Value>>>")]
    pub expect: IndexMap<String, Vec<toml::Table>>,
}

/// Rows of lookup tables, by the table's name.
pub type LookupRows = IndexMap<String, Vec<toml::Table>>;

/// A message, a word about time, or new rows of a lookup table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// When the message reaches us; as the one before it if left out.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub at: Option<Moment>,
    /// Which source receives it; may be left out where there is only one.
    #[serde(default)]
    pub source: Option<String>,
    /// Its topic.
    #[serde(default)]
    pub topic: Option<String>,
    /// Its key, for Kafka.
    #[serde(default)]
    pub key: Option<String>,
    /// Its headers, for Kafka.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub headers: IndexMap<String, String>,
    /// The message; for files one line.
    #[serde(default)]
    pub payload: Option<String>,
    /// In place of a message: silence moves the watermark of all lanes on to this time.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub watermark: Option<Moment>,
    /// In place of a message: lookup tables have these rows from now on.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Vec<BTreeMap<String, serde_json::Value>>>")]
    pub lookups: LookupRows,
    /// In place of a message: the pipeline is stopped and started again. That changes nothing.
    #[serde(default)]
    pub restart: bool,
}

/// A time as TOML or RFC 3339 writes it, in UTC if it names no other zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub WallTime);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = match toml::Value::deserialize(from)? {
            toml::Value::String(text) => text,
            toml::Value::Datetime(time) => time.to_string(),
            other => return Err(serde::de::Error::custom(format!("a time is expected, not {}", other.type_str()))),
        };
        let nanos = string_to_timestamp_nanos(&text).map_err(|_| serde::de::Error::custom(format!("`{text}` is not a time")))?;
        Ok(Self(WallTime(nanos.div_euclid(1_000))))
    }
}

fn yes() -> bool {
    true
}

impl Given {
    /// What is wrong with the combination of keys.
    pub(crate) fn check(&self, span: std::ops::Range<usize>) -> Option<Problem> {
        if self.restart {
            let more = self.payload.is_some() || self.watermark.is_some() || self.source.is_some() || !self.lookups.is_empty();
            return more.then(|| Problem::new(span, "`restart` is an event of its own").hint("write two, one after the other"));
        }
        if !self.lookups.is_empty() {
            let more = self.payload.is_some() || self.watermark.is_some() || self.topic.is_some() || self.source.is_some();
            return more.then(|| Problem::new(span, "`lookups` is an event of its own").hint("write two, one after the other"));
        }
        match (&self.payload, &self.watermark) {
            (None, None) => Some(Problem::new(span, "neither `payload`, `watermark`, `lookups` nor `restart`: nothing happens")),
            (Some(_), Some(_)) => {
                Some(Problem::new(span, "`payload` and `watermark` are two events").hint("write two, one after the other"))
            }
            (None, Some(_)) if self.topic.is_some() || self.source.is_some() || self.key.is_some() || !self.headers.is_empty() => {
                Some(Problem::new(span, "a watermark has no topic and no source: it is that of all lanes"))
            }
            _ => None,
        }
    }
}
