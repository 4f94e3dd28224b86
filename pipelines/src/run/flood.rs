//! Bounds what a flood of dead letters stores: so many of a reason in each second of arrival; the rest is only counted.
//!
//! Arrivals stand in the log, so that a replay keeps the same ones. Rows of files are not bounded: all of a file arrive at one instant,
//! and its broken rows are no more than the file itself.

use flow::{Reason, WallTime};
use std::collections::BTreeMap;

const SECOND: i64 = 1_000_000;

/// One lane's share of the bound.
#[derive(Clone, Debug)]
pub(crate) struct Flood {
    per_second: u64,
    /// The newest second of arrival of each reason, and how many were kept in it.
    kept: BTreeMap<Reason, (i64, u64)>,
}

impl Flood {
    /// `per_second` for the whole pipeline, spread over `lanes`; what the record's counters say of the last second goes on.
    pub(crate) fn new(per_second: u32, lanes: u32, counters: &BTreeMap<String, u64>) -> Self {
        let stored = |reason: Reason| {
            let [second, rows] = words(reason).map(|word| counters.get(&word).copied());
            Some((reason, (i64::try_from(second?).ok()?, rows?)))
        };
        Self { per_second: u64::from(per_second.div_ceil(lanes.max(1))), kept: Reason::ALL.into_iter().filter_map(stored).collect() }
    }

    /// How many of `rows` that arrived at `arrival` are kept; the first ones are.
    pub(crate) fn admit(&mut self, reason: Reason, arrival: WallTime, rows: u64) -> u64 {
        let second = arrival.0.div_euclid(SECOND).max(0);
        let (newest, kept) = self.kept.entry(reason).or_insert((second, 0));
        if second > *newest {
            (*newest, *kept) = (second, 0);
        }
        let admitted = rows.min(self.per_second.saturating_sub(*kept));
        *kept += admitted;
        admitted
    }

    /// Writes what `new` reads.
    pub(crate) fn store(&self, counters: &mut BTreeMap<String, u64>) {
        for (reason, (second, rows)) in &self.kept {
            let [at, kept] = words(*reason);
            counters.insert(at, second.unsigned_abs());
            counters.insert(kept, *rows);
        }
    }
}

fn words(reason: Reason) -> [String; 2] {
    ["second", "kept"].map(|word| format!("flood.{}.{word}", reason.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_keeps_so_many_of_each_reason_and_the_next_begins_anew() {
        let mut flood = Flood::new(10, 4, &BTreeMap::new());
        let at = |ms: i64| WallTime(ms * 1_000);
        assert_eq!(flood.admit(Reason::Malformed, at(5_000), 2), 2);
        assert_eq!(flood.admit(Reason::Malformed, at(5_900), 9), 1, "3 a lane");
        assert_eq!(flood.admit(Reason::KeyMissing, at(5_900), 1), 1);
        assert_eq!(flood.admit(Reason::Malformed, at(4_000), 1), 0, "a clock that went back gains nothing");
        assert_eq!(flood.admit(Reason::Malformed, at(6_000), 4), 3);
    }

    #[test]
    fn going_on_from_a_record_equals_never_having_stopped() {
        let mut one = Flood::new(5, 1, &BTreeMap::new());
        one.admit(Reason::TooLarge, WallTime(7 * SECOND), 3);
        let mut counters = BTreeMap::new();
        one.store(&mut counters);
        let mut two = Flood::new(5, 1, &counters);
        assert_eq!(one.admit(Reason::TooLarge, WallTime(7 * SECOND), 9), 2);
        assert_eq!(two.admit(Reason::TooLarge, WallTime(7 * SECOND), 9), 2);
    }
}
