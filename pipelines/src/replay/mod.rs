//! `tidegate replay`: what another pipeline would have made of the readings that a pipeline has taken, before anybody switches over.
//!
//! ```text
//! old tables, sealed rows ─► log: a file for each source ─► the new pipeline with files as sources ─► new tables ─┐
//!           └──────────────────────────────────────────────────────────────────────────► held against each other ◄┘
//! ```
//! The log is the table of a source's readings, in whatever tier they are, or a topic itself: `log`. The new pipeline runs in a folder of its own, without sinks and cold
//! tables: `rewrite`. Of both, rows are compared that are complete: before the least watermark of the old lanes, and from the first reading that was
//! taken again: `compare`. Nothing of the old pipeline is touched, and it may run.

mod compare;
mod log;
mod rewrite;

use crate::cli::{ReplayArguments, RunArguments};
use crate::plan::{Input, Plan, PlannedTable, TableKind};
use crate::run::ask::{kept, sealed, stopped};
use crate::run::goals::Goals;
use crate::run::instance::make_private;
use crate::run::run_to_end;
use arrow::array::{Int64Array, RecordBatch};
use arrow::compute::kernels::cmp::gt_eq;
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use compare::TableDifference;
use flow::{Error, EventTime, Remedy, Result};
use gateway::query::{Engine, Limits};
use log::{Log, Written, instant, moment};
use serde::Serialize;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What two pipelines have made of the same readings.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Rows from this instant on are compared (RFC 3339); none where nothing was taken again.
    pub from: Option<String>,
    /// Rows before this instant are compared; none where the old pipeline has read everything to its end.
    pub until: Option<String>,
    /// How many readings were taken again.
    pub readings: u64,
    /// How many of them the new pipeline could not use: they are in its `dead_letters`.
    pub refused: u64,
    /// Columns of the new pipeline's sources that the old one has not kept: they are null.
    pub nulls: Vec<String>,
    /// The tables that both have, but those of readings.
    pub tables: Vec<TableDifference>,
    /// Tables that only the old pipeline has.
    pub only_old: Vec<String>,
    /// Tables that only the new one has.
    pub only_new: Vec<String>,
}

impl Difference {
    /// Whether every table that both have is the same in both.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.tables.iter().all(TableDifference::is_none)
    }
}

/// Takes the readings of a pipeline again with the new one, and compares. `text` is that of `arguments.pipeline`, `new` its plan.
pub fn replay(old: Option<Plan>, data_dir: &Path, new: &Plan, text: &str, arguments: &ReplayArguments) -> Result<Difference> {
    let old = old.map_or_else(|| kept(data_dir), Ok)?;
    empty(&arguments.to)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| Error::stop("starting threads", e))?;
    let until = closed(&old, data_dir)?;
    // Its view is newer than the watermarks: what they closed is in it.
    let before = stopped(&old, data_dir, unlimited())?;
    let logs = log::find(&old, new, arguments.topics)?;
    let mut taken = Taken::default();
    for log in &logs {
        taken.add(runtime.block_on(log.write(&before, arguments.from, &arguments.to))?);
    }
    let common: Vec<_> = new.tables.iter().filter(|table| is_made(table) && has(&old, table)).collect();
    // Before the new pipeline runs, which may take longer than the old one keeps files that it has replaced.
    let begin = arguments.from.unwrap_or(EARLIEST);
    let olds = runtime.block_on(all_rows(&before, &common, begin, until.unwrap_or(EARLIEST)))?;
    let after = again(text, &logs, arguments)?;
    for log in &logs {
        taken.add(runtime.block_on(log.taken(&after))?);
    }
    let range = taken.first.map(|first| first.max(begin)).zip(until);
    let mut tables = vec![];
    if let Some((from, until)) = range {
        let news = runtime.block_on(all_rows(&after, &common, from, until))?;
        for ((table, old), new) in common.iter().zip(&olds).zip(&news) {
            tables.push(compare::compare(&table.name, &identity(table), &since(old, place(table), from)?, new)?);
        }
    }
    let names = |of: &Plan, other: &Plan| {
        let made = of.tables.iter().filter(|table| is_made(table) && !has(other, table));
        made.map(|table| table.name.clone()).collect()
    };
    Ok(Difference {
        from: range.map(|(from, _)| instant(from)),
        // All of it was read to the end: there is no watermark any more.
        until: range.filter(|(_, until)| *until < i64::MAX).map(|(_, until)| instant(until)),
        readings: taken.rows,
        refused: runtime.block_on(refused(&after))?,
        nulls: logs.iter().flat_map(|log| log.missing().map(|column| format!("{}.{column}", log.source.name))).collect(),
        tables,
        only_old: names(&old, new),
        only_new: names(new, &old),
    })
}

/// No reading is older, in microseconds: the year 1.
const EARLIEST: i64 = -62_135_596_800_000_000;

/// How many readings were taken again, and the least event time of them.
#[derive(Default)]
struct Taken {
    rows: u64,
    first: Option<i64>,
}

impl Taken {
    fn add(&mut self, more: Option<Written>) {
        let Some(more) = more else { return };
        self.rows += more.rows;
        self.first = [self.first, more.first].into_iter().flatten().min();
    }
}

/// Runs the new pipeline over the logs to their end; gives who answers about its tables.
fn again(text: &str, logs: &[Log], arguments: &ReplayArguments) -> Result<Engine> {
    let file = arguments.to.join(rewrite::FILE);
    let text = rewrite::rewritten(text, logs, &arguments.to)?;
    std::fs::write(&file, &text).map_err(|e| Error::stop(format!("writing {}", file.display()), e))?;
    let plan = Plan::read(&file.display().to_string(), &text).map_err(|problems| Error::new(Remedy::Stop, problems.render(false)))?;
    let goals = Goals::of(&plan)?;
    if !run_to_end(plan.clone(), &RunArguments { file, until_idle: None, instance: None }, goals)? {
        return Err(Error::new(Remedy::Stop, "the replay was told to stop before it had taken everything"));
    }
    stopped(&plan, &plan.data_dir, unlimited())
}

fn has(plan: &Plan, table: &PlannedTable) -> bool {
    plan.tables.iter().any(|of| of.name == table.name)
}

/// A table that operators make: of readings themselves both pipelines have the same.
fn is_made(table: &PlannedTable) -> bool {
    table.kind == TableKind::Declared && table.inputs.iter().any(|input| !matches!(input, Input::Source(_)))
}

/// The least watermark of the old lanes, in microseconds: what lies before it is complete.
fn closed(old: &Plan, data_dir: &Path) -> Result<Option<i64>> {
    let (stored, _) = sealed(old, data_dir)?;
    let watermarks = stored.lanes.iter().map(|(_, _, whole)| whole.sealed_watermark()).filter(|w| *w != EventTime::MIN);
    Ok(watermarks.map(|w| w.0).min())
}

/// The start of a window.
const START: &str = "window_start";

/// The column by which a table's rows begin.
fn place(table: &PlannedTable) -> &'static str {
    if table.schema.index_of(START).is_ok() { START } else { flow::EVENT_TIME }
}

/// The columns that say which row of a table it is.
fn identity(table: &PlannedTable) -> Vec<String> {
    table.key.iter().map(String::as_str).chain([place(table)]).map(str::to_owned).collect()
}

/// The rows of tables between two instants. A window counts where all of it lies between them.
async fn all_rows(engine: &Engine, tables: &[&PlannedTable], from: i64, until: i64) -> Result<Vec<RecordBatch>> {
    let (time, from, until) = (flow::EVENT_TIME, moment(from), moment(until));
    let mut all = vec![];
    for table in tables {
        let (name, start) = (&table.name, place(table));
        all.push(rows(engine, format!("SELECT * FROM \"{name}\" WHERE \"{start}\" >= {from} AND \"{time}\" < {until}")).await?);
    }
    Ok(all)
}

/// The rows from an instant on.
fn since(rows: &RecordBatch, column: &str, from: i64) -> Result<RecordBatch> {
    let begin = rows.column_by_name(column).expect("a table has its times");
    let later = cast(begin, &DataType::Int64).and_then(|times| gt_eq(&times, &Int64Array::new_scalar(from)));
    later.and_then(|later| filter_record_batch(rows, &later)).map_err(|e| Error::stop("choosing rows", e))
}

async fn rows(engine: &Engine, sql: String) -> Result<RecordBatch> {
    let answer = engine.query(&sql).await.map_err(|e| Error::stop(format!("asking `{sql}`"), e))?;
    concat_batches(&plain(&answer.schema), &answer.batches).map_err(|e| Error::stop("joining rows", e))
}

/// How many dead letters there are.
async fn refused(engine: &Engine) -> Result<u64> {
    let found = rows(engine, "SELECT reason FROM dead_letters".to_owned()).await?;
    Ok(found.num_rows() as u64)
}

/// The columns without what else is said about them.
fn plain(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().clone()))
}

/// Whole tables are read, and nobody else asks.
fn unlimited() -> Limits {
    Limits { memory_bytes: usize::MAX, deadline: Duration::from_secs(24 * 3_600), rows: usize::MAX, ..Limits::default() }
}

fn empty(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::stop(format!("making {}", folder.display()), e))?;
    let mut entries = std::fs::read_dir(folder).map_err(|e| Error::stop(format!("looking into {}", folder.display()), e))?;
    if entries.next().is_some() {
        return Err(Error::new(Remedy::Stop, format!("{} is not empty; `--to` names a new or empty folder", folder.display())));
    }
    // What devices have said is not for everybody.
    make_private(folder)
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} readings were taken again", self.readings)?;
        if self.refused > 0 {
            writeln!(f, "{} of them could not be used: see dead_letters", self.refused)?;
        }
        if !self.nulls.is_empty() {
            writeln!(f, "null, since they were not kept: {}", self.nulls.join(", "))?;
        }
        match (&self.from, &self.until) {
            (Some(from), Some(until)) => writeln!(f, "compared from {from} to {until}")?,
            (Some(from), None) => writeln!(f, "compared from {from} on")?,
            (None, _) => writeln!(f, "nothing could be compared: there are no readings, or the old pipeline has closed nothing yet")?,
        }
        self.tables.iter().try_for_each(|table| write!(f, "{table}"))?;
        for (names, which) in [(&self.only_old, "old"), (&self.only_new, "new")] {
            if !names.is_empty() {
                writeln!(f, "only the {which} pipeline has: {}", names.join(", "))?;
            }
        }
        Ok(())
    }
}
