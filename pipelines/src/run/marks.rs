//! Which segments a lane gives to the next move to cold, and which it lets go because they are there. Pure.

use crate::run::lane::LaneTable;
use flow::{EventTime, Span, WallTime};
use storage::epoch::{Mark, Segment, TableState, Whole};
use world::{Bug, planted};

/// When the segments of a table may move to cold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MovePolicy {
    /// Length of a partition of event time: a segment belongs to the one of its greatest time.
    pub(crate) partition: Span,
    /// How long rows stay in warm after the end of their partition.
    pub(crate) age: Span,
}

/// What decides how old a segment is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    pub(crate) watermark: EventTime,
    pub(crate) now: WallTime,
    /// The input is at its end.
    pub(crate) ended: bool,
    /// The least epoch that is hot: its segments and later ones stay, so that a segment lies wholly on one side.
    pub(crate) floor: u64,
}

/// Segments of closed partitions that are old enough, as the next move; none while a move is under way.
///
/// Ages count from the lesser of wall time and watermark; after the end of the input from wall time alone.
pub(crate) fn candidates(table: &LaneTable, whole: &Whole, ages: Ages) -> Option<Mark> {
    let policy = table.moves?;
    let state = whole.tables.get(&table.name)?;
    if state.marked != state.dropped {
        return None;
    }
    let reached = if ages.ended { ages.now.0 } else { ages.watermark.0.min(ages.now.0) };
    let limit = reached.saturating_sub(policy.age.0);
    let closed = |time: i64| time.div_euclid(policy.partition.0).saturating_add(1).saturating_mul(policy.partition.0) <= limit;
    let old = |s: &&Segment| s.mark.is_none() && (s.epoch < ages.floor || planted(Bug::HotSegmentsMarked)) && closed(s.max_time);
    let files: Vec<_> = state.segments.iter().filter(old).map(|s| s.file.clone()).collect();
    (!files.is_empty()).then(|| Mark { number: state.marked + 1, files })
}

/// The edit of a table for the next record: a new mark, and how far moves are done. None when there is nothing to say.
pub(crate) fn edit(table: &LaneTable, whole: &Whole, ages: Ages, moved: Option<u64>) -> Option<(Option<Mark>, Option<u64>)> {
    let dropped = moved.filter(|t| whole.tables.get(&table.name).is_some_and(|state: &TableState| *t > state.dropped));
    let marked = candidates(table, whole, ages);
    (dropped.is_some() || marked.is_some()).then_some((marked, dropped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const SECOND: i64 = 1_000_000;

    fn table() -> LaneTable {
        let schema = Arc::new(arrow::datatypes::Schema::empty());
        LaneTable {
            name: "t".into(),
            schema,
            moves: Some(MovePolicy { partition: Span(10 * SECOND), age: Span(5 * SECOND) }),
            windows: Default::default(),
        }
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

    fn files(w: i64, now: i64, ended: bool) -> Vec<String> {
        let whole = whole(&[SECOND, 12 * SECOND], 0, 0);
        let ages = Ages { watermark: EventTime(w * SECOND), now: WallTime(now * SECOND), ended, floor: 2 };
        candidates(&table(), &whole, ages).map_or(vec![], |m| m.files)
    }

    #[test]
    fn a_partition_moves_when_it_is_closed_and_old_enough() {
        assert!(files(14, 1000, false).is_empty());
        assert_eq!(files(15, 1000, false), ["f0"]);
        assert_eq!(files(25, 1000, false), ["f0", "f1"]);
        assert!(files(25, 14, false).is_empty(), "the lesser of wall time and watermark counts");
        assert_eq!(files(0, 1000, true), ["f0", "f1"], "after the end wall time alone counts");
    }

    #[test]
    fn one_move_at_a_time() {
        let busy = whole(&[SECOND], 3, 2);
        let late = Ages { watermark: EventTime::MAX, now: WallTime(i64::MAX), ended: false, floor: 2 };
        assert!(candidates(&table(), &busy, late).is_none());
        assert!(candidates(&table(), &whole(&[SECOND], 2, 2), Ages { floor: 1, ..late }).is_none(), "hot rows stay");
        let edit = edit(&table(), &busy, late, Some(3));
        assert_eq!(edit, Some((None, Some(3))));
    }
}
