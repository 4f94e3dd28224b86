//! The options of `[journal]`, as words with units.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where a segment ends and the next begins: 64 MiB, about a second at full speed, so that truncation follows closely.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Options of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JournalOptions {
    /// When the journal is forced to disk: `"always"` before anything is acknowledged (the default), `"interval:100ms"` at that
    /// distance (a power cut loses what was acknowledged since), or `"never"` (it loses what the kernel had not written yet).
    pub sync: Sync,
    /// Disk space that ingest leaves free, so that every lane can still seal: `"1GiB"`. Below it nothing is acknowledged.
    pub reserve: Size,
    /// How long frames stay after every lane has sealed past them: `"0s"`. More makes replay possible.
    pub keep: Keep,
    /// Where a segment file ends, in bytes. For tests.
    #[serde(skip)]
    #[schemars(skip)]
    pub segment_bytes: u64,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { sync: Sync::Always, reserve: Size(1 << 30), keep: Keep(Duration::ZERO), segment_bytes: SEGMENT_BYTES }
    }
}

/// When the journal is forced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Sync {
    /// Before anything is acknowledged.
    Always,
    /// At this distance.
    Interval(Duration),
    /// Only when a segment ends or a lane seals.
    Never,
}

/// A number of bytes, written `"1GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Size(pub u64);

/// A length of time, written `"10m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Keep(pub Duration);

impl TryFrom<String> for Sync {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => {
                let distance =
                    text.strip_prefix("interval:").ok_or_else(|| format!("`{text}` is none of always, interval:<time>, never"))?;
                Ok(Self::Interval(duration(distance)?))
            }
        }
    }
}

impl From<Sync> for String {
    fn from(sync: Sync) -> Self {
        match sync {
            Sync::Always => "always".into(),
            Sync::Never => "never".into(),
            Sync::Interval(distance) => format!("interval:{}ms", distance.as_millis()),
        }
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        const UNITS: [(&str, u64); 8] = [
            ("", 1),
            ("B", 1),
            ("kB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
        ];
        scaled(&text, &UNITS).map(Self).ok_or_else(|| format!("`{text}` is not a size such as 512MiB or 1GiB"))
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        format!("{}B", size.0)
    }
}

impl TryFrom<String> for Keep {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        duration(&text).map(Self)
    }
}

impl From<Keep> for String {
    fn from(keep: Keep) -> Self {
        format!("{}ms", keep.0.as_millis())
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    scaled(text, &UNITS).map(Duration::from_millis).ok_or_else(|| format!("`{text}` is not a time such as 100ms, 10s, 5m"))
}

/// A whole number followed by one of the units; none for anything else, and where the product is too great.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_words_with_units() {
        let text = r#"{"sync": "interval:100ms", "reserve": "512MiB", "keep": "2h"}"#;
        let options: JournalOptions = serde_json::from_str(text).unwrap();
        assert_eq!(options.sync, Sync::Interval(Duration::from_millis(100)));
        assert_eq!(options.reserve, Size(512 << 20));
        assert_eq!(options.keep, Keep(Duration::from_secs(7200)));
        assert_eq!(options.segment_bytes, SEGMENT_BYTES);
        let again: JournalOptions = serde_json::from_str(&serde_json::to_string(&options).unwrap()).unwrap();
        assert_eq!(again, options);
        assert_eq!(serde_json::from_str::<JournalOptions>("{}").unwrap(), JournalOptions::default());
    }

    #[test]
    fn unknown_words_are_refused() {
        for text in [r#"{"sync": "often"}"#, r#"{"reserve": "1 bushel"}"#, r#"{"keep": "5"}"#, r#"{"segment_bytes": 1}"#] {
            assert!(serde_json::from_str::<JournalOptions>(text).is_err(), "{text}");
        }
    }
}
