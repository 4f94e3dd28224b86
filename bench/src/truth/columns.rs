//! The columns of `readings.parquet`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

use super::Sent;
use crate::fleet::{Anomaly, Class, Schema as Drift};

/// Names that signals may not have: the other columns of the truth, and what `verify` adds to them.
pub const RESERVED: [&str; 22] = [
    "number",
    "duplicate_of",
    "device",
    "site",
    "seq",
    "measured",
    "event_time",
    "due",
    "sent",
    "acknowledged",
    "attempts",
    "timing",
    "clock",
    "class",
    "reason",
    "anomaly",
    "schema",
    "unknown_device",
    "topic",
    "length",
    "payload",
    "window_start",
];

/// The columns: those of [`Sent`] by name, then each signal as a 64-bit floating number. Times are microseconds, UTC.
pub fn truth_schema<'a>(signals: impl IntoIterator<Item = &'a str>) -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let fields = [
        ("number", DataType::Int64, false),
        ("duplicate_of", DataType::Int64, true),
        ("device", DataType::Utf8, false),
        ("site", DataType::Utf8, false),
        ("seq", DataType::Int64, false),
        ("measured", time.clone(), false),
        ("event_time", time.clone(), true),
        ("due", time.clone(), false),
        ("sent", time.clone(), false),
        ("acknowledged", time, true),
        ("attempts", DataType::Int32, false),
        ("timing", DataType::Utf8, false),
        ("clock", DataType::Utf8, false),
        ("class", DataType::Utf8, true),
        ("reason", DataType::Utf8, true),
        ("anomaly", DataType::Utf8, true),
        ("schema", DataType::Utf8, true),
        ("unknown_device", DataType::Boolean, false),
        ("topic", DataType::Utf8, true),
        ("length", DataType::Int64, false),
        ("payload", DataType::Binary, true),
    ];
    let mut fields: Vec<Field> = fields.into_iter().map(|(name, kind, nullable)| Field::new(name, kind, nullable)).collect();
    fields.extend(signals.into_iter().map(|name| Field::new(name, DataType::Float64, true)));
    Arc::new(Schema::new(fields))
}

/// Messages as rows of `schema`.
pub(super) fn rows(sent: &[Sent], schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let numbers = |of: &dyn Fn(&Sent) -> Option<i64>| -> ArrayRef { Arc::new(sent.iter().map(of).collect::<Int64Array>()) };
    let times = |of: &dyn Fn(&Sent) -> Option<i64>| -> ArrayRef {
        Arc::new(sent.iter().map(of).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
    };
    let words = |of: &dyn for<'a> Fn(&'a Sent) -> Option<&'a str>| -> ArrayRef { Arc::new(sent.iter().map(of).collect::<StringArray>()) };
    let mut columns: Vec<ArrayRef> = vec![
        numbers(&|row| Some(row.reading.number as i64)),
        numbers(&|row| row.reading.duplicate_of.map(|number| number as i64)),
        words(&|row| Some(&row.reading.device)),
        words(&|row| Some(&row.reading.site)),
        numbers(&|row| Some(row.reading.sequence as i64)),
        times(&|row| Some(row.reading.measured_us)),
        times(&|row| row.reading.event_time_us),
        times(&|row| Some(row.due_us)),
        times(&|row| Some(row.sent_us)),
        times(&|row| row.acknowledged_us),
        Arc::new(sent.iter().map(|row| Some(row.attempts as i32)).collect::<Int32Array>()),
        words(&|row| Some(row.reading.timing.as_str())),
        words(&|row| Some(row.reading.clock.as_str())),
        words(&|row| row.reading.class.map(Class::as_str)),
        words(&|row| row.reading.reason),
        words(&|row| row.reading.anomaly.map(Anomaly::as_str)),
        words(&|row| row.reading.schema.map(Drift::as_str)),
        Arc::new(sent.iter().map(|row| Some(row.reading.unknown_device)).collect::<BooleanArray>()),
        words(&|row| Some(row.topic.as_str()).filter(|topic| !topic.is_empty())),
        numbers(&|row| Some(row.length as i64)),
        Arc::new(sent.iter().map(|row| row.payload.as_deref()).collect::<BinaryArray>()),
    ];
    for signal in 0..schema.fields().len() - columns.len() {
        let values = sent.iter().map(|row| row.reading.values[signal]);
        columns.push(Arc::new(values.collect::<Float64Array>()));
    }
    RecordBatch::try_new(schema.clone(), columns)
}
