//! Which segments are merged next, and which are past their age. Pure.
//!
//! Size-tiered: segments of a partition whose numbers of rows have the same power of the fan-in are merged when there are as many as that
//! (O'Neil et al., The Log-Structured Merge-Tree, 1996; the tiers as in Cassandra's SizeTieredCompactionStrategy). So a row is written
//! again a few times, whatever the length of an epoch. A closed partition becomes one run; what comes to it later waits until it is worth
//! the work.

use crate::epoch::{Segment, TableState};
use std::collections::BTreeMap;

/// The most segments that one merge reads: memory grows with their number.
pub const MOST_INPUTS: usize = 64;

/// A closed partition is merged anew when the rows beside its greatest segment are at least this part of that one.
const WORTH: u64 = 4;

/// How the segments of a table are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Length of a partition of event time, in microseconds: a segment belongs to the one of its greatest time.
    pub partition: i64,
    /// So many segments of about the same number of rows are merged; at least 2.
    pub fan_in: u64,
}

/// What is known of a table when its segments are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Partitions that end at or below this event time are closed.
    pub reached: i64,
    /// Segments whose partition ends at or below this event time leave warm soon: not worth a merge.
    pub leaving: i64,
    /// The least epoch that is hot: its segments and later ones stay as they are.
    pub floor: u64,
}

/// Segments to be merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// All of one partition, none with a mark.
    pub segments: Vec<Segment>,
    /// Where the partition begins: earlier rows make a run of their own.
    pub start: i64,
}

impl Compaction {
    /// The partition of a time, by its end.
    #[must_use]
    pub fn end(&self, time: i64) -> i64 {
        time.div_euclid(self.partition).saturating_add(1).saturating_mul(self.partition)
    }

    /// What is to be merged next, of the oldest partition first.
    #[must_use]
    pub fn due(&self, state: &TableState, now: Now) -> Option<Due> {
        let mut partitions: BTreeMap<i64, Vec<&Segment>> = BTreeMap::new();
        for segment in &state.segments {
            partitions.entry(self.end(segment.max_time)).or_default().push(segment);
        }
        partitions.into_iter().filter(|(end, _)| *end > now.leaving).find_map(|(end, mut all)| {
            all.retain(|s| s.mark.is_none());
            let quiet = all.iter().all(|s| s.epoch < now.floor);
            all.retain(|s| s.epoch < now.floor);
            all.sort_by_key(|s| s.rows);
            let segments = if end <= now.reached && quiet { self.closed(&all) } else { None }.or_else(|| self.tier(&all))?;
            let segments = segments.iter().take(MOST_INPUTS).map(|s| (*s).clone()).collect();
            Some(Due { segments, start: end.saturating_sub(self.partition) })
        })
    }

    /// All segments of a closed partition, smallest first, when the small ones are worth it.
    fn closed<'s, 'a>(&self, all: &'s [&'a Segment]) -> Option<&'s [&'a Segment]> {
        let (greatest, others) = all.split_last()?;
        let small: u64 = others.iter().map(|s| s.rows).sum();
        (!others.is_empty() && (small.saturating_mul(WORTH) >= greatest.rows)).then_some(all)
    }

    /// Segments of one size, when there are enough of them.
    fn tier<'s, 'a>(&self, all: &'s [&'a Segment]) -> Option<&'s [&'a Segment]> {
        let tier = |s: &&Segment| s.rows.max(1).ilog(self.fan_in);
        all.chunk_by(|a, b| tier(a) == tier(b)).find(|same| same.len() as u64 >= self.fan_in)
    }

    /// Segments whose partition ended at or below `limit`, of the oldest day alone: no step of a clock empties a table at once.
    #[must_use]
    pub fn expired<'a>(&self, state: &'a TableState, limit: i64) -> Vec<&'a Segment> {
        let past: Vec<_> = state.segments.iter().filter(|s| s.mark.is_none() && self.end(s.max_time) <= limit).collect();
        let day = |s: &Segment| s.max_time.div_euclid(86_400_000_000);
        let oldest = past.iter().map(|s| day(s)).min();
        past.into_iter().filter(|s| Some(day(s)) == oldest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Compaction = Compaction { partition: 100, fan_in: 4 };
    const OPEN: Now = Now { reached: i64::MIN, leaving: i64::MIN, floor: 100 };

    fn segment(n: usize, max_time: i64, rows: u64, epoch: u64) -> Segment {
        let times = (max_time, max_time);
        let (file, key) = (format!("f{n}"), String::new);
        Segment {
            file,
            rows,
            bytes: 1,
            checksum: 0,
            min_time: times.0,
            max_time: times.1,
            min_key: key(),
            max_key: key(),
            epoch,
            mark: None,
        }
    }

    /// Segments as (greatest time, rows, epoch).
    fn state(segments: &[(i64, u64, u64)]) -> TableState {
        let segments = segments.iter().enumerate().map(|(n, (t, rows, epoch))| segment(n, *t, *rows, *epoch)).collect();
        TableState { segments, ..TableState::default() }
    }

    fn files(state: &TableState, now: Now) -> Vec<String> {
        let mut files: Vec<_> = POLICY.due(state, now).map_or(vec![], |due| due.segments).into_iter().map(|s| s.file).collect();
        files.sort();
        files
    }

    #[test]
    fn as_many_of_one_size_as_the_fan_in_are_merged() {
        assert!(files(&state(&[(5, 10, 1), (6, 10, 2), (7, 10, 3)]), OPEN).is_empty());
        assert_eq!(files(&state(&[(5, 10, 1), (6, 10, 2), (7, 70, 3), (8, 5, 4), (9, 15, 5)]), OPEN), ["f0", "f1", "f3", "f4"]);
        assert!(files(&state(&[(5, 10, 1), (6, 10, 2), (107, 10, 3), (8, 10, 4)]), OPEN).is_empty(), "of two partitions");
        assert!(files(&state(&[(5, 10, 1), (6, 10, 2), (7, 10, 3), (8, 10, 100)]), OPEN).is_empty(), "one is hot");
    }

    #[test]
    fn a_closed_partition_becomes_one_run() {
        let closed = Now { reached: 100, ..OPEN };
        assert_eq!(files(&state(&[(5, 10, 1), (6, 1000, 2), (7, 300, 3)]), closed), ["f0", "f1", "f2"]);
        assert!(files(&state(&[(5, 10, 1), (6, 1000, 2)]), closed).is_empty(), "so little waits");
        assert!(files(&state(&[(5, 10, 1), (6, 10, 100)]), closed).is_empty(), "some of it is hot");
        assert!(files(&state(&[(5, 10, 1), (6, 10, 2)]), Now { leaving: 100, ..closed }).is_empty(), "it leaves soon");
        assert_eq!(POLICY.due(&state(&[(105, 10, 1), (106, 10, 2)]), Now { reached: 200, ..OPEN }).unwrap().start, 100);
    }

    #[test]
    fn what_moves_is_left_alone() {
        let mut of = state(&[(5, 10, 1), (6, 10, 2)]);
        of.segments[0].mark = Some(1);
        assert!(files(&of, Now { reached: 100, ..OPEN }).is_empty());
    }

    #[test]
    fn merging_ends_and_rows_are_written_again_a_few_times() {
        let (mut of, mut written) = (TableState::default(), 0);
        for epoch in 1..=1_000 {
            of.segments.push(segment(epoch as usize, 50, 10, epoch));
            while let Some(due) = POLICY.due(&of, Now { floor: 2_000, ..OPEN }) {
                let rows = due.segments.iter().map(|s| s.rows).sum();
                written += rows;
                of.segments.retain(|s| !due.segments.contains(s));
                of.segments.push(segment(10_000 + epoch as usize, 50, rows, epoch));
            }
        }
        assert!(of.segments.len() <= 3 * 6, "{} segments are left", of.segments.len());
        assert!(written <= 6 * 10_000, "{written} rows were written again");
    }

    #[test]
    fn one_day_goes_at_a_time() {
        let day = 86_400_000_000;
        let policy = Compaction { partition: day, fan_in: 4 };
        let of = state(&[(day + 1, 1, 1), (day + 2, 1, 1), (2 * day, 1, 1), (9 * day, 1, 1)]);
        let names = |limit| policy.expired(&of, limit).iter().map(|s| s.file.clone()).collect::<Vec<_>>();
        assert_eq!(names(20 * day), ["f0", "f1"]);
        assert!(names(day).is_empty());
    }
}
