//! Finds rows of a lookup table: one hash probe a reading, then a binary search among the versions of its key.
//!
//! The table is laid out once a version, groups of equal keys one after the other, each by rising `valid_from`. Keys are arrow rows in one
//! buffer; readings' keys go through a buffer that is used again, so that no reading allocates.

use crate::BuildError;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, Rows, SortField};
use flow::{Error, Result};
use hashbrown::HashTable;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// The rows of one key.
struct Group {
    hash: u64,
    /// Its first row's place in `order`, and behind its last.
    rows: Range<usize>,
}

pub(super) struct Index {
    converter: RowConverter,
    /// How many of the held columns are the key; `valid_from`, if there is one, follows them.
    width: usize,
    timed: bool,
    /// The keys of the version's rows.
    keys: Rows,
    /// The keys of the readings at hand.
    probe: Rows,
    table: HashTable<Group>,
    /// Rows by group and `valid_from`.
    order: Vec<u32>,
    /// For each place in `order` its `valid_from`; empty without.
    times: Vec<i64>,
}

impl Index {
    /// An index of no rows. `held` has the key columns first.
    pub(super) fn new(width: usize, timed: bool, held: &SchemaRef) -> Result<Self, BuildError> {
        let fields = held.fields()[..width].iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(|e| BuildError::new("key", e.to_string()))?;
        let (keys, probe) = (converter.empty_rows(0, 0), converter.empty_rows(0, 0));
        Ok(Self { converter, width, timed, keys, probe, table: HashTable::new(), order: vec![], times: vec![] })
    }

    /// Takes the place of what was there.
    pub(super) fn fill(&mut self, rows: &RecordBatch) -> Result<()> {
        self.keys = self.converter.convert_columns(&rows.columns()[..self.width]).map_err(broken)?;
        let from = self.timed.then(|| rows.column(self.width).as_primitive::<TimestampMicrosecondType>().values());
        let time = |row: u32| from.map_or(0, |times| times[row as usize]);
        let keys = &self.keys;
        self.order = (0..rows.num_rows() as u32).collect();
        self.order.sort_unstable_by(|a, b| keys.row(*a as usize).cmp(&keys.row(*b as usize)).then(time(*a).cmp(&time(*b))));
        self.times = if self.timed { self.order.iter().map(|row| time(*row)).collect() } else { vec![] };
        self.table.clear();
        let mut first = 0;
        for end in 1..=self.order.len() {
            let key = keys.row(self.order[first] as usize);
            if end < self.order.len() && keys.row(self.order[end] as usize) == key {
                continue;
            }
            let hash = xxh3_64(key.as_ref());
            self.table.insert_unique(hash, Group { hash, rows: first..end }, |g| g.hash);
            first = end;
        }
        Ok(())
    }

    /// For each reading the row that counts at its time; null where there is none.
    pub(super) fn find(&mut self, key: &[ArrayRef], times: &[i64]) -> Result<UInt32Array> {
        if self.table.is_empty() {
            return Ok(UInt32Array::new_null(times.len()));
        }
        self.probe.clear();
        self.converter.append(&mut self.probe, key).map_err(broken)?;
        let mut found: Vec<Option<u32>> = Vec::with_capacity(times.len());
        found.extend(self.probe.iter().zip(times).map(|(key, time)| {
            let hash = xxh3_64(key.as_ref());
            let same = |g: &Group| g.hash == hash && self.keys.row(self.order[g.rows.start] as usize).as_ref() == key.as_ref();
            let group = self.table.find(hash, same)?;
            self.at(&group.rows, *time)
        }));
        for column in key.iter().filter(|c| c.null_count() > 0) {
            (0..found.len()).filter(|row| column.is_null(*row)).for_each(|row| found[row] = None);
        }
        Ok(found.into())
    }

    /// The row of a group that counts at a time.
    fn at(&self, rows: &Range<usize>, time: i64) -> Option<u32> {
        if !self.timed {
            return Some(self.order[rows.start]);
        }
        let begun = self.times[rows.clone()].partition_point(|from| *from <= time);
        Some(self.order[rows.start + begun.checked_sub(1)?])
    }

    /// About how many bytes it holds.
    pub(super) fn bytes(&self) -> u64 {
        let each = size_of::<Group>() * self.table.len() + size_of::<u32>() * self.order.len() + size_of::<i64>() * self.times.len();
        (each + self.keys.size() + self.probe.size()) as u64
    }
}

fn broken(e: arrow::error::ArrowError) -> Error {
    Error::stop("the keys of a lookup table", e)
}
