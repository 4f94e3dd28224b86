//! The form in which the state was saved before: read, and no longer written.
//!
//! Columns of the part `keys`: the key columns, `floor`, then for the previous and the current span each `first`, `highest`, `greatest` and
//! `sequences` (roaring's portable format for 64 bits; null where there is no span).

use super::memory::{Memory, Seen};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Int64Type;
use flow::{Error, Remedy, Result};
use roaring::RoaringTreemap;

/// How many columns stand behind those of the key.
pub(super) const COLUMNS: usize = 9;

/// The memories of the rows: these are the columns behind those of the key.
pub(super) fn memories(columns: &[ArrayRef]) -> Result<Vec<Memory>> {
    let unlike = || Error::new(Remedy::Stop, "dedupe state is of another form");
    let floor = columns[0].as_primitive_opt::<Int64Type>().ok_or_else(unlike)?;
    let mut memories = Vec::with_capacity(floor.len());
    for row in 0..floor.len() {
        let previous = span(&columns[1..5], row)?.map(Box::new);
        memories.push(Memory { floor: floor.value(row), previous, current: span(&columns[5..9], row)? });
    }
    Ok(memories)
}

fn span(columns: &[ArrayRef], row: usize) -> Result<Option<Seen>> {
    let unlike = || Error::new(Remedy::Stop, "dedupe state has a span of another form");
    let [first, highest] = [&columns[0], &columns[1]].map(|c| c.as_primitive_opt::<Int64Type>());
    let (first, highest, bytes) = (first.ok_or_else(unlike)?, highest.ok_or_else(unlike)?, columns[3].as_binary_opt::<i32>());
    let bytes = bytes.ok_or_else(unlike)?;
    if bytes.is_null(row) {
        return Ok(None);
    }
    let sequences = RoaringTreemap::deserialize_from(bytes.value(row)).map_err(|e| Error::stop("a bitmap of a dedupe's state", e))?;
    Ok(Seen::of_all(first.value(row), highest.value(row), sequences))
}
