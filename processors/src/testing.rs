//! Rows and an output for the tests of this room: columns device, value, event_time.

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use flow::{
    Batch, Count, DeadLetters, EventTime, Operator, Origin, Output, Reason, Result, StateReader, StateWriter, WallTime, event_time_field,
};
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
    // Later than every reading.
    let origin = Origin { source: "test".into(), producer: 0, topic: None, arrival: WallTime(i64::MAX / 2) };
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
    pub(crate) branches: Vec<(usize, Batch)>,
    /// Rows that may still be revised.
    pub(crate) panes: Vec<Batch>,
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
    fn branch(&mut self, branch: usize, batch: Batch) {
        self.branches.push((branch, batch));
    }
    fn pane(&mut self, batch: Batch) {
        self.panes.push(batch);
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

/// One row a text, with the names of its columns that are not null.
pub(crate) fn texts(batch: &Batch) -> Vec<String> {
    let mut lines = arrow::json::LineDelimitedWriter::new(Vec::new());
    lines.write(batch.rows()).unwrap();
    lines.finish().unwrap();
    String::from_utf8(lines.into_inner()).unwrap().lines().map(str::to_owned).collect()
}

/// What an operator made of readings: its rows and those it refused, sorted, and its counts.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) rows: Vec<String>,
    pub(crate) late: Vec<String>,
    pub(crate) dead: Vec<String>,
    pub(crate) counts: [u64; 3],
}

/// Gives readings to an operator as a lane does: batches of the lengths of `steps` (repeated), the watermark `lag` behind the greatest
/// time, marked in the trail where a row lies behind it. After each batch the step says: 1 save, 2 save and go on with a fresh
/// operator that loads it. At the end the watermark moves on to `end`.
pub(crate) fn drive(
    make: &dyn Fn() -> Box<dyn Operator>,
    readings: &[(&str, i64, i64)],
    steps: &[(usize, u8)],
    lag: i64,
    end: i64,
) -> Outcome {
    drive_marked(make, readings, steps, lag, end, false)
}

/// As `drive`; with `always` each batch is marked.
pub(crate) fn drive_marked(
    make: &dyn Fn() -> Box<dyn Operator>,
    readings: &[(&str, i64, i64)],
    steps: &[(usize, u8)],
    lag: i64,
    end: i64,
    always: bool,
) -> Outcome {
    let (mut operator, mut out, mut parts) = (make(), Collect::default(), Parts::default());
    let (mut w, mut from) = (i64::MIN, 0);
    for (length, what) in steps.iter().cycle() {
        let part = &readings[from..readings.len().min(from + length)];
        let before = w;
        let marks: Vec<i64> = part.iter().map(|r| (w, w = w.max(r.1 - lag)).0).collect();
        let behind = always || part.iter().zip(&marks).any(|(r, m)| r.1 <= *m);
        let mark: ArrayRef = Arc::new(Int64Array::from(marks));
        let trail = behind.then(|| RecordBatch::try_from_iter([(flow::trail::WATERMARK, mark)]).unwrap());
        if !part.is_empty() {
            operator.on_batch(batch(part).with_trail(trail), &mut out).unwrap();
        }
        if w > before {
            operator.on_watermark(EventTime(w), &mut out).unwrap();
        }
        if *what > 0 {
            operator.save(&mut parts).unwrap();
        }
        if *what > 1 {
            operator = make();
            operator.load(&mut parts).unwrap();
            let mut nothing = Collect::default();
            operator.on_watermark(EventTime(w), &mut nothing).unwrap();
            assert!(nothing.rows.is_empty(), "a restored operator put out rows of before its save");
        }
        from += part.len();
        if from == readings.len() {
            break;
        }
    }
    operator.on_watermark(EventTime(end), &mut out).unwrap();
    let sorted = |batches: &mut dyn Iterator<Item = &Batch>| {
        let mut all: Vec<_> = batches.flat_map(texts).collect();
        all.sort();
        all
    };
    Outcome {
        rows: sorted(&mut out.rows.iter()),
        late: sorted(&mut out.late.iter()),
        dead: sorted(&mut out.dead.iter().map(|d| &d.rows)),
        counts: [Count::Filtered, Count::Taken, Count::Emitted].map(|c| out.count(c)),
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
