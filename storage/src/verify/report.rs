//! What a verification found, for people and as JSON.

use super::Fault;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Unnamed files that are told one by one.
const UNNAMED_TOLD: usize = 20;

/// What a verification found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The lanes with the number of the record that was read.
    pub lanes: BTreeMap<String, u64>,
    /// The cold tables with the version that was read.
    pub cold: BTreeMap<String, u64>,
    /// The rows of each table.
    pub tables: Vec<TableCount>,
    /// Files read, by kind.
    pub read: BTreeMap<Part, Read>,
    /// Files that a later record no longer names, and that went before they were read.
    pub gone: u64,
    /// Files that no record names.
    pub unnamed: Vec<Unnamed>,
    /// What is wrong.
    pub damage: Vec<Damage>,
    /// What is worth knowing and no damage.
    pub notes: Vec<String>,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// An epoch record.
    Record,
    /// Operators' state.
    State,
    /// Rows that wait for their readers.
    Outbox,
    /// A segment.
    Warm,
    /// A cold table.
    Cold,
    /// No file: the sum of all.
    Count,
}

/// How much was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Read {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The rows of a table. They agree when `stored` is the sum of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableCount {
    /// The table.
    pub table: String,
    /// Rows that the lanes have stored since their beginning.
    pub stored: u64,
    /// Rows in segments that have not moved to cold.
    pub warm: u64,
    /// Rows in cold files.
    pub cold: u64,
    /// Rows that went for good: past their age, or set aside by a person.
    pub removed: u64,
}

/// A file that no record names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unnamed {
    /// The file.
    pub file: String,
    /// Its length.
    pub bytes: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// What the file is for.
    pub part: Part,
    /// The table that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The lane that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// The file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// Where in it, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// What a person can do.
    pub remedy: &'static str,
}

impl Report {
    /// Whether all is as it should be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }

    pub(super) fn count(&mut self, part: Part, bytes: u64) {
        let read = self.read.entry(part).or_default();
        read.files += 1;
        read.bytes += bytes;
    }

    /// A file that should be there and whole.
    pub(super) fn fault(&mut self, part: Part, table: Option<&str>, lane: Option<&str>, file: String, fault: Fault) {
        let (byte, what) = match fault {
            Fault::Missing => (None, "it is missing".to_owned()),
            Fault::Wrong { byte, what } => (byte, what),
        };
        let (table, lane) = (table.map(str::to_owned), lane.map(str::to_owned));
        self.damage.push(Damage { part, table, lane, file, byte, what, remedy: part.remedy() });
    }
}

impl Part {
    fn remedy(self) -> &'static str {
        match self {
            Self::Record => "bring the file back from a backup: the lane cannot start without it, and no older record may take its place",
            Self::State => "bring the file back from a backup: the lane cannot start without it",
            Self::Outbox => "bring the file back from a backup: its rows were not published yet",
            Self::Warm => {
                "bring the file back from a backup, or give its rows up with `tidegate tiers quarantine` on the stopped pipeline: until then \
                 its move to cold waits, and queries that need it fail"
            }
            Self::Cold => "bring the file back from a backup, or from an earlier version where the object store keeps them",
            Self::Count => {
                "see to the other damage first; where there is none, keep the directory and report it: the program made a mistake"
            }
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::State => "state",
            Self::Outbox => "outbox",
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::Count => "count",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records: u64 = self.lanes.len() as u64;
        writeln!(out, "{records} lanes, {} cold tables; read:", self.cold.len())?;
        for (part, Read { files, bytes }) in &self.read {
            writeln!(out, "  {:<8} {files:>10} files {bytes:>16} bytes", part.word())?;
        }
        if !self.tables.is_empty() {
            writeln!(out, "\n{:<28} {:>14} {:>14} {:>14} {:>14}", "table", "stored", "warm", "cold", "removed")?;
        }
        for TableCount { table, stored, warm, cold, removed } in &self.tables {
            writeln!(out, "{table:<28} {stored:>14} {warm:>14} {cold:>14} {removed:>14}")?;
        }
        self.write_unnamed(out)?;
        self.notes.iter().try_for_each(|note| writeln!(out, "\nnote: {note}"))?;
        self.damage.iter().try_for_each(|damage| write!(out, "\n{damage}"))?;
        match self.damage.len() {
            0 => write!(out, "\nsound: every file is whole, and each row is in one tier"),
            1 => write!(out, "\none thing is wrong"),
            n => write!(out, "\n{n} things are wrong"),
        }
    }
}

impl Report {
    fn write_unnamed(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unnamed.is_empty() {
            return Ok(());
        }
        let bytes: u64 = self.unnamed.iter().map(|u| u.bytes).sum();
        let (n, why) =
            (self.unnamed.len(), "younger than the records, or waiting to be deleted; the next start takes away what is left over");
        writeln!(out, "\n{n} files of {bytes} bytes are in no record ({why}):")?;
        for Unnamed { file, bytes } in self.unnamed.iter().take(UNNAMED_TOLD) {
            writeln!(out, "  {file} {bytes} bytes")?;
        }
        match n.saturating_sub(UNNAMED_TOLD) {
            0 => Ok(()),
            more => writeln!(out, "  and {more} more"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "DAMAGED {}", self.part.word())?;
        if let Some(table) = &self.table {
            write!(out, ", table {table}")?;
        }
        if let Some(lane) = &self.lane {
            write!(out, ", lane {lane}")?;
        }
        if !self.file.is_empty() {
            write!(out, "\n  {}", self.file)?;
        }
        match self.byte {
            Some(byte) => writeln!(out, "\n  at byte {byte}: {}", self.what)?,
            None => writeln!(out, "\n  {}", self.what)?,
        }
        writeln!(out, "  {}", self.remedy)
    }
}
