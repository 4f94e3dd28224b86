//! Rows and an output for the tests of this room: columns device, value, event_time.

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use flow::{Batch, Count, DeadLetters, Origin, Output, Reason, Result, StateReader, StateWriter, WallTime, event_time_field};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) fn schema() -> SchemaRef {
    let device = Field::new("device", DataType::Utf8View, false);
    Arc::new(Schema::new(vec![device, Field::new("value", DataType::Int64, true), event_time_field()]))
}

pub(crate) fn rows(readings: &[(&str, i64, i64)]) -> RecordBatch {
    let device: ArrayRef = Arc::new(StringViewArray::from_iter_values(readings.iter().map(|r| r.0)));
    let value: ArrayRef = Arc::new(Int64Array::from_iter_values(readings.iter().map(|r| r.2)));
    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(readings.iter().map(|r| r.1)).with_timezone("UTC"));
    RecordBatch::try_new(schema(), vec![device, value, time]).unwrap()
}

pub(crate) fn batch(readings: &[(&str, i64, i64)]) -> Batch {
    let origin = Origin { source: "test".into(), producer: 0, topic: None, arrival: WallTime(0) };
    Batch::new(rows(readings), Arc::new(origin)).unwrap()
}

pub(crate) fn ints(values: &ArrayRef) -> Vec<Option<i64>> {
    values.as_primitive::<Int64Type>().iter().collect()
}

/// Keeps everything an operator puts out.
#[derive(Default)]
pub(crate) struct Collect {
    pub(crate) rows: Vec<Batch>,
    pub(crate) late: Vec<Batch>,
    pub(crate) dead: Vec<DeadLetters>,
    counts: Vec<(Count, u64)>,
}

impl Collect {
    /// (device, event time, value) of all rows, for operators that keep the columns.
    pub(crate) fn readings(&self) -> Vec<(String, i64, i64)> {
        let of = |b: &Batch| {
            let (device, value) = (b.rows().column(0).as_string_view().clone(), ints(b.rows().column(1)));
            let times = b.times().to_vec();
            (0..b.len()).map(move |i| (device.value(i).to_owned(), times[i], value[i].unwrap())).collect::<Vec<_>>()
        };
        self.rows.iter().flat_map(of).collect()
    }

    pub(crate) fn count(&self, what: Count) -> u64 {
        self.counts.iter().filter(|c| c.0 == what).map(|c| c.1).sum()
    }

    pub(crate) fn refused(&self) -> Vec<(Reason, usize)> {
        self.dead.iter().map(|d| (d.reason, d.rows.len())).collect()
    }
}

impl Output for Collect {
    fn rows(&mut self, batch: Batch) {
        self.rows.push(batch);
    }
    fn late(&mut self, batch: Batch) {
        self.late.push(batch);
    }
    fn dead(&mut self, letters: DeadLetters) {
        self.dead.push(letters);
    }
    fn count(&mut self, what: Count, rows: u64) {
        self.counts.push((what, rows));
    }
}

/// State as the storage keeps it: parts by name, batches in the order of the saves.
#[derive(Default)]
pub(crate) struct Parts(pub(crate) BTreeMap<String, Vec<RecordBatch>>);

impl StateWriter for Parts {
    fn append(&mut self, part: &str, rows: RecordBatch) {
        let batches = self.0.entry(part.to_owned()).or_default();
        assert!(batches.first().is_none_or(|b| b.schema() == rows.schema()), "part {part} has two schemas");
        batches.push(rows);
    }
    fn remove(&mut self, part: &str) {
        self.0.remove(part);
    }
}

impl StateReader for Parts {
    fn parts(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
    fn read(&mut self, part: &str) -> Result<Vec<RecordBatch>> {
        Ok(self.0.get(part).cloned().unwrap_or_default())
    }
}
