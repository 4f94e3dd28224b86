//! A reading in bytes: as a device means it, or broken in one of the ways of [`Class`].

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::scenario::{Format, Scenario, Transport};

/// Above the 128 KiB that a source takes by default.
const TOO_LARGE_BYTES: usize = 200_000;
/// Above the 64 levels that the JSON decoder reads.
const TOO_DEEP_LEVELS: usize = 100;
/// 1980-01-01: before the year 2000, where sources begin to believe times.
const TOO_OLD_MS: i64 = 315_532_800_000;
const TEN_YEARS_MS: i64 = 10 * 365 * 86_400_000;

/// How a reading is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The end is missing.
    Cut,
    /// Bytes that are no UTF-8.
    NotUtf8,
    /// The first signal is a word.
    WrongType,
    /// The first signal stands twice.
    DuplicateColumn,
    /// No device.
    KeyMissing,
    /// No time.
    TimeMissing,
    /// The time is a word.
    TimeUnreadable,
    /// The time is in 1980.
    TimeTooOld,
    /// The time is ten years ahead.
    TimeInFuture,
    /// More bytes than sources take.
    TooLarge,
    /// More levels than the decoder reads.
    TooDeep,
}

impl Class {
    pub(crate) const OF_MQTT: [Class; 10] = [
        Class::Cut,
        Class::WrongType,
        Class::TimeMissing,
        Class::TimeInFuture,
        Class::NotUtf8,
        Class::DuplicateColumn,
        Class::TimeUnreadable,
        Class::TimeTooOld,
        Class::TooLarge,
        Class::TooDeep,
    ];
    pub(crate) const OF_NDJSON: [Class; 9] = [
        Class::Cut,
        Class::WrongType,
        Class::TimeMissing,
        Class::TimeInFuture,
        Class::DuplicateColumn,
        Class::KeyMissing,
        Class::TimeUnreadable,
        Class::TimeTooOld,
        Class::TooDeep,
    ];
    pub(crate) const OF_CSV: [Class; 7] = [
        Class::Cut,
        Class::WrongType,
        Class::TimeMissing,
        Class::KeyMissing,
        Class::TimeUnreadable,
        Class::TimeTooOld,
        Class::TimeInFuture,
    ];

    /// The word in scenarios and in the truth.
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Cut => "cut",
            Class::NotUtf8 => "not_utf8",
            Class::WrongType => "wrong_type",
            Class::DuplicateColumn => "duplicate_column",
            Class::KeyMissing => "key_missing",
            Class::TimeMissing => "time_missing",
            Class::TimeUnreadable => "time_unreadable",
            Class::TimeTooOld => "time_too_old",
            Class::TimeInFuture => "time_in_future",
            Class::TooLarge => "too_large",
            Class::TooDeep => "too_deep",
        }
    }

    /// The reason that must stand in `dead_letters`.
    pub const fn reason(self) -> &'static str {
        match self {
            Class::Cut | Class::NotUtf8 => "malformed",
            other => other.as_str(),
        }
    }
}

/// How the payload of some devices differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// It has a member that nobody asked for.
    ExtraField,
    /// It lacks the last signal.
    MissingField,
}

impl Schema {
    /// The word in the truth.
    pub const fn as_str(self) -> &'static str {
        match self {
            Schema::ExtraField => "extra_field",
            Schema::MissingField => "missing_field",
        }
    }
}

/// What is written.
pub(super) struct Words<'a> {
    pub(super) device: &'a str,
    pub(super) time_ms: i64,
    pub(super) sequence: u64,
    /// None where the device does not say it.
    pub(super) values: &'a [Option<f64>],
    pub(super) schema: Option<Schema>,
    pub(super) class: Option<Class>,
}

/// Writes readings as the wire of a scenario wants them.
pub(super) struct Writer {
    format: Format,
    with_device: bool,
    device: String,
    time: String,
    sequence: String,
    signals: Vec<(String, u8)>,
}

impl Writer {
    pub(super) fn new(scenario: &Scenario) -> Writer {
        let wire = &scenario.wire;
        let quoted = |name: &str| serde_json::Value::from(name).to_string();
        let name = |name: &String, field: &Option<String>| quoted(field.as_ref().unwrap_or(name));
        Writer {
            format: wire.format,
            with_device: wire.transport != Transport::Mqtt,
            device: quoted(&wire.device),
            time: quoted(&wire.time),
            sequence: quoted(&wire.sequence),
            signals: scenario.signals.iter().map(|(n, signal)| (name(n, &signal.field), signal.decimals)).collect(),
        }
    }

    /// The first line of a file, if it has one.
    pub(super) fn header(&self) -> Option<String> {
        let names = [&self.device, &self.time, &self.sequence].into_iter().chain(self.signals.iter().map(|(name, _)| name));
        (self.format == Format::Csv).then(|| names.map(|name| name.trim_matches('"')).collect::<Vec<_>>().join(","))
    }

    pub(super) fn write(&self, words: &Words<'_>) -> Vec<u8> {
        match self.format {
            Format::Json => self.json(words),
            Format::Csv => self.csv(words),
        }
    }

    fn json(&self, words: &Words<'_>) -> Vec<u8> {
        let mut text = "{".to_owned();
        let mut member = |name: &str, value: &dyn std::fmt::Display| {
            let comma = if text.len() > 1 { "," } else { "" };
            write!(text, "{comma}{name}:{value}").expect("a text takes all");
        };
        if self.with_device && words.class != Some(Class::KeyMissing) {
            member(&self.device, &format_args!("\"{}\"", words.device));
        }
        match time(words) {
            Some(Time::Number(ms)) => member(&self.time, &ms),
            Some(Time::Word(word)) => member(&self.time, &format_args!("\"{word}\"")),
            None => {}
        }
        member(&self.sequence, &words.sequence);
        for (number, ((name, decimals), value)) in self.signals.iter().zip(words.values).enumerate() {
            let Some(value) = value else { continue };
            let first = (number == 0).then_some(words.class).flatten();
            if first == Some(Class::WrongType) {
                member(name, &"\"hot\"");
                continue;
            }
            for _ in 0..if first == Some(Class::DuplicateColumn) { 2 } else { 1 } {
                member(name, &format_args!("{value:.*}", usize::from(*decimals)));
            }
        }
        if words.schema == Some(Schema::ExtraField) {
            member("\"firmware\"", &"{\"version\":\"2.1\",\"slots\":[1,2]}");
        }
        match words.class {
            Some(Class::TooLarge) => member("\"text\"", &format_args!("\"{}\"", "x".repeat(TOO_LARGE_BYTES))),
            Some(Class::TooDeep) => member("\"deep\"", &format_args!("{}{}", "[".repeat(TOO_DEEP_LEVELS), "]".repeat(TOO_DEEP_LEVELS))),
            Some(Class::NotUtf8) => member("\"text\"", &"\"?\""),
            _ => {}
        }
        text.push('}');
        let mut bytes = text.into_bytes();
        match words.class {
            Some(Class::Cut) => bytes.truncate(bytes.len() - 3),
            Some(Class::NotUtf8) => {
                let at = bytes.iter().rposition(|byte| *byte == b'?').expect("it was put there");
                bytes[at] = 0xff;
            }
            _ => {}
        }
        bytes
    }

    fn csv(&self, words: &Words<'_>) -> Vec<u8> {
        let device = if words.class == Some(Class::KeyMissing) { "" } else { words.device };
        let time = match time(words) {
            Some(Time::Number(ms)) => ms.to_string(),
            Some(Time::Word(word)) => word.to_owned(),
            None => String::new(),
        };
        let mut text = format!("{device},{time},{}", words.sequence);
        // A line that is cut has too few fields.
        let fields = if words.class == Some(Class::Cut) { 0 } else { self.signals.len() };
        for (number, ((_, decimals), value)) in self.signals.iter().zip(words.values).take(fields).enumerate() {
            match value {
                Some(_) if number == 0 && words.class == Some(Class::WrongType) => text.push_str(",hot"),
                Some(value) => write!(text, ",{value:.*}", usize::from(*decimals)).expect("a text takes all"),
                None => text.push(','),
            }
        }
        text.into_bytes()
    }
}

enum Time {
    Number(i64),
    Word(&'static str),
}

fn time(words: &Words<'_>) -> Option<Time> {
    match words.class {
        Some(Class::TimeMissing) => None,
        Some(Class::TimeUnreadable) => Some(Time::Word("soon")),
        Some(Class::TimeTooOld) => Some(Time::Number(TOO_OLD_MS)),
        Some(Class::TimeInFuture) => Some(Time::Number(words.time_ms + TEN_YEARS_MS)),
        _ => Some(Time::Number(words.time_ms)),
    }
}
