//! Lengths of time as words in the configuration: `"10s"`, `"1m"`, `"1h 30m"`. Whole microseconds, up to 292,000 years.

use flow::Span;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::borrow::Cow;

/// A length of time, written with its unit (`"90s"`, `"1m 30s"`; units from `us` to `years`). Never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub Span);

impl Duration {
    /// A length of whole seconds.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(Span::from_secs(secs))
    }

    /// Reads the written form; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let length = humantime::parse_duration(text).map_err(|e| format!("`{text}` is not a duration like \"10s\": {e}"))?;
        if !length.subsec_nanos().is_multiple_of(1_000) {
            return Err(format!("`{text}` is finer than a microsecond"));
        }
        i64::try_from(length.as_micros()).map(|micros| Self(Span(micros))).map_err(|_| format!("`{text}` is too long"))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(std::time::Duration::from_micros(self.0.0.unsigned_abs())))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&Cow::<'de, str>::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A length of time with its unit.", "examples": ["10s", "1m 30s", "7d"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_reads_what_it_writes() {
        for (text, micros) in [("10s", 10_000_000), ("1m 30s", 90_000_000), ("0s", 0), ("250us", 250), ("7d", 604_800_000_000)] {
            let read: Duration = serde_json::from_value(text.into()).unwrap();
            assert_eq!(read.0, Span(micros));
            assert_eq!(serde_json::to_value(read).unwrap(), text.replace("7d", "7days"));
        }
    }

    #[test]
    fn a_duration_without_unit_or_of_another_scale_is_refused() {
        for text in ["10", "-1s", "5ns", "ten seconds", "999999999y"] {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
    }
}
