//! Which segments a lane gives to the next move to cold, and which it lets go because they are there. Pure.

use crate::run::lane::LaneTable;
use flow::{EventTime, Span, WallTime};
use std::collections::BTreeSet;
use storage::epoch::{Mark, Segment, Whole};
use world::{Bug, planted};

/// What decides how old a segment is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    pub(crate) watermark: EventTime,
    pub(crate) now: WallTime,
    /// The input is at its end.
    pub(crate) ended: bool,
    /// The least epoch that is hot: its segments and later ones stay, so that a segment lies wholly on one side.
    pub(crate) floor: u64,
    /// The disk is nearly full: what may go to cold goes before its age.
    pub(crate) pressed: bool,
}

impl Ages {
    /// The event time below which everything is at least so old. Ages count from the lesser of wall time and watermark; after the end of the
    /// input from wall time alone.
    pub(crate) fn limit(self, age: Span) -> i64 {
        let reached = if self.ended { self.now.0 } else { self.watermark.0.min(self.now.0) };
        reached.saturating_sub(age.0)
    }
}

/// Segments of closed partitions that are old enough, as the next move; none while a move is under way. `held`: a compaction has them.
pub(crate) fn candidates(table: &LaneTable, whole: &Whole, ages: Ages, held: &BTreeSet<String>) -> Option<Mark> {
    let age = table.age.filter(|_| table.is_cold)?;
    let state = whole.tables.get(&table.name)?;
    if state.marked != state.dropped {
        return None;
    }
    let limit = ages.limit(if ages.pressed { Span(0) } else { age });
    let free = |s: &&Segment| s.mark.is_none() && !held.contains(&s.file) && (s.epoch < ages.floor || planted(Bug::HotSegmentsMarked));
    let old = |s: &&Segment| table.compaction.end(s.max_time) <= limit;
    let files: Vec<_> = state.segments.iter().filter(free).filter(old).map(|s| s.file.clone()).collect();
    (!files.is_empty()).then(|| Mark { number: state.marked + 1, files })
}

/// How far moves are done, when the record does not say it yet.
pub(crate) fn dropped(table: &LaneTable, whole: &Whole, moved: Option<u64>) -> Option<u64> {
    moved.filter(|t| whole.tables.get(&table.name).is_some_and(|state| *t > state.dropped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use storage::epoch::TableState;
    use storage::warm::policy::Compaction;

    const SECOND: i64 = 1_000_000;

    fn table() -> LaneTable {
        let schema = Arc::new(arrow::datatypes::Schema::empty());
        let compaction = Compaction { partition: 10 * SECOND, fan_in: 16 };
        LaneTable { name: "t".into(), schema, compaction, age: Some(Span(5 * SECOND)), is_cold: true, windows: Default::default() }
    }

    fn whole(times: &[i64], marked: u64, dropped: u64) -> Whole {
        let segment = |(i, t): (usize, &i64)| Segment {
            file: format!("f{i}"),
            rows: 1,
            bytes: 1,
            checksum: 0,
            min_time: *t,
            max_time: *t,
            min_key: String::new(),
            max_key: String::new(),
            epoch: 1,
            mark: None,
        };
        let state = TableState { segments: times.iter().enumerate().map(segment).collect(), marked, dropped };
        Whole { tables: [("t".to_string(), state)].into(), ..Whole::default() }
    }

    fn candidates(whole: &Whole, ages: Ages) -> Option<Mark> {
        super::candidates(&table(), whole, ages, &BTreeSet::new())
    }

    fn files(w: i64, now: i64, ended: bool, pressed: bool) -> Vec<String> {
        let whole = whole(&[SECOND, 12 * SECOND], 0, 0);
        let ages = Ages { watermark: EventTime(w * SECOND), now: WallTime(now * SECOND), ended, floor: 2, pressed };
        candidates(&whole, ages).map_or(vec![], |m| m.files)
    }

    #[test]
    fn a_partition_moves_when_it_is_closed_and_old_enough() {
        assert!(files(14, 1000, false, false).is_empty());
        assert_eq!(files(15, 1000, false, false), ["f0"]);
        assert_eq!(files(25, 1000, false, false), ["f0", "f1"]);
        assert!(files(25, 14, false, false).is_empty(), "the lesser of wall time and watermark counts");
        assert_eq!(files(0, 1000, true, false), ["f0", "f1"], "after the end wall time alone counts");
        assert_eq!(files(10, 1000, false, true), ["f0"], "a full disk does not wait for the age");
    }

    #[test]
    fn one_move_at_a_time() {
        let busy = whole(&[SECOND], 3, 2);
        let late = Ages { watermark: EventTime::MAX, now: WallTime(i64::MAX), ended: false, floor: 2, pressed: false };
        assert!(candidates(&busy, late).is_none());
        assert!(candidates(&whole(&[SECOND], 2, 2), Ages { floor: 1, ..late }).is_none(), "hot rows stay");
        assert_eq!(dropped(&table(), &busy, Some(3)), Some(3));
        assert_eq!(dropped(&table(), &busy, Some(2)), None);
    }
}
