//! Pairs, and left rows without a right one, as rows of the output.

use super::shape::{From, Shape};
use super::side::times;
use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, new_null_array};
use flow::{Batch, Count, Error, Origin, Output, Result};
use std::sync::Arc;

/// Pairs come out in batches of about so many rows: as a decoder makes them.
pub(super) const EMITTED_ROWS: usize = 8_192;

/// Puts out what is held of left rows with that of right rows, pair by pair; without right rows they are null.
pub(super) fn put_out(
    shape: &Shape,
    left: &RecordBatch,
    right: Option<&RecordBatch>,
    origin: Arc<Origin>,
    out: &mut dyn Output,
) -> Result<()> {
    let column = |(from, field): (&From, &Arc<arrow::datatypes::Field>)| match (*from, right) {
        (From::Left(at), _) => left.column(at).clone(),
        (From::Right(at), Some(right)) => right.column(at).clone(),
        (From::Right(_), None) => new_null_array(field.data_type(), left.num_rows()),
        (From::Time, right) => greater(left, right),
    };
    let columns = shape.columns.iter().zip(shape.output.fields()).map(column).collect();
    let rows = RecordBatch::try_new(shape.output.clone(), columns).map_err(|e| Error::stop("rows of a join", e))?;
    out.count(Count::Emitted, rows.num_rows() as u64);
    out.rows(Batch::new(rows, origin)?);
    Ok(())
}

fn greater(left: &RecordBatch, right: Option<&RecordBatch>) -> ArrayRef {
    let Some(right) = right else { return left.column(left.num_columns() - 1).clone() };
    let greater = times(left).iter().zip(times(right)).map(|(l, r)| *l.max(r));
    Arc::new(TimestampMicrosecondArray::from_iter_values(greater).with_timezone("UTC"))
}
