//! The rows of windows: key, bounds, event time, the columns of `select`, pane.

use super::aggregates::Aggregates;
use crate::BuildError;
use arrow::array::{ArrayRef, Int32Array, ListArray, RecordBatch, StructArray, TimestampMicrosecondArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use flow::{Batch, EVENT_TIME, Error, Origin, Result, WallTime, event_time_field, event_time_type};
use std::sync::Arc;

pub(super) const START: &str = "window_start";
pub(super) const END: &str = "window_end";
pub(super) const PANE: &str = "pane";
/// The column that names the windows which a session was merged from.
pub const REPLACES: &str = "replaces";

/// Turns results of aggregates into rows.
pub(super) struct Finish {
    pub(super) schema: SchemaRef,
    /// Whether rows name the windows that they replace.
    replaces: bool,
}

/// The windows of some rows, a value a row.
#[derive(Default)]
pub(super) struct Bounds {
    pub(super) start: Vec<i64>,
    pub(super) end: Vec<i64>,
    /// Number of the pane; empty when all are 0.
    pub(super) pane: Vec<i32>,
    /// The windows that each row replaces, as (start, end); empty where no row does.
    pub(super) replaces: Vec<Vec<(i64, i64)>>,
}

impl Finish {
    /// The error names a column of `select` that every window has.
    pub(super) fn new(aggregates: &Aggregates, replaces: bool) -> Result<Self, BuildError> {
        let ours = [START, END, EVENT_TIME, PANE, REPLACES];
        let key = aggregates.key_fields();
        let taken = |name: &&String| ours.contains(&name.as_str()) || key.iter().any(|f| f.name() == *name);
        if let Some(name) = aggregates.outputs.iter().map(|(name, _)| name).find(taken) {
            return Err(BuildError::new(format!("select.{name}"), format!("every window has a column `{name}` already")));
        }
        let mut fields: Vec<Field> = key.iter().map(|f| f.as_ref().clone()).collect();
        fields.extend([START, END].map(|name| Field::new(name, event_time_type(), false)));
        fields.push(event_time_field());
        fields.extend(aggregates.outputs.iter().map(|(name, e)| Field::new(name, e.data_type().clone(), true)));
        fields.push(Field::new(PANE, DataType::Int32, false));
        if replaces {
            fields.push(Field::new(REPLACES, DataType::List(replaced_item()), false));
        }
        Ok(Self { schema: Arc::new(Schema::new(fields)), replaces })
    }

    /// Rows of groups with their windows. `groups` has the columns of `Aggregates::result_schema`.
    pub(super) fn rows(&self, aggregates: &Aggregates, groups: &RecordBatch, bounds: &Bounds, watermark: i64) -> Result<Batch> {
        let rows = groups.num_rows();
        let mut columns = groups.columns()[aggregates.hidden()..aggregates.key.len()].to_vec();
        columns.extend([times(bounds.start.iter().copied()), times(bounds.end.iter().copied())]);
        columns.push(times(bounds.end.iter().map(|end| end.saturating_sub(1))));
        columns.extend(aggregates.outputs.iter().map(|(_, output)| output.evaluate(groups).values));
        columns.push(match bounds.pane.is_empty() {
            true => Arc::new(Int32Array::from_value(0, rows)),
            false => Arc::new(Int32Array::from(bounds.pane.clone())),
        });
        if self.replaces {
            columns.push(replaced(&bounds.replaces, rows));
        }
        let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| Error::stop("rows of windows", e))?;
        let origin = Origin { source: "window".into(), producer: 0, topic: None, arrival: WallTime(watermark) };
        Batch::new(rows, Arc::new(origin))
    }
}

fn times(of: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(of).with_timezone("UTC"))
}

fn replaced_fields() -> Fields {
    Fields::from(vec![START, END].into_iter().map(|name| Field::new(name, event_time_type(), false)).collect::<Vec<_>>())
}

fn replaced_item() -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Struct(replaced_fields()), false))
}

fn replaced(windows: &[Vec<(i64, i64)>], rows: usize) -> ArrayRef {
    let lengths = (0..rows).map(|row| windows.get(row).map_or(0, Vec::len));
    let all = || windows.iter().flatten();
    let bounds = StructArray::new(replaced_fields(), vec![times(all().map(|w| w.0)), times(all().map(|w| w.1))], None);
    Arc::new(ListArray::new(replaced_item(), OffsetBuffer::from_lengths(lengths), Arc::new(bounds), None))
}
