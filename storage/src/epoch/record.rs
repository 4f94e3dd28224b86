//! The epoch record: all that a lane knows about itself at a cut, or what changed since the record before.
//!
//! A record is whole (`Whole`) or a delta over its parent (`Change`); see `chain` for how one follows from the other.
//! As bytes (integers little-endian):
//! ```text
//! 0        8         12        16        20
//! +--------+---------+---------+---------+----------------------+
//! |tidegate| format  | length  | crc32c  | JSON of the record   |
//! +--------+---------+---------+---------+----------------------+
//!                      of JSON   of bytes 0..16 and the JSON
//! ```
//! The format stands outside of the JSON, so that an older program can say that it is too old. Nothing follows the JSON.

use super::names::is_of_compaction;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The format that this program writes, and the newest that it reads.
/// 2 added the outbox.
pub const FORMAT: u32 = 2;

/// One record of a lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Who made it, and where it stands in the chain.
    pub header: Header,
    /// What it says.
    pub body: Body,
}

/// Who made a record, and where it stands in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The lane's name.
    pub lane: String,
    /// The record's number; the first is 1.
    pub number: u64,
    /// The number before it; 0 for the first record.
    pub parent: u64,
    /// The number of the record that claimed the lane.
    pub generation: u64,
    /// Random, made with the lane's first record: tells this chain from one that was deleted and begun anew.
    pub chain: String,
    /// Random, of the process that made the record.
    pub incarnation: u64,
    /// Address of the instance that made the record.
    pub owner: String,
    /// The plan whose state this is.
    pub fingerprint: Fingerprint,
    /// Version of the product that made the record.
    pub product: String,
}

/// What of a plan decides whether state of an earlier run still fits: a word or hash for each part.
///
/// Parts are named so that a difference can be told to a person: `operator.hourly` rather than one hash of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub BTreeMap<String, String>);

impl Fingerprint {
    /// A short word for the whole, for metrics and logs: equal fingerprints have equal ones.
    #[must_use]
    pub fn hash(&self) -> String {
        let parts: Vec<u8> = self.0.iter().flat_map(|(part, word)| format!("{part}\0{word}\0").into_bytes()).collect();
        format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&parts))
    }
}

/// The content of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// All that counts: the first record of a generation and every 64th.
    Whole(Whole),
    /// What changed since the parent.
    Delta(Change),
}

/// All that a lane knows at a cut: the fold of its records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whole {
    /// How far each log was taken.
    #[serde(with = "positions")]
    pub positions: flow::Positions,
    /// The state of the watermark, in the form of the driver; null at the beginning.
    pub watermark: serde_json::Value,
    /// Counts since the lane's beginning, by name.
    pub counters: BTreeMap<String, u64>,
    /// State files with the parts that still count, in the order in which they are read.
    pub state: Vec<StateFile>,
    /// Tables by name.
    pub tables: BTreeMap<String, TableState>,
    /// What the lane has for others, by the name of the exit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outbox: BTreeMap<String, ExitState>,
}

/// What changed between two cuts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Positions that are new or moved on. The driver may give all; `Chain::next` leaves out those that did not move.
    #[serde(with = "positions")]
    pub positions: flow::Positions,
    /// The state of the watermark at the cut.
    pub watermark: serde_json::Value,
    /// Counts at the cut, since the lane's beginning (not differences). A name that is missing keeps its count.
    pub counters: BTreeMap<String, u64>,
    /// State parts removed and files added.
    pub state: StateChange,
    /// Changes by table; a table that did not change may be missing.
    pub tables: BTreeMap<String, TableChange>,
    /// Changes by exit; an exit that did not change may be missing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outbox: BTreeMap<String, ExitChange>,
}

/// The warm part of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableState {
    /// Live segments, oldest first. A segment with a mark above `dropped` is on its way to cold.
    pub segments: Vec<Segment>,
    /// The highest move number given; 0 before the first move.
    pub marked: u64,
    /// The highest move number whose segments are gone from here; at most `marked`.
    pub dropped: u64,
}

/// A sorted Parquet file of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// File name, `<lane>-<generation>-<epoch>-<n>.parquet`.
    pub file: String,
    /// Rows inside, at least 1.
    pub rows: u64,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// xxh3-64 of the file.
    pub checksum: u64,
    /// Least event time, microseconds.
    pub min_time: i64,
    /// Greatest event time, microseconds.
    pub max_time: i64,
    /// Least key, in the form of `warm`.
    pub min_key: String,
    /// Greatest key, in the form of `warm`.
    pub max_key: String,
    /// The greatest epoch whose rows are inside.
    pub epoch: u64,
    /// The move that takes the segment to cold.
    pub mark: Option<u64>,
}

impl Segment {
    /// Whether its rows are all of one epoch, and no move takes it: as an epoch's seal has written it.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.mark.is_none() && !is_of_compaction(&self.file)
    }
}

/// What changed in the warm part of a table. Applied in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableChange {
    /// Segments that count no longer: compacted, or past their age. Each must be live.
    pub removed: Vec<String>,
    /// New segments, without a mark.
    pub added: Vec<Segment>,
    /// Segments given to a move.
    pub marked: Option<Mark>,
    /// The move numbers up to this one are in cold: their segments go. It never falls and never passes `marked`.
    pub dropped: Option<u64>,
}

/// Segments given to a move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The move number: one above the table's `marked`.
    pub number: u64,
    /// The segments: live and without a mark.
    pub files: Vec<String>,
}

/// What a lane has for the readers of one exit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitState {
    /// No later row is marked below this watermark; microseconds.
    pub watermark: i64,
    /// The number of the next row: how many there were so far.
    pub next: u64,
    /// Files with rows that are not all taken, oldest first.
    pub files: Vec<ExitFile>,
}

impl Default for ExitState {
    /// An exit that has given out nothing.
    fn default() -> Self {
        Self { watermark: i64::MIN, next: 0, files: vec![] }
    }
}

/// A file of the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitFile {
    /// File name, `<lane>-<generation>-<epoch>-<n>.outbox`.
    pub file: String,
    /// Number of its first row.
    pub first: u64,
    /// Rows inside, at least 1.
    pub rows: u64,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// xxh3-64 of the file.
    pub checksum: u64,
}

/// What changed at an exit. Applied in the order of the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitChange {
    /// The watermark of the exit at the cut. It never falls.
    pub watermark: i64,
    /// The file with the rows of the epoch, which follow those before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<ExitFile>,
    /// Readers have sealed that they took all rows below this number: files go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<u64>,
}

/// A file with operators' state: Arrow IPC streams, one a part, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateFile {
    /// File name, `<lane>-<generation>-<epoch>-<n>.state`.
    pub file: String,
    /// Length of the file in bytes, with parts that count no longer.
    pub bytes: u64,
    /// The parts that still count, in order of their place.
    pub parts: Vec<StatePart>,
}

/// Where rows of a part stand in a state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatePart {
    /// The operator's name.
    pub operator: String,
    /// The operator's name for the part.
    pub part: String,
    /// First byte in the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// xxh3-64 of these bytes.
    pub checksum: u64,
}

/// What changed in the operators' state. Applied in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateChange {
    /// Parts that count no longer, as (operator, part), in all files so far.
    pub removed: Vec<(String, String)>,
    /// The oldest files written as one.
    pub merged: Option<Merge>,
    /// The file with what the operators appended.
    pub added: Option<StateFile>,
}

/// The oldest state files written as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// The files it is made from: the first ones of `Whole::state`, in order.
    pub from: Vec<String>,
    /// The file that stands for them, with the same parts.
    pub into: StateFile,
}

/// Positions as text: `flow` knows no serde.
mod positions {
    use flow::{FileMark, Offset, Position, Positions, WallTime};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        log: String,
        next: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<Mark>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Mark {
        bytes: u64,
        head: u64,
        found: i64,
    }

    pub(super) fn serialize<S: Serializer>(positions: &Positions, to: S) -> Result<S::Ok, S::Error> {
        let mark = |m: &FileMark| Mark { bytes: m.bytes, head: m.head, found: m.found.0 };
        to.collect_seq(positions.0.iter().map(|p| Entry { log: p.log.to_string(), next: p.next.0, file: p.file.as_ref().map(mark) }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Positions, D::Error> {
        let mark = |m: Mark| FileMark { bytes: m.bytes, head: m.head, found: WallTime(m.found) };
        let entries = Vec::<Entry>::deserialize(from)?;
        Ok(Positions(entries.into_iter().map(|e| Position { log: e.log.into(), next: Offset(e.next), file: e.file.map(mark) }).collect()))
    }
}
