//! Windows of fixed edges with one pane each: tumbling, hopping and calendar windows that take no reading after their close.
//!
//! A reading is aggregated once, into the slice of time between two neighbouring edges; a window is the merge of its slices, so a
//! hopping window costs a reading the same at any overlap. Results are as if each row were a batch of its own: before a row that is
//! behind the close of a window which would still take it, that window is closed.
//!
//! State: one part a slice, named by its start in microseconds, holding partial aggregates (see `slice`). After a load the driver
//! tells the watermark of the record by `on_watermark` before any batch.

use super::aggregates::Aggregates;
use super::cut::Cut;
use super::output::{Bounds, Finish};
use super::slice::{Held, Slice, merged};
use crate::refuse::refuse;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, not, take};
use arrow::datatypes::{Int64Type, SchemaRef};
use flow::{Batch, Count, DeadLetters, Error, EventTime, Operator, Output, Reason, Result, StateReader, StateWriter, trail};
use std::collections::BTreeMap;

/// Closed windows are put out in batches of about so many rows: as a decoder makes them.
const EMITTED_ROWS: usize = 8_192;

/// See the page.
pub(super) struct Sliced {
    cut: Cut,
    aggregates: Aggregates,
    finish: Finish,
    max_keys: usize,
    max_state: usize,
    /// Open slices by start: the last window of each ends above `watermark`.
    slices: BTreeMap<i64, Slice>,
    /// What all of `slices` hold: counted with each change of one, since there may be many.
    held: Held,
    /// Slices that are gone and still stored.
    gone: Vec<i64>,
    watermark: i64,
    /// The state is loaded, and the next watermark is the one it was saved at: its windows have been given out.
    loaded: bool,
    /// Scratch: the group of each row.
    groups: Vec<usize>,
}

/// Rows on their way out.
#[derive(Default)]
struct Leaving {
    bounds: Bounds,
    groups: Vec<RecordBatch>,
}

impl Sliced {
    pub(super) fn new(cut: Cut, aggregates: Aggregates, finish: Finish, limits: (usize, usize)) -> Self {
        Self {
            cut,
            aggregates,
            finish,
            max_keys: limits.0,
            max_state: limits.1,
            slices: BTreeMap::new(),
            held: Held::default(),
            gone: Vec::new(),
            watermark: i64::MIN,
            loaded: false,
            groups: Vec::new(),
        }
    }
}

impl Operator for Sliced {
    fn schema(&self) -> SchemaRef {
        self.finish.schema.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let batch = self.divert(batch, out)?;
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
        self.slices.last_key_value().map(|(start, _)| EventTime(self.cut.last_end(*start)))
    }

    fn save(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        for start in self.gone.drain(..) {
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
        // A tumbling window is gone with its close.
        self.loaded = !self.cut.is_tumbling();
        Ok(())
    }

    fn held(&self) -> (u64, u64) {
        (self.held.groups as u64, self.held.bytes as u64)
    }
}

impl Sliced {
    /// Gives away the rows of which every window had closed at the W of their moment, and those that lie between windows.
    fn divert(&self, batch: Batch, out: &mut dyn Output) -> Result<Batch> {
        let Some((least, greatest)) = batch.time_range() else { return Ok(batch) };
        let batch = match self.late(&batch, least.0) {
            Some(late) => {
                out.late(batch.filter(&late)?);
                batch.filter(&not(&late).map_err(|e| Error::stop("inverting the late rows", e))?)?
            }
            None => batch,
        };
        let of_one = self.cut.slice(least.0) == self.cut.slice(greatest.0) && self.cut.covers(least.0);
        if of_one || !self.cut.has_gaps() {
            return Ok(batch);
        }
        let covered: BooleanArray = batch.times().iter().map(|t| Some(self.cut.covers(*t))).collect();
        out.count(Count::Filtered, covered.false_count() as u64);
        batch.filter(&covered)
    }

    /// True for the late rows; none where no row is.
    fn late(&self, batch: &Batch, least: i64) -> Option<BooleanArray> {
        let marks = batch.trail_column(trail::WATERMARK).map(|m| m.as_primitive::<Int64Type>().values());
        let newest = marks.and_then(|m| m.last().copied()).unwrap_or(self.watermark);
        if self.cut.last_end(least) > newest {
            return None;
        }
        let mark = |row: usize| marks.map_or(self.watermark, |m| m[row]);
        let is_late = |(row, time): (usize, &i64)| Some(self.cut.last_end(*time) <= mark(row) && self.cut.covers(*time));
        let late: BooleanArray = batch.times().iter().enumerate().map(is_late).collect();
        late.has_true().then_some(late)
    }

    fn take(&mut self, mut batch: Batch, out: &mut dyn Output) -> Result<()> {
        let columns = loop {
            match self.aggregates.evaluate(batch.rows()) {
                Ok(columns) => break columns,
                Err(failed) => batch = refuse(batch, &failed.rows, Reason::Expression, failed.detail, out)?,
            }
        };
        self.take_rows(&batch, &columns, out)
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
        self.slices.keys().find_map(|start| Some(self.cut.first_end(*start).max(any)).filter(|end| *end <= self.cut.last_end(*start)))
    }

    fn close_window(&mut self, end: i64, leaving: &mut Leaving) -> Result<()> {
        let start = self.cut.start(end);
        let whole = if self.cut.is_tumbling() { self.slices.remove(&start) } else { None };
        let rows = if let Some(slice) = whole {
            self.let_go(start, &slice);
            slice.close(&self.aggregates).map_err(|e| broken("closing", start, e))?
        } else {
            let mut partials = vec![];
            for (at, slice) in self.slices.range_mut(start..end) {
                let before = slice.held();
                partials.extend(slice.partials(&self.aggregates).map_err(|e| broken("reading", *at, e))?);
                self.held.change(before, slice.held());
            }
            merged(&self.aggregates, &partials).map_err(|e| broken("merging", start, e))?
        };
        leaving.bounds.start.extend(std::iter::repeat_n(start, rows.num_rows()));
        leaving.bounds.end.extend(std::iter::repeat_n(end, rows.num_rows()));
        leaving.groups.push(rows);
        Ok(())
    }

    /// Lets go of the slices whose last window has ended.
    fn forget(&mut self, end: i64) {
        while let Some(first) = self.slices.first_entry() {
            if self.cut.last_end(*first.key()) > end {
                break;
            }
            let (start, slice) = first.remove_entry();
            self.let_go(start, &slice);
        }
    }

    /// Counts a slice out that is no longer among `slices`.
    fn let_go(&mut self, start: i64, slice: &Slice) {
        self.held.change(slice.held(), Held::default());
        if slice.is_stored() {
            self.gone.push(start);
        }
    }

    /// Adds rows to their slices: one call a slice, rows in their order.
    fn take_rows(&mut self, batch: &Batch, columns: &[ArrayRef], out: &mut dyn Output) -> Result<()> {
        let Some((least, greatest)) = batch.time_range() else { return Ok(()) };
        let start = self.cut.slice(least.0);
        if start == self.cut.slice(greatest.0) {
            return self.take_slice(start, batch, columns, out);
        }
        let starts: Vec<i64> = batch.times().iter().map(|t| self.cut.slice(*t)).collect();
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

    /// Puts out closed windows as one batch, and leaves nothing.
    fn emit(&self, leaving: &mut Leaving, out: &mut dyn Output) -> Result<()> {
        let Leaving { bounds, groups } = std::mem::take(leaving);
        if bounds.start.is_empty() {
            return Ok(());
        }
        let all = concat_batches(&self.aggregates.result_schema, groups.iter());
        let all = all.map_err(|e| Error::stop(format!("joining {} closed windows", groups.len()), e))?;
        out.count(Count::Emitted, bounds.start.len() as u64);
        out.rows(self.finish.rows(&self.aggregates, &all, &bounds, self.watermark)?);
        Ok(())
    }
}

fn broken(doing: &str, start: i64, cause: datafusion::common::DataFusionError) -> Error {
    Error::stop(format!("{doing} the window slice at {start}"), cause)
}
