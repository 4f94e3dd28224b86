//! Lengths of time and sizes as words: `"10s"`, `"2GiB"`. A number without a unit is refused, so that nobody has to guess it.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::time::Duration;

/// A length of time, written with units: `"250ms"`, `"10s"`, `"1h 30m"`, `"7d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

/// A number of bytes, written with a unit: `"64KiB"`, `"256MiB"`, `"2GB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// The units of sizes, longest first where one ends with another.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// The length of time that `text` says.
pub fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("`{text}` is not a length of time like \"250ms\", \"10s\" or \"7d\""))
}

/// The number of bytes that `text` says.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size like \"64KiB\", \"256MiB\" or \"2GB\"");
    let (number, factor) = SIZE_UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor))).ok_or_else(wrong)?;
    let number: u64 = number.trim_end().parse().map_err(|_| wrong())?;
    number.checked_mul(*factor).ok_or_else(wrong)
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        time(&String::deserialize(from)?).map(Self).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        size(&String::deserialize(from)?).map(Self).map_err(de::Error::custom)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A length of time with units.", "examples": ["250ms", "10s", "7d"] })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A number of bytes with a unit.", "examples": ["64KiB", "256MiB", "2GB"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_carry_their_units() {
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("2 GB"), Ok(2_000_000_000));
        assert_eq!(size("7B"), Ok(7));
        assert!(size("64").is_err() && size("1.5GiB").is_err() && size("99999999TiB").is_err());
        assert_eq!(time("1h 30m"), Ok(Duration::from_secs(5_400)));
        assert!(time("10").is_err() && time("-1s").is_err());
    }
}
