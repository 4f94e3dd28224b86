//! The readings of a source: a file by event time, of the table that keeps them as they came, or the source's topic itself.

use crate::plan::{Input, Plan, PlannedSource, PlannedTable};
use crate::spec::Source;
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::json::LineDelimitedWriter;
use chrono::{DateTime, SecondsFormat};
use flow::{EVENT_TIME, Error, Remedy, Result};
use gateway::query::{Answer, Engine};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// So many rows are in memory at once, or a few more.
const SLICE_ROWS: i64 = 500_000;

/// Where a source's readings are kept.
pub(super) struct Log {
    /// The source of the new pipeline.
    pub(super) source: PlannedSource,
    pub(super) place: Place,
}

/// Where readings are taken from.
pub(super) enum Place {
    /// A table of the old pipeline.
    Table {
        name: String,
        /// The columns of the source that the table has.
        columns: Vec<String>,
    },
    /// The source's own topics. The new pipeline's table of that name has what came of them.
    Topics { table: String },
}

/// What was written.
pub(super) struct Written {
    pub(super) rows: u64,
    /// The least event time, in microseconds.
    pub(super) first: Option<i64>,
}

/// The logs of all sources of the new pipeline. An error where a source's readings were not kept.
pub(super) fn find(old: &Plan, new: &Plan, topics: bool) -> Result<Vec<Log>> {
    let log = |(number, source): (usize, &PlannedSource)| match &source.kind {
        Source::Kafka(_) if topics => {
            let kept = keeps(new, number).map(|table| table.name.clone());
            let table = kept.unwrap_or_else(|| format!("{}_again", source.name));
            Ok(Log { source: source.clone(), place: Place::Topics { table } })
        }
        _ => of_table(old, source),
    };
    new.sources.iter().enumerate().map(log).collect()
}

/// The table of a source's readings as they came.
fn keeps(plan: &Plan, source: usize) -> Option<&PlannedTable> {
    plan.tables.iter().find(|table| table.inputs == [Input::Source(source)])
}

fn of_table(old: &Plan, source: &PlannedSource) -> Result<Log> {
    let number = old.sources.iter().position(|of| of.name == source.name);
    let Some(table) = number.and_then(|number| keeps(old, number)) else {
        let what = format!(
            "the old pipeline keeps the readings of source `{0}` in no table: [tables.{0}] with inputs = [\"{0}\"] does",
            source.name
        );
        return Err(Error::new(Remedy::Stop, what));
    };
    let mut columns = vec![];
    for field in source.schema.fields() {
        match table.schema.field_with_name(field.name()) {
            Ok(kept) if kept.data_type() == field.data_type() => columns.push(field.name().clone()),
            Err(_) if !source.key.contains(field.name()) => {}
            _ => {
                let what = format!(
                    "column `{}` of source `{}` is not in table `{}` as {}",
                    field.name(),
                    source.name,
                    table.name,
                    field.data_type()
                );
                return Err(Error::new(Remedy::Stop, what));
            }
        }
    }
    Ok(Log { source: source.clone(), place: Place::Table { name: table.name.clone(), columns } })
}

impl Log {
    /// The file, one JSON object a line.
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join("log").join(format!("{}.ndjson", self.source.name))
    }

    /// Columns of the source that were not kept: they are null.
    pub(super) fn missing(&self) -> impl Iterator<Item = &String> {
        let names = self.source.schema.fields().iter().map(|field| field.name());
        names.filter(|name| matches!(&self.place, Place::Table { columns, .. } if !columns.contains(name)))
    }

    /// What came of topics, once the new pipeline has read them; none of a table.
    pub(super) async fn taken(&self, after: &Engine) -> Result<Option<Written>> {
        let Place::Topics { table } = &self.place else { return Ok(None) };
        let ends = format!("SELECT min(\"{EVENT_TIME}\"), max(\"{EVENT_TIME}\"), count(*) FROM \"{table}\"");
        let (first, _, rows) = span(&ask(after, &ends).await?)?;
        Ok(Some(Written { rows: rows as u64, first }))
    }

    /// Writes the readings of a table from an instant on, or all; none of topics.
    pub(super) async fn write(&self, engine: &Engine, from: Option<i64>, folder: &Path) -> Result<Option<Written>> {
        let Place::Table { name: table, columns } = &self.place else { return Ok(None) };
        let path = self.path(folder);
        let failed = |e: std::io::Error| Error::stop(format!("writing {}", path.display()), e);
        std::fs::create_dir_all(path.parent().expect("a file in a folder")).map_err(failed)?;
        let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
        let begin = from.map(|from| format!(" WHERE \"{EVENT_TIME}\" >= {}", moment(from))).unwrap_or_default();
        let ends = format!("SELECT min(\"{EVENT_TIME}\"), max(\"{EVENT_TIME}\"), count(*) FROM \"{table}\"{begin}");
        let (first, last, rows) = span(&ask(engine, &ends).await?)?;
        let mut written = Written { rows: 0, first };
        let (Some(mut at), Some(last)) = (first, last) else { return Ok(Some(written)) };
        let columns = columns.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        // Slices of equal length, of about as many rows each where readings are evenly spread.
        let step = ((last - at) / (rows / SLICE_ROWS + 1)).max(1);
        while at <= last {
            let (from, to) = (moment(at), moment(at + step));
            let sql = format!(
                "SELECT {columns} FROM \"{table}\" WHERE \"{EVENT_TIME}\" >= {from} AND \"{EVENT_TIME}\" < {to} ORDER BY \"{EVENT_TIME}\""
            );
            for batch in ask(engine, &sql).await?.batches {
                written.rows += batch.num_rows() as u64;
                write_lines(&batch, &mut file)?;
            }
            at += step;
        }
        file.flush().map_err(failed)?;
        Ok(Some(written))
    }
}

fn write_lines(batch: &RecordBatch, to: &mut impl Write) -> Result<()> {
    let mut lines = LineDelimitedWriter::new(to);
    lines.write(batch).and_then(|()| lines.finish()).map_err(|e| Error::stop("writing readings", e))
}

async fn ask(engine: &Engine, sql: &str) -> Result<Answer> {
    engine.query(sql).await.map_err(|e| Error::stop(format!("asking `{sql}`"), e))
}

/// The least and greatest time in microseconds, and how many.
fn span(answer: &Answer) -> Result<(Option<i64>, Option<i64>, i64)> {
    let batch = answer.batches.iter().find(|batch| batch.num_rows() == 1);
    let batch = batch.ok_or_else(|| Error::new(Remedy::Stop, "no answer about the span of readings"))?;
    let number = |at: usize| {
        let column = cast(batch.column(at), &DataType::Int64).map_err(|e| Error::stop("the span of readings", e))?;
        Ok::<_, Error>(column.as_primitive::<Int64Type>().iter().next().flatten())
    };
    Ok((number(0)?, number(1)?, number(2)?.unwrap_or_default()))
}

/// An instant in microseconds in SQL. A literal of text has nanoseconds, which end in the year 2262.
pub(super) fn moment(micros: i64) -> String {
    format!("to_timestamp_micros({micros})")
}

/// The same as RFC 3339.
pub(super) fn instant(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Micros, true)
}
