//! Whether the tiers hold what is said of them: reads every file that the newest records of all lanes and the newest version of each cold
//! table name, and counts that each row is in one tier.
//!
//! ```text
//! records ──► segments: length, xxh3-64, rows, order, range of times and keys       rows stored = rows in segments that have not moved
//!        └──► state and outbox files: length, xxh3-64                                             + rows in cold files
//! Delta log ► Parquet files: length, rows, range of times, day, order               + rows that went for good (past their age, set aside)
//! ```
//! It takes no lock and writes nothing, so it runs over a stopped data directory and beside its owner. Beside the owner it is of the
//! sealed records at one instant (`instant`), and a file that went because a later record names it no longer is no damage.
//!
//! Absent by intent: repair. What to do is said with each damage, and a person decides.

mod cold;
mod content;
mod count;
mod instant;
mod parts;
mod report;
mod unnamed;
mod warm;

pub use report::{Damage, Part, Read, Report, TableCount, Unnamed};

use crate::cold::ColdTables;
use crate::epoch::{EpochStore, LocalEpochs};
use crate::options::TableSpec;
use flow::{Error, Result};
use instant::Instant;
use std::path::Path;
use std::sync::Arc;

/// What is verified.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// Its epoch records.
    pub epochs: &'a LocalEpochs,
    /// The folder of segments, `<warm>/<table>/<file>`.
    pub warm: &'a Path,
    /// The folder of state files.
    pub state: &'a Path,
    /// The folder of outbox files.
    pub outbox: &'a Path,
    /// The tables of the plan. Those of earlier plans are found in the records.
    pub specs: &'a [TableSpec],
    /// The cold tables.
    pub cold: &'a ColdTables,
}

/// Reads all of it. Damage is in the report; an error means that nothing could be said.
pub async fn verify(subject: Subject<'_>) -> Result<Report> {
    let mut report = Report::default();
    let instant = Instant::take(subject, &mut report).await?;
    for lane in &instant.lanes {
        parts::check(subject, lane, &mut report).await?;
        warm::check(subject, lane, &mut report).await?;
    }
    for (table, cold) in &instant.cold {
        cold::check(subject, table, cold, &mut report).await?;
    }
    count::check(subject, &instant, &mut report);
    unnamed::list(subject, &mut report)?;
    Ok(report)
}

/// What is wrong with a file.
#[derive(Debug)]
enum Fault {
    /// It is not there.
    Missing,
    /// It does not hold what it should, from this byte on where that is known.
    Wrong {
        /// Where in the file.
        byte: Option<u64>,
        /// What was found.
        what: String,
    },
}

impl Fault {
    fn wrong(what: impl Into<String>) -> Self {
        Self::Wrong { byte: None, what: what.into() }
    }

    fn at(byte: u64, what: impl Into<String>) -> Self {
        Self::Wrong { byte: Some(byte), what: what.into() }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::NotFound { Self::Missing } else { Self::wrong(error.to_string()) }
    }
}

/// Runs a check that blocks on a thread of its own. Damaged bytes may bring a decoder to a panic, which is a finding too.
async fn apart<T: Send + 'static>(check: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<Result<T, Fault>> {
    match tokio::task::spawn_blocking(check).await {
        Err(error) if error.is_panic() => Ok(Err(Fault::wrong("its bytes break the reader off"))),
        ended => ended.map_err(|e| Error::stop("a check broke off", e)),
    }
}

/// Whether the newest record of a lane names the file still: its owner may have let it go since.
fn is_named(epochs: &LocalEpochs, lane: &str, file: &str) -> Result<bool> {
    Ok(epochs.newest(lane)?.is_some_and(|newest| newest.whole.files().contains(file)))
}

/// The disk that other functions of this room want.
fn disk() -> Arc<dyn world::Disk> {
    world::local_disk()
}

#[cfg(test)]
pub(crate) mod tests;
