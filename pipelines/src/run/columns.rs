//! Rows in the shape of a table: its columns by name, and for dead letters and late rows what travelled beside the rows.

use crate::plan::dead_letters_schema;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, SchemaRef, UInt64Type};
use flow::{Batch, DeadLetters, EVENT_TIME, Error, Result, trail};
use ingest::rejected::Rejected;
use std::sync::Arc;

/// The column that says when a late row or a dead letter reached us.
pub(crate) const ARRIVAL: &str = "arrival";

/// The rows of a batch with the columns of `schema`; a column that the batch lacks is null.
pub(crate) fn conform(batch: &Batch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.rows().schema_ref() == schema {
        return Ok(batch.rows().clone());
    }
    let column = |field: &Arc<Field>| match batch.rows().column_by_name(field.name()) {
        Some(values) if values.data_type() == field.data_type() => Ok(values.clone()),
        Some(values) => cast(values, field.data_type()).map_err(|e| Error::stop(format!("column {} of a table", field.name()), e)),
        None => Ok(match field.name().as_str() {
            ARRIVAL => times(batch.origin().arrival.0, batch.len()),
            trail::TOPIC => topics(batch),
            _ => new_null_array(field.data_type(), batch.len()),
        }),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(schema.clone(), columns).map_err(|e| Error::stop("shaping rows for a table", e))
}

/// A batch with all columns of `schema`, for what reads it by their places. One that it lacks is null: it was made before there was one.
pub(crate) fn with_all(batch: Batch, schema: &SchemaRef) -> Result<Batch> {
    if batch.rows().schema_ref().fields() == schema.fields() {
        return Ok(batch);
    }
    let column = |field: &Arc<Field>| {
        let found = batch.rows().column_by_name(field.name()).cloned();
        found.unwrap_or_else(|| new_null_array(field.data_type(), batch.len()))
    };
    let rows = RecordBatch::try_new(schema.clone(), schema.fields().iter().map(column).collect());
    batch.with_rows(rows.map_err(|e| Error::stop("rows of a plan that has grown", e))?)
}

/// The first `n` of rows that could not be used as rows of `dead_letters`. The payload is the message where its bytes were kept, else the
/// row as JSON; at most `payload` bytes of it.
pub(crate) fn dead_rows(letters: &DeadLetters, n: usize, payload: usize) -> Result<RecordBatch> {
    let (limit, rows) = (payload, &letters.rows.slice(0, n));
    let rendered = render(rows)?;
    let raw = rows.trail_column(trail::RAW).map(|c| c.as_binary_view());
    let payload = |i: usize| raw.filter(|r| r.is_valid(i)).map_or(rendered[i].as_slice(), |r| r.value(i));
    let lengths = Int64Array::from_iter_values((0..n).map(|i| payload(i).len() as i64));
    let payloads = BinaryViewArray::from_iter_values((0..n).map(|i| cut(payload(i), limit)));
    let places = rows.trail_column(trail::OFFSET).map(|c| c.as_primitive::<UInt64Type>().iter().map(|o| o.map(|o| o as i64)).collect());
    let same = |text: &str| -> ArrayRef { Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(text, n))) };
    let columns: Vec<ArrayRef> = vec![
        same(&rows.origin().source),
        topics(rows),
        Arc::new(places.unwrap_or_else(|| Int64Array::new_null(n))),
        same(letters.reason.as_str()),
        same(&letters.detail),
        Arc::new(payloads),
        Arc::new(lengths),
        times(rows.origin().arrival.0, n),
    ];
    RecordBatch::try_new(dead_letters_schema(), columns).map_err(|e| Error::stop("making dead letters of rows", e))
}

/// Messages that could not be decoded as rows of `dead_letters`, with at most `payload` bytes of each.
pub(crate) fn rejected_rows(rejects: &[Rejected], payload: usize) -> Result<RecordBatch> {
    let text = |of: &dyn Fn(&Rejected) -> String| -> ArrayRef { Arc::new(StringViewArray::from_iter_values(rejects.iter().map(of))) };
    let columns: Vec<ArrayRef> = vec![
        text(&|r| r.source.to_string()),
        Arc::new(rejects.iter().map(|r| r.topic.as_deref()).collect::<StringViewArray>()),
        Arc::new(rejects.iter().map(|r| r.offset.map(|o| o as i64)).collect::<Int64Array>()),
        text(&|r| r.reason.as_str().to_string()),
        text(&|r| r.detail.clone()),
        Arc::new(BinaryViewArray::from_iter_values(rejects.iter().map(|r| cut(&r.payload, payload)))),
        Arc::new(Int64Array::from_iter_values(rejects.iter().map(|r| r.length as i64))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rejects.iter().map(|r| r.arrival.0)).with_timezone("UTC")),
    ];
    RecordBatch::try_new(dead_letters_schema(), columns).map_err(|e| Error::stop("making dead letters of messages", e))
}

fn cut(payload: &[u8], limit: usize) -> &[u8] {
    &payload[..payload.len().min(limit)]
}

fn times(at: i64, rows: usize) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_value(at, rows).with_timezone("UTC"))
}

fn topics(batch: &Batch) -> ArrayRef {
    match (batch.trail_column(trail::TOPIC), &batch.origin().topic) {
        (Some(topics), _) => topics.clone(),
        (None, Some(topic)) => Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(&**topic, batch.len()))),
        (None, None) => new_null_array(&DataType::Utf8View, batch.len()),
    }
}

/// Each row as one line of JSON, without the line's end.
fn render(batch: &Batch) -> Result<Vec<Vec<u8>>> {
    let mut lines = arrow::json::LineDelimitedWriter::new(Vec::new());
    lines.write(batch.rows()).and_then(|()| lines.finish()).map_err(|e| Error::stop("writing a dead row as JSON", e))?;
    let text = lines.into_inner();
    let rows: Vec<_> = text.split(|b| *b == b'\n').take(batch.len()).map(<[u8]>::to_vec).collect();
    assert_eq!(rows.len(), batch.len(), "{} rows made {} lines of JSON (column {EVENT_TIME} is never null)", batch.len(), rows.len());
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::late_schema;
    use arrow::datatypes::Schema;
    use flow::{Origin, Reason, WallTime, event_time_field};

    fn batch() -> Batch {
        let origin = Arc::new(Origin { source: "floor".into(), producer: 0, topic: Some("plant/a".into()), arrival: WallTime(7) });
        let rows = RecordBatch::try_from_iter([(EVENT_TIME, times(5, 2)), ("x", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]);
        Batch::new(rows.unwrap(), origin).unwrap()
    }

    #[test]
    fn a_dead_row_keeps_its_bytes_or_its_columns() {
        let raw: ArrayRef = Arc::new(BinaryViewArray::from(vec![Some(b"{\"x\":1}".as_slice()), None]));
        let rows = batch().with_trail(Some(RecordBatch::try_from_iter_with_nullable([(trail::RAW, raw, true)]).unwrap()));
        let dead = dead_rows(&DeadLetters { rows, reason: Reason::TimeInFuture, detail: "ahead".into() }, 2, 8).unwrap();
        let payload = dead.column_by_name("payload").unwrap().as_binary_view();
        assert_eq!(payload.value(0), b"{\"x\":1}");
        assert_eq!(payload.value(1).len(), 8, "cut");
        assert!(dead.column_by_name("length").unwrap().as_primitive::<arrow::datatypes::Int64Type>().value(1) > 8);
        assert_eq!(dead.column_by_name("topic").unwrap().as_string_view().value(0), "plant/a");
        assert_eq!(dead.column_by_name("reason").unwrap().as_string_view().value(0), "time_in_future");
    }

    #[test]
    fn late_rows_carry_arrival_and_topic() {
        let schema = late_schema(&batch().rows().schema());
        let late = conform(&batch(), &schema).unwrap();
        assert_eq!(late.schema(), schema);
        assert_eq!(late.column_by_name(trail::TOPIC).unwrap().as_string_view().value(1), "plant/a");
    }

    #[test]
    fn a_missing_column_is_null() {
        let schema = Arc::new(Schema::new(vec![event_time_field(), Field::new("y", DataType::Float64, true)]));
        let shaped = conform(&batch(), &schema).unwrap();
        assert_eq!(shaped.column(1).null_count(), 2);
    }
}
