//! What a comparison found.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Rows of one kind of difference of one table that are shown; all are counted.
pub(super) const SHOWN: usize = 20;

/// All that was compared.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The scenario's name.
    pub scenario: String,
    /// Each table.
    pub checks: Vec<Check>,
}

/// One table.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Its name.
    pub table: String,
    /// Rows that must be there at least, where that can be said.
    pub expected: Option<u64>,
    /// Rows that are there.
    pub found: u64,
    /// How many rows differ, by kind.
    pub differences: BTreeMap<Kind, u64>,
    /// The first rows of each kind.
    pub rows: Vec<(Kind, String)>,
    /// What a reader should know beside.
    pub note: Option<String>,
}

/// How a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It must be there and is not.
    Missing,
    /// It is there and nothing in the truth is like it.
    Extra,
    /// It is there more often than it can have been sent.
    Duplicate,
    /// It is there with other values.
    Wrong,
    /// It came too late, though nothing later had been sent before it.
    LateWithoutCause,
}

impl Verdict {
    pub(super) fn new(scenario: &str) -> Verdict {
        Verdict { scenario: scenario.to_owned(), checks: Vec::new() }
    }

    /// Whether nothing differs.
    pub fn is_right(&self) -> bool {
        self.checks.iter().all(|check| check.differences.is_empty())
    }
}

impl Check {
    pub(super) fn new(table: &str) -> Check {
        let (differences, rows) = (BTreeMap::new(), Vec::new());
        Check { table: table.to_owned(), expected: None, found: 0, differences, rows, note: None }
    }

    /// Adds one difference.
    pub(super) fn tell(&mut self, kind: Kind, row: String) {
        self.tell_all(kind, 1, vec![row]);
    }

    /// Adds `count` differences, of which some are shown.
    pub(super) fn tell_all(&mut self, kind: Kind, count: u64, shown: Vec<String>) {
        if count > 0 {
            *self.differences.entry(kind).or_default() += count;
            self.rows.extend(shown.into_iter().map(|row| (kind, row)));
        }
    }
}

impl Kind {
    /// The word in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Missing => "missing",
            Kind::Extra => "extra",
            Kind::Duplicate => "duplicate",
            Kind::Wrong => "wrong",
            Kind::LateWithoutCause => "late without cause",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            writeln!(out, "{check}")?;
        }
        let differing: u64 = self.checks.iter().flat_map(|check| check.differences.values()).sum();
        match differing {
            0 => write!(out, "{}: nothing differs", self.scenario),
            n => write!(out, "{}: {n} differences", self.scenario),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.differences.is_empty() { "ok" } else { "FAILED" };
        write!(out, "{word:6} {}: {} rows", self.table, self.found)?;
        if let Some(expected) = self.expected {
            write!(out, ", {expected} expected")?;
        }
        for (kind, count) in &self.differences {
            write!(out, ", {count} {}", kind.as_str())?;
        }
        if let Some(note) = &self.note {
            write!(out, "\n       {note}")?;
        }
        for (kind, row) in &self.rows {
            write!(out, "\n       {}: {row}", kind.as_str())?;
        }
        for (kind, count) in self.differences.iter().filter(|(_, count)| **count > SHOWN as u64) {
            write!(out, "\n       and {} more {}", count - SHOWN as u64, kind.as_str())?;
        }
        Ok(())
    }
}
