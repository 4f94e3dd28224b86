//! The reference readings: devices that send every 10 s, a little early or late, what sensors measure.
//!
//! Columns are device, site, event_time, seq, temperature (2 decimals), pressure and humidity (1), battery (2), rssi. A value of a device
//! follows the one before, as measured values do: temperature and humidity drift and follow the day, the battery falls by 10 mV an hour
//! and is read with noise, the signal's strength varies by 2 dB. Times are whole milliseconds, up to 250 ms off.

use arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::f64::consts::TAU;
use std::sync::Arc;
use storage::{TableOptions, TableSpec};

/// 2026-01-01T00:00:00Z.
const START_MS: i64 = 1_767_225_600_000;
/// Milliseconds from one reading of a device to the next, on average.
const EVERY_MS: i64 = 10_000;
/// How far a reading may be off.
const JITTER_MS: i64 = 250;
const SITES: usize = 20;

/// The measured columns with the digits that they have after the point.
pub(crate) const MEASURED: [(&str, u32); 4] = [("temperature", 2), ("pressure", 1), ("humidity", 1), ("battery", 2)];

/// The devices and where they are in time.
pub(crate) struct Fleet {
    random: StdRng,
    devices: Vec<Device>,
    decimals: bool,
    sent: i64,
}

struct Device {
    phase_ms: i64,
    values: [f64; 4],
    rssi: f64,
}

/// The table of the readings; measured values are floats, or decimals of nine digits.
pub(crate) fn spec(decimals: bool) -> TableSpec {
    let text = |name: &str| Field::new(name, DataType::Utf8View, false);
    let mut fields = vec![text("device"), text("site"), flow::event_time_field(), Field::new("seq", DataType::Int64, false)];
    fields.extend(MEASURED.iter().map(|(name, digits)| {
        let of = if decimals { DataType::Decimal128(9, *digits as i8) } else { DataType::Float64 };
        Field::new(*name, of, false)
    }));
    fields.push(Field::new("rssi", DataType::Int32, false));
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    TableSpec { name: "readings".into(), schema, key: vec!["device".into()], options: TableOptions::default() }
}

impl Fleet {
    pub(crate) fn new(devices: usize, decimals: bool, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut between = |from: f64, to: f64| random.random_range(from..to);
        let device = |_| Device {
            phase_ms: between(0.0, EVERY_MS as f64) as i64,
            values: [between(15.0, 25.0), between(990.0, 1_020.0), between(30.0, 70.0), between(3.5, 4.2)],
            rssi: between(-85.0, -55.0),
        };
        let devices = (0..devices).map(device).collect();
        Self { random, devices, decimals, sent: 0 }
    }

    /// The next readings of each device, in the order in which they were made.
    pub(crate) fn next(&mut self, readings: i64) -> RecordBatch {
        let rows = readings as usize * self.devices.len();
        let mut columns = Columns::with_capacity(rows);
        for seq in self.sent..self.sent + readings {
            for (number, device) in self.devices.iter_mut().enumerate() {
                let jitter = self.random.random_range(-JITTER_MS..=JITTER_MS);
                columns.device.push(number);
                columns.time.push((START_MS + device.phase_ms + seq * EVERY_MS + jitter) * 1_000);
                columns.seq.push(seq);
                device.measure(seq, &mut self.random).into_iter().zip(&mut columns.measured).for_each(|(value, column)| column.push(value));
                columns.rssi.push((device.rssi + normal(&mut self.random) * 2.0).round() as i32);
            }
        }
        self.sent += readings;
        columns.batch(self.decimals)
    }
}

impl Device {
    fn measure(&mut self, seq: i64, random: &mut StdRng) -> [f64; 4] {
        let hours = (seq * EVERY_MS) as f64 / 3_600_000.0;
        for (value, step) in self.values.iter_mut().zip([0.03, 0.02, 0.1, 0.0]) {
            *value += normal(random) * step;
        }
        let [temperature, pressure, humidity, battery] = self.values;
        let noise = normal(random) * 0.002;
        [temperature + 5.0 * (hours / 24.0 * TAU).sin(), pressure, humidity, battery - 0.01 * hours + noise]
    }
}

#[derive(Default)]
struct Columns {
    device: Vec<usize>,
    time: Vec<i64>,
    seq: Vec<i64>,
    measured: [Vec<f64>; 4],
    rssi: Vec<i32>,
}

impl Columns {
    fn with_capacity(rows: usize) -> Self {
        let measured = [(); 4].map(|()| Vec::with_capacity(rows));
        let [time, seq] = [(); 2].map(|()| Vec::with_capacity(rows));
        Self { device: Vec::with_capacity(rows), time, seq, measured, rssi: Vec::with_capacity(rows) }
    }

    fn batch(self, decimals: bool) -> RecordBatch {
        let text = |name: &dyn Fn(usize) -> String| -> ArrayRef {
            Arc::new(StringViewArray::from_iter_values(self.device.iter().map(|device| name(*device))))
        };
        let mut columns = vec![
            text(&|device| format!("device-{device:05}")),
            text(&|device| format!("site-{:02}", device % SITES)),
            Arc::new(TimestampMicrosecondArray::from(self.time).with_timezone("UTC")),
            Arc::new(Int64Array::from(self.seq)),
        ];
        columns.extend(self.measured.into_iter().zip(MEASURED).map(|(values, (_, digits))| measured(&values, digits, decimals)));
        columns.push(Arc::new(Int32Array::from(self.rssi)));
        RecordBatch::try_new(spec(decimals).schema, columns).expect("columns are made as the table has them")
    }
}

/// What a sensor shows: so many digits after the point.
fn measured(values: &[f64], digits: u32, decimals: bool) -> ArrayRef {
    let scale = f64::from(10_u32.pow(digits));
    let units = values.iter().map(|value| (value * scale).round());
    if !decimals {
        return Arc::new(units.map(|units| units / scale).collect::<Float64Array>());
    }
    let units: Decimal128Array = units.map(|units| units as i128).map(Some).collect();
    Arc::new(units.with_precision_and_scale(9, digits as i8).expect("nine digits hold a measured value"))
}

/// Of mean 0 and deviation 1, near enough: the sum of twelve even ones.
fn normal(random: &mut StdRng) -> f64 {
    (0..12).map(|_| random.random_range(0.0..1.0)).sum::<f64>() - 6.0
}
