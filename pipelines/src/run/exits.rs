//! Rows on their way from the first stage to the second: what they carry, as columns of an outbox file and back.
//!
//! Each row has a mark: the watermark of its lane when it left. The marks of an exit never fall, so that the second stage can put the rows of
//! all lanes in one order that depends on nothing else.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray, UInt64Array, new_null_array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt64Type};
use flow::{Batch, Error, EventTime, Origin, Result, WallTime, trail};
use std::sync::Arc;

// No column of a user begins with a space by chance.
const MARK: &str = " mark";
const ARRIVAL: &str = " arrival";
const SOURCE: &str = " source";
const TOPIC: &str = " topic";
const OFFSET: &str = " offset";
const COLUMNS: usize = 5;

/// The marks of rows that came out of a part whose watermark went from `before` to `after`: never below the one and never above the other.
pub(crate) fn marks(batch: &Batch, before: EventTime, after: EventTime) -> Vec<i64> {
    let own = batch.trail_column(trail::WATERMARK).map(|m| m.as_primitive::<Int64Type>().values());
    let mut last = before.0;
    let rising = |own: &i64| {
        last = last.max((*own).min(after.0));
        last
    };
    own.map_or(batch.times(), |marks| marks).iter().map(rising).collect()
}

/// Rows with what goes with them, for an outbox file. The bytes of messages and their traces stay behind.
pub(crate) fn pack(batch: &Batch, marks: Vec<i64>) -> Result<RecordBatch> {
    let (n, origin) = (batch.len(), batch.origin());
    let same = |text: &str| -> ArrayRef { Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(text, n))) };
    let topic = match (batch.trail_column(trail::TOPIC), &origin.topic) {
        (Some(topics), _) => topics.clone(),
        (None, Some(topic)) => same(topic),
        (None, None) => new_null_array(&DataType::Utf8View, n),
    };
    let offset = batch.trail_column(trail::OFFSET).cloned().unwrap_or_else(|| new_null_array(&DataType::UInt64, n));
    let beside: [(&str, ArrayRef); COLUMNS] = [
        (MARK, Arc::new(Int64Array::from(marks))),
        (ARRIVAL, Arc::new(Int64Array::from_value(origin.arrival.0, n))),
        (SOURCE, same(&origin.source)),
        (TOPIC, topic),
        (OFFSET, offset),
    ];
    let (mut fields, mut columns) = (batch.rows().schema_ref().fields().to_vec(), batch.rows().columns().to_vec());
    for (name, column) in beside {
        fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(n));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(|e| Error::stop("rows for an outbox", e))
}

/// The marks of packed rows.
pub(crate) fn packed_marks(rows: &RecordBatch) -> &[i64] {
    rows.column_by_name(MARK).expect("packed rows have marks").as_primitive::<Int64Type>().values()
}

/// What `pack` made of rows, again as rows; their marks are their watermarks.
pub(crate) fn unpack(rows: &RecordBatch) -> Result<Batch> {
    let failed = |e| Error::stop("rows of an outbox", e);
    let width = rows.num_columns() - COLUMNS;
    let [arrival, source] = [ARRIVAL, SOURCE].map(|name| rows.column_by_name(name).expect("packed rows have an origin"));
    let [topic, offset] = [TOPIC, OFFSET].map(|name| rows.column_by_name(name).expect("packed rows have a place"));
    let mut beside: Vec<(&str, ArrayRef, bool)> = vec![(trail::WATERMARK, Arc::new(Int64Array::from(packed_marks(rows).to_vec())), false)];
    if topic.null_count() < rows.num_rows() {
        beside.push((trail::TOPIC, topic.clone(), true));
    }
    if offset.null_count() == 0 {
        beside.push((trail::OFFSET, Arc::new(UInt64Array::from(offset.as_primitive::<UInt64Type>().values().to_vec())), false));
    }
    let beside = RecordBatch::try_from_iter_with_nullable(beside).map_err(failed)?;
    // All rows of a packed batch have one origin.
    let origin = Origin {
        source: source.as_string_view().value(0).into(),
        producer: 0,
        topic: None,
        arrival: WallTime(arrival.as_primitive::<Int64Type>().value(0)),
    };
    let rows = rows.project(&(0..width).collect::<Vec<_>>()).map_err(failed)?;
    Ok(Batch::new(rows, Arc::new(origin))?.with_trail(Some(beside)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::TimestampMicrosecondArray;
    use flow::EVENT_TIME;

    fn batch() -> Batch {
        let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![5, 9, 7]).with_timezone("UTC"));
        let origin = Origin { source: "floor".into(), producer: 3, topic: Some("plant/a".into()), arrival: WallTime(7) };
        Batch::new(RecordBatch::try_from_iter([(EVENT_TIME, time)]).unwrap(), Arc::new(origin)).unwrap()
    }

    #[test]
    fn marks_rise_between_the_watermarks_of_their_part() {
        assert_eq!(marks(&batch(), EventTime::MIN, EventTime(8)), [5, 8, 8]);
        assert_eq!(marks(&batch(), EventTime(6), EventTime(20)), [6, 9, 9]);
        let own: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 30]));
        let marked = batch().with_trail(Some(RecordBatch::try_from_iter([(trail::WATERMARK, own)]).unwrap()));
        assert_eq!(marks(&marked, EventTime::MIN, EventTime(20)), [1, 2, 20]);
    }

    #[test]
    fn rows_come_back_with_their_origin_and_their_marks() {
        let back = unpack(&pack(&batch(), vec![1, 2, 3]).unwrap().slice(1, 2)).unwrap();
        assert_eq!(back.rows(), &batch().rows().slice(1, 2));
        assert_eq!((&*back.origin().source, back.origin().arrival), ("floor", WallTime(7)));
        assert_eq!(back.trail_column(trail::TOPIC).unwrap().as_string_view().value(1), "plant/a");
        assert_eq!(back.trail_column(trail::WATERMARK).unwrap().as_primitive::<Int64Type>().values(), &[2, 3]);
        assert!(back.trail_column(trail::OFFSET).is_none());
    }
}
