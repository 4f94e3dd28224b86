//! How windows of fixed edges cut time.
//!
//! ```text
//! size 10, hop 3:   windows  [0,10) [3,13) [6,16) …         slices  [0,1) [1,3) [3,4) [4,6) …
//! ```
//! A slice lies between two neighbouring edges: its readings are in the same windows. Sums saturate at the ends of time.

use super::calendar;
use super::options::{Shape, Unit};
use chrono_tz::Tz;
use std::cell::Cell;

/// Windows of fixed edges.
pub(super) enum Cut {
    /// Begin every `hop`, `offset` after its multiples.
    Even { size: i64, hop: i64, offset: i64 },
    /// Steps of the calendar; the last one found is kept, since the next reading is mostly in it too.
    Calendar { unit: Unit, zone: Tz, last: Cell<(i64, i64)> },
}

impl Cut {
    /// None for shapes whose edges depend on the readings.
    pub(super) fn of(shape: Shape) -> Option<Self> {
        match shape {
            Shape::Even { size, hop, offset } => Some(Self::Even { size, hop, offset }),
            Shape::Calendar { unit, zone } => Some(Self::Calendar { unit, zone, last: Cell::new((0, 0)) }),
            Shape::Sliding { .. } | Shape::Session { .. } | Shape::Count { .. } | Shape::Global => None,
        }
    }

    /// Whether each slice is a window.
    pub(super) fn is_tumbling(&self) -> bool {
        match self {
            Self::Even { size, hop, .. } => size == hop,
            Self::Calendar { .. } => true,
        }
    }

    /// Whether some moments are in no window.
    pub(super) fn has_gaps(&self) -> bool {
        matches!(self, Self::Even { size, hop, .. } if hop > size)
    }

    /// The start of the slice of a moment.
    pub(super) fn slice(&self, time: i64) -> i64 {
        self.bounds(time).0
    }

    /// The starts of the slices of moments. Most moments lie in the slice of the one before, which costs no division.
    pub(super) fn slices(&self, times: &[i64]) -> Vec<i64> {
        let mut last = (0, 0);
        let start = |time: &i64| {
            if !(last.0..last.1).contains(time) {
                last = self.bounds(*time);
            }
            last.0
        };
        times.iter().map(start).collect()
    }

    /// Start and end of the slice of a moment.
    fn bounds(&self, time: i64) -> (i64, i64) {
        match self {
            Self::Even { size, hop, offset } => {
                let start = floor(time, *hop, *offset);
                let (edge, next) = (start.saturating_add(size % hop), start.saturating_add(*hop));
                match edge <= time {
                    true => (edge, next),
                    false => (start, edge),
                }
            }
            Self::Calendar { .. } => self.step(time),
        }
    }

    /// Whether some window covers the moment: hops longer than the windows leave gaps.
    pub(super) fn covers(&self, time: i64) -> bool {
        match self {
            Self::Even { size, hop, offset } => hop <= size || time < floor(time, *hop, *offset).saturating_add(*size),
            Self::Calendar { .. } => true,
        }
    }

    /// The end of the first window that covers the moment, or of the next one where none does.
    pub(super) fn first_end(&self, time: i64) -> i64 {
        match self {
            Self::Even { size, hop, offset } if size == hop => floor(time, *hop, *offset).saturating_add(*size),
            Self::Even { size, hop, offset } => floor(time.saturating_sub(*size), *hop, *offset).saturating_add(*hop).saturating_add(*size),
            Self::Calendar { .. } => self.step(time).1,
        }
    }

    /// The end of the last window that covers the moment.
    pub(super) fn last_end(&self, time: i64) -> i64 {
        match self {
            Self::Even { size, hop, offset } => floor(time, *hop, *offset).saturating_add(*size),
            Self::Calendar { .. } => self.step(time).1,
        }
    }

    /// The ends of the windows that cover the moment, rising.
    pub(super) fn ends(&self, time: i64) -> impl Iterator<Item = i64> + use<> {
        let hop = match self {
            Self::Even { hop, .. } => *hop,
            Self::Calendar { .. } => i64::MAX,
        };
        let (first, last) = if self.covers(time) { (self.first_end(time), self.last_end(time)) } else { (1, 0) };
        std::iter::successors(Some(first), move |end| end.checked_add(hop)).take_while(move |end| *end <= last)
    }

    /// The start of the window that ends there.
    pub(super) fn start(&self, end: i64) -> i64 {
        match self {
            Self::Even { size, .. } => end.saturating_sub(*size),
            Self::Calendar { .. } => self.step(end.saturating_sub(1)).0,
        }
    }

    fn step(&self, time: i64) -> (i64, i64) {
        let Self::Calendar { unit, zone, last } = self else { unreachable!("only calendars have steps") };
        let (start, end) = last.get();
        if start <= time && time < end {
            return (start, end);
        }
        last.set(calendar::step(*unit, *zone, time));
        last.get()
    }
}

/// The greatest multiple of `step`, moved by `offset`, that is not above `time`.
fn floor(time: i64, step: i64, offset: i64) -> i64 {
    time.saturating_sub(offset).div_euclid(step).saturating_mul(step).saturating_add(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn slices_lie_in_the_windows_that_the_definition_gives(
            time in -200i64..200, size in 1i64..40, hop in 1i64..40, offset in 0i64..40,
        ) {
            let offset = offset % hop;
            let cut = Cut::of(Shape::Even { size, hop, offset }).unwrap();
            let windows: Vec<i64> = (-300i64..300).filter(|s| (s - offset).rem_euclid(hop) == 0 && *s <= time && time < s + size).collect();
            prop_assert_eq!(cut.covers(time), !windows.is_empty());
            if let (Some(first), Some(last)) = (windows.first(), windows.last()) {
                prop_assert_eq!((cut.first_end(time), cut.last_end(time)), (first + size, last + size));
                prop_assert_eq!(cut.start(first + size), *first);
                prop_assert_eq!(cut.ends(time).collect::<Vec<_>>(), windows.iter().map(|s| s + size).collect::<Vec<_>>());
                let slice = cut.slice(time);
                prop_assert!(slice <= time);
                for other in slice..=time {
                    prop_assert_eq!((cut.slice(other), cut.first_end(other), cut.last_end(other)), (slice, first + size, last + size));
                }
                let times = [time, slice, time, slice - 1, time];
                prop_assert_eq!(cut.slices(&times), times.map(|t| cut.slice(t)));
                let before = (cut.covers(slice - 1), cut.first_end(slice - 1), cut.last_end(slice - 1));
                prop_assert_ne!(before, (true, first + size, last + size));
            }
        }
    }
}
