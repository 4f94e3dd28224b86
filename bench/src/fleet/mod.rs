//! A fleet of simulated devices: which message is due when, what it says, and what is true about it. Seeded, so the same scenario and
//! start give the same messages; pure, so the same fleet serves the simulator, the demo and tests.
//!
//! ```text
//! schedule → moment of a device → clock, signals, faults → message
//!                                                            │ delayed, offline, twice
//!                                                   waits until it is due → out, in order of due
//! ```
//! Absent: clocks, files, connections, and what becomes of a message.

mod chance;
mod clock;
mod faults;
mod payload;
mod reading;
mod schedule;
mod signal;
mod waiting;

pub use payload::{Class, Schema};
pub use reading::{Clock, Message, Reading, Timing};
pub use signal::Anomaly;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::scenario::{Delay, Scenario, Transport};
use chance::{About, Chance};
use clock::Clocks;
use faults::Faults;
use payload::{Words, Writer};
use schedule::{Moment, Schedule};
use signal::{Signals, Who};
use waiting::Waiting;

/// The messages of a fleet in the order they are due; endless unless the scenario ends.
pub struct Fleet {
    scenario: Scenario,
    start_us: i64,
    chance: Chance,
    schedule: Schedule,
    next: Option<Moment>,
    signals: Signals,
    clocks: Clocks,
    writer: Writer,
    faults: Faults,
    /// Of each slot: which device has it, counted from the start, and its next sequence.
    slots: Vec<(u32, u64)>,
    number: u64,
    skipped: u64,
    /// What is made and not due yet: at most what the longest delay and the longest time offline hold.
    waiting: BinaryHeap<Reverse<Waiting>>,
}

impl Fleet {
    /// A fleet whose first reading is measured at `start_us` (Unix microseconds).
    pub fn new(scenario: &Scenario, start_us: i64) -> Fleet {
        let chance = Chance(scenario.seed);
        let mut fleet = Fleet {
            schedule: Schedule::new(&scenario.rate, scenario.devices, chance, start_us),
            signals: Signals::new(scenario, chance, start_us),
            clocks: Clocks::new(scenario.faults.clock.unwrap_or_default(), chance, start_us),
            writer: Writer::new(scenario),
            faults: Faults::new(scenario),
            slots: vec![(0, 0); scenario.devices as usize],
            scenario: scenario.clone(),
            start_us,
            chance,
            next: None,
            number: 0,
            skipped: 0,
            waiting: BinaryHeap::new(),
        };
        fleet.advance();
        fleet
    }

    /// The first line of a file of these messages, if it has one.
    pub fn header(&self) -> Option<String> {
        self.writer.header()
    }

    /// Readings that were not measured so far, in gaps.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next moment; none once the scenario has ended.
    fn advance(&mut self) {
        let moment = self.schedule.next();
        self.next = self.scenario.lasting.is_none_or(|lasting| moment.at < lasting.0).then_some(moment);
    }

    /// Makes what a device sends of one moment.
    fn measure(&mut self, moment: Moment) {
        let at = moment.at.as_micros() as i64;
        let device = self.device(moment.slot, at);
        if self.faults.gap.is_some_and(|gap| gap.at(self.chance, device, at).is_some()) {
            self.skipped += 1;
            return;
        }
        let message = self.message(moment, device, at);
        if self.faults.duplicate.take(self.chance) {
            let by = self.delay(self.scenario.faults.duplicate, About::DuplicateBy, 0.0);
            let reading = Reading { number: self.number, duplicate_of: Some(message.reading.number), ..message.reading.clone() };
            self.number += 1;
            let again = Message { due: self.before_end(message.due + by), reading, ..message.clone() };
            self.waiting.push(Reverse(Waiting(again)));
        }
        self.waiting.push(Reverse(Waiting(message)));
    }

    /// The device that has a slot at a moment; a new one begins with sequence 0.
    fn device(&mut self, slot: u32, at: i64) -> u64 {
        let generation = self.scenario.rate.churn.map_or(0, |churn| {
            let phase = (self.chance.unit(About::Churn, u64::from(slot), 0) * churn.micros() as f64) as i64;
            ((at + phase) / churn.micros().max(1)) as u32
        });
        let held = &mut self.slots[slot as usize];
        if held.0 != generation {
            *held = (generation, 0);
        }
        u64::from(slot) + u64::from(generation) * u64::from(self.scenario.devices)
    }

    fn message(&mut self, moment: Moment, device: u64, at: i64) -> Message {
        let slot = moment.slot;
        let sequence = self.slots[slot as usize].1;
        self.slots[slot as usize].1 += 1;
        let number = self.number;
        self.number += 1;
        let site = u64::from(slot / self.scenario.devices_per_site);
        let (values, anomaly) = self.signals.measure(Who { device, site }, at, self.faults.spike.take(self.chance));
        let schema = self.schema(device);
        let mut values: Vec<Option<f64>> = values.into_iter().map(Some).collect();
        if schema == Some(Schema::MissingField) {
            *values.last_mut().expect("a scenario has a signal") = None;
        }
        let unknown_device = self.faults.unknown.take(self.chance);
        let kind = if unknown_device { "unknown" } else { "device" };
        let (due, timing) = self.due(moment, device, at);
        let class = self.faults.class(self.chance);
        // What is broken has one reason: its clock is right.
        let right = (self.start_us + at, Clock::Right);
        let (shown_us, clock) = if class.is_some() { right } else { self.clocks.show(device, at) };
        // Devices say milliseconds.
        let time_ms = shown_us.div_euclid(1_000);
        let (device, site) = (format!("{kind}-{device}"), format!("site-{site}"));
        let words = Words { device: &device, time_ms, sequence, values: &values, schema, class };
        let payload = self.writer.write(&words);
        let reading = Reading {
            number,
            duplicate_of: None,
            sequence,
            measured_us: self.start_us + at,
            event_time_us: class.is_none().then_some(time_ms * 1_000),
            values,
            timing,
            clock,
            class,
            reason: class.map(Class::reason).or(clock.reason()),
            anomaly,
            schema,
            unknown_device,
            device,
            site,
        };
        let topic = match self.scenario.wire.transport {
            Transport::Mqtt | Transport::Http => {
                self.scenario.wire.topic.replace("{site}", &reading.site).replace("{device}", &reading.device)
            }
            Transport::File | Transport::Kafka => String::new(),
        };
        Message { due, slot, topic, payload, reading }
    }

    /// When a reading is sent.
    fn due(&mut self, moment: Moment, device: u64, at: i64) -> (Duration, Timing) {
        let (out_of_order, late) = (self.faults.out_of_order.take(self.chance), self.faults.late.take(self.chance));
        if let Some(offline) = self.faults.offline.and_then(|offline| offline.at(self.chance, device, at)) {
            return (self.before_end(Duration::from_micros(offline.end.max(at) as u64)), Timing::Offline);
        }
        let (by, timing) = if late {
            (self.delay(self.scenario.faults.late, About::LateBy, 0.5), Timing::Late)
        } else if out_of_order {
            (self.delay(self.scenario.faults.out_of_order, About::OutOfOrderBy, 0.0), Timing::OutOfOrder)
        } else {
            return (moment.at, Timing::OnTime);
        };
        (self.before_end(moment.at + by), timing)
    }

    /// What waits at the end of the scenario is sent then.
    fn before_end(&self, due: Duration) -> Duration {
        self.scenario.lasting.map_or(due, |lasting| due.min(lasting.0))
    }

    /// A delay between `least` of the bound and the bound.
    fn delay(&self, delay: Option<Delay>, about: About, least: f64) -> Duration {
        let draw = self.chance.unit(about, self.number, 0);
        delay.map_or(Duration::ZERO, |delay| delay.by.0.mul_f64(least + (1.0 - least) * draw))
    }

    fn schema(&self, device: u64) -> Option<Schema> {
        let drift = self.scenario.faults.schema_drift?;
        let draw = self.chance.unit(About::Schema, device, 0);
        match draw {
            _ if draw < drift.share / 2.0 => Some(Schema::ExtraField),
            // The first signal is what anomalies, windows and malformed readings are about: it is never left out.
            _ if draw < drift.share && self.scenario.signals.len() > 1 => Some(Schema::MissingField),
            _ => None,
        }
    }
}

impl Iterator for Fleet {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        // What is measured later is due later, so what waits may go when it is due before the next moment.
        while let Some(moment) = self.next {
            if self.waiting.peek().is_some_and(|first| first.0.0.due <= moment.at) {
                break;
            }
            self.measure(moment);
            self.advance();
        }
        self.waiting.pop().map(|first| first.0.0)
    }
}

#[cfg(test)]
mod tests;
