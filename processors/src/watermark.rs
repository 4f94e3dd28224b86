//! The watermark W of a lane: no later on-time reading has an event time below it, and it never goes back.
//!
//! Each producer (source connection) has a W of its own: the greatest min(event time, arrival) it has sent, less
//! `out_of_orderness`. The lane's W is the least of the producers that are not idle. Time comes in with the rows and frames alone, so
//! that a replay of the log moves W the same way.
//!
//! Not here: closing windows (`window`, which also keeps the watermarks of devices), and deciding when a lane may count as silent (the
//! driver knows whether it is blocked or behind its log).

use crate::duration::Duration;
use arrow::array::BooleanArray;
use flow::{EventTime, Span, WallTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// `watermark = { … }` of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WatermarkOptions {
    /// How far readings may come out of order: W stays this much behind the greatest event time. Longer waits, loses less.
    pub out_of_orderness: Duration,
    /// How long a connected producer may be silent before W no longer waits for it.
    pub idle_timeout: Duration,
    /// How far ahead of its arrival an event time may lie; what lies further is a dead letter and moves nothing.
    pub max_future: Duration,
    /// Whose watermark decides in windows which readings are late and when a window closes: the lane's, or that of the device itself. With
    /// `"device"` a device that was offline for a day is not late to itself; only in windows whose key holds the source's key.
    pub per: Per,
    /// With `per = "device"`: the windows of a device close without it when the lane's watermark has moved on by this much since its last
    /// reading.
    pub device_idle_timeout: Duration,
    /// With `per = "device"`: how far behind the lane's watermark a device may be; what is older is late. So long is a device remembered.
    pub device_retention: Duration,
}

/// Whose watermark decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// The lane's: that of all its devices together.
    #[default]
    Lane,
    /// The device's own.
    Device,
}

impl Default for WatermarkOptions {
    /// In order; half a minute is several reports of a usual device; a minute covers clocks without NTP for a while. A device that uploads
    /// every quarter of an hour is not silent, and one that was away for a week is not late.
    fn default() -> Self {
        Self {
            out_of_orderness: Duration::from_secs(0),
            idle_timeout: Duration::from_secs(30),
            max_future: Duration::from_secs(60),
            per: Per::Lane,
            device_idle_timeout: Duration::from_secs(3_600),
            device_retention: Duration::from_secs(7 * 86_400),
        }
    }
}

impl WatermarkOptions {
    /// The most patient of two, for devices and lanes that both sources reach.
    #[must_use]
    pub fn or_later(self, other: &Self) -> Self {
        Self {
            out_of_orderness: self.out_of_orderness.max(other.out_of_orderness),
            idle_timeout: self.idle_timeout.max(other.idle_timeout),
            max_future: self.max_future.max(other.max_future),
            per: if other.per == Per::Device { Per::Device } else { self.per },
            device_idle_timeout: self.device_idle_timeout.max(other.device_idle_timeout),
            device_retention: self.device_retention.max(other.device_retention),
        }
    }
}

/// What stands in the epoch record: all that `Watermark` must know to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatermarkState {
    /// W of the lane; `EventTime::MIN` before the first reading.
    pub w: EventTime,
    /// The producers, in order of number.
    pub producers: Vec<ProducerState>,
}

/// One producer of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// Its number within the lane's log.
    pub producer: u32,
    /// Its own W; `EventTime::MIN` before its first reading.
    pub w: EventTime,
    /// Since when its present connected silence is counted: its last arrival, or when it connected.
    pub since: WallTime,
    /// Connected silence before `since`, from connections that have ended since its last arrival.
    pub silence: Span,
    /// Whether it is connected.
    pub connected: bool,
}

/// What a batch did to the watermark.
#[derive(Clone, Debug)]
pub struct Advance {
    /// W after the batch.
    pub watermark: EventTime,
    /// Some accepted row is not ahead of the W of its moment, or devices have their own: the batch needs the trail column
    /// `trail::WATERMARK`.
    pub marked: bool,
    /// True for rows whose event time lies beyond `max_future`: they are dead letters. None where there are none.
    pub future: Option<BooleanArray>,
}

/// The watermark of one lane.
#[derive(Clone, Debug)]
pub struct Watermark {
    out_of_orderness: Span,
    idle_timeout: Span,
    max_future: Span,
    by_device: bool,
    /// The producers that there are, by source; empty where all that are heard of are there.
    sources: Vec<Range<u32>>,
    state: WatermarkState,
    /// W at the last sign of life, from which a silent lane's W moves on.
    stood: EventTime,
}

impl Watermark {
    /// A watermark that has seen nothing.
    #[must_use]
    pub fn new(options: &WatermarkOptions) -> Self {
        Self {
            out_of_orderness: options.out_of_orderness.0,
            idle_timeout: options.idle_timeout.0,
            max_future: options.max_future.0,
            by_device: options.per == Per::Device,
            sources: vec![],
            state: WatermarkState { w: EventTime::MIN, producers: Vec::new() },
            stood: EventTime::MIN,
        }
    }

    /// The same with the producers that the sources have now. Where one of a source is heard of, W waits for its others too: what they send
    /// first would be late otherwise. It waits for none that is no longer there.
    #[must_use]
    pub fn with_sources(self, sources: Vec<Range<u32>>) -> Self {
        Self { sources, ..self }
    }

    /// W now.
    #[must_use]
    pub fn current(&self) -> EventTime {
        self.state.w
    }

    /// Takes the event times of one batch, in microseconds and in the order of its rows. `per_row` becomes the W at which each row is
    /// taken, before it moves W itself. A batch without rows counts as a sign of life.
    pub fn on_rows(&mut self, producer: u32, times: &[i64], arrival: WallTime, per_row: &mut Vec<i64>) -> Advance {
        self.producer(producer, arrival);
        let others = self.least_of_others(producer, arrival);
        let (delay, limit) = (self.out_of_orderness.0, arrival.plus(self.max_future).0);
        let of_producer = self.producer(producer, arrival);
        of_producer.connected = true;
        of_producer.silence = Span(0);
        of_producer.since = arrival;
        let mut own = of_producer.w.0;
        let mut w = self.state.w.0.max(own.min(others));
        let (mut marked, mut future) = (self.by_device, false);
        per_row.clear();
        per_row.extend(times.iter().map(|&time| {
            let before = w;
            if time > limit {
                future = true;
            } else {
                marked |= time <= w;
                own = own.max(time.min(arrival.0).saturating_sub(delay));
                w = w.max(own.min(others));
            }
            before
        }));
        self.producer(producer, arrival).w = EventTime(own);
        self.state.w = EventTime(w);
        self.stood = self.state.w;
        let future = future.then(|| times.iter().map(|&time| Some(time > limit)).collect());
        Advance { watermark: self.state.w, marked, future }
    }

    /// A producer connected or was lost. Silence counts towards `idle_timeout` only while it is connected; a connect without a
    /// disconnect before it is a restart of ours, and the silence is counted anew.
    pub fn on_connection(&mut self, producer: u32, connected: bool, at: WallTime) {
        let state = self.producer(producer, at);
        match (state.connected, connected) {
            (true, false) => state.silence = Span(state.silence.0.saturating_add(at.since(state.since).0.max(0))),
            (true, true) => state.silence = Span(0),
            (false, _) => {}
        }
        state.since = at;
        state.connected = connected;
        self.stood = self.state.w;
    }

    /// A tick of the log: W is at least `watermark` from here on.
    pub fn on_tick(&mut self, watermark: EventTime) -> EventTime {
        self.state.w = self.state.w.max(watermark);
        self.state.w
    }

    /// How long a producer may be silent before the others do not wait for it.
    #[must_use]
    pub fn idle_timeout(&self) -> Span {
        self.idle_timeout
    }

    /// Where W may move when the whole lane has been silent for `silent` of monotonic time; moves nothing itself (`on_tick` does).
    ///
    /// None before the first reading, within `idle_timeout`, while a producer is disconnected, or when W already stands there. The
    /// caller does not ask while the lane is blocked or behind its log.
    #[must_use]
    pub fn silent(&self, silent: Span) -> Option<EventTime> {
        let beyond = silent.0.saturating_sub(self.idle_timeout.0);
        let waits = self.state.producers.iter().any(|p| !p.connected && self.is_there(p));
        let to = self.stood.plus(Span(beyond.max(0)));
        (self.stood != EventTime::MIN && beyond > 0 && !waits && to > self.state.w).then_some(to)
    }

    /// The state for the epoch record.
    #[must_use]
    pub fn state(&self) -> &WatermarkState {
        &self.state
    }

    /// Goes on from an epoch record. Silence of the lane counts from here.
    pub fn restore(&mut self, state: WatermarkState) {
        self.stood = state.w;
        self.state = state;
        self.state.producers.sort_by_key(|p| p.producer);
    }

    /// The least W of the other producers that are not idle at `now`; `i64::MAX` without any.
    fn least_of_others(&self, producer: u32, now: WallTime) -> i64 {
        let active = self.state.producers.iter().filter(|p| p.producer != producer && self.is_there(p) && !self.idle(p, now));
        active.map(|p| p.w.0).min().unwrap_or(i64::MAX)
    }

    fn idle(&self, producer: &ProducerState, now: WallTime) -> bool {
        let present = if producer.connected { now.since(producer.since).0.max(0) } else { 0 };
        producer.silence.0.saturating_add(present) >= self.idle_timeout.0
    }

    /// Whether a producer belongs to the sources of today. One that a changed configuration has left behind neither sends nor connects again.
    fn is_there(&self, producer: &ProducerState) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|of| of.contains(&producer.producer))
    }

    fn producer(&mut self, producer: u32, at: WallTime) -> &mut ProducerState {
        if self.place(producer).is_err() {
            let source = self.sources.iter().find(|of| of.contains(&producer)).cloned();
            source.unwrap_or(producer..producer + 1).for_each(|new| self.meet(new, at));
        }
        let place = self.place(producer).expect("it was met above");
        &mut self.state.producers[place]
    }

    /// A producer, if it is not known yet.
    fn meet(&mut self, producer: u32, at: WallTime) {
        if let Err(place) = self.place(producer) {
            let new = ProducerState { producer, w: EventTime::MIN, since: at, silence: Span(0), connected: false };
            self.state.producers.insert(place, new);
        }
    }

    fn place(&self, producer: u32) -> Result<usize, usize> {
        self.state.producers.binary_search_by_key(&producer, |p| p.producer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: WallTime = WallTime(1_000_000_000_000);

    fn watermark(delay: i64) -> Watermark {
        let options = WatermarkOptions { out_of_orderness: Duration(Span(delay)), ..WatermarkOptions::default() };
        Watermark::new(&options)
    }

    #[test]
    fn rows_of_a_batch_see_the_running_maximum() {
        let (mut w, mut rows) = (watermark(2), vec![]);
        let advance = w.on_rows(0, &[10, 20, 5, 21], LATER, &mut rows);
        assert_eq!(rows, [i64::MIN, 8, 18, 18]);
        assert_eq!((advance.watermark, advance.marked, advance.future.is_none()), (EventTime(19), true, true));
        assert_eq!(w.on_rows(0, &[1], LATER, &mut rows).watermark, EventTime(19));
    }

    #[test]
    fn no_device_clock_moves_the_watermark_past_the_arrival() {
        let (mut w, mut rows) = (watermark(0), vec![]);
        let advance = w.on_rows(0, &[50_000_000, 90_000_000], WallTime(0), &mut rows);
        assert_eq!(advance.watermark, EventTime(0));
        assert_eq!(advance.future, Some(BooleanArray::from(vec![false, true])));
    }

    #[test]
    fn silence_counts_only_while_connected() {
        let (mut w, mut rows) = (watermark(0), vec![]);
        let second = 1_000_000;
        w.on_connection(1, true, WallTime(0));
        w.on_connection(1, false, WallTime(20 * second));
        let at = |s: i64| WallTime(s * second);
        assert_eq!(w.on_rows(0, &[5], at(100), &mut rows).watermark, EventTime::MIN, "lost after 20 s: not idle");
        w.on_connection(1, true, at(200));
        assert_eq!(w.on_rows(0, &[6], at(209), &mut rows).watermark, EventTime::MIN);
        assert_eq!(w.on_rows(0, &[7], at(210), &mut rows).watermark, EventTime(7), "20 s and 10 s make 30 s");
    }

    #[test]
    fn a_producer_waits_for_those_of_its_source_that_have_said_nothing() {
        let (mut w, mut rows) = (watermark(0).with_sources(vec![0..1, 1..3]), vec![]);
        assert_eq!(w.on_rows(0, &[5], LATER, &mut rows).watermark, EventTime(5), "it is alone");
        let mut w = watermark(0).with_sources(vec![0..1, 1..3]);
        assert_eq!(w.on_rows(1, &[5], LATER, &mut rows).watermark, EventTime::MIN, "2 was never heard of");
        assert_eq!(w.on_rows(2, &[3], LATER, &mut rows).watermark, EventTime(3));
    }

    #[test]
    fn a_producer_that_is_no_longer_there_holds_nothing() {
        let (mut old, mut rows) = (watermark(0).with_sources(vec![0..2, 9..10]), vec![]);
        old.on_rows(1, &[3], LATER, &mut rows);
        old.on_connection(1, false, LATER);
        let mut same = watermark(0).with_sources(vec![0..2, 9..10]);
        same.restore(old.state().clone());
        assert_eq!(same.on_rows(0, &[9], LATER, &mut rows).watermark, EventTime(3), "it may come back");
        assert_eq!(same.silent(Span::from_secs(40)), None);
        let mut fewer = watermark(0).with_sources(vec![0..1, 9..10]);
        fewer.restore(old.state().clone());
        assert_eq!(fewer.on_rows(0, &[9], LATER, &mut rows).watermark, EventTime(9));
        assert_eq!(fewer.silent(Span::from_secs(31)), Some(EventTime(1_000_009)));
    }

    #[test]
    fn a_silent_lane_moves_on_from_where_it_stood() {
        let (mut w, mut rows) = (watermark(0), vec![]);
        assert_eq!(w.silent(Span::from_secs(100)), None);
        w.on_rows(0, &[1_000], LATER, &mut rows);
        assert_eq!(w.silent(Span::from_secs(30)), None);
        assert_eq!(w.silent(Span::from_secs(31)), Some(EventTime(1_001_000)));
        w.on_tick(EventTime(1_001_000));
        assert_eq!(w.silent(Span::from_secs(31)), None);
        assert_eq!(w.silent(Span::from_secs(32)), Some(EventTime(2_001_000)), "from where it stood, not from the tick");
        w.on_connection(0, false, LATER);
        assert_eq!(w.silent(Span::from_secs(40)), None);
    }

    #[test]
    fn going_on_from_a_record_equals_never_having_stopped() {
        let (mut one, mut rows) = (watermark(3), vec![]);
        one.on_rows(0, &[10, 30], LATER, &mut rows);
        one.on_connection(4, true, LATER);
        let mut two = watermark(3);
        two.restore(one.state().clone());
        for (producer, time) in [(4, 12), (0, 40), (4, 35)] {
            assert_eq!(
                one.on_rows(producer, &[time], LATER, &mut rows).watermark,
                two.on_rows(producer, &[time], LATER, &mut rows).watermark
            );
        }
    }
}
