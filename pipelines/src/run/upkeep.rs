//! What a lane does with the segments of its tables beside adding to them: gives them to moves, lets go of those that are in cold or past
//! their age, and takes the runs of compactions in their place. Pure.
//!
//! One compaction is under way at most. Its segments are given to no move and do not expire until a record has its outcome.

use crate::run::lane::LaneTable;
use crate::run::marks::{self, Ages};
use flow::{Result, Span, WallTime};
use std::collections::{BTreeMap, BTreeSet};
use storage::epoch::{Segment, TableChange, Whole};
use storage::warm::policy::{Due, Now};
use world::{Bug, planted};

/// At most one day of a table expires in this time, so that a step of the clock is noticed before a table is empty.
const EXPIRE_EVERY: Span = Span(60_000_000);

/// The segments that a lane's records will say something about.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// The highest move number known to be in cold, by table.
    moved: BTreeMap<usize, u64>,
    /// The same as it was at the cut: what the next record lets go, so that its rows for sinks can say so.
    leaving: BTreeMap<usize, u64>,
    /// The table and segments of the compaction under way, until its outcome is sealed.
    busy: Option<(usize, BTreeSet<String>)>,
    /// What the compaction made; not sealed yet.
    runs: Option<Vec<Segment>>,
    /// The record that is being sealed names these runs.
    sealing: bool,
    /// When rows of a table expired last.
    expired: BTreeMap<usize, WallTime>,
}

/// A change of a table, and how many rows of it expire.
pub(crate) struct Edit {
    pub(crate) table: usize,
    pub(crate) change: TableChange,
    pub(crate) expired: u64,
}

impl Upkeep {
    /// All move numbers of a table up to `t` are in cold. True when that is news.
    pub(crate) fn note_moved(&mut self, table: usize, dropped: u64, t: u64) -> bool {
        t > dropped && self.moved.insert(table, t) != Some(t)
    }

    /// An epoch is cut: by table, the highest move number whose segments its record lets go, where there is one.
    pub(crate) fn cut(&mut self, tables: &[LaneTable], whole: &Whole) -> Vec<(usize, u64)> {
        self.leaving.clone_from(&self.moved);
        let leaving = |(index, t): (&usize, &u64)| marks::dropped(&tables[*index], whole, Some(*t)).map(|t| (*index, t));
        self.leaving.iter().filter_map(leaving).collect()
    }

    /// Whether a compaction is under way, or its outcome is not sealed.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.is_some()
    }

    /// What is to be compacted next; it is under way from here on.
    pub(crate) fn begin(&mut self, tables: &[LaneTable], whole: &Whole, ages: impl Fn(usize) -> Ages) -> Option<(usize, Due)> {
        if self.is_busy() {
            return None;
        }
        let due = |(index, table): (usize, &LaneTable)| {
            let (state, ages) = (whole.tables.get(&table.name)?, ages(index));
            let floor = if planted(Bug::HotSegmentsCompacted) { u64::MAX } else { ages.floor };
            let leaving = table.age.map_or(i64::MIN, |age| ages.limit(age));
            let due = table.compaction.due(state, Now { reached: ages.limit(Span(0)), leaving, floor })?;
            Some((index, due))
        };
        let (table, due) = tables.iter().enumerate().find_map(due)?;
        self.busy = Some((table, due.segments.iter().map(|s| s.file.clone()).collect()));
        Some((table, due))
    }

    /// The compaction under way is done, or was given up.
    pub(crate) fn ended(&mut self, runs: Result<Vec<Segment>>) -> Result<()> {
        match runs {
            Ok(runs) => self.runs = Some(runs),
            Err(error) => {
                self.busy = None;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether the next record would give segments to a move.
    pub(crate) fn wants_to_mark(&self, tables: &[LaneTable], whole: &Whole, ages: impl Fn(usize) -> Ages) -> bool {
        tables.iter().enumerate().any(|(i, table)| marks::candidates(table, whole, ages(i), &self.held(i)).is_some())
    }

    /// Whether the next record would let go of segments that are past their age.
    pub(crate) fn wants_to_expire(&self, tables: &[LaneTable], whole: &Whole, ages: impl Fn(usize) -> Ages) -> bool {
        tables.iter().enumerate().any(|(i, table)| !self.past(i, table, whole, ages(i)).is_empty())
    }

    /// What the next record says of the tables. `sealed` follows.
    pub(crate) fn edits(&mut self, tables: &[LaneTable], whole: &Whole, ages: impl Fn(usize) -> Ages) -> Vec<Edit> {
        self.sealing = self.runs.is_some();
        let leaving = if planted(Bug::MovesUntold) { &self.moved } else { &self.leaving };
        let mut edits = vec![];
        for (index, table) in tables.iter().enumerate() {
            let ages = ages(index);
            let past = self.past(index, table, whole, ages);
            let expired = past.iter().map(|s| s.rows).sum();
            let mut change = TableChange {
                removed: past.iter().map(|s| s.file.clone()).collect(),
                added: vec![],
                marked: marks::candidates(table, whole, ages, &self.held(index)),
                dropped: marks::dropped(table, whole, leaving.get(&index).copied()),
            };
            if expired > 0 {
                self.expired.insert(index, ages.now);
            }
            self.replace(index, &mut change);
            if change != TableChange::default() {
                edits.push(Edit { table: index, change, expired });
            }
        }
        edits
    }

    /// The record of `edits` is sealed.
    pub(crate) fn sealed(&mut self) {
        if std::mem::take(&mut self.sealing) {
            (self.busy, self.runs) = (None, None);
        }
    }

    /// The runs take the place of what they were made from.
    fn replace(&self, index: usize, change: &mut TableChange) {
        let (Some(runs), Some((table, segments))) = (&self.runs, &self.busy) else { return };
        if *table == index {
            change.added.extend(runs.iter().cloned());
            if !planted(Bug::CompactedRowsTwice) {
                change.removed.extend(segments.iter().cloned());
            }
        }
    }

    /// The segments of a table that a compaction holds.
    fn held(&self, index: usize) -> BTreeSet<String> {
        let held = self.busy.as_ref().filter(|(table, _)| *table == index);
        held.map(|(_, segments)| segments.clone()).unwrap_or_default()
    }

    /// Segments past the age of a table without a cold tier.
    fn past<'w>(&self, index: usize, table: &LaneTable, whole: &'w Whole, ages: Ages) -> Vec<&'w Segment> {
        let soon = self.expired.get(&index).is_some_and(|last| (0..EXPIRE_EVERY.0).contains(&(ages.now.0 - last.0)));
        let (Some(age), Some(state), false, false) = (table.age, whole.tables.get(&table.name), table.is_cold, soon) else { return vec![] };
        let held = self.held(index);
        let past = table.compaction.expired(state, ages.limit(age));
        past.into_iter().filter(|s| s.epoch < ages.floor && !held.contains(&s.file)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::EventTime;
    use std::sync::Arc;
    use storage::epoch::TableState;
    use storage::warm::policy::Compaction;

    const SECOND: i64 = 1_000_000;

    fn table(age: Option<Span>, is_cold: bool) -> LaneTable {
        let compaction = Compaction { partition: 10 * SECOND, fan_in: 2 };
        let schema = Arc::new(arrow::datatypes::Schema::empty());
        LaneTable { name: "t".into(), schema, compaction, age, is_cold, windows: BTreeMap::new() }
    }

    fn segment(n: usize, time: i64) -> Segment {
        let (file, key) = (format!("f{n}"), String::new);
        Segment {
            file,
            rows: 3,
            bytes: 1,
            checksum: 0,
            min_time: time,
            max_time: time,
            min_key: key(),
            max_key: key(),
            epoch: 1,
            mark: None,
        }
    }

    fn whole(times: &[i64]) -> Whole {
        let segments = times.iter().enumerate().map(|(n, t)| segment(n, *t)).collect();
        Whole { tables: [("t".to_string(), TableState { segments, ..TableState::default() })].into(), ..Whole::default() }
    }

    fn at(now: i64) -> impl Fn(usize) -> Ages {
        move |_| Ages { watermark: EventTime(now), now: WallTime(now), ended: false, floor: 9, pressed: false }
    }

    #[test]
    fn segments_of_a_compaction_are_given_to_no_move_until_its_outcome_is_sealed() {
        let (tables, whole) = ([table(Some(Span(30 * SECOND)), true)], whole(&[SECOND, 2 * SECOND, 12 * SECOND]));
        let mut upkeep = Upkeep::default();
        let (of, due) = upkeep.begin(&tables, &whole, at(15 * SECOND)).unwrap();
        assert_eq!((of, due.segments.len(), due.start), (0, 2, 0));
        assert!(upkeep.begin(&tables, &whole, at(15 * SECOND)).is_none(), "one at a time");
        // Old enough to move: the third alone is free.
        let marked = |upkeep: &mut Upkeep| upkeep.edits(&tables, &whole, at(60 * SECOND)).remove(0).change;
        assert_eq!(marked(&mut upkeep).marked.unwrap().files, ["f2"]);
        upkeep.sealed();
        upkeep.ended(Ok(vec![segment(7, 2 * SECOND)])).unwrap();
        let change = marked(&mut upkeep);
        assert_eq!(
            (change.removed, change.added[0].file.as_str(), change.marked.unwrap().files),
            (vec!["f0".into(), "f1".into()], "f7", vec!["f2".to_string()])
        );
        upkeep.sealed();
        assert!(!upkeep.is_busy());
    }

    #[test]
    fn a_compaction_that_failed_lets_its_segments_go() {
        let (tables, whole) = ([table(Some(Span(30 * SECOND)), true)], whole(&[SECOND, 2 * SECOND]));
        let mut upkeep = Upkeep::default();
        upkeep.begin(&tables, &whole, at(15 * SECOND)).unwrap();
        upkeep.ended(Err(flow::Error::new(flow::Remedy::Retry, "x"))).unwrap_err();
        assert!(upkeep.wants_to_mark(&tables, &whole, at(60 * SECOND)));
    }

    #[test]
    fn without_cold_rows_expire_a_day_a_minute_and_without_an_age_never() {
        let day = 86_400 * SECOND;
        let whole = whole(&[0, day, 20 * day]);
        let mut upkeep = Upkeep::default();
        let tables = [table(Some(Span(day)), false)];
        let mut gone =
            |now: i64| upkeep.edits(&tables, &whole, at(now)).into_iter().map(|e| (e.change.removed, e.expired)).collect::<Vec<_>>();
        assert_eq!(gone(10 * day), [(vec!["f0".to_string()], 3)]);
        assert!(gone(10 * day + SECOND).is_empty(), "so soon");
        assert_eq!(gone(10 * day + 61 * SECOND).len(), 1);
        assert!(Upkeep::default().edits(&[table(None, false)], &whole, at(99 * day)).is_empty());
    }
}
