//! Readings for tests of this room.

use crate::cold::Cold;
use crate::options::{ColdOptions, TableOptions, TableSpec};
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use std::path::Path;
use std::sync::Arc;

/// Table `t` with key `device`.
pub(crate) fn spec() -> TableSpec {
    let columns = vec![Field::new("device", DataType::Utf8View, false), Field::new("v", DataType::Float64, true), flow::event_time_field()];
    TableSpec { name: "t".into(), schema: Arc::new(Schema::new(columns)), key: vec!["device".into()], options: TableOptions::default() }
}

/// The cold table of `t` in this folder.
pub(crate) fn cold(folder: &Path) -> Cold {
    let options: ColdOptions = serde_json::from_value(serde_json::json!({ "url": folder })).unwrap();
    Cold::new(&options, "t", spec().schema).unwrap()
}

/// Rows of table `t`: device, event time, value.
pub(crate) fn readings(rows: &[(&str, i64, f64)]) -> RecordBatch {
    let device: ArrayRef = Arc::new(StringViewArray::from_iter_values(rows.iter().map(|r| r.0)));
    let value: ArrayRef = Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.2)));
    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.1)).with_timezone("UTC"));
    RecordBatch::try_new(spec().schema, vec![device, value, time]).unwrap()
}
