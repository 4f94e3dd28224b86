//! `tidegate verify`: recomputes from the truth, by batch SQL, what the tables of a pipeline must hold, and reports what differs.
//!
//! ```text
//! mod.rs      what is compared with what, by `[verify]` of the scenario
//! verdict.rs  what was found: counts, and the first rows of each kind of difference
//! compare.rs  rows that must be there against rows that are
//! raw.rs      tables of single readings
//! windows.rs  tables of tumbling windows, and the readings that came too late for them
//! alerts.rs   tables of what was found to be unusual
//! letters.rs  dead_letters
//! cold.rs     the cold Parquet files, read without Tidegate
//! ```
//! A reading that was acknowledged must be there exactly once, one that was not at most once; with `duplicates = "kept"` as often as it was
//! sent. Which of the unacknowledged arrived, windows take from their raw table. All readings of the pipeline must come from the one
//! simulation, and its windows must be closed: end it with `tidegate run … --until-idle` first.
//!
//! Not judged: whether a reading in a window should have been late. That is up to the order in which lanes saw the readings; but a late
//! reading must have a cause, and is in no window.

mod alerts;
mod cold;
mod compare;
mod letters;
mod raw;
mod verdict;
mod windows;

pub use verdict::{Check, Kind, Verdict};

use std::future::Future;
use std::path::Path;

use arrow::array::RecordBatch;
use datafusion::prelude::{ParquetReadOptions, SessionContext};

use crate::scenario::Scenario;
use crate::truth::{MANIFEST, Manifest, READINGS, SCENARIO};
use crate::{Error, Result};

/// Who answers SQL about the tables of a pipeline.
pub trait Ask {
    /// The rows of a statement.
    fn ask(&self, sql: &str) -> impl Future<Output = Result<Vec<RecordBatch>>>;
}

/// A truth that is being compared.
struct Referee<'a, A> {
    scenario: &'a Scenario,
    /// Holds the truth as table `truth`.
    context: SessionContext,
    pipeline: &'a A,
}

/// Holds the tables of a pipeline against a truth. `cold` is the folder of its cold tables, where they are to be read too.
pub async fn verify(folder: &Path, pipeline: &impl Ask, cold: Option<&Path>) -> Result<Verdict> {
    let scenario = Scenario::read(&folder.join(SCENARIO))?;
    if scenario.verify.raw.is_empty() && scenario.verify.windows.is_empty() && scenario.verify.alerts.is_empty() {
        return Err(Error::Verify(format!("[verify] of {} names no table", folder.join(SCENARIO).display())));
    }
    let readings = folder.join(READINGS);
    let context = SessionContext::new();
    let path = readings.to_str().ok_or_else(|| Error::Verify("the path of the truth is not UTF-8".to_owned()))?;
    context.register_parquet("truth", path, ParquetReadOptions::default()).await?;
    let mut verdict = Verdict::new(&scenario.name);
    verdict.checks.push(manifest(folder, &context).await?);
    let referee = Referee { scenario: &scenario, context, pipeline };
    for (table, options) in &scenario.verify.raw {
        verdict.checks.push(referee.raw(table, options).await.map_err(about(table))?);
        if let Some(cold) = cold {
            verdict.checks.push(referee.cold(table, options, cold).await.map_err(about(table))?);
        }
    }
    for (table, options) in &scenario.verify.windows {
        verdict.checks.extend(referee.windows(table, options).await.map_err(about(table))?);
    }
    for (table, options) in &scenario.verify.alerts {
        verdict.checks.push(referee.alerts(table, options).await.map_err(about(table))?);
    }
    if scenario.verify.dead_letters {
        verdict.checks.push(referee.letters().await?);
    }
    Ok(verdict)
}

/// Whether the truth is the one that was written.
async fn manifest(folder: &Path, context: &SessionContext) -> Result<Check> {
    let mut check = Check::new(READINGS);
    check.found = context.table("truth").await?.count().await? as u64;
    if !folder.join(MANIFEST).exists() {
        check.note = Some(format!("there is no {MANIFEST}: the simulation did not end, or the truth was changed by hand"));
        return Ok(check);
    }
    let manifest = Manifest::read(folder)?;
    check.expected = Some(manifest.counts.messages);
    if crate::truth::hash_of(&folder.join(READINGS))? != manifest.readings_xxh3 {
        check.tell(Kind::Wrong, format!("{READINGS} is not the file that {MANIFEST} names"));
    }
    Ok(check)
}

/// Names the table that an error is about.
fn about(table: &str) -> impl FnOnce(Error) -> Error + '_ {
    move |error| Error::Verify(format!("{table}: {error}"))
}

/// A name as SQL takes it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl From<datafusion::error::DataFusionError> for Error {
    fn from(error: datafusion::error::DataFusionError) -> Error {
        Error::Verify(error.strip_backtrace())
    }
}

#[cfg(test)]
mod tests;
