//! What happened so far: counts, and percentiles of latency and lag.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::fleet::Reading;
use crate::truth::Counts;

/// The longest that is told apart; what is longer counts as this.
const LONGEST_US: u64 = 3_600_000_000;

/// A simulation while it runs.
pub struct Progress {
    inner: Mutex<Inner>,
}

struct Inner {
    began: Instant,
    ended: Option<Instant>,
    counts: Counts,
    reconnects: u64,
    /// From the moment a message was due until its acknowledgement, in microseconds.
    latency: Histogram<u64>,
    /// From the moment a message was due until it was handed to the client, in microseconds.
    lag: Histogram<u64>,
}

/// What a simulation did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What was sent.
    pub counts: Counts,
    /// Messages without an acknowledgement.
    pub unacknowledged: u64,
    /// Readings that were not measured, in gaps.
    pub skipped: u64,
    /// Connections that were made again.
    pub reconnects: u64,
    /// From the first message to the last acknowledgement.
    pub seconds: f64,
    /// Messages a second.
    pub rate: f64,
    /// From the moment a message was due until its acknowledgement.
    pub latency_seconds: Seconds,
    /// From the moment a message was due until it was handed to the client: the simulator's own lag.
    pub lag_seconds: Seconds,
}

/// Percentiles of a length of time, each within 0.1 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// Half is not longer.
    pub p50: f64,
    /// 9 of 10 are not longer.
    pub p90: f64,
    /// 99 of 100 are not longer.
    pub p99: f64,
    /// 999 of 1,000 are not longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Default for Progress {
    fn default() -> Progress {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 3).expect("these bounds are right");
        let (began, counts) = (Instant::now(), Counts::default());
        let inner = Inner { began, ended: None, counts, reconnects: 0, latency: histogram(), lag: histogram() };
        Progress { inner: Mutex::new(inner) }
    }
}

impl Progress {
    /// The first message may be sent: connections are there.
    pub(super) fn begin(&self) {
        self.inner().began = Instant::now();
    }

    /// The fate of the last message is known.
    pub(super) fn end(&self) {
        self.inner().ended = Some(Instant::now());
    }

    pub(super) fn sent(&self, reading: &Reading, lag: Duration) {
        let mut inner = self.inner();
        inner.counts.add(reading);
        inner.lag.saturating_record(micros(lag));
    }

    pub(super) fn acknowledged(&self, latency: Duration) {
        let mut inner = self.inner();
        inner.counts.acknowledged += 1;
        inner.latency.saturating_record(micros(latency));
    }

    pub(super) fn reconnected(&self) {
        self.inner().reconnects += 1;
    }

    /// What was done until now.
    pub fn report(&self, skipped: u64) -> Report {
        let inner = self.inner();
        let counts = inner.counts.clone();
        let seconds = inner.ended.unwrap_or_else(Instant::now).saturating_duration_since(inner.began).as_secs_f64();
        Report {
            unacknowledged: counts.messages - counts.acknowledged,
            skipped,
            reconnects: inner.reconnects,
            seconds,
            rate: counts.messages as f64 / seconds.max(f64::MIN_POSITIVE),
            latency_seconds: Seconds::of(&inner.latency),
            lag_seconds: Seconds::of(&inner.lag),
            counts,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Counts are whole after each step, so one that panicked elsewhere leaves nothing broken.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seconds {
    fn of(histogram: &Histogram<u64>) -> Seconds {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
        Seconds { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: histogram.max() as f64 / 1e6 }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
