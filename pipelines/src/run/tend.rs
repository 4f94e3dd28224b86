//! What a cold table needs beside its moves: small files of days that are over made into large ones, days that are too old dropped,
//! and when it is time to look. Pure.

use flow::{EventTime, WallTime};
use std::collections::BTreeMap;
use std::time::Duration;
use storage::cold::ColdFile;
use storage::{ColdOptions, WarmOptions};

/// One day of a table may be dropped in this time, so that no step of a clock empties a table.
const DROP_EVERY: Duration = Duration::from_secs(60);
/// Old files are looked for at most this often.
const VACUUM_EVERY: Duration = Duration::from_secs(3_600);
/// A rewrite reads at most so many times the bytes of one file: it must not hold up the next move for long.
const GROUP_FILES: u64 = 4;
/// A file joins a rewrite if it is at most so many times as large as all smaller ones together, so that a late row does not rewrite a day.
const GROWTH: u64 = 4;

/// What the options of a table ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpkeepPolicy {
    /// Rows stay in warm for so long after their partition ends; a day is over when the last of them may have moved.
    pub(crate) warm_age: Duration,
    /// Days older than this are dropped; none: never.
    pub(crate) age: Option<Duration>,
    /// Files are about this large.
    pub(crate) file_size: u64,
    /// Removed files are kept for so long.
    pub(crate) keep_removed: Duration,
}

impl UpkeepPolicy {
    pub(crate) fn of(warm: &WarmOptions, cold: &ColdOptions) -> Self {
        Self { warm_age: warm.kept(true).unwrap_or_default(), age: cold.age, file_size: cold.file_size, keep_removed: cold.keep_removed }
    }
}

/// Up to where event time has come for a table: the least watermark of the lanes that have one, and not later than the wall clock. After
/// the end of the input the wall clock alone. None when nothing is known.
pub(crate) fn reached(watermarks: impl Iterator<Item = EventTime>, now: WallTime, ended: bool) -> Option<EventTime> {
    if ended {
        return Some(EventTime(now.0));
    }
    let least = watermarks.filter(|w| *w != EventTime::MIN).min()?;
    Some(EventTime(least.0.min(now.0)))
}

/// The files of the oldest day, if it is too old.
pub(crate) fn overdue(files: &[ColdFile], policy: &UpkeepPolicy, reached: EventTime) -> Option<Vec<ColdFile>> {
    let oldest = files.iter().min_by_key(|f| f.ends)?;
    let of_it = || files.iter().filter(|f| f.part == oldest.part).cloned().collect();
    policy.age.is_some_and(|age| is_past(oldest.ends, age, reached)).then(of_it)
}

/// The files of a day that are better one: of the oldest day that has such, the smallest ones up to where the next is too large to join.
pub(crate) fn small(files: &[ColdFile], policy: &UpkeepPolicy, reached: EventTime) -> Option<Vec<ColdFile>> {
    let mut days: BTreeMap<EventTime, Vec<&ColdFile>> = BTreeMap::new();
    let is_small = |f: &&ColdFile| f.rows.is_some() && f.bytes < policy.file_size / 2 && is_past(f.ends, policy.warm_age, reached);
    for file in files.iter().filter(is_small) {
        days.entry(file.ends).or_default().push(file);
    }
    days.into_values().find_map(|mut day| {
        day.sort_by(|a, b| (a.bytes, &a.path).cmp(&(b.bytes, &b.path)));
        let group = group(&day, policy.file_size);
        (group.len() > 1).then(|| group.iter().map(|f| (*f).clone()).collect())
    })
}

/// The first of these files, which are in order of size, that go together.
fn group<'a, 'f>(day: &'a [&'f ColdFile], file_size: u64) -> &'a [&'f ColdFile] {
    let mut bytes = 0;
    let joins = |file: &&&ColdFile| {
        let fits = bytes == 0 || file.bytes <= bytes * GROWTH && bytes + file.bytes <= file_size * GROUP_FILES;
        bytes += file.bytes;
        fits
    };
    let count = day.iter().take_while(joins).count();
    &day[..count]
}

fn is_past(end: EventTime, age: Duration, reached: EventTime) -> bool {
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    end.0.saturating_add(age) <= reached.0
}

/// When the upkeep of a table did what, by the monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct UpkeepTimes {
    pub(crate) looked: Option<Duration>,
    pub(crate) dropped: Option<Duration>,
    pub(crate) vacuumed: Option<Duration>,
}

impl UpkeepTimes {
    /// Whether a day may be dropped. Taken when a drop is tried: one whose outcome is unknown may have been done.
    pub(crate) fn take_drop(&mut self, now: Duration) -> bool {
        let may = is_due(self.dropped, DROP_EVERY, now);
        self.dropped = if may { Some(now) } else { self.dropped };
        may
    }

    /// Whether it is time to delete what was removed.
    pub(crate) fn vacuum_is_due(&self, policy: &UpkeepPolicy, now: Duration) -> bool {
        is_due(self.vacuumed, VACUUM_EVERY.min(policy.keep_removed / 4), now)
    }
}

/// Whether `every` has passed since `last`.
pub(crate) fn is_due(last: Option<Duration>, every: Duration, now: Duration) -> bool {
    last.is_none_or(|last| now.saturating_sub(last) >= every)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;
    const POLICY: UpkeepPolicy = UpkeepPolicy {
        warm_age: Duration::from_secs(3_600),
        age: Some(Duration::from_secs(10 * 86_400)),
        file_size: 1_000,
        keep_removed: Duration::from_secs(7 * 86_400),
    };

    fn file(day: i64, name: &str, bytes: u64) -> ColdFile {
        ColdFile { path: format!("{day}/{name}"), part: day.to_string(), ends: EventTime((day + 1) * DAY), bytes, rows: Some(1) }
    }

    fn names(files: Option<Vec<ColdFile>>) -> Vec<String> {
        files.unwrap_or_default().into_iter().map(|f| f.path).collect()
    }

    fn small_at(files: &[ColdFile], hours: i64) -> Vec<String> {
        names(small(files, &POLICY, EventTime(hours * DAY / 24)))
    }

    #[test]
    fn small_files_of_a_day_that_is_over_go_together() {
        let files = [file(0, "b", 20), file(0, "a", 10), file(0, "large", 500), file(1, "c", 10), file(1, "d", 10)];
        assert!(small_at(&files, 24).is_empty(), "rows of the day may still be in warm");
        assert_eq!(small_at(&files, 25), ["0/a", "0/b"]);
        assert_eq!(small_at(&files[2..], 49), ["1/c", "1/d"], "a day with one file has nothing to do");
        assert!(small_at(&files[2..3], 1_000).is_empty());
    }

    #[test]
    fn a_late_row_does_not_rewrite_a_day() {
        let files = [file(0, "late", 1), file(0, "day", 400)];
        assert!(small_at(&files, 99).is_empty());
        let more: Vec<_> = (0..120).map(|n| file(0, &format!("{n:03}"), 1)).chain([file(0, "day", 400)]).collect();
        assert_eq!(small_at(&more, 99).len(), 121, "in the end they are worth it");
    }

    #[test]
    fn a_rewrite_is_bounded() {
        let files: Vec<_> = (0..100).map(|n| file(0, &format!("{n:03}"), 100)).collect();
        assert_eq!(small_at(&files, 99).len(), 40);
    }

    #[test]
    fn files_whose_rows_nobody_knows_stay() {
        let unknown = |name| ColdFile { rows: None, ..file(0, name, 1) };
        assert!(small_at(&[unknown("a"), unknown("b")], 99).is_empty());
    }

    #[test]
    fn the_oldest_day_goes_when_it_is_too_old() {
        let files = [file(1, "c", 10), file(0, "a", 10), file(0, "b", 900)];
        let at = |days: i64| names(overdue(&files, &POLICY, EventTime(days * DAY)));
        assert!(at(10).is_empty());
        assert_eq!(at(11), ["0/a", "0/b"]);
        assert_eq!(at(500), ["0/a", "0/b"], "one day at a time");
    }

    #[test]
    fn ages_count_from_the_lesser_of_wall_time_and_watermarks() {
        let at = |watermarks: &[i64], now, ended| reached(watermarks.iter().map(|w| EventTime(*w)), WallTime(now), ended).map(|t| t.0);
        assert_eq!(at(&[5, 3], 9, false), Some(3));
        assert_eq!(at(&[5, 3], 1, false), Some(1), "a clock that went back");
        assert_eq!(at(&[5, 3], i64::MAX, false), Some(3), "a clock that went far ahead");
        assert_eq!(at(&[i64::MIN, 3], 9, false), Some(3), "a lane that has seen nothing");
        assert_eq!(at(&[i64::MIN], 9, false), None);
        assert_eq!(at(&[3], 9, true), Some(9), "after the end");
    }

    #[test]
    fn one_day_a_minute_may_be_dropped() {
        let mut times = UpkeepTimes::default();
        let mut at = |seconds| times.take_drop(Duration::from_secs(seconds));
        assert_eq!([0, 59, 60, 61, 119, 120].map(&mut at), [true, false, true, false, false, true]);
    }
}
