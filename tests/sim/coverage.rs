//! Which fault met which state of the protocol. A campaign with an empty cell fails.

use std::collections::BTreeMap;
use std::path::Path;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Crash,
    FsyncError,
    IoError,
    UnknownOutcome,
    FullDisk,
    BitFlip,
    /// Of what was not forced something was lost.
    Lost,
}

/// Where in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    Journal,
    JournalRecovery,
    Record,
    Claim,
    Segment,
    Compaction,
    State,
    StateRestore,
    Outbox,
    ColdFile,
    ColdCommit,
    Elsewhere,
}

/// The state that an operation on `path` belongs to.
pub(crate) fn place(path: &Path, recovering: bool) -> At {
    let text = path.to_string_lossy();
    match (recovering, text.as_ref()) {
        (true, t) if t.contains("/journal") => At::JournalRecovery,
        (false, t) if t.contains("/journal") => At::Journal,
        (true, t) if t.contains("/epochs") => At::Claim,
        (false, t) if t.contains("/epochs") => At::Record,
        (_, t) if t.contains("/warm") && of_compaction(t) => At::Compaction,
        (_, t) if t.contains("/warm") => At::Segment,
        (true, t) if t.contains("/state") => At::StateRestore,
        (false, t) if t.contains("/state") => At::State,
        (_, t) if t.contains("/outbox") => At::Outbox,
        (_, t) if t.contains("/_log") => At::ColdCommit,
        (_, t) if t.contains("cold/") => At::ColdFile,
        _ => At::Elsewhere,
    }
}

/// Whether a segment is the run of a compaction: `<lane>-<generation>-<epoch>-<n>.parquet` with a large `n`.
fn of_compaction(path: &str) -> bool {
    let n = path.rsplit('-').next().and_then(|last| last.split('.').next()).and_then(|n| n.parse::<u64>().ok());
    n.is_some_and(|n| n >= 1_000_000)
}

/// Counts by fault and place, and of what happened beside the disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) cells: BTreeMap<(Fault, At), u64>,
    pub(crate) events: BTreeMap<&'static str, u64>,
}

/// Cells that a campaign must fill; the others cannot happen (a bit does not flip where nothing is read).
pub(crate) fn required() -> Vec<(Fault, At)> {
    use At::{Claim, ColdCommit, ColdFile, Compaction, Journal, JournalRecovery, Outbox, Record, Segment, State, StateRestore};
    let written = [Journal, JournalRecovery, Record, Claim, Segment, Compaction, State, Outbox, ColdFile, ColdCommit];
    let read = [JournalRecovery, Claim, StateRestore, Segment, Compaction, Outbox, ColdCommit];
    let mut cells = vec![];
    for fault in [Fault::Crash, Fault::FsyncError, Fault::IoError, Fault::UnknownOutcome, Fault::FullDisk] {
        cells.extend(written.map(|at| (fault, at)));
    }
    cells.extend(read.map(|at| (Fault::BitFlip, at)));
    cells.extend([Journal, Record, Segment, Compaction, State, Outbox, ColdCommit].map(|at| (Fault::Lost, at)));
    cells
}

/// What must have happened besides.
pub(crate) const EVENTS: &[&str] = &[
    "redelivered",
    "ack lost",
    "session lost",
    "disconnect",
    "zombie",
    "clock step",
    "late commit",
    "power cut",
    "kill",
    "restart after an error",
    "damage on the medium",
    "cold files rewritten",
    "old cold file deleted",
];

impl Coverage {
    pub(crate) fn count(&mut self, fault: Fault, at: At) {
        *self.cells.entry((fault, at)).or_default() += 1;
    }

    pub(crate) fn event(&mut self, what: &'static str) {
        *self.events.entry(what).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        other.cells.iter().for_each(|(cell, n)| *self.cells.entry(*cell).or_default() += n);
        other.events.iter().for_each(|(what, n)| *self.events.entry(what).or_default() += n);
    }

    /// Cells and events that never happened.
    pub(crate) fn missing(&self) -> Vec<String> {
        let cells = required().into_iter().filter(|cell| !self.cells.contains_key(cell)).map(|cell| format!("{cell:?}"));
        let events = EVENTS.iter().filter(|what| !self.events.contains_key(*what)).map(|what| (*what).to_owned());
        cells.chain(events).collect()
    }
}
