//! What a device would measure at a moment, and what is unusual about it.

use super::chance::{About, Chance, Spells};
use crate::scenario::{AnomalyOptions, Scenario, SignalKind, SignalOptions};

/// How long what a site has in common takes to change.
const SITE_CHANGES_US: i64 = 30_000_000;
const METRES_PER_DEGREE: f64 = 111_195.0;

/// What is unusual about a reading: the label of an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anomaly {
    /// One reading far off.
    Spike,
    /// A spell off by a step.
    Shift,
    /// A spell that goes off little by little.
    Drift,
    /// A spell in which nothing changes.
    Stuck,
}

impl Anomaly {
    /// All that there are.
    pub const ALL: [Anomaly; 4] = [Anomaly::Spike, Anomaly::Shift, Anomaly::Drift, Anomaly::Stuck];

    /// The word in the truth.
    pub const fn as_str(self) -> &'static str {
        match self {
            Anomaly::Spike => "spike",
            Anomaly::Shift => "shift",
            Anomaly::Drift => "drift",
            Anomaly::Stuck => "stuck",
        }
    }
}

/// The signals of a scenario.
pub(super) struct Signals {
    options: Vec<SignalOptions>,
    anomalies: AnomalyOptions,
    shift: Option<Spells>,
    drift: Option<Spells>,
    stuck: Option<Spells>,
    chance: Chance,
    start_us: i64,
}

/// Who measures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    pub(super) device: u64,
    pub(super) site: u64,
}

impl Signals {
    pub(super) fn new(scenario: &Scenario, chance: Chance, start_us: i64) -> Signals {
        let anomalies = scenario.anomalies.clone();
        let spells = |about, spell: Option<crate::scenario::UnusualSpell>| spell.and_then(|s| Spells::new(about, s.share, s.lasting));
        Signals {
            options: scenario.signals.values().cloned().collect(),
            shift: spells(About::Shift, anomalies.shift),
            drift: spells(About::Drift, anomalies.drift),
            stuck: spells(About::Stuck, anomalies.stuck),
            anomalies,
            chance,
            start_us,
        }
    }

    /// The values at `at` (microseconds since the start), rounded as they are written. `spike` puts the first far off.
    pub(super) fn measure(&self, who: Who, at: i64, spike: bool) -> (Vec<f64>, Option<Anomaly>) {
        let stuck = self.stuck.and_then(|spells| spells.at(self.chance, who.device, at));
        let moment = stuck.map_or(at, |within| within.start);
        let mut values: Vec<f64> = self.options.iter().enumerate().map(|(n, signal)| self.value(signal, n as u64, who, moment)).collect();
        let anomaly = match stuck {
            Some(_) => Some(Anomaly::Stuck),
            None => self.unusual(&mut values[0], who, at, spike),
        };
        for (value, signal) in values.iter_mut().zip(&self.options) {
            *value = rounded(*value, signal.decimals);
        }
        (values, anomaly)
    }

    fn unusual(&self, value: &mut f64, who: Who, at: i64, spike: bool) -> Option<Anomaly> {
        let within = |spells: Option<Spells>| spells.and_then(|spells| spells.at(self.chance, who.device, at));
        if let Some(option) = self.anomalies.spike.filter(|_| spike) {
            let up = self.chance.bits(About::SpikeSign, who.device, at as u64) & 1 == 0;
            *value += if up { option.size } else { -option.size };
            return Some(Anomaly::Spike);
        }
        if let (Some(option), Some(_)) = (self.anomalies.shift, within(self.shift)) {
            *value += option.size;
            return Some(Anomaly::Shift);
        }
        let (option, spell) = (self.anomalies.drift?, within(self.drift)?);
        *value += option.size * (at - spell.start) as f64 / (spell.end - spell.start) as f64;
        Some(Anomaly::Drift)
    }

    fn value(&self, signal: &SignalOptions, number: u64, who: Who, at: i64) -> f64 {
        let seconds = at as f64 / 1e6;
        let phase = self.chance.unit(About::Phase, who.device, 0) * std::f64::consts::TAU;
        let turn = (self.start_us as f64 / 1e6 + seconds) / signal.period.seconds().max(1e-6) * std::f64::consts::TAU;
        match signal.r#type {
            SignalKind::Wave => {
                let middle = signal.base + signal.spread * (2.0 * self.chance.unit(About::Base, who.device, number) - 1.0);
                let noise = self.chance.normal((About::Noise, About::NoiseToo), who.device, at as u64 ^ number << 56);
                let season = signal.amplitude * turn.sin();
                let site = signal.site_noise * self.site(who.site, number, at);
                middle + season + signal.trend * seconds / 3_600.0 + signal.noise * noise + site
            }
            SignalKind::Counter => {
                // Devices reset at different times.
                let since = signal.reset.map_or(seconds, |reset| {
                    let part = self.chance.unit(About::Phase, who.device, 1);
                    (seconds + part * reset.seconds()) % reset.seconds()
                });
                signal.base + (signal.rate * since).floor()
            }
            SignalKind::Latitude => signal.base + signal.radius / METRES_PER_DEGREE * (turn + phase).sin(),
            SignalKind::Longitude => {
                let degree = METRES_PER_DEGREE * signal.at_latitude.to_radians().cos();
                signal.base + signal.radius / degree * (turn + phase).cos()
            }
        }
    }

    /// What the devices of a site have in common: normal draws, joined by lines.
    fn site(&self, site: u64, number: u64, at: i64) -> f64 {
        let (before, part) = (at.div_euclid(SITE_CHANGES_US), at.rem_euclid(SITE_CHANGES_US) as f64 / SITE_CHANGES_US as f64);
        let draw = |at: i64| self.chance.normal((About::SiteNoise, About::SiteNoiseToo), site, at as u64 ^ number << 56);
        draw(before) * (1.0 - part) + draw(before + 1) * part
    }
}

/// The nearest number with so many digits after the point, the same that its text reads back as.
fn rounded(value: f64, decimals: u8) -> f64 {
    format!("{value:.*}", usize::from(decimals)).parse().expect("what was printed as a number is one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Span, UnusualSpell};
    use indexmap::IndexMap;

    fn signals(options: SignalOptions, anomalies: AnomalyOptions) -> Signals {
        let scenario = Scenario { signals: IndexMap::from([("x".to_owned(), options)]), anomalies, ..Scenario::default() };
        Signals::new(&scenario, Chance(1), 0)
    }

    fn series(signals: &Signals, who: Who) -> Vec<f64> {
        (0..400).map(|second| signals.measure(who, second * 1_000_000, false).0[0]).collect()
    }

    fn correlation(a: &[f64], b: &[f64]) -> f64 {
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
        let (left, right) = (mean(a), mean(b));
        let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(x, y)| f(x - left, y - right)).sum::<f64>();
        sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt()
    }

    #[test]
    fn devices_of_a_site_go_together_and_others_do_not() {
        let signals = signals(SignalOptions { amplitude: 0.0, noise: 0.2, site_noise: 1.0, ..Default::default() }, Default::default());
        let of = |device, site| series(&signals, Who { device, site });
        assert!(correlation(&of(1, 7), &of(2, 7)) > 0.8);
        assert!(correlation(&of(1, 7), &of(2, 8)).abs() < 0.5);
    }

    #[test]
    fn a_counter_only_falls_at_its_reset() {
        let options = SignalOptions { r#type: SignalKind::Counter, rate: 3.0, reset: Some(Span::from_secs(100)), ..Default::default() };
        let values = series(&signals(options, Default::default()), Who { device: 1, site: 0 });
        assert_eq!(values.windows(2).filter(|pair| pair[1] < pair[0]).count(), 4);
    }

    #[test]
    fn a_track_keeps_its_distance() {
        let options = |kind| SignalOptions { r#type: kind, base: 50.0, at_latitude: 50.0, decimals: 6, ..Default::default() };
        let (north, east) = (options(SignalKind::Latitude), options(SignalKind::Longitude));
        let scenario = Scenario { signals: IndexMap::from([("lat".to_owned(), north), ("lon".to_owned(), east)]), ..Scenario::default() };
        let signals = Signals::new(&scenario, Chance(1), 0);
        for second in 0..600 {
            let place = signals.measure(Who { device: 3, site: 0 }, second * 1_000_000, false).0;
            let (north, east) = ((place[0] - 50.0) * METRES_PER_DEGREE, (place[1] - 50.0) * METRES_PER_DEGREE * 50_f64.to_radians().cos());
            assert!((north.hypot(east) - 1_000.0).abs() < 1.0, "{place:?}");
        }
    }

    #[test]
    fn what_is_unusual_is_labelled() {
        let spell = |size| Some(UnusualSpell { share: 0.2, lasting: Span::from_secs(20), size });
        let anomalies = AnomalyOptions { stuck: spell(0.0), shift: spell(500.0), ..Default::default() };
        let signals = signals(SignalOptions::default(), anomalies);
        let readings: Vec<_> = (0..2_000).map(|second| signals.measure(Who { device: 1, site: 0 }, second * 1_000_000, false)).collect();
        assert!(readings.iter().all(|(values, label)| (values[0] > 300.0) == (*label == Some(Anomaly::Shift))));
        let mut pairs = readings.windows(2).filter(|pair| pair.iter().all(|(_, label)| *label == Some(Anomaly::Stuck)));
        assert!(pairs.clone().count() > 300 && pairs.by_ref().filter(|pair| pair[0].0 == pair[1].0).count() > 300);
    }
}
