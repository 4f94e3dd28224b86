//! A batch of readings: columns with an event time, and beside them where they came from.

use crate::{Error, EventTime, Remedy, Result, WallTime};
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, TimeUnit, TimestampMicrosecondType};
use std::sync::{Arc, OnceLock};

/// The name of the event-time column.
pub const EVENT_TIME: &str = "event_time";

/// The type of every time column: microseconds, UTC.
#[must_use]
pub fn event_time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The event-time column of every batch: never null.
#[must_use]
pub fn event_time_field() -> Field {
    Field::new(EVENT_TIME, event_time_type(), false)
}

/// Names of the columns that may travel beside the rows (`Batch::trail`), one value a row.
pub mod trail {
    /// Utf8View, nullable: the topic of the row's message, where rows of one batch differ in it.
    pub const TOPIC: &str = "topic";
    /// UInt64: the place of the row in its file, counted from 0.
    pub const OFFSET: &str = "offset";
    /// BinaryView, nullable: the message's bytes, kept for rows that may become dead letters.
    pub const RAW: &str = "raw";
    /// Utf8View, nullable: the W3C `traceparent` that came with the row's message, where some message of the batch has one.
    pub const TRACE: &str = "trace";
    /// Int64, microseconds: the lane's watermark when the row was taken. Present only where some row is not ahead of it, or where
    /// devices have watermarks of their own.
    pub const WATERMARK: &str = "watermark";
}

/// Where a batch came from: the same for all its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Name of the source in the pipeline.
    pub source: Arc<str>,
    /// Number of the source connection, within the lane's log.
    pub producer: u32,
    /// File path, or topic where all rows have one.
    pub topic: Option<Arc<str>>,
    /// When the messages reached us.
    pub arrival: WallTime,
}

/// Rows of one source, or of one operator, with their origin.
///
/// Invariant, checked by `new`: a column `event_time`, `Timestamp(µs, "UTC")`, without nulls; the trail has as many rows.
#[derive(Clone, Debug)]
pub struct Batch {
    rows: RecordBatch,
    time: usize,
    origin: Arc<Origin>,
    trail: Option<RecordBatch>,
    /// Least and greatest event time, once somebody asked.
    range: OnceLock<Option<(EventTime, EventTime)>>,
}

impl Batch {
    /// A batch without a trail. An error when the event time is missing, of another type or null somewhere.
    pub fn new(rows: RecordBatch, origin: Arc<Origin>) -> Result<Self> {
        let broken = |what: &str| Error::new(Remedy::Stop, format!("batch of {} rows from {}: {what}", rows.num_rows(), origin.source));
        let time = rows.schema_ref().index_of(EVENT_TIME).map_err(|_| broken("no column event_time"))?;
        let column = rows.column(time);
        if *column.data_type() != event_time_type() {
            return Err(broken(&format!("event_time is {}", column.data_type())));
        }
        if column.null_count() > 0 {
            return Err(broken("event_time has nulls"));
        }
        Ok(Self { rows, time, origin, trail: None, range: OnceLock::new() })
    }

    /// The same rows with columns beside them, one value a row (see `trail`).
    #[must_use]
    pub fn with_trail(mut self, trail: Option<RecordBatch>) -> Self {
        if let Some(t) = &trail {
            assert_eq!(t.num_rows(), self.rows.num_rows(), "the trail has {} rows, the batch {}", t.num_rows(), self.rows.num_rows());
        }
        self.trail = trail;
        self
    }

    /// Other columns for the same rows, with the same origin and trail. An error as in `new`.
    pub fn with_rows(&self, rows: RecordBatch) -> Result<Self> {
        Ok(Self::new(rows, self.origin.clone())?.with_trail(self.trail.clone()))
    }

    /// The columns.
    #[must_use]
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// The columns, given away.
    #[must_use]
    pub fn into_rows(self) -> RecordBatch {
        self.rows
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// No rows at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    /// Where the rows came from.
    #[must_use]
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// The columns beside the rows.
    #[must_use]
    pub fn trail(&self) -> Option<&RecordBatch> {
        self.trail.as_ref()
    }

    /// One column beside the rows.
    #[must_use]
    pub fn trail_column(&self, name: &str) -> Option<&Arc<dyn Array>> {
        self.trail.as_ref().and_then(|t| t.column_by_name(name))
    }

    /// Event times in microseconds, one a row.
    #[must_use]
    pub fn times(&self) -> &[i64] {
        self.rows.column(self.time).as_primitive::<TimestampMicrosecondType>().values()
    }

    /// Least and greatest event time; none without rows. Found once.
    #[must_use]
    pub fn time_range(&self) -> Option<(EventTime, EventTime)> {
        let widen = |(least, greatest): (i64, i64), time: &i64| (least.min(*time), greatest.max(*time));
        *self.range.get_or_init(|| {
            let (first, rest) = self.times().split_first()?;
            let (least, greatest) = rest.iter().fold((*first, *first), widen);
            Some((EventTime(least), EventTime(greatest)))
        })
    }

    /// The rows where `keep` is true (null counts as false).
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self> {
        self.each(|part| filter_record_batch(part, keep))
    }

    /// The rows at `indices`, in that order.
    pub fn take(&self, indices: &UInt32Array) -> Result<Self> {
        self.each(|part| take_record_batch(part, indices))
    }

    /// `length` rows from `offset` on, without a copy.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Self {
            rows: self.rows.slice(offset, length),
            time: self.time,
            origin: self.origin.clone(),
            trail: self.trail.as_ref().map(|t| t.slice(offset, length)),
            range: OnceLock::new(),
        }
    }

    fn each(&self, change: impl Fn(&RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError>) -> Result<Self> {
        let apply = |part: &RecordBatch| change(part).map_err(|e| Error::stop("selecting rows of a batch", e));
        Ok(Self {
            rows: apply(&self.rows)?,
            time: self.time,
            origin: self.origin.clone(),
            trail: self.trail.as_ref().map(apply).transpose()?,
            range: OnceLock::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};

    fn origin() -> Arc<Origin> {
        Arc::new(Origin { source: "s".into(), producer: 0, topic: None, arrival: WallTime(0) })
    }

    fn rows(times: Vec<Option<i64>>) -> RecordBatch {
        let n = times.len() as i64;
        let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
        let value: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
        RecordBatch::try_from_iter([("value", value), (EVENT_TIME, time)]).unwrap()
    }

    #[test]
    fn a_batch_has_an_event_time_in_every_row() {
        assert!(Batch::new(rows(vec![Some(1), Some(2)]), origin()).is_ok());
        assert!(Batch::new(rows(vec![Some(1), None]), origin()).unwrap_err().to_string().contains("nulls"));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
        assert!(
            Batch::new(RecordBatch::try_from_iter([(EVENT_TIME, text.clone())]).unwrap(), origin())
                .unwrap_err()
                .to_string()
                .contains("Utf8")
        );
        assert!(Batch::new(RecordBatch::try_from_iter([("x", text)]).unwrap(), origin()).unwrap_err().to_string().contains("no column"));
    }

    #[test]
    fn selections_keep_the_trail_beside_its_rows() {
        let mark: ArrayRef = Arc::new(Int64Array::from(vec![10, 11, 12]));
        let trail = RecordBatch::try_from_iter([(trail::WATERMARK, mark)]).unwrap();
        let batch = Batch::new(rows(vec![Some(5), Some(6), Some(7)]), origin()).unwrap().with_trail(Some(trail));
        let marks = |b: &Batch| b.trail_column(trail::WATERMARK).unwrap().as_primitive::<arrow::datatypes::Int64Type>().values().to_vec();
        assert_eq!(marks(&batch.filter(&BooleanArray::from(vec![true, false, true])).unwrap()), [10, 12]);
        assert_eq!(marks(&batch.take(&UInt32Array::from(vec![2, 0])).unwrap()), [12, 10]);
        assert_eq!(marks(&batch.slice(1, 2)), [11, 12]);
        assert_eq!(batch.slice(1, 2).times(), [6, 7]);
        assert_eq!(batch.time_range(), Some((EventTime(5), EventTime(7))));
    }
}
