//! How many processes like this one its load asks for: what an autoscaler adds up over all of them.

use std::collections::VecDeque;
use std::time::Duration;

/// How full the cores of a process should be: the rest is for peaks and queries.
const FULL: f64 = 0.7;
/// How soon what waits in the brokers should be read.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Over how long the load is averaged.
const WINDOW: Duration = Duration::from_secs(30);
/// Ticks a second in which Linux counts the time of processes for `/proc` (`USER_HZ`, proc(5)).
const TICKS: f64 = 100.0;

/// A look at the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// When.
    pub(crate) at: Duration,
    /// Time that the process has had of all cores, in seconds.
    pub(crate) busy: f64,
    /// Readings that it has taken.
    pub(crate) taken: u64,
    /// Records that wait for it in the brokers.
    pub(crate) lag: u64,
}

/// The looks of the last half minute.
#[derive(Debug, Default)]
pub(crate) struct Scale {
    looks: VecDeque<Look>,
}

impl Scale {
    /// Takes a look; gives how many processes with `cores` each would do: none before the second look.
    pub(crate) fn look(&mut self, look: Look, cores: f64) -> Option<f64> {
        while self.looks.front().is_some_and(|first| look.at.saturating_sub(first.at) > WINDOW) {
            self.looks.pop_front();
        }
        let first = *self.looks.front().unwrap_or(&look);
        self.looks.push_back(look);
        let seconds = look.at.saturating_sub(first.at).as_secs_f64();
        if seconds <= 0.0 {
            return None;
        }
        let busy = (look.busy - first.busy) / seconds / cores / FULL;
        let taken = look.taken.saturating_sub(first.taken) as f64 / seconds;
        // Of what is not read at all nobody knows what it costs: it asks for one process more.
        let behind = if look.lag == 0 { 0.0 } else { (look.lag as f64 / CATCH_UP.as_secs_f64() / taken.max(1.0)).min(busy.max(1.0)) };
        Some(busy + behind)
    }
}

/// Time that this process has had of all cores, in seconds; none where the system does not say.
pub(crate) fn busy() -> Option<f64> {
    parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// The fields `utime` and `stime` of proc(5), which are the 14th and 15th; the second is a name in brackets that may hold anything.
fn parse(stat: &str) -> Option<f64> {
    let mut behind = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (behind.next()?.parse().ok()?, behind.next()?.parse().ok()?);
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64, busy: f64, taken: u64, lag: u64) -> Look {
        Look { at: Duration::from_secs(second), busy, taken, lag }
    }

    #[test]
    fn a_process_that_is_as_busy_as_it_should_be_is_one() {
        let mut scale = Scale::default();
        assert_eq!(scale.look(at(0, 5.0, 0, 0), 2.0), None);
        let hint = scale.look(at(10, 19.0, 1_000, 0), 2.0).unwrap();
        assert!((hint - 1.0).abs() < 1e-9, "{hint}");
    }

    #[test]
    fn lag_asks_for_more_and_at_most_for_as_many_again() {
        let mut scale = Scale::default();
        scale.look(at(0, 0.0, 0, 0), 1.0);
        // 100 readings a second, and 3,000 wait: half a process for a minute.
        let hint = scale.look(at(10, 7.0, 1_000, 3_000), 1.0).unwrap();
        assert!((hint - 1.5).abs() < 1e-9, "{hint}");
        let hint = scale.look(at(20, 14.0, 2_000, 1_000_000), 1.0).unwrap();
        assert!((hint - 2.0).abs() < 1e-9, "{hint}");
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let mut scale = Scale::default();
        for second in 0..100 {
            scale.look(at(second, second as f64, second, 0), 1.0);
        }
        let hints: Vec<f64> = (100..140).map(|second| scale.look(at(second, 99.0, second, 0), 1.0).unwrap()).collect();
        assert!(hints[0] > 1.0 && hints[39].abs() < 1e-9, "{hints:?}");
        assert!(scale.looks.len() <= 32);
    }

    #[test]
    fn a_name_with_brackets_does_not_move_the_fields() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!(parse(stat), Some(3.0));
        assert!(busy().is_some());
    }
}
