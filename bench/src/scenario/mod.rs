//! A scenario: which devices send what, when, how faulty and over which wire; read from TOML (`bench/scenarios`), changed by the
//! command line, kept beside the truth as it was run.
//!
//! ```text
//! mod.rs      the file, its mistakes, the scenario of the demo
//! rate.rs     when readings are due
//! signals.rs  what they say, and what is unusual about it
//! faults.rs   how they go wrong
//! wire.rs     how they travel
//! verify.rs   which tables must hold what
//! ```
//!
//! Shares are of 1. A share of readings is exact: of each `1 / share` readings in a row one is chosen. A share of time is exact for each
//! device: of each `lasting / share` one spell of `lasting` is chosen.

mod faults;
mod rate;
mod signals;
mod span;
mod verify;
mod wire;

pub use faults::{ClockOptions, Delay, FaultOptions, JumpOptions, MalformedOptions, Part, Spell};
pub use rate::{Arrivals, Burst, Daily, Ramp, RateOptions};
pub use signals::{AnomalyOptions, SignalKind, SignalOptions, Spike, UnusualSpell};
pub use span::Span;
pub use verify::{AlertOptions, Duplicates, RawOptions, VerifyOptions, WindowOptions};
pub use wire::{Format, Storm, Transport, Version, WireOptions};

use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::truth::RESERVED;
use crate::{Error, Result};

/// What a simulation does. What is left out of the file is as in the demo, without its faults.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// What it is called in reports.
    pub name: String,
    /// The same seed and start give the same messages, byte by byte.
    pub seed: u64,
    /// Devices at a time, 1 to 1,000,000.
    pub devices: u32,
    /// Devices that share a site, and with it its weather (`site_noise`).
    pub devices_per_site: u32,
    /// The time of the first reading as RFC 3339; the moment of the start if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// How long devices measure; endless if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lasting: Option<Span>,
    /// When readings are due.
    pub rate: RateOptions,
    /// What a reading holds, in this order; at least one.
    pub signals: IndexMap<String, SignalOptions>,
    /// What is unusual in the first signal.
    pub anomalies: AnomalyOptions,
    /// What goes wrong.
    pub faults: FaultOptions,
    /// How messages travel.
    pub wire: WireOptions,
    /// Which tables `tidegate verify` looks at.
    pub verify: VerifyOptions,
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            name: "fleet".to_owned(),
            seed: 1,
            devices: 200,
            devices_per_site: 50,
            start: None,
            lasting: None,
            rate: RateOptions::default(),
            signals: IndexMap::from([("temperature".to_owned(), SignalOptions::default())]),
            anomalies: AnomalyOptions::default(),
            faults: FaultOptions::default(),
            wire: WireOptions::default(),
            verify: VerifyOptions::default(),
        }
    }
}

impl Scenario {
    /// The fleet of `tidegate demo`, and of `tidegate simulate` without a file: thermometers with a little of each usual fault.
    pub fn demo() -> Scenario {
        let temperature = SignalOptions { field: Some("t".to_owned()), ..SignalOptions::default() };
        Scenario {
            name: "demo".to_owned(),
            signals: IndexMap::from([("temperature".to_owned(), temperature)]),
            faults: FaultOptions::usual(),
            ..Scenario::default()
        }
    }

    /// Reads a file. An error names its line.
    pub fn read(file: &Path) -> Result<Scenario> {
        let text = std::fs::read_to_string(file).map_err(Error::file(file))?;
        Scenario::parse(&text).map_err(|reason| Error::Scenario { file: file.display().to_string(), reason })
    }

    pub(crate) fn parse(text: &str) -> std::result::Result<Scenario, String> {
        let scenario: Scenario = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        scenario.check().map(|()| scenario)
    }

    /// Looks for values that make no sense, alone or together.
    pub fn check(&self) -> std::result::Result<(), String> {
        if !(1..=1_000_000).contains(&self.devices) {
            return Err(format!("devices = {}: there are 1 to 1,000,000", self.devices));
        }
        if self.devices_per_site == 0 {
            return Err("devices_per_site = 0: a site has at least one device".to_owned());
        }
        if self.signals.is_empty() {
            return Err("[signals]: a reading holds at least one".to_owned());
        }
        if let Some(name) = self.signals.keys().find(|name| RESERVED.contains(&name.as_str())) {
            return Err(format!("[signals.{name}]: the truth has a column of that name; `field` gives it in the payload"));
        }
        if let Some(start) = &self.start {
            chrono::DateTime::parse_from_rfc3339(start)
                .map_err(|error| format!("start = {start:?}: {error}; write 2026-01-01T00:00:00Z"))?;
        }
        self.rate.check()?;
        self.anomalies.check()?;
        self.faults.check(self.wire.classes())?;
        self.verify.check()?;
        self.wire.check(self.lasting.is_some())
    }

    /// The time of the first reading in Unix microseconds; `now_us` where the file names none.
    pub fn start_us(&self, now_us: i64) -> i64 {
        let named = self.start.as_deref().and_then(|start| chrono::DateTime::parse_from_rfc3339(start).ok());
        named.map_or(now_us, |start| start.timestamp_micros())
    }
}

/// A share of 1, as of `key`.
fn share(key: &str, share: f64) -> std::result::Result<(), String> {
    if (0.0..=1.0).contains(&share) { Ok(()) } else { Err(format!("{key}: a share is 0 to 1, not {share}")) }
}

/// A length of time above nothing.
fn positive(key: &str, span: Span) -> std::result::Result<(), String> {
    if span.0.is_zero() { Err(format!("{key}: longer than nothing, as \"10s\"")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let error = Scenario::parse("seed = 3\n\n[faults]\nduplicat = { share = 0.1 }\n").unwrap_err();
        assert!(error.contains("line 4") && error.contains("`duplicate`"), "{error}");
        let error = Scenario::parse("lasting = \"10\"\n").unwrap_err();
        assert!(error.contains("line 1") && error.contains("length of time"), "{error}");
        let error = Scenario::parse("[faults]\nlate = { share = 7.0 }\n").unwrap_err();
        assert!(error.contains("faults.late.share"), "{error}");
    }

    #[test]
    fn what_was_run_is_read_back() {
        let scenario = Scenario { lasting: Some(Span::from_secs(90)), ..Scenario::demo() };
        let text = toml::to_string(&scenario).unwrap();
        assert_eq!(Scenario::parse(&text).unwrap(), scenario, "{text}");
    }

    #[test]
    fn the_shipped_scenarios_are_right() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty());
        for file in files {
            Scenario::read(&file).unwrap();
        }
    }
}
