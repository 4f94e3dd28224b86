//! Event times as devices write them: RFC 3339, Unix time in four units, or a strptime pattern. All become microseconds, UTC.

use super::value::{Rest, scaled};
use super::{EventTimeOptions, OptionError};
use chrono::format::{Item, Parsed, StrftimeItems, parse};
use chrono::{DateTime, FixedOffset, LocalResult, NaiveDateTime, NaiveTime, TimeZone};
use chrono_tz::Tz;

/// 2000-01-01T00:00:00Z in microseconds.
const MIN_TIME: i64 = 946_684_800_000_000;

/// Reads one way of writing a time.
#[derive(Clone, Debug)]
pub(super) enum TimeReader {
    Rfc3339,
    /// Digits to shift to microseconds: 6 for seconds, -3 for nanoseconds.
    Unix(i32),
    Pattern {
        items: Vec<Item<'static>>,
        zone: Option<Zone>,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Zone {
    Fixed(FixedOffset),
    Named(Tz),
}

impl TimeReader {
    pub(super) fn new(options: &EventTimeOptions) -> Result<Self, OptionError> {
        let reader = match options.format.as_str() {
            "rfc3339" => Self::Rfc3339,
            "unix_s" => Self::Unix(6),
            "unix_ms" => Self::Unix(3),
            "unix_us" => Self::Unix(0),
            "unix_ns" => Self::Unix(-3),
            pattern if pattern.contains('%') => return pattern_reader(pattern, options.timezone.as_deref()),
            other => {
                let hint = "rfc3339, unix_s, unix_ms, unix_us, unix_ns, or a pattern such as `%d.%m.%Y %H:%M:%S`";
                return Err(wrong("format", format!("`{other}` is not a time format"), hint));
            }
        };
        match &options.timezone {
            None => Ok(reader),
            Some(_) => Err(wrong("timezone", format!("times of format `{}` name their own zone", options.format), "leave it out")),
        }
    }

    /// The time written as text; none when it cannot be read.
    pub(super) fn text(&self, text: &str) -> Option<i64> {
        match self {
            Self::Rfc3339 => DateTime::parse_from_rfc3339(text).ok().map(|t| t.timestamp_micros()),
            Self::Unix(_) => self.number(text),
            Self::Pattern { items, zone } => by_pattern(text, items, *zone),
        }
    }

    /// The time written as a number; none when numbers are not read as times or this one does not fit.
    pub(super) fn number(&self, text: &str) -> Option<i64> {
        let Self::Unix(shift) = self else { return None };
        scaled(text, *shift, Rest::Floor).and_then(|micros| i64::try_from(micros).ok())
    }

    pub(super) fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }
}

/// The least event time that is taken.
pub(super) fn min_time(options: &EventTimeOptions) -> Result<i64, OptionError> {
    match &options.min_time {
        None => Ok(MIN_TIME),
        Some(text) => match DateTime::parse_from_rfc3339(text) {
            Ok(time) => Ok(time.timestamp_micros()),
            Err(e) => Err(wrong("min_time", format!("`{text}` is not a time: {e}"), "write it as 2000-01-01T00:00:00Z")),
        },
    }
}

fn wrong(key: &str, message: String, hint: &str) -> OptionError {
    OptionError { path: format!("decode.event_time.{key}"), message, hint: Some(hint.into()) }
}

fn pattern_reader(pattern: &str, timezone: Option<&str>) -> Result<TimeReader, OptionError> {
    let items = StrftimeItems::new(pattern).parse_to_owned();
    let items = items.map_err(|_| wrong("format", format!("`{pattern}` is not a strptime pattern"), "see strftime(3) for the letters"))?;
    let own_zone = ["%z", "%:z", "%#z", "%::z", "%+", "%s"].iter().any(|letters| pattern.contains(letters));
    let zone = match timezone {
        Some(_) if own_zone => return Err(wrong("timezone", format!("the pattern `{pattern}` reads a zone itself"), "leave it out")),
        Some(name) => Some(zone(name)?),
        None if own_zone => None,
        None => {
            return Err(wrong("timezone", format!("the pattern `{pattern}` reads no zone"), "add timezone = \"UTC\" or the devices' zone"));
        }
    };
    Ok(TimeReader::Pattern { items, zone })
}

fn zone(name: &str) -> Result<Zone, OptionError> {
    if name.eq_ignore_ascii_case("utc") || name == "Z" {
        return Ok(Zone::Named(Tz::UTC));
    }
    if let Ok(offset) = name.parse::<FixedOffset>() {
        return Ok(Zone::Fixed(offset));
    }
    name.parse().map(Zone::Named).map_err(|_| wrong("timezone", format!("`{name}` is not a time zone"), "UTC, +02:00 or Europe/Berlin"))
}

/// A local time that occurs twice (clocks going back) is taken as the first; one that does not occur cannot be read.
fn by_pattern(text: &str, items: &[Item<'static>], zone: Option<Zone>) -> Option<i64> {
    let mut parsed = Parsed::new();
    parse(&mut parsed, text, items.iter()).ok()?;
    let Some(zone) = zone else {
        return parsed.to_datetime().ok().map(|t| t.timestamp_micros());
    };
    let local = match parsed.to_naive_datetime_with_offset(0) {
        Ok(local) => local,
        // A pattern without an hour means the day's first instant.
        Err(_) if parsed.hour_mod_12().is_none() => parsed.to_naive_date().ok()?.and_time(NaiveTime::MIN),
        Err(_) => return None,
    };
    match zone {
        Zone::Fixed(offset) => first(&offset, &local),
        Zone::Named(named) => first(&named, &local),
    }
}

fn first<Z: TimeZone>(zone: &Z, local: &NaiveDateTime) -> Option<i64> {
    match zone.from_local_datetime(local) {
        LocalResult::Single(time) | LocalResult::Ambiguous(time, _) => Some(time.timestamp_micros()),
        LocalResult::None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::OnMissing;

    fn options(format: &str, timezone: Option<&str>) -> EventTimeOptions {
        let timezone = timezone.map(Into::into);
        EventTimeOptions { path: "$.ts".into(), format: format.into(), timezone, on_missing: OnMissing::DeadLetter, min_time: None }
    }

    fn read(format: &str, timezone: Option<&str>, text: &str) -> Option<i64> {
        TimeReader::new(&options(format, timezone)).unwrap().text(text)
    }

    #[test]
    fn every_format_reads_the_same_instant() {
        let instant = Some(1_700_000_000_250_000);
        assert_eq!(read("rfc3339", None, "2023-11-14T22:13:20.25Z"), instant);
        assert_eq!(read("rfc3339", None, "2023-11-14T23:13:20.25+01:00"), instant);
        assert_eq!(read("unix_s", None, "1700000000.25"), instant);
        assert_eq!(read("unix_s", None, "1.70000000025e9"), instant);
        assert_eq!(read("unix_ms", None, "1700000000250"), instant);
        assert_eq!(read("unix_us", None, "1700000000250000"), instant);
        assert_eq!(read("unix_ns", None, "1700000000250000999"), instant);
        assert_eq!(read("%d.%m.%Y %H:%M:%S%.f", Some("Europe/Berlin"), "14.11.2023 23:13:20.25"), instant);
        assert_eq!(read("%Y-%m-%d %H:%M:%S%.f %z", None, "2023-11-14 23:13:20.25 +0100"), instant);
        assert_eq!(read("%Y-%m-%d", Some("+01:00"), "2023-11-14"), Some(1_699_916_400_000_000));
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        assert_eq!(read("rfc3339", None, "2023-11-14 22:13"), None);
        assert_eq!(read("unix_s", None, "1e400"), None);
        assert_eq!(read("unix_s", None, "soon"), None);
        // The clocks go forward over it, and back over the other.
        let berlin = Some("Europe/Berlin");
        assert_eq!(read("%Y-%m-%dT%H:%M", berlin, "2024-03-31T02:30"), None);
        assert_eq!(read("%Y-%m-%dT%H:%M", berlin, "2024-10-27T02:30"), read("rfc3339", None, "2024-10-27T00:30:00Z"));
    }

    #[test]
    fn a_mistake_names_its_key() {
        let path = |format, zone| TimeReader::new(&options(format, zone)).unwrap_err().path;
        assert_eq!(path("iso", None), "decode.event_time.format");
        assert_eq!(path("%Q", Some("UTC")), "decode.event_time.format");
        assert_eq!(path("%Y-%m-%d", None), "decode.event_time.timezone");
        assert_eq!(path("%Y-%m-%d", Some("Mars/Olympus")), "decode.event_time.timezone");
        assert_eq!(path("unix_s", Some("UTC")), "decode.event_time.timezone");
        assert_eq!(
            min_time(&EventTimeOptions { min_time: Some("x".into()), ..options("rfc3339", None) }).unwrap_err().path,
            "decode.event_time.min_time"
        );
    }
}
