//! When readings are due, and of which device: fixed in advance, whatever becomes of earlier ones.

use std::time::Duration;

use super::chance::{About, Chance};
use crate::scenario::{Arrivals, RateOptions};

/// The longest step over which the rate counts as constant.
const STEP_SECONDS: f64 = 0.01;

/// The endless moments of a fleet, in order.
pub(super) struct Schedule {
    rate: RateOptions,
    devices: u32,
    chance: Chance,
    /// Seconds from midnight to the start, for the daily curve.
    start_seconds: f64,
    number: u64,
    /// Due so far, at a rate that does not change.
    readings: f64,
    at_seconds: f64,
}

/// One moment at which a device measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moment {
    /// From the start.
    pub(super) at: Duration,
    /// Which of the devices at a time.
    pub(super) slot: u32,
}

impl Schedule {
    pub(super) fn new(rate: &RateOptions, devices: u32, chance: Chance, start_us: i64) -> Schedule {
        Schedule { rate: rate.clone(), devices, chance, start_seconds: start_us as f64 / 1e6, number: 0, readings: 0.0, at_seconds: 0.0 }
    }

    /// The next moment.
    pub(super) fn next(&mut self) -> Moment {
        let number = self.number;
        self.number += 1;
        let (wait, slot) = match self.rate.arrivals {
            // The first is due at once.
            Arrivals::Fixed => (if number == 0 { 0.0 } else { 1.0 }, (number - self.hot(number)) % u64::from(self.devices)),
            Arrivals::Poisson => {
                let draw = 1.0 - self.chance.unit(About::Arrival, number, 0);
                (-draw.ln(), (self.chance.unit(About::Device, number, 0) * f64::from(self.devices)) as u64)
            }
        };
        let slot = if self.hot(number) < self.hot(number + 1) { 0 } else { slot };
        self.advance(wait);
        Moment { at: Duration::from_nanos((self.at_seconds * 1e9) as u64), slot: slot as u32 }
    }

    /// How many of the first `readings` are those of the first device beyond its turns.
    fn hot(&self, readings: u64) -> u64 {
        (readings as f64 * self.rate.hot.unwrap_or(0.0)) as u64
    }

    /// Goes on until `readings` more are due, by the rate of each moment on the way.
    fn advance(&mut self, mut readings: f64) {
        let full = f64::from(self.devices) * self.rate.each;
        if self.rate.burst.is_none() && self.rate.daily.is_none() && self.rate.ramp.is_none() {
            // From the sum, so that errors of rounding do not add up.
            self.readings += readings;
            self.at_seconds = self.readings / full;
            return;
        }
        while readings > 0.0 {
            let rate = full * self.factor(self.at_seconds);
            let step = if rate > 0.0 { (readings / rate).min(STEP_SECONDS) } else { STEP_SECONDS };
            self.at_seconds += step;
            readings -= rate * step;
            if readings < 1e-9 {
                return;
            }
        }
    }

    fn factor(&self, at: f64) -> f64 {
        let burst = self.rate.burst.map_or(1.0, |burst| {
            let every = burst.every.seconds();
            if at % every >= every - burst.lasting.seconds() { burst.factor } else { 1.0 }
        });
        let daily = self.rate.daily.map_or(1.0, |daily| {
            let turn = (self.start_seconds + at) / daily.period.seconds() * std::f64::consts::TAU;
            daily.low + (1.0 - daily.low) * (1.0 - turn.cos()) / 2.0
        });
        let ramp = self.rate.ramp.map_or(1.0, |ramp| (ramp.from + (1.0 - ramp.from) * at / ramp.over.seconds()).min(1.0));
        burst * daily * ramp
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Burst, Daily, Ramp, Span};

    /// Readings in each of `seconds` seconds.
    fn by_second(rate: RateOptions, seconds: usize) -> Vec<u32> {
        let mut schedule = Schedule::new(&rate, 100, Chance(1), 0);
        let mut counts = vec![0; seconds];
        loop {
            let second = schedule.next().at.as_secs() as usize;
            if second >= seconds {
                return counts;
            }
            counts[second] += 1;
        }
    }

    fn near(count: u32, expected: f64, by: f64) {
        assert!((f64::from(count) - expected).abs() <= by, "{count} for {expected}");
    }

    #[test]
    fn a_fixed_rate_is_even() {
        by_second(RateOptions::default(), 10).into_iter().for_each(|count| near(count, 500.0, 1.0));
    }

    #[test]
    fn poisson_readings_have_the_rate_and_its_deviation() {
        let counts = by_second(RateOptions { arrivals: Arrivals::Poisson, ..RateOptions::default() }, 200);
        let mean = counts.iter().sum::<u32>() as f64 / 200.0;
        let variance = counts.iter().map(|count| (f64::from(*count) - mean).powi(2)).sum::<f64>() / 199.0;
        assert!((mean - 500.0).abs() < 8.0 && (300.0..750.0).contains(&variance), "{mean} {variance}");
    }

    #[test]
    fn a_hot_device_has_its_share_and_the_others_take_turns() {
        for arrivals in [Arrivals::Fixed, Arrivals::Poisson] {
            let rate = RateOptions { hot: Some(0.3), arrivals, ..RateOptions::default() };
            let mut schedule = Schedule::new(&rate, 100, Chance(1), 0);
            let mut counts = vec![0; 100];
            (0..10_000).for_each(|_| counts[schedule.next().slot as usize] += 1);
            near(counts[0], 3_070.0, 40.0);
            counts[1..].iter().for_each(|count| near(*count, 70.0, 40.0));
        }
    }

    #[test]
    fn bursts_days_and_ramps_change_the_rate() {
        let burst = Burst { every: Span::from_secs(5), lasting: Span::from_secs(1), factor: 10.0 };
        let counts = by_second(RateOptions { burst: Some(burst), ..RateOptions::default() }, 10);
        near(counts[3], 500.0, 60.0);
        near(counts[4], 5_000.0, 60.0);
        let ramp = Ramp { over: Span::from_secs(10), from: 0.0 };
        let counts = by_second(RateOptions { ramp: Some(ramp), ..RateOptions::default() }, 12);
        near(counts[4], 225.0, 5.0);
        near(counts[11], 500.0, 5.0);
        let daily = Daily { period: Span::from_secs(20), low: 0.2 };
        let counts = by_second(RateOptions { daily: Some(daily), ..RateOptions::default() }, 20);
        near(counts[0], 100.0, 10.0);
        near(counts[10], 500.0, 10.0);
    }
}
