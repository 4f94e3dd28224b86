//! When an object store is tried again that does not answer. Pure.
//!
//! Each failure doubles the wait, and a random part of it is left out, so that many processes do not come back at one moment. After a few
//! failures in a row the breaker is open: no table of the store is tried until the wait is over, then one.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long is waited after a failure, doubling up to the second.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Failures in a row, of any table, after which a store counts as down.
const OPENS_AT: u32 = 3;

/// A wait that grows with failures.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    until: Duration,
}

impl Backoff {
    /// Whether it may be tried at this time of the monotonic clock.
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        now >= self.until
    }

    /// It has failed: waits between half and all of the time that its failures ask for. `chance` is a random number.
    pub(crate) fn fail(&mut self, now: Duration, chance: u64) -> Duration {
        let whole = WAIT.0.saturating_mul(1 << self.failures.min(10)).min(WAIT.1);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        let wait = half + Duration::from_micros(chance % (half.as_micros() as u64 + 1));
        self.until = now + wait;
        wait
    }
}

/// The stores of a process, by their addresses.
#[derive(Debug, Default)]
pub(crate) struct Breakers(BTreeMap<String, Backoff>);

impl Breakers {
    /// Whether the store may be tried.
    pub(crate) fn lets_through(&self, store: &str, now: Duration) -> bool {
        self.0.get(store).is_none_or(|b| b.failures < OPENS_AT || b.is_over(now))
    }

    /// The store has answered.
    pub(crate) fn close(&mut self, store: &str) {
        self.0.remove(store);
    }

    /// The store has failed.
    pub(crate) fn fail(&mut self, store: &str, now: Duration, chance: u64) {
        self.0.entry(store.to_owned()).or_default().fail(now, chance);
    }

    /// How many stores count as down.
    pub(crate) fn open(&self) -> u64 {
        self.0.values().filter(|b| b.failures >= OPENS_AT).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_wait_doubles_up_to_a_minute_and_half_of_it_is_chance() {
        let mut backoff = Backoff::default();
        let shortest: Vec<_> = (0..8).map(|_| backoff.fail(SECOND, 0).as_millis()).collect();
        assert_eq!(shortest, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(backoff.fail(SECOND, 30_000_000), 60 * SECOND);
        assert!(!backoff.is_over(60 * SECOND) && backoff.is_over(61 * SECOND));
        assert!((0..99).all(|chance| Backoff::default().fail(SECOND, chance * 7_919_001) <= SECOND));
    }

    #[test]
    fn a_store_that_fails_again_and_again_is_left_alone_and_then_tried_once() {
        let mut breakers = Breakers::default();
        for _ in 0..2 {
            breakers.fail("s3://a", SECOND, 0);
        }
        assert!(breakers.lets_through("s3://a", SECOND) && breakers.open() == 0);
        breakers.fail("s3://a", SECOND, 0);
        assert!(!breakers.lets_through("s3://a", 2 * SECOND) && breakers.lets_through("s3://b", 2 * SECOND));
        assert_eq!(breakers.open(), 1);
        assert!(breakers.lets_through("s3://a", 3 * SECOND));
        breakers.close("s3://a");
        assert!(breakers.lets_through("s3://a", SECOND) && breakers.open() == 0);
    }
}
