//! Windows of fixed edges with one pane each: tumbling, hopping and calendar windows that take no reading after their close.
//!
//! A reading is aggregated once, into the slice of time between two neighbouring edges; a window is the merge of its slices, so a
//! hopping window costs a reading the same at any overlap. Results are as if each row were a batch of its own: before a row that is
//! behind the close of a window which would still take it, that window is closed. As a second stage it takes in place of readings the
//! partial aggregates of `partials`.
//!
//! State: one part a slice, named by its start in microseconds, holding partial aggregates (see `slice`). After a load the driver
//! tells the watermark of the record by `on_watermark` before any batch.

use super::aggregates::Aggregates;
use super::cut::Cut;
use super::late::{self, Parted};
use super::live;
use super::output::{Bounds, Finish};
use super::partials;
use super::slices::{Intake, Slices, broken};
use crate::refuse::refuse;
use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, SchemaRef};
use flow::{Batch, Count, Error, EventTime, Operator, Output, Reason, Result, StateReader, StateWriter, trail};
use std::sync::Arc;

/// Closed windows are put out in batches of about so many rows: as a decoder makes them.
const EMITTED_ROWS: usize = 8_192;

/// See the page.
pub(super) struct Sliced {
    cut: Cut,
    finish: Finish,
    intake: Intake,
    /// Open slices by start: the last window of each ends above `watermark`.
    slices: Slices<i64>,
    watermark: i64,
    /// The state is loaded, and the next watermark is the one it was saved at: its windows have been given out.
    loaded: bool,
}

/// Rows on their way out.
#[derive(Default)]
struct Leaving {
    bounds: Bounds,
    groups: Vec<RecordBatch>,
}

impl Sliced {
    pub(super) fn new(cut: Cut, aggregates: Arc<Aggregates>, finish: Finish, intake: Intake, limits: (usize, usize)) -> Self {
        Self { cut, finish, intake, slices: Slices::new(aggregates, intake, limits), watermark: i64::MIN, loaded: false }
    }
}

impl Operator for Sliced {
    fn schema(&self) -> SchemaRef {
        self.finish.schema.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let Parted { kept: batch, late } = late::part(batch, &self.cut, self.watermark, out)?;
        if let Some(late) = late {
            out.late(match self.intake {
                Intake::Readings => late,
                Intake::Partials => partials::late_rows(&self.slices.aggregates, &late)?,
            });
        }
        let marks = batch.trail_column(trail::WATERMARK).map(|m| m.as_primitive::<Int64Type>().clone());
        let Some(marks) = marks.filter(|_| !self.cut.is_tumbling()) else { return self.take(batch, out) };
        let mut from = 0;
        for (row, (time, mark)) in batch.times().iter().zip(marks.values()).enumerate() {
            // The next of its windows to close.
            let end = self.cut.first_end(*time).max(self.cut.first_end(self.watermark));
            if end <= self.cut.last_end(*time).min(*mark) {
                self.take(batch.slice(from, row - from), out)?;
                self.close(*mark, out)?;
                from = row;
            }
        }
        self.take(batch.slice(from, batch.len() - from), out)
    }

    fn on_watermark(&mut self, w: EventTime, out: &mut dyn Output) -> Result<EventTime> {
        if std::mem::take(&mut self.loaded) {
            self.watermark = w.0;
        }
        self.close(w.0, out)?;
        Ok(EventTime(self.watermark))
    }

    fn next_timer(&self, w: EventTime) -> Option<EventTime> {
        self.next_end(w.0).map(EventTime)
    }

    fn last_timer(&self) -> Option<EventTime> {
        self.slices.last().map(|start| EventTime(self.cut.last_end(start)))
    }

    fn save(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        self.slices.save(to)
    }

    fn load(&mut self, from: &mut dyn StateReader) -> Result<()> {
        // A tumbling window is gone with its close.
        self.loaded = !self.cut.is_tumbling();
        self.slices.load(from)
    }

    fn held(&self) -> (u64, u64) {
        (self.slices.held().groups as u64, self.slices.held().bytes as u64)
    }
}

impl Sliced {
    fn take(&mut self, mut batch: Batch, out: &mut dyn Output) -> Result<()> {
        let columns = loop {
            match self.columns(&batch) {
                Ok(columns) => break columns,
                Err(failed) => batch = refuse(batch, &failed.rows, Reason::Expression, failed.detail, out)?,
            }
        };
        let Some((least, greatest)) = batch.time_range() else { return Ok(()) };
        let start = self.cut.slice(least.0);
        if start == self.cut.slice(greatest.0) {
            return self.slices.take_slice(start, &columns, || Ok(batch), out);
        }
        let starts = self.cut.slices(batch.times());
        self.slices.take_rows(&starts, &batch, &columns, out)
    }

    fn columns(&self, batch: &Batch) -> Result<Vec<ArrayRef>, super::aggregates::Failed> {
        match self.intake {
            Intake::Readings => self.slices.aggregates.evaluate(batch.rows()),
            Intake::Partials => Ok(batch.rows().columns()[..self.slices.aggregates.partial_schema.fields().len()].to_vec()),
        }
    }

    /// Closes the windows that end at or below `w`, in the order of their ends.
    fn close(&mut self, w: i64, out: &mut dyn Output) -> Result<()> {
        let before = self.watermark;
        self.watermark = before.max(w);
        let (mut leaving, mut next) = (Leaving::default(), self.next_end(before));
        while let Some(end) = next.filter(|end| *end <= self.watermark) {
            self.close_window(end, &mut leaving)?;
            if leaving.bounds.start.len() >= EMITTED_ROWS {
                self.emit(&mut leaving, out)?;
            }
            self.forget(end);
            next = self.next_end(end);
        }
        self.emit(&mut leaving, out)
    }

    /// The least end above `w` of a window that has slices. Slices are in order, and so are their windows.
    fn next_end(&self, w: i64) -> Option<i64> {
        let any = self.cut.first_end(w);
        self.slices.names().find_map(|start| Some(self.cut.first_end(start).max(any)).filter(|end| *end <= self.cut.last_end(start)))
    }

    fn close_window(&mut self, end: i64, leaving: &mut Leaving) -> Result<()> {
        let start = self.cut.start(end);
        let whole = if self.cut.is_tumbling() { self.slices.remove(start) } else { None };
        let rows = if let Some(slice) = whole {
            slice.close(&self.slices.aggregates).map_err(|e| broken("closing", start, e))?
        } else {
            let partials = self.slices.partials(start..end)?;
            live::evaluated(&self.slices.aggregates, &partials).map_err(|e| broken("merging", start, e))?
        };
        leaving.bounds.start.extend(std::iter::repeat_n(start, rows.num_rows()));
        leaving.bounds.end.extend(std::iter::repeat_n(end, rows.num_rows()));
        leaving.groups.push(rows);
        Ok(())
    }

    /// Lets go of the slices whose last window has ended.
    fn forget(&mut self, end: i64) {
        while let Some(first) = self.slices.first().filter(|start| self.cut.last_end(*start) <= end) {
            self.slices.remove(first);
        }
    }

    /// Puts out closed windows as one batch, and leaves nothing.
    fn emit(&self, leaving: &mut Leaving, out: &mut dyn Output) -> Result<()> {
        let Leaving { bounds, groups } = std::mem::take(leaving);
        if bounds.start.is_empty() {
            return Ok(());
        }
        let aggregates = &self.slices.aggregates;
        let all = concat_batches(&aggregates.result_schema, groups.iter());
        let all = all.map_err(|e| Error::stop(format!("joining {} closed windows", groups.len()), e))?;
        out.count(Count::Emitted, bounds.start.len() as u64);
        out.rows(self.finish.rows(aggregates, &all, &bounds, self.watermark)?);
        Ok(())
    }
}
