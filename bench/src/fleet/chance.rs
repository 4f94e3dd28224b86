//! Chance without state: every draw is a function of the seed, a name for what is drawn, and the numbers it is about. So a reading can
//! be computed alone, and one more fault in a scenario changes nothing else.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::scenario::Span;

/// What is drawn: each has numbers of its own.
#[derive(Clone, Copy, Debug)]
pub(super) enum About {
    Arrival,
    Device,
    Base,
    Noise,
    NoiseToo,
    SiteNoise,
    SiteNoiseToo,
    Phase,
    Spike,
    SpikeSign,
    Shift,
    Drift,
    Stuck,
    OutOfOrder,
    OutOfOrderBy,
    Late,
    LateBy,
    Duplicate,
    DuplicateBy,
    Offline,
    Gap,
    Malformed,
    Unknown,
    Schema,
    Clock,
    ClockDrift,
    Jump,
    Churn,
}

/// The source of all draws.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn bits(self, about: About, first: u64, second: u64) -> u64 {
        let mut bytes = [0; 17];
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        bytes[8..16].copy_from_slice(&second.to_le_bytes());
        bytes[16] = about as u8;
        xxh3_64_with_seed(&bytes, self.0)
    }

    /// Evenly from 0 up to, not with, 1.
    pub(super) fn unit(self, about: About, first: u64, second: u64) -> f64 {
        (self.bits(about, first, second) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A normal draw of mean 0 and deviation 1 (Box–Muller) from the draws of two names.
    pub(super) fn normal(self, about: (About, About), first: u64, second: u64) -> f64 {
        let (radius, angle) = (1.0 - self.unit(about.0, first, second), self.unit(about.1, first, second));
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}

/// An exact share of things in a row: of each `1 / share` one, at a random place among them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    about: About,
    share: f64,
    seen: u64,
}

impl Share {
    pub(super) fn new(about: About, share: f64) -> Share {
        Share { about, share, seen: 0 }
    }

    /// Whether the next thing is one of them.
    pub(super) fn take(&mut self, chance: Chance) -> bool {
        let number = self.seen;
        self.seen += 1;
        if self.share <= 0.0 {
            return false;
        }
        let block = (number as f64 * self.share).floor();
        let first = (block / self.share).ceil();
        let size = ((block + 1.0) / self.share).ceil() - first;
        let place = first + (chance.unit(self.about, block as u64, 0) * size).floor();
        number as f64 == place
    }
}

/// An exact share of a device's time, in spells of one length at random places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spells {
    about: About,
    lasting: i64,
    every: i64,
}

/// A spell in which a moment lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Within {
    /// Its number for the device.
    pub(super) number: u64,
    /// Its start and end, in microseconds since the start of the simulation.
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Spells {
    pub(super) fn new(about: About, share: f64, lasting: Span) -> Option<Spells> {
        let lasting = lasting.micros();
        (share > 0.0).then(|| Spells { about, lasting, every: ((lasting as f64 / share) as i64).max(lasting) })
    }

    /// The spell of a device at a moment (microseconds since the start), if one is.
    pub(super) fn at(self, chance: Chance, device: u64, at: i64) -> Option<Within> {
        // Devices begin at different places of their first period.
        let phase = (chance.unit(self.about, device, u64::MAX) * self.every as f64) as i64;
        let number = (at + phase).div_euclid(self.every);
        let free = self.every - self.lasting;
        let start = number * self.every - phase + (chance.unit(self.about, device, number as u64) * free as f64) as i64;
        let end = start + self.lasting;
        (start..end).contains(&at).then_some(Within { number: number as u64, start, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_share_is_exact(seed: u64, share in 0.0_f64..=1.0, things in 1_u64..5_000) {
            let mut one = Share::new(About::Late, share);
            let taken = (0..things).filter(|_| one.take(Chance(seed))).count() as f64;
            prop_assert!((taken - things as f64 * share).abs() <= 1.0, "{taken} of {things} at {share}");
        }

        #[test]
        fn spells_take_their_share_of_time(seed: u64, share in 0.01_f64..1.0, device: u64) {
            let spells = Spells::new(About::Gap, share, Span::from_secs(10)).unwrap();
            // A thousand periods, looked at each tenth of a second.
            let step = 100_000;
            let looks = 1_000 * spells.every / step;
            let within = (0..looks).filter(|look| spells.at(Chance(seed), device, look * step).is_some()).count() as f64;
            prop_assert!((within / looks as f64 - share).abs() < 0.01, "{within} of {looks} at {share}");
        }
    }
}
