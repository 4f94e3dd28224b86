//! The hot rows of one lane: what the lane put out lately, in memory, by table and epoch.
//!
//! Each table has a floor `h`: rows of epochs at or above it are here, and only they. Rows of lower epochs are in segments.
//! An epoch leaves only after it is sealed, so no row is ever in neither tier. After a restart the epochs that would still be here come back
//! from their segments, all those of a table at once.

use arrow::array::RecordBatch;
use flow::{Span, WallTime};
use std::collections::BTreeMap;
use world::{Bug, planted};

/// How much of a table one lane keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotLimits {
    /// Rows leave this long after their seal.
    pub age: Span,
    /// The oldest sealed epochs leave above this many bytes.
    pub bytes: u64,
}

/// Hot rows of all tables of one lane.
#[derive(Debug, Default)]
pub struct Hot {
    tables: BTreeMap<String, Table>,
    first: u64,
    sealed: u64,
    /// Tables whose rows of these epochs on are being read back.
    expected: BTreeMap<String, u64>,
}

/// A sealed epoch of a table that comes back.
#[derive(Debug)]
pub struct Recalled {
    /// Its number.
    pub epoch: u64,
    /// When it was sealed.
    pub sealed: WallTime,
    /// Its rows of the table.
    pub batches: Vec<RecordBatch>,
}

/// Hot rows of one table, as a query sees them.
#[derive(Clone, Debug, Default)]
pub struct HotTable {
    /// The least epoch whose rows are here.
    pub floor: u64,
    /// The rows, oldest first.
    pub batches: Vec<RecordBatch>,
    /// How many of the batches are of each epoch, in their order.
    pub epochs: Vec<(u64, usize)>,
}

impl HotTable {
    /// The batches, each with its epoch.
    pub fn by_epoch(&self) -> impl Iterator<Item = (u64, &RecordBatch)> {
        self.epochs.iter().flat_map(|(epoch, batches)| std::iter::repeat_n(*epoch, *batches)).zip(&self.batches)
    }
}

#[derive(Debug, Default)]
struct Table {
    floor: u64,
    bytes: u64,
    epochs: BTreeMap<u64, Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    batches: Vec<RecordBatch>,
    bytes: u64,
    sealed: Option<WallTime>,
}

impl Hot {
    /// Empty; `first` is the epoch that comes next, everything below is in segments.
    #[must_use]
    pub fn new(first: u64) -> Self {
        Self { tables: BTreeMap::new(), first, sealed: first.saturating_sub(1), expected: BTreeMap::new() }
    }

    /// Rows of an epoch that is not sealed yet.
    pub fn push(&mut self, table: &str, epoch: u64, rows: RecordBatch) {
        assert!(epoch > self.sealed, "rows of epoch {epoch} after epoch {} was sealed", self.sealed);
        if rows.num_rows() == 0 {
            return;
        }
        let table = self.table(table);
        let bytes = rows.get_array_memory_size() as u64;
        let entry = table.epochs.entry(epoch).or_default();
        entry.bytes += bytes;
        table.bytes += bytes;
        entry.batches.push(rows);
    }

    /// The table's epochs from `floor` on are being read back: their segments are left alone until `put_back`, or `expect_nothing`.
    pub fn expect(&mut self, table: &str, floor: u64) {
        self.expected.insert(table.to_owned(), floor);
    }

    /// No rows are being read back any more.
    pub fn expect_nothing(&mut self) {
        self.expected.clear();
    }

    /// Takes back the rows of all sealed epochs of the table from `floor` on, which lie before those that are here. Does nothing where
    /// epochs have left meanwhile: older ones would have left before.
    pub fn put_back(&mut self, table: &str, floor: u64, epochs: Vec<Recalled>) {
        self.expected.remove(table);
        let first = self.first;
        let table = self.table(table);
        if table.floor != first {
            return;
        }
        table.floor = if planted(Bug::RecalledRowsAlsoWarm) { first } else { floor };
        for Recalled { epoch, sealed, batches } in epochs {
            assert!((floor..first).contains(&epoch), "epoch {epoch} comes back among {floor} to {first}");
            let bytes = batches.iter().map(|rows| rows.get_array_memory_size() as u64).sum();
            table.bytes += bytes;
            table.epochs.insert(epoch, Rows { batches, bytes, sealed: Some(sealed) });
        }
    }

    fn table(&mut self, table: &str) -> &mut Table {
        let floor = self.first;
        if !self.tables.contains_key(table) {
            self.tables.insert(table.to_owned(), Table { floor, ..Table::default() });
        }
        self.tables.get_mut(table).expect("inserted above")
    }

    /// The epoch is sealed: its rows are in segments too, and may leave.
    pub fn seal(&mut self, epoch: u64, now: WallTime) {
        assert!(epoch > self.sealed, "epoch {epoch} sealed after epoch {}", self.sealed);
        self.sealed = epoch;
        for table in self.tables.values_mut() {
            for (_, rows) in table.epochs.range_mut(..=epoch) {
                rows.sealed.get_or_insert(now);
            }
        }
    }

    /// Lets sealed epochs go that are too old or too much; a table without limits keeps nothing that is sealed. Above `all` bytes of all
    /// tables the oldest epochs go, whatever table they are of.
    pub fn evict(&mut self, now: WallTime, limits: &BTreeMap<String, HotLimits>, all: u64) {
        for (name, table) in &mut self.tables {
            let limits = limits.get(name).copied().unwrap_or(HotLimits { age: Span(0), bytes: 0 });
            while let Some(sealed) = table.oldest() {
                if table.bytes <= limits.bytes && now.since(sealed) < limits.age {
                    break;
                }
                table.pop();
            }
        }
        while self.all_bytes() > all {
            let sealed = self.tables.values_mut().filter(|table| table.oldest().is_some());
            let Some(table) = sealed.min_by_key(|table| table.epochs.first_key_value().map(|(epoch, _)| *epoch)) else { break };
            table.pop();
        }
    }

    /// Bytes held of all tables.
    #[must_use]
    pub fn all_bytes(&self) -> u64 {
        self.tables.values().map(|t| t.bytes).sum()
    }

    /// What a query sees of each table. Tables that are missing have the floor `floor(table)` and no rows.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<String, HotTable> {
        let table = |t: &Table| HotTable {
            floor: t.floor,
            batches: t.epochs.values().flat_map(|r| r.batches.iter().cloned()).collect(),
            epochs: t.epochs.iter().map(|(epoch, r)| (*epoch, r.batches.len())).collect(),
        };
        self.tables.iter().map(|(name, t)| (name.clone(), table(t))).collect()
    }

    /// The least epoch whose rows of the table are here.
    #[must_use]
    pub fn floor(&self, table: &str) -> u64 {
        self.tables.get(table).map_or(self.first, |t| t.floor)
    }

    /// The least epoch whose rows of the table are here or on their way back: compaction and moves take segments below it only.
    #[must_use]
    pub fn claimed(&self, table: &str) -> u64 {
        self.expected.get(table).map_or(u64::MAX, |floor| *floor).min(self.floor(table))
    }

    /// Bytes held of a table.
    #[must_use]
    pub fn bytes(&self, table: &str) -> u64 {
        self.tables.get(table).map_or(0, |t| t.bytes)
    }
}

impl Table {
    /// When its oldest epoch was sealed; none while it is not.
    fn oldest(&self) -> Option<WallTime> {
        self.epochs.first_key_value().and_then(|(_, rows)| rows.sealed)
    }

    /// Lets the oldest epoch go.
    fn pop(&mut self) {
        if let Some((epoch, rows)) = self.epochs.pop_first() {
            self.bytes -= rows.bytes;
            self.floor = epoch + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::readings;

    fn limits(age: i64, bytes: u64) -> BTreeMap<String, HotLimits> {
        BTreeMap::from([("t".to_owned(), HotLimits { age: Span(age), bytes })])
    }

    #[test]
    fn only_sealed_epochs_leave_and_the_floor_follows() {
        let mut hot = Hot::new(5);
        hot.push("t", 5, readings(&[("a", 1, 1.0)]));
        hot.push("t", 6, readings(&[("a", 2, 1.0)]));
        hot.evict(WallTime(100), &limits(0, 0), u64::MAX);
        assert_eq!((hot.floor("t"), hot.snapshot()["t"].batches.len()), (5, 2));
        hot.seal(5, WallTime(100));
        hot.evict(WallTime(109), &limits(10, u64::MAX), u64::MAX);
        assert_eq!(hot.floor("t"), 5);
        hot.evict(WallTime(110), &limits(10, u64::MAX), u64::MAX);
        assert_eq!((hot.floor("t"), hot.snapshot()["t"].batches.len()), (6, 1));
        hot.seal(6, WallTime(110));
        hot.evict(WallTime(110), &limits(10, 0), u64::MAX);
        assert_eq!((hot.floor("t"), hot.bytes("t")), (7, 0));
    }

    #[test]
    fn above_the_bytes_of_all_tables_the_oldest_epochs_go() {
        let mut hot = Hot::new(1);
        for (epoch, table) in [(1, "t"), (1, "u"), (2, "t"), (3, "u"), (4, "u")] {
            hot.push(table, epoch, readings(&[("a", 1, 1.0)]));
        }
        hot.seal(3, WallTime(0));
        let limits = [("t", HotLimits { age: Span(9), bytes: u64::MAX }), ("u", HotLimits { age: Span(9), bytes: u64::MAX })];
        let limits = limits.map(|(table, limits)| (table.to_owned(), limits)).into();
        let each = hot.all_bytes() / 5;
        hot.evict(WallTime(1), &limits, 2 * each);
        assert_eq!((hot.floor("t"), hot.floor("u"), hot.all_bytes()), (3, 2, 2 * each), "epochs 1 and 2");
        hot.evict(WallTime(1), &limits, 0);
        assert_eq!((hot.floor("u"), hot.all_bytes()), (4, each), "what is not sealed stays");
    }

    #[test]
    fn what_was_hot_before_comes_back_unless_younger_rows_have_left() {
        let rows = |time| readings(&[("a", time, 1.0)]);
        let back = || [3, 4].map(|epoch| Recalled { epoch, sealed: WallTime(10 * epoch as i64), batches: vec![rows(epoch as i64)] }).into();
        let mut hot = Hot::new(5);
        hot.expect("t", 3);
        hot.push("t", 5, rows(5));
        assert_eq!((hot.floor("t"), hot.claimed("t"), hot.claimed("u")), (5, 3, 5));
        hot.put_back("t", 3, back());
        assert_eq!((hot.floor("t"), hot.claimed("t"), hot.snapshot()["t"].epochs.clone()), (3, 3, vec![(3, 1), (4, 1), (5, 1)]));
        hot.evict(WallTime(45), &limits(10, u64::MAX), u64::MAX);
        assert_eq!((hot.floor("t"), hot.snapshot()["t"].batches.len()), (4, 2));
        let mut late = Hot::new(5);
        late.expect("t", 3);
        late.push("t", 5, rows(5));
        late.seal(5, WallTime(50));
        late.evict(WallTime(50), &limits(0, 0), u64::MAX);
        late.put_back("t", 3, back());
        assert_eq!((late.floor("t"), late.claimed("t"), late.bytes("t")), (6, 6, 0));
    }

    #[test]
    #[should_panic(expected = "after epoch 5 was sealed")]
    fn a_sealed_epoch_takes_no_rows() {
        let mut hot = Hot::new(5);
        hot.seal(5, WallTime(0));
        hot.push("t", 5, readings(&[("a", 1, 1.0)]));
    }
}
