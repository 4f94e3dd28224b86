//! Finds rows of a lookup table: one hash probe a reading, then a binary search among the versions of its key.
//!
//! The table is laid out once a version: its keys are in slots (`keys`), its rows by slot and rising `valid_from`. A table is larger than the
//! caches, so a batch goes through it in passes, each a short loop.

use crate::BuildError;
use crate::keys::{Keys, REFUSED};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType};
use flow::{Error, Result};
use std::sync::Arc;

pub(super) struct Index {
    /// How many of the held columns are the key; `valid_from`, if there is one, follows them.
    width: usize,
    key: SchemaRef,
    timed: bool,
    keys: Keys,
    /// By slot the first of its places in `order`, and behind the last slot the number of all.
    first: Vec<u32>,
    /// Rows by slot and `valid_from`.
    order: Vec<u32>,
    /// For each place in `order` its `valid_from`; empty without.
    times: Vec<i64>,
    /// Scratch: the slot of each reading.
    slots: Vec<u32>,
}

impl Index {
    /// An index of no rows. `held` has the key columns first.
    pub(super) fn new(width: usize, timed: bool, held: &SchemaRef) -> Result<Self, BuildError> {
        let key = Arc::new(Schema::new(held.fields()[..width].to_vec()));
        let keys = Keys::new(&key).map_err(|e| BuildError::new("key", e.to_string()))?;
        Ok(Self { width, key, timed, keys, first: vec![0], order: vec![], times: vec![], slots: vec![] })
    }

    /// Takes the place of what was there.
    pub(super) fn fill(&mut self, rows: &RecordBatch) -> Result<()> {
        self.keys = Keys::new(&self.key).map_err(broken)?;
        let mut slots = vec![];
        self.keys.find(&rows.columns()[..self.width], usize::MAX, &mut slots).map_err(broken)?;
        let from = self.timed.then(|| rows.column(self.width).as_primitive::<TimestampMicrosecondType>().values());
        let time = |row: u32| from.map_or(0, |times| times[row as usize]);
        self.order = (0..rows.num_rows() as u32).collect();
        self.order.sort_by_key(|row| (slots[*row as usize], time(*row)));
        self.times = if self.timed { self.order.iter().map(|row| time(*row)).collect() } else { vec![] };
        self.first = vec![0; self.keys.slots() + 1];
        slots.iter().for_each(|slot| self.first[*slot as usize + 1] += 1);
        for slot in 0..self.keys.slots() {
            self.first[slot + 1] += self.first[slot];
        }
        Ok(())
    }

    /// For each reading the row that counts at its time; null where there is none.
    pub(super) fn find(&mut self, key: &[ArrayRef], times: &[i64]) -> Result<UInt32Array> {
        if self.order.is_empty() {
            return Ok(UInt32Array::new_null(times.len()));
        }
        let mut slots = std::mem::take(&mut self.slots);
        self.keys.find(key, 0, &mut slots).map_err(broken)?;
        for column in key.iter().filter(|c| c.null_count() > 0) {
            (0..slots.len()).filter(|row| column.is_null(*row)).for_each(|row| slots[row] = REFUSED);
        }
        let found = match (self.timed, slots.contains(&REFUSED)) {
            (false, false) => slots.iter().map(|slot| self.order[self.first[*slot as usize] as usize]).collect::<Vec<_>>().into(),
            _ => slots.iter().zip(times).map(|(slot, time)| self.at(*slot, *time)).collect(),
        };
        self.slots = slots;
        Ok(found)
    }

    /// The row of a slot that counts at a time.
    fn at(&self, slot: u32, time: i64) -> Option<u32> {
        if slot == REFUSED {
            return None;
        }
        let (from, to) = (self.first[slot as usize] as usize, self.first[slot as usize + 1] as usize);
        if !self.timed {
            return Some(self.order[from]);
        }
        let begun = self.times[from..to].partition_point(|begins| *begins <= time);
        Some(self.order[from + begun.checked_sub(1)?])
    }

    /// About how many bytes it holds.
    pub(super) fn bytes(&self) -> u64 {
        let rows = size_of::<u32>() * (self.order.len() + self.first.len()) + size_of::<i64>() * self.times.len();
        (rows + self.keys.bytes()) as u64
    }
}

fn broken(e: arrow::error::ArrowError) -> Error {
    Error::stop("the keys of a lookup table", e)
}
