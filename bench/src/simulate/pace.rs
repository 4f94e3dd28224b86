//! When messages go out: each at its moment, which is fixed in advance.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::now_us;
use crate::scenario::Scenario;
use crate::{Error, Result};

/// Closer to a moment than this there is no use in sleeping.
const TICK: Duration = Duration::from_micros(500);

/// When the fleet began, on two clocks, and how late the simulator itself may be.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) start: Instant,
    pub(super) start_us: i64,
    max_lag: Duration,
}

impl Pace {
    /// The fleet begins now.
    pub(super) fn begin(scenario: &Scenario) -> Pace {
        Pace { start: Instant::now(), start_us: now_us(), max_lag: scenario.wire.max_lag.0 }
    }

    /// Waits until a message is due and says how late it is; none when `stop` comes first.
    pub(super) async fn wait(&self, due: Duration, stop: &mut Pin<&mut impl Future<Output = ()>>) -> Result<Option<Duration>> {
        let moment = self.start + due;
        if moment > Instant::now() + TICK {
            tokio::select! {
                () = stop => return Ok(None),
                () = sleep_until(moment) => {}
            }
        }
        let lag = Instant::now().saturating_duration_since(moment);
        if lag > self.max_lag {
            return Err(Error::Behind { lag_seconds: lag.as_secs_f64(), bound_seconds: self.max_lag.as_secs_f64() });
        }
        Ok(Some(lag))
    }

    /// The wall time of a moment of the schedule, in microseconds.
    pub(super) fn at_us(&self, after: Duration) -> i64 {
        self.start_us + after.as_micros() as i64
    }
}
