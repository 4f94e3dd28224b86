//! Splitting the rows on which an expression failed from the rest of their batch.

use arrow::array::{BooleanArray, UInt32Array};
use flow::{Batch, DeadLetters, Output, Reason, Result};

/// Gives the rows `failed` (ascending) to the dead letters and returns the others.
pub(crate) fn refuse(batch: Batch, failed: &[u32], reason: Reason, detail: String, out: &mut dyn Output) -> Result<Batch> {
    if failed.is_empty() {
        return Ok(batch);
    }
    let rows = batch.take(&UInt32Array::from(failed.to_vec()))?;
    out.dead(DeadLetters { rows, reason, detail });
    batch.filter(&without(batch.len(), failed))
}

/// True for the rows that are not in `failed`.
pub(crate) fn without(rows: usize, failed: &[u32]) -> BooleanArray {
    let mut keep = vec![true; rows];
    for row in failed {
        keep[*row as usize] = false;
    }
    keep.into()
}
