//! Watermarks by device: a reading is late, and a window closes, by the time that its own device has come to.
//!
//! A device's W is the greatest min(event time, arrival) of its readings here, less `delay`; so one that was offline for a day is not
//! late to itself. Silence of a device is measured by how far the lane's W has moved on since its last reading: that is the same when a
//! log is read again, at whatever speed. The windows of a silent device close when the lane's W passes their ends, and its own W then
//! stands there and no further. No device is further behind the lane's W than `retention`, so one that was silent for longer need not be
//! remembered: it begins there, as a new device does.

use super::open::{Open, Rules, Windows};
use super::options::Emit;

/// Watermarks by device, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByDevice {
    /// How far a device's readings may come out of order: its W stays this much behind its greatest event time.
    pub delay: i64,
    /// A device is silent when the lane's W has moved on by this much since its last reading.
    pub idle: i64,
    /// How far a device may be behind the lane's W.
    pub retention: i64,
}

/// How far a device's time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    /// Its own W.
    pub(super) w: i64,
    /// The lane's W at its last reading, or its own if that was ahead.
    pub(super) lane: i64,
}

impl Windows {
    /// The device's W when the lane's stands at `lane`: that at which its next reading is judged.
    pub(super) fn follow(&mut self, lane: i64, rules: &Rules, by: ByDevice) -> i64 {
        let floor = lane.saturating_sub(by.retention);
        let mut clock = self.clock.unwrap_or(Clock { w: floor, lane });
        clock.w = clock.w.max(floor);
        if clock.is_silent(lane, by) {
            let passed = self.open.iter().filter_map(|open| open.passed(lane, rules)).max();
            clock.w = clock.w.max(passed.unwrap_or(i64::MIN));
        }
        self.clock = Some(clock);
        clock.w
    }

    /// Takes note of a reading of this time (or its arrival, if that is earlier) when the lane's W stood at `lane`. Gives the device's W
    /// before it, by which it is judged.
    pub(super) fn hear(&mut self, time: i64, lane: i64, rules: &Rules, by: ByDevice) -> i64 {
        let before = self.follow(lane, rules, by);
        let w = before.max(time.saturating_sub(by.delay));
        self.clock = Some(Clock { w, lane: lane.max(w) });
        before
    }

    /// The input has ended: the device's time has come to that of the lane.
    pub(super) fn pass_all(&mut self, lane: i64) {
        let w = self.clock.map_or(lane, |clock| clock.w.max(lane));
        self.clock = Some(Clock { w, lane });
    }

    /// The device's own W, if it has come to something that is to be done.
    pub(super) fn due(&self, rules: &Rules) -> Option<i64> {
        let clock = self.clock?;
        self.next_due(rules).filter(|due| *due <= clock.w).map(|_| clock.w)
    }

    /// The lane's W at which the windows are next to be looked at: with watermarks by device not before it is silent.
    pub(super) fn next_look(&self, rules: &Rules, by: Option<ByDevice>) -> Option<i64> {
        let silent = by.and_then(|by| Some(self.clock?.lane.saturating_add(by.idle)));
        self.next_due(rules).map(|due| due.max(silent.unwrap_or(i64::MIN)))
    }

    /// Whether nothing would change if the key were forgotten, when the lane's W stands at `lane`.
    pub(super) fn is_forgettable(&self, lane: i64, by: ByDevice) -> bool {
        self.open.is_empty() && self.clock.is_none_or(|clock| clock.w <= lane.saturating_sub(by.retention))
    }
}

impl Clock {
    fn is_silent(self, lane: i64, by: ByDevice) -> bool {
        self.lane.saturating_add(by.idle) <= lane
    }
}

impl Open {
    /// The greatest of the times at which something happens to the window that is not above `w`.
    fn passed(&self, w: i64, rules: &Rules) -> Option<i64> {
        if !rules.is_timed() {
            return None;
        }
        let last = self.end.saturating_add(rules.lateness);
        let early = match rules.emit {
            Emit::Every(span) if self.start < w => {
                let steps = (w.min(self.end).saturating_sub(self.start)) / span.0.0;
                Some(self.start + steps * span.0.0).filter(|_| steps > 0)
            }
            _ => None,
        };
        [Some(last), Some(self.end), early].into_iter().flatten().filter(|time| *time <= w).max()
    }
}
