//! What a table is: its name, columns and key, and the words that say how long each tier keeps its rows.

use arrow::datatypes::SchemaRef;
use object_store::aws::AmazonS3ConfigKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A table of the pipeline.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// The name, as in SQL.
    pub name: String,
    /// The columns; one is `event_time`.
    pub schema: SchemaRef,
    /// The columns by which segments are sorted, before `event_time`. May be empty.
    pub key: Vec<String>,
    /// How long each tier keeps rows.
    pub options: TableOptions,
}

/// `[tables.<name>]` without `inputs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TableOptions {
    /// The newest rows, in memory.
    pub hot: HotOptions,
    /// Sorted local files.
    pub warm: WarmOptions,
    /// A Delta Lake table; rows end with warm when it is left out.
    pub cold: Option<ColdOptions>,
}

/// How much of a table stays in memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HotOptions {
    /// Rows leave this long after their epoch was sealed.
    #[serde(with = "time")]
    #[schemars(with = "String")]
    pub age: Duration,
    /// The oldest sealed epochs leave above this many bytes, over all lanes.
    #[serde(with = "size")]
    #[schemars(with = "String")]
    pub memory: u64,
}

impl Default for HotOptions {
    /// 15 minutes: what a dashboard of the present shows. 64 MiB: about half a million readings of ten columns.
    fn default() -> Self {
        Self { age: Duration::from_secs(15 * 60), memory: 64 << 20 }
    }
}

/// How long a table's rows stay in local files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WarmOptions {
    /// Rows leave when their partition is this old: to cold, or for good. Left out: after a week to cold, or never.
    #[serde(with = "time::maybe", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub age: Option<Duration>,
    /// The unit of compaction and move: at least a second, a divisor of a day.
    #[serde(with = "time")]
    #[schemars(with = "String")]
    pub partition: Duration,
    /// So many files of a partition with about the same number of rows are merged; 2 to 64.
    pub fan_in: u32,
}

/// A week of looking back without the cold store.
const WEEK: Duration = Duration::from_secs(7 * 86_400);

impl Default for WarmOptions {
    /// An hour, so that a move is small and a day has few; 16, so that a row is written again about once for each power of 16.
    fn default() -> Self {
        Self { age: None, partition: Duration::from_secs(3_600), fan_in: 16 }
    }
}

impl WarmOptions {
    /// How long rows stay; none: for ever. What has nowhere to go stays unless somebody says how long.
    #[must_use]
    pub fn kept(&self, is_cold: bool) -> Option<Duration> {
        self.age.or(is_cold.then_some(WEEK))
    }

    /// Nothing when the partition is usable, else what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let micros = self.partition.as_micros();
        if !(2..=64).contains(&self.fan_in) {
            return Err(format!("warm.fan_in is {}; it must be 2 to 64", self.fan_in));
        }
        let divides = micros >= 1_000_000 && 86_400_000_000 % micros == 0;
        divides.then_some(()).ok_or_else(|| {
            let text = humantime::format_duration(self.partition);
            format!("warm.partition is {text}; it must be at least 1s and divide a day, like 15m, 1h or 1day")
        })
    }
}

/// Where and how long a table's rows stay for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColdOptions {
    /// A path, a `file:` URL, or `s3://bucket/prefix`; the table lies in `<url>/<table>`.
    pub url: String,
    /// Of an `s3:` address: `endpoint`, `region` and whatever else object_store's `AmazonS3ConfigKey` names. What is not here is taken from the
    /// environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT`, …), which is the place for secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub s3: BTreeMap<String, String>,
    /// Days older than this are dropped, one a minute at most. Left out: never.
    #[serde(with = "time::maybe", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub age: Option<Duration>,
    /// At most one move, and one commit of upkeep, in this time.
    #[serde(with = "time", default = "five_minutes")]
    #[schemars(with = "String")]
    pub commit_every: Duration,
    /// Small files of days that are over are rewritten into files of up to about this size.
    #[serde(with = "size", default = "quarter_gib")]
    #[schemars(with = "String")]
    pub file_size: u64,
    /// Files that were rewritten or dropped are deleted after this time: whoever reads an older version of the table finds them until then.
    #[serde(with = "time", default = "week")]
    #[schemars(with = "String")]
    pub keep_removed: Duration,
}

impl ColdOptions {
    /// A table below this address, with the defaults of everything else.
    #[must_use]
    pub fn at(url: String) -> Self {
        Self { url, s3: BTreeMap::new(), age: None, commit_every: five_minutes(), file_size: quarter_gib(), keep_removed: week() }
    }

    /// The object store that the table is in: scheme and bucket.
    #[must_use]
    pub fn store(&self) -> &str {
        let Some((scheme, rest)) = self.url.split_once("://").filter(|(scheme, _)| *scheme != "file") else { return "file:" };
        let host = rest.split('/').next().unwrap_or_default();
        &self.url[..scheme.len() + "://".len() + host.len()]
    }

    /// Nothing when the address can be one, and removed files outlive every query, which may take `query_time`; else the key and what is wrong
    /// with it.
    pub fn check(&self, query_time: Duration) -> Result<(), (&'static str, String)> {
        let scheme = self.url.split_once("://").map_or("file", |(scheme, _)| scheme);
        if !["file", "s3"].contains(&scheme) {
            return Err(("cold.url", format!("cold.url is of {scheme}:; it must be a path, a file: URL or s3://bucket/prefix")));
        }
        if let Some(key) = self.s3.keys().find(|key| scheme != "s3" || key.parse::<AmazonS3ConfigKey>().is_err()) {
            let why = if scheme == "s3" { "not known: `endpoint` and `region` are" } else { "of no use without an s3: address" };
            return Err(("cold.s3", format!("cold.s3.{key} is {why}")));
        }
        if self.keep_removed > 2 * query_time {
            return Ok(());
        }
        let [kept, query] = [self.keep_removed, query_time].map(humantime::format_duration);
        let message = format!(
            "cold.keep_removed is {kept}; a query may take {query} (limits.query_time) and needs its files: keep them longer than twice that"
        );
        Err(("cold.keep_removed", message))
    }
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

/// Large enough that a query opens few files, small enough that a rewrite is done in seconds.
fn quarter_gib() -> u64 {
    256 << 20
}

/// As Delta's own default: readers elsewhere count on it.
fn week() -> Duration {
    Duration::from_secs(7 * 86_400)
}

/// Durations as words with units, `"15m"`.
mod time {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map_err(|_| D::Error::custom(format!("`{text}` is not a length of time like \"10s\" or \"7d\"")))
    }

    /// One that may be left out.
    pub(super) mod maybe {
        use serde::{Deserializer, Serializer};
        use std::time::Duration;

        pub(in super::super) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
            match value {
                Some(value) => super::serialize(value, to),
                None => to.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
            super::deserialize(from).map(Some)
        }
    }
}

/// Sizes as words with units, `"64MiB"`. A number alone is refused.
mod size {
    use bytesize::ByteSize;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{value}B"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || D::Error::custom(format!("`{text}` is not a size like \"64MiB\""));
        let size: ByteSize = text.parse().map_err(|_| wrong())?;
        if text.ends_with('B') { Ok(size.as_u64()) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_words_with_units_and_defaults() {
        let options: TableOptions = serde_json::from_str(r#"{"hot": {"age": "1m", "memory": "2MiB"}, "cold": {"url": "cold"}}"#).unwrap();
        assert_eq!((options.hot.age, options.hot.memory), (Duration::from_secs(60), 2 << 20));
        assert_eq!(options.warm, WarmOptions::default());
        assert_eq!(options.cold.as_ref().unwrap().commit_every, Duration::from_secs(300));
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<TableOptions>(&text).unwrap(), options);
        assert!(serde_json::from_str::<TableOptions>(r#"{"hot": {"memory": "12"}}"#).is_err());
        assert!(serde_json::from_str::<TableOptions>(r#"{"warn": {}}"#).is_err());
    }

    #[test]
    fn a_partition_divides_a_day() {
        assert!(WarmOptions { fan_in: 1, ..WarmOptions::default() }.check().is_err());
        let with = |secs| WarmOptions { partition: Duration::from_secs(secs), ..WarmOptions::default() }.check();
        assert!(with(1).is_ok() && with(3_600).is_ok() && with(86_400).is_ok());
        assert!(with(0).is_err() && with(7_000).is_err());
    }
}
