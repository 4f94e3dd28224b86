//! What the aggregates over time make of the readings of a group, in the order of their times.
//!
//! Readings of one time are taken in the order of their values, so that the order of arrival plays no part: of two values at one
//! time the greater one holds from then on, and a counter does not seem to fall within an instant.

/// A value and when it was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reading {
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub(super) time: i64,
    /// Finite.
    pub(super) value: f64,
}

/// The aggregates over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Measure {
    /// A value holds until the next reading. One reading, or all at one time: the last value. Nothing is assumed before the first
    /// reading or after the last, so the value of the last reading has no weight; edges of windows play no part.
    TimeWeightedAvg,
    /// The sum of what the counter rose by from reading to reading; a fall is a reset, after which it counted from 0. So it is
    /// `last − first + the values before each fall`, as in Prometheus, without its extrapolation to the edges of the window
    /// (prometheus `promql/functions.go`, `extrapolatedRate`). Null for fewer than two readings, as there.
    CounterIncrease,
    /// The increase divided by the seconds between first and last reading. Null where there are none.
    CounterRate,
    /// Seconds for which the value was 1 (it is the wanted state), each value holding until the next reading; 0 for one reading. Of
    /// several states at one time the wanted one holds.
    StateDuration,
}

impl Measure {
    pub(super) const ALL: [Self; 4] = [Self::TimeWeightedAvg, Self::CounterIncrease, Self::CounterRate, Self::StateDuration];

    /// Its name in SQL.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TimeWeightedAvg => "time_weighted_avg",
            Self::CounterIncrease => "counter_increase",
            Self::CounterRate => "counter_rate",
            Self::StateDuration => "state_duration",
        }
    }

    /// The result for `readings`, ascending by time and value; null without any.
    pub(super) fn of(self, readings: &[Reading]) -> Option<f64> {
        let (first, last) = (readings.first()?, readings.last()?);
        let span = micros(first, last);
        match self {
            Self::TimeWeightedAvg if span == 0 => Some(last.value),
            Self::TimeWeightedAvg => Some(steps(readings).map(|(a, b)| a.value * micros(a, b) as f64).sum::<f64>() / span as f64),
            Self::CounterIncrease => (readings.len() > 1).then(|| increase(readings)),
            Self::CounterRate => (span > 0).then(|| increase(readings) / seconds(span)),
            Self::StateDuration => Some(seconds(steps(readings).filter(|(a, _)| a.value == 1.0).map(|(a, b)| micros(a, b)).sum())),
        }
    }
}

fn steps(readings: &[Reading]) -> impl Iterator<Item = (&Reading, &Reading)> {
    readings.iter().zip(&readings[1..])
}

fn increase(readings: &[Reading]) -> f64 {
    steps(readings).map(|(a, b)| if b.value < a.value { b.value } else { b.value - a.value }).sum()
}

/// From one reading to a later one; wider than a time, so that no two times are too far apart.
fn micros(from: &Reading, to: &Reading) -> i128 {
    i128::from(to.time) - i128::from(from.time)
}

fn seconds(micros: i128) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use Measure::*;

    #[track_caller]
    fn check(measure: Measure, readings: &[(i64, f64)], want: Option<f64>) {
        let readings: Vec<_> = readings.iter().map(|(s, value)| Reading { time: s * 1_000_000, value: *value }).collect();
        assert_eq!(measure.of(&readings), want, "{measure:?} of {readings:?}");
    }

    #[test]
    fn a_value_holds_until_the_next_reading() {
        check(TimeWeightedAvg, &[(0, 10.0), (9, 20.0), (10, 99.0)], Some(11.0));
        check(TimeWeightedAvg, &[(0, 10.0), (4, 0.0), (4, 6.0), (8, 0.0)], Some(8.0));
        check(StateDuration, &[(0, 1.0), (2, 0.0), (5, 1.0), (9, 1.0), (10, 0.0)], Some(7.0));
    }

    #[test]
    fn a_fall_is_a_reset_from_zero() {
        check(CounterIncrease, &[(0, 100.0), (10, 130.0), (20, 5.0), (30, 25.0)], Some(55.0));
        check(CounterRate, &[(0, 100.0), (10, 130.0), (20, 5.0), (40, 35.0)], Some(1.625));
        check(CounterIncrease, &[(0, 7.0), (1, 7.0)], Some(0.0));
    }

    #[test]
    fn few_readings_give_what_can_be_said() {
        for measure in Measure::ALL {
            check(measure, &[], None);
        }
        check(TimeWeightedAvg, &[(3, 4.0)], Some(4.0));
        check(CounterIncrease, &[(3, 4.0)], None);
        check(CounterIncrease, &[(3, 4.0), (3, 6.0)], Some(2.0));
        check(CounterRate, &[(3, 4.0), (3, 6.0)], None);
        check(StateDuration, &[(3, 1.0)], Some(0.0));
    }

    #[test]
    fn times_at_both_ends_do_not_overflow() {
        let ends = [Reading { time: i64::MIN, value: 1.0 }, Reading { time: i64::MAX, value: 2.0 }];
        assert_eq!(TimeWeightedAvg.of(&ends), Some(1.0));
        assert!(StateDuration.of(&ends).unwrap() > 1.8e13);
    }
}
