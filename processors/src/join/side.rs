//! The rows of one side that may still match: found by key, let go by time.
//!
//! Time is cut into spans of a quarter of the interval, at least a second. A span is let go as a whole when its last row can match
//! nothing any more, so a row is held for at most a quarter of the interval longer than it must be.
//!
//! State: one part a span, `<side>.<number of the span>`, of what is held; a save appends what came since the last one.

use super::chunks::Chunks;
use arrow::array::{AsArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{interleave_record_batch, take_record_batch};
use arrow::datatypes::{FieldRef, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::row::Rows;
use flow::{Error, Result, StateReader, StateWriter};
use std::collections::{BTreeMap, HashMap, VecDeque};
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

/// Spans are no shorter, in microseconds: a part of the state for each should be worth it.
const SHORTEST: i64 = 1_000_000;

/// A row that is held: its event time, which says its span, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) time: i64,
    pub(super) row: u32,
}

/// See the page.
pub(super) struct Side {
    name: &'static str,
    schema: SchemaRef,
    width: i64,
    spans: BTreeMap<i64, Chunks>,
    /// By key the rows, in the order of their times.
    index: HashMap<Box<[u8]>, VecDeque<Place>, Xxh3DefaultBuilder>,
    /// Spans that are gone and still stored.
    gone: Vec<i64>,
    rows: usize,
    bytes: usize,
    key_bytes: usize,
}

impl Side {
    /// A side whose rows match over `interval` microseconds in all.
    pub(super) fn new(name: &'static str, schema: SchemaRef, interval: i64) -> Self {
        Self {
            name,
            schema,
            width: (interval / 4).max(SHORTEST),
            spans: BTreeMap::new(),
            index: HashMap::default(),
            gone: vec![],
            rows: 0,
            bytes: 0,
            key_bytes: 0,
        }
    }

    /// Rows held.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Keys held.
    pub(super) fn keys(&self) -> usize {
        self.index.len()
    }

    /// Bytes held, nearly.
    pub(super) fn bytes(&self) -> usize {
        let each = size_of::<Box<[u8]>>() + size_of::<VecDeque<Place>>();
        self.bytes + self.key_bytes + self.index.len() * each + self.rows * size_of::<Place>()
    }

    /// Takes rows with their keys; a row without a key is held and never found. Gives the place of each.
    pub(super) fn insert(&mut self, rows: &RecordBatch, keys: &Rows, has_key: &[bool]) -> Result<Vec<Place>> {
        let times = times(rows);
        let mut order: Vec<u32> = (0..).take(times.len()).collect();
        let width = self.width;
        let span_of = |row: u32| times[row as usize].div_euclid(width);
        order.sort_by_key(|row| span_of(*row));
        let mut places = vec![Place { time: 0, row: 0 }; order.len()];
        for run in order.chunk_by(|a, b| span_of(*a) == span_of(*b)) {
            let span = span_of(run[0]);
            let first = self.spans.get(&span).map_or(0, Chunks::len);
            let part = take_record_batch(rows, &UInt32Array::from(run.to_vec())).map_err(broken)?;
            self.push(span, &part).map_err(broken)?;
            for (row, number) in run.iter().zip(first..) {
                let number = u32::try_from(number).map_err(|e| Error::stop("numbering the rows of a join", e))?;
                let place = Place { time: times[*row as usize], row: number };
                if has_key[*row as usize] {
                    self.find_later(keys.row(*row as usize).as_ref(), place);
                }
                places[*row as usize] = place;
            }
        }
        Ok(places)
    }

    /// Appends the rows of a key from one time to another, both included.
    pub(super) fn matches(&self, key: &[u8], from: i64, to: i64, found: &mut Vec<Place>) {
        if let Some(list) = self.index.get(key) {
            let first = list.partition_point(|p| p.time < from);
            found.extend(list.range(first..).take_while(|p| p.time <= to));
        }
    }

    /// The rows at these places, in this order.
    pub(super) fn gather(&self, places: &[Place]) -> Result<RecordBatch> {
        let (mut chunks, mut first) = (vec![], BTreeMap::new());
        for (span, held) in &self.spans {
            first.insert(*span, chunks.len());
            chunks.extend(held.chunks());
        }
        let find = |place: &Place| {
            let span = self.span(place.time);
            let (chunk, row) = self.spans[&span].find(place.row);
            (first[&span] + chunk, row)
        };
        interleave_record_batch(&chunks, &places.iter().map(find).collect::<Vec<_>>()).map_err(broken)
    }

    /// Lets go of spans whose rows all lie before `from`; gives their numbers.
    pub(super) fn forget(&mut self, from: i64) -> Vec<i64> {
        let kept = self.span(from);
        let mut gone = vec![];
        while let Some(entry) = self.spans.first_entry().filter(|e| *e.key() < kept) {
            let (span, held) = entry.remove_entry();
            self.rows -= held.len();
            self.bytes -= held.bytes();
            if held.is_saved() {
                self.gone.push(span);
            }
            gone.push(span);
        }
        if !gone.is_empty() {
            let (edge, key_bytes) = (kept.saturating_mul(self.width), &mut self.key_bytes);
            self.index.retain(|key, list| {
                list.drain(..list.partition_point(|p| p.time < edge));
                *key_bytes -= if list.is_empty() { key.len() } else { 0 };
                !list.is_empty()
            });
        }
        gone
    }

    /// The number of the span of a time.
    pub(super) fn span(&self, time: i64) -> i64 {
        time.div_euclid(self.width)
    }

    /// The place of a row of a span; none where there is no such row.
    pub(super) fn place(&self, span: i64, row: u32) -> Option<Place> {
        let held = self.spans.get(&span).filter(|held| (row as usize) < held.len())?;
        Some(Place { time: held.time(row), row })
    }

    /// Writes what came since the last save, and takes away what is gone.
    pub(super) fn save(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        for span in self.gone.drain(..) {
            to.remove(&format!("{}.{span}", self.name));
        }
        for (span, held) in &mut self.spans {
            if let Some(rows) = held.save(&self.schema).map_err(broken)? {
                to.append(&format!("{}.{span}", self.name), rows);
            }
        }
        Ok(())
    }

    /// Takes over what the saves have written, with the keys that `keys` finds in the rows. Gives the places of all rows.
    pub(super) fn load(
        &mut self,
        from: &mut dyn StateReader,
        mut keys: impl FnMut(&RecordBatch) -> Result<(Rows, Vec<bool>)>,
    ) -> Result<Vec<Place>> {
        let (mut places, name) = (vec![], self.name);
        for part in from.parts().iter().filter(|p| p.split_once('.').is_some_and(|(side, _)| side == name)) {
            for rows in from.read(part)? {
                let rows = self.as_held(&rows).map_err(|e| Error::stop(format!("state {part} of a join is of other columns"), e))?;
                let (rows_keys, has_key) = keys(&rows)?;
                places.extend(self.insert(&rows, &rows_keys, &has_key)?);
            }
        }
        self.spans.values_mut().for_each(Chunks::loaded);
        Ok(places)
    }

    /// Rows of a save. A column that is new since is null in them.
    fn as_held(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        if let Some(gone) = rows.schema_ref().fields().iter().find(|field| self.schema.index_of(field.name()).is_err()) {
            return Err(ArrowError::SchemaError(format!("column {} is gone", gone.name())));
        }
        let column = |field: &FieldRef| {
            let found = rows.column_by_name(field.name()).cloned();
            found.unwrap_or_else(|| new_null_array(field.data_type(), rows.num_rows()))
        };
        RecordBatch::try_new(self.schema.clone(), self.schema.fields().iter().map(column).collect())
    }

    fn push(&mut self, span: i64, rows: &RecordBatch) -> Result<(), ArrowError> {
        let held = self.spans.entry(span).or_default();
        self.bytes -= held.bytes();
        held.push(rows)?;
        self.bytes += held.bytes();
        self.rows += rows.num_rows();
        Ok(())
    }

    fn find_later(&mut self, key: &[u8], place: Place) {
        if let Some(list) = self.index.get_mut(key) {
            list.insert(list.partition_point(|p| p.time <= place.time), place);
        } else {
            self.key_bytes += key.len();
            self.index.insert(key.into(), VecDeque::from([place]));
        }
    }
}

/// The event times of what is held: the last column.
pub(super) fn times(rows: &RecordBatch) -> &[i64] {
    rows.column(rows.num_columns() - 1).as_primitive::<TimestampMicrosecondType>().values()
}

fn broken(cause: ArrowError) -> Error {
    Error::stop("the rows of a join", cause)
}
