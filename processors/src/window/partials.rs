//! The first stage of a window whose groups reach over lanes: each lane aggregates its own readings and gives out partial aggregates, one
//! row a group and slice, which `sliced` merges as the second stage.
//!
//! A partial leaves when W passes `due`, the least end of a window that it counts in, and is marked with `due` − 1: so the second stage
//! has every partial of a window before its own W passes the window's end, and what leaves depends neither on batches nor on saves. A
//! reading that comes when some of its windows have closed is in a slice of its own, due at the next end.
//!
//! State: one part a slice, named by due and start. Rows: `Aggregates::partial_schema`, then `event_time` = the slice's start.

use super::aggregates::Aggregates;
use super::cut::Cut;
use super::late::{self, Parted};
use super::live::{self, Partial};
use super::slices::{Intake, Slices, broken};
use crate::refuse::refuse;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{concat, concat_batches};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use flow::{
    Batch, Error, EventTime, Operator, Origin, Output, Reason, Result, StateReader, StateWriter, WallTime, event_time_field, trail,
};
use std::sync::Arc;

/// The column of late rows that says how many readings each stands for; null for a reading itself.
pub const READINGS: &str = "readings";

/// See the page.
pub(super) struct Partials {
    cut: Cut,
    /// By due and start; all are due above `watermark`.
    slices: Slices<(i64, i64)>,
    schema: SchemaRef,
    watermark: i64,
}

impl Partials {
    pub(super) fn new(cut: Cut, aggregates: Arc<Aggregates>, limits: (usize, usize)) -> Self {
        let mut fields = aggregates.partial_schema.fields().to_vec();
        fields.push(Arc::new(event_time_field()));
        let schema = Arc::new(Schema::new(fields));
        Self { cut, slices: Slices::new(aggregates, Intake::Readings, limits), schema, watermark: i64::MIN }
    }
}

impl Operator for Partials {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let Parted { kept, late } = late::part(batch, &self.cut, self.watermark, out)?;
        if let Some(late) = late {
            out.late(late);
        }
        let mut batch = kept;
        let columns = loop {
            match self.slices.aggregates.evaluate(batch.rows()) {
                Ok(columns) => break columns,
                Err(failed) => batch = refuse(batch, &failed.rows, Reason::Expression, failed.detail, out)?,
            }
        };
        self.take(&batch, &columns, out)
    }

    fn on_watermark(&mut self, w: EventTime, out: &mut dyn Output) -> Result<EventTime> {
        self.watermark = self.watermark.max(w.0);
        while let Some(first) = self.slices.first().filter(|(due, _)| *due <= self.watermark) {
            let batch = self.leaving(first)?;
            out.rows(batch);
        }
        Ok(EventTime(self.watermark))
    }

    fn next_timer(&self, w: EventTime) -> Option<EventTime> {
        self.slices.names().map(|(due, _)| EventTime(due)).find(|due| *due > w)
    }

    fn last_timer(&self) -> Option<EventTime> {
        self.slices.last().map(|(due, _)| EventTime(due))
    }

    fn save(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        self.slices.save(to)
    }

    fn load(&mut self, from: &mut dyn StateReader) -> Result<()> {
        self.slices.load(from)
    }

    fn held(&self) -> (u64, u64) {
        (self.slices.held().groups as u64, self.slices.held().bytes as u64)
    }
}

impl Partials {
    fn take(&mut self, batch: &Batch, columns: &[ArrayRef], out: &mut dyn Output) -> Result<()> {
        let Some((least, greatest)) = batch.time_range() else { return Ok(()) };
        let marks = batch.trail_column(trail::WATERMARK).map(|m| m.as_primitive::<Int64Type>().values());
        let newest = marks.and_then(|m| m.last().copied()).unwrap_or(self.watermark);
        let (first, last) = (self.name(least.0, newest), self.name(greatest.0, newest));
        // Where the newest mark makes no difference, no earlier one does.
        if first == last && first.0 == self.cut.first_end(least.0) {
            return self.slices.take_slice(first, columns, || Ok(batch.clone()), out);
        }
        let mark = |row: usize| marks.map_or(self.watermark, |m| m[row]);
        let names: Vec<_> = batch.times().iter().enumerate().map(|(row, time)| self.name(*time, mark(row))).collect();
        self.slices.take_rows(&names, batch, columns, out)
    }

    /// Due and start of the slice of a reading that comes at a watermark.
    fn name(&self, time: i64, w: i64) -> (i64, i64) {
        (self.cut.first_end(time).max(self.cut.first_end(w)), self.cut.slice(time))
    }

    /// Takes a slice out, as rows.
    fn leaving(&mut self, name: (i64, i64)) -> Result<Batch> {
        let mut slice = self.slices.remove(name).expect("the name is of an open slice");
        slice.merge(&self.slices.aggregates).map_err(|e| broken("merging", name, e))?;
        let partials = slice.partials(&self.slices.aggregates).map_err(|e| broken("reading", name, e))?;
        let batches = partials.iter().flat_map(Partial::batches);
        let partial = concat_batches(&self.slices.aggregates.partial_schema, batches).map_err(|e| broken("joining", name, e.into()))?;
        let (due, start) = name;
        let rows = partial.num_rows();
        let mut columns = partial.columns().to_vec();
        columns.push(Arc::new(TimestampMicrosecondArray::from_value(start, rows).with_timezone("UTC")));
        let marks: ArrayRef = Arc::new(Int64Array::from_value(due.saturating_sub(1), rows));
        let failed = |e| Error::stop("rows of partial aggregates", e);
        let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(failed)?;
        let beside = RecordBatch::try_from_iter([(trail::WATERMARK, marks)]).map_err(failed)?;
        let origin = Origin { source: "window".into(), producer: 0, topic: None, arrival: WallTime(self.watermark) };
        Ok(Batch::new(rows, Arc::new(origin))?.with_trail(Some(beside)))
    }
}

/// Partial aggregates that came too late for the second stage: their key, the start of their slice, and for how many readings each stands.
pub(super) fn late_rows(aggregates: &Aggregates, late: &Batch) -> Result<Batch> {
    let width = aggregates.partial_schema.fields().len();
    let readings = aggregates.readings.as_ref().expect("aggregates of two stages count their readings");
    let mut counts = vec![];
    for row in 0..late.len() {
        let columns = late.rows().columns()[..width].iter().map(|c| c.slice(row, 1)).collect();
        let partial = RecordBatch::try_new(aggregates.partial_schema.clone(), columns);
        let partial = partial.map_err(|e| Error::stop("a late partial aggregate", e))?;
        let group = live::evaluated(aggregates, &[Partial::of(partial)]).map_err(|e| broken("counting", late.times()[row], e))?;
        counts.push(readings.evaluate(&group).values);
    }
    let counts: Vec<_> = counts.iter().map(AsRef::as_ref).collect();
    let counted = concat(&counts).map_err(|e| Error::stop("counting late readings", e))?;
    let (mut fields, mut columns) = (vec![], vec![]);
    for (field, column) in aggregates.key_fields().iter().zip(&late.rows().columns()[aggregates.hidden()..]) {
        fields.push(field.as_ref().clone());
        columns.push(column.clone());
    }
    fields.extend([Field::new(READINGS, DataType::Int64, true), event_time_field()]);
    columns.extend([counted, late.rows().columns()[width].clone()]);
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| Error::stop("late partial aggregates", e))?;
    late.with_rows(rows)
}
