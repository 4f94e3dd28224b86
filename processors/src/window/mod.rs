//! `window`: aggregates of readings by key and span of event time. Tumbling windows so far.
//!
//! A window `[start, end)` closes when W ≥ end; its row is given out once, then its state is gone. A reading whose window has
//! closed at the W of its moment is late. Output columns: the key columns, `window_start`, `window_end`, `event_time` =
//! `window_end` − 1 µs, the columns of `select`, and `pane` (always 0: a closed window is never revised). A `select` expression that
//! fails on a finished window (a division by zero) gives null.
//!
//! State: one part a slice, named by its start in microseconds, holding partial aggregates (see `slice`). After a load the driver
//! tells the watermark of the record by `on_watermark` before any batch.

mod aggregates;
mod first_last;
#[cfg(test)]
mod golden;
mod options;
mod slice;
#[cfg(test)]
mod tests;
mod warnings;

use crate::refuse::refuse;
use crate::{BuildError, error};
use aggregates::Aggregates;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{concat_batches, not, take};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use flow::{Batch, Count, EVENT_TIME, Error, EventTime, Operator, Origin, Output, Reason, Result, StateReader, StateWriter, WallTime};
use flow::{DeadLetters, event_time_field, event_time_type, trail};
pub use options::{WindowKind, WindowOptions, WindowShape};
use slice::{Held, Slice};
use std::collections::BTreeMap;
use std::sync::Arc;
pub use warnings::warnings;

const START: &str = "window_start";
const END: &str = "window_end";
const PANE: &str = "pane";

/// Closed windows are put out in batches of about so many rows: as a decoder makes them.
const EMITTED_ROWS: usize = 8_192;

/// Builds the operator for rows of the schema `input`.
pub fn build(options: &WindowOptions, input: &SchemaRef) -> Result<Box<dyn Operator>, BuildError> {
    options.check()?;
    error::column(input, "key", EVENT_TIME)?;
    let ours = [START, END, EVENT_TIME, PANE];
    let taken = |name: &&String| ours.contains(&name.as_str()) || options.key.contains(name);
    if let Some(name) = options.select.keys().find(taken) {
        return Err(BuildError::new(format!("select.{name}"), format!("every window has a column `{name}` already")));
    }
    let aggregates = Aggregates::parse(&options.select, &options.key, input)?;
    Ok(Box::new(Window {
        schema: output_schema(&aggregates),
        aggregates,
        size: options.window.size.0.0,
        offset: options.window.offset.0.0,
        max_keys: usize::try_from(options.max_keys).unwrap_or(usize::MAX),
        max_state: usize::try_from(options.max_state.as_u64()).unwrap_or(usize::MAX),
        slices: BTreeMap::new(),
        held: Held::default(),
        closed: Vec::new(),
        watermark: i64::MIN,
        groups: Vec::new(),
    }))
}

fn output_schema(aggregates: &Aggregates) -> SchemaRef {
    let mut fields: Vec<Field> = aggregates.key_schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.extend([START, END].map(|name| Field::new(name, event_time_type(), false)));
    fields.push(event_time_field());
    fields.extend(aggregates.outputs.iter().map(|(name, e)| Field::new(name, e.data_type().clone(), true)));
    fields.push(Field::new(PANE, DataType::Int32, false));
    Arc::new(Schema::new(fields))
}

struct Window {
    schema: SchemaRef,
    aggregates: Aggregates,
    size: i64,
    offset: i64,
    max_keys: usize,
    max_state: usize,
    /// Open slices by start. Every end is above `watermark`.
    slices: BTreeMap<i64, Slice>,
    /// What all of `slices` hold: counted with each change of one, since there may be many.
    held: Held,
    /// Closed slices that are still stored.
    closed: Vec<i64>,
    watermark: i64,
    /// Scratch: the group of each row.
    groups: Vec<usize>,
}

impl Operator for Window {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let mut batch = self.divert_late(batch, out)?;
        let columns = loop {
            match self.aggregates.evaluate(batch.rows()) {
                Ok(columns) => break columns,
                Err(failed) => batch = refuse(batch, &failed.rows, Reason::Expression, failed.detail, out)?,
            }
        };
        self.take_rows(&batch, &columns, out)
    }

    fn on_watermark(&mut self, w: EventTime, out: &mut dyn Output) -> Result<EventTime> {
        self.watermark = self.watermark.max(w.0);
        let (mut starts, mut closed) = (vec![], vec![]);
        while let Some(open) = self.slices.first_entry() {
            let start = *open.key();
            if start.saturating_add(self.size) > self.watermark {
                break;
            }
            let slice = open.remove();
            self.held.change(slice.held(), Held::default());
            if slice.is_stored() {
                self.closed.push(start);
            }
            let rows = slice.close(&self.aggregates).map_err(|e| broken("closing", start, e))?;
            starts.extend(std::iter::repeat_n(start, rows.num_rows()));
            closed.push(rows);
            if starts.len() >= EMITTED_ROWS {
                self.emit(&mut starts, &mut closed, out)?;
            }
        }
        self.emit(&mut starts, &mut closed, out)?;
        Ok(EventTime(self.watermark))
    }

    fn next_timer(&self, w: EventTime) -> Option<EventTime> {
        self.slices.keys().map(|s| s.saturating_add(self.size)).find(|end| *end > w.0).map(EventTime)
    }

    fn last_timer(&self) -> Option<EventTime> {
        self.slices.last_key_value().map(|(start, _)| EventTime(start.saturating_add(self.size)))
    }

    fn save(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        for start in self.closed.drain(..) {
            to.remove(&start.to_string());
        }
        for (start, slice) in &mut self.slices {
            if slice.is_saved() {
                continue;
            }
            let before = slice.held();
            let change = slice.save(&self.aggregates).map_err(|e| broken("saving", *start, e))?;
            self.held.change(before, slice.held());
            let part = start.to_string();
            if change.replace {
                to.remove(&part);
            }
            for rows in change.append {
                to.append(&part, rows);
            }
        }
        Ok(())
    }

    fn load(&mut self, from: &mut dyn StateReader) -> Result<()> {
        for part in from.parts() {
            let start: i64 = part.parse().map_err(|e| Error::stop(format!("window state has a part `{part}`, not a time"), e))?;
            let partials = from.read(&part)?;
            let mut checked = Vec::with_capacity(partials.len());
            for rows in partials {
                let rows = RecordBatch::try_new(self.aggregates.partial_schema.clone(), rows.columns().to_vec());
                checked.push(rows.map_err(|e| Error::stop(format!("window state of slice {start} is of other aggregates"), e))?);
            }
            let slice = Slice::load(checked);
            self.held.change(Held::default(), slice.held());
            self.slices.insert(start, slice);
        }
        Ok(())
    }

    fn held(&self) -> (u64, u64) {
        (self.held.groups as u64, self.held.bytes as u64)
    }
}

impl Window {
    fn start_of(&self, time: i64) -> i64 {
        time.saturating_sub(self.offset).div_euclid(self.size).saturating_mul(self.size).saturating_add(self.offset)
    }

    /// Gives away the rows whose window had closed at the W of their moment.
    fn divert_late(&self, batch: Batch, out: &mut dyn Output) -> Result<Batch> {
        let marks = batch.trail_column(trail::WATERMARK).map(|m| m.as_primitive::<Int64Type>().values());
        let is_late = |time: i64, w: i64| self.start_of(time).saturating_add(self.size) <= w;
        let late: BooleanArray = match (marks, batch.time_range()) {
            (_, None) => return Ok(batch),
            (Some(marks), _) => batch.times().iter().zip(marks).map(|(t, w)| Some(is_late(*t, *w))).collect(),
            (None, Some((least, _))) if !is_late(least.0, self.watermark) => return Ok(batch),
            (None, _) => batch.times().iter().map(|t| Some(is_late(*t, self.watermark))).collect(),
        };
        if !late.has_true() {
            return Ok(batch);
        }
        out.late(batch.filter(&late)?);
        batch.filter(&not(&late).map_err(|e| Error::stop("inverting the late rows", e))?)
    }

    /// Adds rows to their slices: one call a slice, rows in their order.
    fn take_rows(&mut self, batch: &Batch, columns: &[ArrayRef], out: &mut dyn Output) -> Result<()> {
        let Some((least, greatest)) = batch.time_range() else { return Ok(()) };
        let start = self.start_of(least.0);
        if start == self.start_of(greatest.0) {
            return self.take_slice(start, batch, columns, out);
        }
        let starts: Vec<i64> = batch.times().iter().map(|t| self.start_of(*t)).collect();
        if starts.is_sorted() {
            return self.take_runs(&starts, batch, columns, out);
        }
        let mut order: Vec<u32> = (0..).take(starts.len()).collect();
        order.sort_by_key(|row| starts[*row as usize]);
        let starts: Vec<i64> = order.iter().map(|row| starts[*row as usize]).collect();
        let order = UInt32Array::from(order);
        let taken: Result<Vec<_>, _> = columns.iter().map(|c| take(c, &order, None)).collect();
        let taken = taken.map_err(|e| Error::stop("ordering rows by window", e))?;
        self.take_runs(&starts, &batch.take(&order)?, &taken, out)
    }

    fn take_runs(&mut self, starts: &[i64], batch: &Batch, columns: &[ArrayRef], out: &mut dyn Output) -> Result<()> {
        let mut from = 0;
        for run in starts.chunk_by(|a, b| a == b) {
            let part: Vec<_> = columns.iter().map(|c| c.slice(from, run.len())).collect();
            self.take_slice(run[0], &batch.slice(from, run.len()), &part, out)?;
            from += run.len();
        }
        Ok(())
    }

    fn take_slice(&mut self, start: i64, batch: &Batch, columns: &[ArrayRef], out: &mut dyn Output) -> Result<()> {
        if self.held.groups.saturating_add(batch.len()) > self.max_keys || self.held.bytes > self.max_state {
            return self.take_admitted(start, batch, columns, out);
        }
        self.add(start, columns)?;
        out.count(Count::Taken, batch.len() as u64);
        Ok(())
    }

    /// Near a limit: rows of known groups are taken, and new groups as far as there is room. No row where a function keeps them all and
    /// there are no bytes left.
    fn take_admitted(&mut self, start: i64, batch: &Batch, columns: &[ArrayRef], out: &mut dyn Output) -> Result<()> {
        let key = &columns[..self.aggregates.key.len()];
        let full = self.held.bytes > self.max_state;
        let slice = self.slices.entry(start).or_default();
        let before = slice.held();
        // Merged first, so that a group counts once here.
        slice.merge(&self.aggregates).map_err(|e| broken("merging", start, e))?;
        self.held.change(before, slice.held());
        let room = if full { 0 } else { self.max_keys.saturating_sub(self.held.groups) };
        let admitted = if full && self.aggregates.grows {
            BooleanArray::from(vec![false; batch.len()])
        } else {
            slice.admit(&self.aggregates, key, room, &mut self.groups).map_err(|e| broken("limiting", start, e))?
        };
        if slice.held() == Held::default() && !admitted.has_true() {
            self.slices.remove(&start);
        }
        let refused = not(&admitted).map_err(|e| Error::stop("inverting the admitted rows", e))?;
        if refused.has_true() {
            let detail = format!("the window holds its limit of {} groups or {} bytes", self.max_keys, self.max_state);
            out.dead(DeadLetters { rows: batch.filter(&refused)?, reason: Reason::StateLimit, detail });
        }
        let kept: Result<Vec<_>, _> = columns.iter().map(|c| arrow::compute::filter(c, &admitted)).collect();
        let kept = kept.map_err(|e| Error::stop("selecting the admitted rows", e))?;
        if admitted.has_true() {
            self.add(start, &kept)?;
            out.count(Count::Taken, admitted.true_count() as u64);
        }
        Ok(())
    }

    fn add(&mut self, start: i64, columns: &[ArrayRef]) -> Result<()> {
        let slice = self.slices.entry(start).or_default();
        let before = slice.held();
        slice.add(&self.aggregates, columns, &mut self.groups).map_err(|e| broken("adding to", start, e))?;
        self.held.change(before, slice.held());
        Ok(())
    }

    /// Puts out closed windows as one batch: `closed` one after the other, and for each of their rows its start. Leaves both empty.
    fn emit(&self, starts: &mut Vec<i64>, closed: &mut Vec<RecordBatch>, out: &mut dyn Output) -> Result<()> {
        if !starts.is_empty() {
            let groups = concat_batches(&self.aggregates.result_schema, closed.iter());
            let groups = groups.map_err(|e| Error::stop(format!("joining {} closed windows", closed.len()), e))?;
            out.count(Count::Emitted, starts.len() as u64);
            out.rows(self.finished(starts, &groups)?);
        }
        starts.clear();
        closed.clear();
        Ok(())
    }

    /// The rows of closed windows, with the start of each.
    fn finished(&self, starts: &[i64], groups: &RecordBatch) -> Result<Batch> {
        let time = |of: &dyn Fn(i64) -> i64| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_iter_values(starts.iter().map(|start| of(*start))).with_timezone("UTC"))
        };
        let end = |start: i64| start.saturating_add(self.size);
        let mut columns = groups.columns()[..self.aggregates.key.len()].to_vec();
        columns.extend([time(&|start| start), time(&end), time(&|start| end(start).saturating_sub(1))]);
        columns.extend(self.aggregates.outputs.iter().map(|(_, output)| output.evaluate(groups).values));
        columns.push(Arc::new(Int32Array::from_value(0, starts.len())));
        let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| Error::stop("rows of closed windows", e))?;
        let origin = Origin { source: "window".into(), producer: 0, topic: None, arrival: WallTime(self.watermark) };
        Batch::new(rows, Arc::new(origin))
    }
}

fn broken(doing: &str, start: i64, cause: datafusion::common::DataFusionError) -> Error {
    Error::stop(format!("{doing} the window slice at {start}"), cause)
}
