//! The clocks of devices: what each shows at a moment.

use super::chance::{About, Chance, Spells};
use super::reading::Clock;
use crate::scenario::{ClockOptions, Delay};

/// 2099-01-01T00:00:00Z.
const IN_2099_US: i64 = 4_070_908_800_000_000;
const DAY_US: f64 = 86_400e6;

pub(super) struct Clocks {
    options: ClockOptions,
    jumps: Option<Spells>,
    chance: Chance,
    start_us: i64,
}

impl Clocks {
    pub(super) fn new(options: ClockOptions, chance: Chance, start_us: i64) -> Clocks {
        let jumps = options.jump.and_then(|jump| Spells::new(About::Jump, jump.share, jump.lasting));
        Clocks { options, jumps, chance, start_us }
    }

    /// The Unix microseconds that a device's clock shows `at` microseconds after the start, and what is wrong with it.
    pub(super) fn show(&self, device: u64, at: i64) -> (i64, Clock) {
        let now = self.start_us + at;
        if let Some(jump) = self.jumps.and_then(|jumps| jumps.at(self.chance, device, at)) {
            return if (jump.number ^ device).is_multiple_of(2) { (at, Clock::In1970) } else { (IN_2099_US + at, Clock::In2099) };
        }
        if let Some(delay) = self.has(self.options.offset, About::Clock, device) {
            let draw = 2.0 * self.chance.unit(About::Clock, device, 1) - 1.0;
            return (now + (delay.by.micros() as f64 * draw) as i64, Clock::Offset);
        }
        match self.has(self.options.drift, About::ClockDrift, device) {
            Some(delay) => (now - (delay.by.micros() as f64 * at as f64 / DAY_US) as i64, Clock::Drift),
            None => (now, Clock::Right),
        }
    }

    /// The options of a fault, if this device has it.
    fn has(&self, delay: Option<Delay>, about: About, device: u64) -> Option<Delay> {
        delay.filter(|delay| self.chance.unit(about, device, 0) < delay.share)
    }
}
