//! Readings of devices in random order: 100,000 a second of event time, so that a window of 10 s holds a million.

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use flow::{Batch, LookupShape, LookupVersion, Origin, WallTime, event_time_field};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::ops::Range;
use std::sync::Arc;

/// As many as a decoder puts into a batch.
const BATCH: usize = 8_192;

/// Microseconds between two readings of all devices together.
const STEP: i64 = 10;

/// 2025-01-01T00:00:00Z, in microseconds.
const START: i64 = 1_735_689_600_000_000;

/// The batches of a case.
pub(crate) struct Input {
    pub(crate) batches: Vec<Batch>,
    pub(crate) rows: usize,
}

/// device, value (0 to 100), sequence (of the device, from 0), event_time.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("device", DataType::Utf8View, false),
        Field::new("value", DataType::Float64, true),
        Field::new("sequence", DataType::Int64, true),
        event_time_field(),
    ]))
}

impl Input {
    /// The same arguments give the same rows. With `overtaken` one row in a hundred is up to 4 s behind.
    pub(crate) fn make(rows: usize, devices: usize, overtaken: bool) -> Result<Self, Box<dyn std::error::Error>> {
        let mut random = StdRng::seed_from_u64(1);
        let mut sequences = vec![0_i64; devices];
        let origin = origin();
        let (mut batches, mut time) = (Vec::new(), START);
        for from in (0..rows).step_by(BATCH) {
            let length = BATCH.min(rows - from);
            batches.push(Batch::new(batch(length, &mut random, &mut sequences, &mut time, overtaken)?, origin.clone())?);
        }
        Ok(Self { batches, rows })
    }
}

/// A reading of each of these devices, all in one window.
pub(crate) fn one_window(devices: Range<usize>) -> Result<Vec<Batch>, Box<dyn std::error::Error>> {
    let all: Vec<usize> = devices.collect();
    let mut batches = vec![];
    for part in all.chunks(BATCH) {
        let device: ArrayRef = Arc::new(StringViewArray::from_iter_values(part.iter().map(|device| name(*device))));
        let value: ArrayRef = Arc::new(Float64Array::from_value(1.0, part.len()));
        let sequence: ArrayRef = Arc::new(Int64Array::from_value(0, part.len()));
        let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from_value(START, part.len()).with_timezone("UTC"));
        let rows = RecordBatch::try_new(schema(), vec![device, value, sequence, time])?;
        batches.push(Batch::new(rows, origin())?);
    }
    Ok(batches)
}

/// A lookup table of this many devices: device, site, limit.
pub(crate) fn lookup(devices: usize) -> Result<(LookupShape, LookupVersion), ArrowError> {
    let fields = vec![
        Field::new("device", DataType::Utf8View, false),
        Field::new("site", DataType::Utf8View, true),
        Field::new("limit", DataType::Float64, true),
    ];
    let schema = Arc::new(Schema::new(fields));
    let device: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..devices).map(name)));
    let site: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..devices).map(|device| format!("site-{}", device % 100))));
    let limit: ArrayRef = Arc::new(Float64Array::from_iter_values((0..devices).map(|device| device as f64)));
    let rows = RecordBatch::try_new(schema.clone(), vec![device, site, limit])?;
    let shape = LookupShape { name: "devices".into(), schema, key: vec!["device".into()], valid_from: None };
    Ok((shape, LookupVersion { lookup: "devices".into(), number: 1, rows }))
}

/// Short enough to lie within a view.
fn name(device: usize) -> String {
    format!("dev-{device:07}")
}

fn origin() -> Arc<Origin> {
    Arc::new(Origin { source: "bench".into(), producer: 0, topic: None, arrival: WallTime(2 * START) })
}

fn batch(rows: usize, random: &mut StdRng, sequences: &mut [i64], time: &mut i64, overtaken: bool) -> Result<RecordBatch, ArrowError> {
    let (mut names, mut values, mut numbers, mut times) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rows {
        let device = random.random_range(0..sequences.len());
        names.push(name(device));
        values.push(random.random_range(0.0..100.0));
        numbers.push(sequences[device]);
        sequences[device] += 1;
        *time += STEP;
        let behind = if overtaken && random.random_range(0..100) == 0 { random.random_range(0..4_000_000) } else { 0 };
        times.push((*time - behind).max(START));
    }
    let device: ArrayRef = Arc::new(StringViewArray::from_iter_values(names));
    let value: ArrayRef = Arc::new(Float64Array::from(values));
    let sequence: ArrayRef = Arc::new(Int64Array::from(numbers));
    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
    RecordBatch::try_new(schema(), vec![device, value, sequence, time])
}
