//! Readings for tests of this room.

use crate::options::{TableOptions, TableSpec};
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use std::sync::Arc;

/// Table `t` with key `device`.
pub(crate) fn spec() -> TableSpec {
    let columns = vec![Field::new("device", DataType::Utf8View, false), Field::new("v", DataType::Float64, true), flow::event_time_field()];
    TableSpec { name: "t".into(), schema: Arc::new(Schema::new(columns)), key: vec!["device".into()], options: TableOptions::default() }
}

/// Rows of table `t`: device, event time, value.
pub(crate) fn readings(rows: &[(&str, i64, f64)]) -> RecordBatch {
    let device: ArrayRef = Arc::new(StringViewArray::from_iter_values(rows.iter().map(|r| r.0)));
    let value: ArrayRef = Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.2)));
    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.1)).with_timezone("UTC"));
    RecordBatch::try_new(spec().schema, vec![device, value, time]).unwrap()
}
