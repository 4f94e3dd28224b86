//! Options of the window operator, and the shapes that they may name.

use super::output::{END, START};
use crate::BuildError;
use crate::duration::Duration;
use bytesize::ByteSize;
use chrono_tz::Tz;
use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::borrow::Cow;
use std::fmt;

/// Options of a window, without `type` and `inputs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowOptions {
    /// Columns by which readings are grouped; none for one group of all readings, which goes with tumbling, hopping and calendar windows of
    /// one pane each.
    pub key: Vec<String>,
    /// How readings are put together.
    pub window: WindowShape,
    /// How long after its close a window still takes readings: its row is then revised, and final when this has passed.
    #[serde(default = "no_time")]
    pub allowed_lateness: Duration,
    /// When panes of an open window are given out: `"on_close"`, `"every 10s"` of event time, or `"every 100 readings"` of a group.
    #[serde(default)]
    pub emit: Emit,
    /// What a pane holds.
    #[serde(default)]
    pub accumulation: Accumulation,
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

/// `window = { … }`: how readings are put together. Which keys stand beside `type` depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowShape {
    /// The kind of window.
    #[serde(rename = "type")]
    pub kind: WindowKind,
    /// Length: `"10s"` of tumbling, hopping and sliding windows; `"1d"`, `"1w"`, `"3mo"` or `"1y"` of calendar windows.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "one_spelling")]
    pub size: Option<String>,
    /// Hopping: a window begins every so often. It need not divide `size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hop: Option<Duration>,
    /// Tumbling and hopping: windows begin this much after multiples of `size` (`hop`) since 1970-01-01T00:00:00Z; less than it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<Duration>,
    /// Calendar: the IANA time zone in which days begin at midnight, such as `"Europe/Berlin"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Session: readings of a group belong together when no more than this lies between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Duration>,
    /// Session: no session is longer than this from its first to its last reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Duration>,
    /// Count: a window is so many readings of a group, in the order in which they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Count: whether what is left over is given out when the input ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<bool>,
}

/// The kinds of windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// Windows of one size, one after the other: each reading belongs to exactly one.
    #[default]
    Tumbling,
    /// Windows of one size that begin every `hop`: a reading belongs to each that covers it.
    Hopping,
    /// One after the other, cut where days, weeks, months or years begin in a time zone: a day may have 23, 24 or 25 hours.
    Calendar,
    /// For each reading the span of `size` that ends with it.
    Sliding,
    /// Readings with no gap above `gap` between them.
    Session,
    /// So many readings.
    Count,
    /// All readings until the input ends.
    Global,
}

/// When panes of an open window are given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Emit {
    /// None: the first pane comes when the window closes.
    #[default]
    OnClose,
    /// When the watermark passes a multiple of this since the window's start, if readings came since the last pane.
    Every(Duration),
    /// After each so many readings of a group.
    EveryReadings(u32),
}

/// What a pane holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Accumulation {
    /// Every reading of its window so far: a later pane takes the place of an earlier one.
    #[default]
    Accumulating,
    /// The readings since the pane before: panes of a window add up, and a table holds each of them.
    Discarding,
}

/// A shape that has all it needs and nothing else. Times are microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Even { size: i64, hop: i64, offset: i64 },
    Calendar { unit: Unit, zone: Tz },
    Sliding { size: i64 },
    Session { gap: i64, max: i64 },
    Count { readings: u32, partial: bool },
    Global,
}

/// Steps of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Days since 1970-01-01.
    Days(i32),
    /// Weeks from Monday; counted from that of 1970-01-05.
    Weeks(i32),
    /// Months since January 1970.
    Months(i32),
}

impl WindowOptions {
    /// What can be said without the input's columns.
    pub(super) fn check(&self) -> Result<Shape, BuildError> {
        if self.select.is_empty() {
            return Err(BuildError::new("select", "there is no aggregate"));
        }
        let shape = self.window.shape()?;
        self.check_panes(&shape)?;
        if self.key.is_empty() && !self.splits() {
            return Err(BuildError::new("key", "such a window needs at least one key column")
                .hint("tumbling, hopping and calendar windows with one pane each may be of all readings: `key = []`"));
        }
        Ok(shape)
    }

    /// The columns that tell one window from another, where a window's rows take the place of each other; none where it has one row. The
    /// bounds come last where a row may also take the place of other windows (`REPLACES`).
    #[must_use]
    pub fn identity(&self) -> Option<Vec<String>> {
        if self.one_pane() || self.accumulation == Accumulation::Discarding {
            return None;
        }
        let has_bounds = !matches!(self.window.kind, WindowKind::Count | WindowKind::Global);
        let bounds = [START, END].into_iter().filter(|_| has_bounds).map(str::to_owned);
        Some(self.key.iter().cloned().chain(bounds).collect())
    }

    /// Whether lanes can aggregate their readings apart, to be merged afterwards: in windows of fixed edges with one pane each.
    #[must_use]
    pub fn splits(&self) -> bool {
        self.one_pane() && matches!(self.window.kind, WindowKind::Tumbling | WindowKind::Hopping | WindowKind::Calendar)
    }

    /// Whether each window has exactly one pane, when it closes.
    pub(super) fn one_pane(&self) -> bool {
        self.allowed_lateness.0.0 == 0 && self.emit == Emit::OnClose
    }

    fn check_panes(&self, shape: &Shape) -> Result<(), BuildError> {
        let (even, timed) =
            (matches!(shape, Shape::Even { .. } | Shape::Calendar { .. }), !matches!(shape, Shape::Count { .. } | Shape::Global));
        if self.allowed_lateness.0.0 > 0 && (!timed || matches!(shape, Shape::Sliding { .. })) {
            return Err(BuildError::new("allowed_lateness", "no reading is late for such a window, or none can be taken later"));
        }
        match self.emit {
            Emit::OnClose => {}
            Emit::Every(span) if span.0.0 == 0 => return Err(BuildError::new("emit", "panes every no time have no end")),
            Emit::EveryReadings(0) => return Err(BuildError::new("emit", "panes every no readings have no end")),
            Emit::Every(_) if !even => return Err(BuildError::new("emit", "such a window has no start from which to count the time")),
            Emit::EveryReadings(_) if !(even || matches!(shape, Shape::Global)) => {
                return Err(BuildError::new("emit", "such a window has no early panes"));
            }
            Emit::Every(_) | Emit::EveryReadings(_) => {}
        }
        if matches!(self.emit, Emit::Every(_)) && self.accumulation == Accumulation::Discarding {
            return Err(BuildError::new("accumulation", "which readings such panes hold would depend on when the watermark moves")
                .hint("\"every 100 readings\" goes with \"discarding\""));
        }
        let overlapping = matches!(shape, Shape::Even { size, hop, .. } if hop < size);
        if self.accumulation == Accumulation::Discarding && (overlapping || !(even || matches!(shape, Shape::Global))) {
            return Err(BuildError::new("accumulation", "panes of such windows cannot be told apart by their readings")
                .hint("\"discarding\" goes with tumbling, calendar and global windows"));
        }
        Ok(())
    }
}

impl WindowShape {
    fn shape(&self) -> Result<Shape, BuildError> {
        self.check_keys()?;
        Ok(match self.kind {
            WindowKind::Tumbling => {
                let size = self.length()?;
                Shape::Even { size, hop: size, offset: self.offset(size, "size")? }
            }
            WindowKind::Hopping => {
                let (size, hop) = (self.length()?, self.needed("hop", self.hop.as_ref())?.0.0);
                if hop == 0 {
                    return Err(BuildError::new("window.hop", "windows that begin every no time have no end"));
                }
                Shape::Even { size, hop, offset: self.offset(hop, "hop")? }
            }
            WindowKind::Calendar => {
                let zone = self.needed("timezone", self.timezone.as_ref())?;
                let zone = zone.parse().map_err(|_| {
                    BuildError::new("window.timezone", format!("there is no time zone `{zone}`"))
                        .hint("a name such as \"Europe/Berlin\" or \"UTC\"")
                })?;
                Shape::Calendar { unit: Unit::parse(self.needed("size", self.size.as_ref())?)?, zone }
            }
            WindowKind::Sliding => Shape::Sliding { size: self.length()? },
            WindowKind::Session => {
                let gap = self.needed("gap", self.gap.as_ref())?.0.0;
                if gap == 0 {
                    return Err(BuildError::new("window.gap", "a gap of no time parts everything"));
                }
                Shape::Session { gap, max: self.max.map_or(i64::MAX, |max| max.0.0) }
            }
            WindowKind::Count => match *self.needed("count", self.count.as_ref())? {
                0 => return Err(BuildError::new("window.count", "a window of no readings never closes")),
                readings => Shape::Count { readings, partial: self.partial.unwrap_or(false) },
            },
            WindowKind::Global => Shape::Global,
        })
    }

    /// No key stands there that its kind does not obey.
    fn check_keys(&self) -> Result<(), BuildError> {
        use WindowKind::{Calendar, Count, Hopping, Session, Sliding, Tumbling};
        let keys: [(&str, bool, &[WindowKind]); 8] = [
            ("size", self.size.is_some(), &[Tumbling, Hopping, Calendar, Sliding]),
            ("hop", self.hop.is_some(), &[Hopping]),
            ("offset", self.offset.is_some(), &[Tumbling, Hopping]),
            ("timezone", self.timezone.is_some(), &[Calendar]),
            ("gap", self.gap.is_some(), &[Session]),
            ("max", self.max.is_some(), &[Session]),
            ("count", self.count.is_some(), &[Count]),
            ("partial", self.partial.is_some(), &[Count]),
        ];
        match keys.iter().find(|(_, there, kinds)| *there && !kinds.contains(&self.kind)) {
            Some((key, ..)) => Err(BuildError::new(format!("window.{key}"), format!("a {} window has no `{key}`", self.kind))),
            None => Ok(()),
        }
    }

    fn needed<'a, T>(&self, key: &str, value: Option<&'a T>) -> Result<&'a T, BuildError> {
        value.ok_or_else(|| BuildError::new("window", format!("a {} window needs `{key}`", self.kind)))
    }

    fn length(&self) -> Result<i64, BuildError> {
        let size = Duration::parse(self.needed("size", self.size.as_ref())?).map_err(|e| BuildError::new("window.size", e))?;
        match size.0.0 {
            0 => Err(BuildError::new("window.size", "a window of no length holds no reading")),
            size => Ok(size),
        }
    }

    fn offset(&self, below: i64, of: &str) -> Result<i64, BuildError> {
        let offset = self.offset.map_or(0, |offset| offset.0.0);
        match offset < below {
            true => Ok(offset),
            false => Err(BuildError::new("window.offset", format!("the offset is not less than `{of}`"))),
        }
    }
}

impl Unit {
    fn parse(text: &str) -> Result<Self, BuildError> {
        let wrong = || {
            BuildError::new("window.size", format!("`{text}` is no length of the calendar"))
                .hint("days, weeks, months or years: \"1d\", \"1w\", \"3mo\", \"1y\"")
        };
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let count: i32 = text[..digits].parse().ok().filter(|n| (1..=1_000).contains(n)).ok_or_else(wrong)?;
        match text[digits..].trim() {
            "d" => Ok(Self::Days(count)),
            "w" => Ok(Self::Weeks(count)),
            "mo" => Ok(Self::Months(count)),
            "y" => Ok(Self::Months(count * 12)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tumbling => "tumbling",
            Self::Hopping => "hopping",
            Self::Calendar => "calendar",
            Self::Sliding => "sliding",
            Self::Session => "session",
            Self::Count => "count",
            Self::Global => "global",
        })
    }
}

impl Emit {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "on_close" {
            return Ok(Self::OnClose);
        }
        let wrong = || format!("`{text}` is not \"on_close\", \"every 10s\" or \"every 100 readings\"");
        let rest = text.strip_prefix("every ").ok_or_else(wrong)?;
        match rest.strip_suffix(" readings") {
            Some(count) => count.trim().parse().map(Self::EveryReadings).map_err(|_| wrong()),
            None => Duration::parse(rest).map(Self::Every).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for Emit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnClose => f.write_str("on_close"),
            Self::Every(span) => write!(f, "every {}us", span.0.0),
            Self::EveryReadings(count) => write!(f, "every {count} readings"),
        }
    }
}

impl Serialize for Emit {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Emit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&Cow::<'de, str>::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for Emit {
    fn schema_name() -> Cow<'static, str> {
        "Emit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "When panes of an open window are given out.",
            "examples": ["on_close", "every 10s", "every 100 readings"] })
    }
}

/// Writes `60s` as `1m`: the same length is the same text, by which a changed plan is told.
fn one_spelling<S: Serializer>(size: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    match size.as_deref().map(|text| (text, Duration::parse(text))) {
        Some((_, Ok(length))) => length.serialize(to),
        Some((text, Err(_))) => to.serialize_str(text),
        None => to.serialize_none(),
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
