//! What goes wrong, each by an exact share and within a bound. Faults are drawn independently, so one reading may have several.

use serde::{Deserialize, Serialize};

use super::{Span, positive, share};
use crate::fleet::Class;

/// The faults of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultOptions {
    /// Share of readings that are sent up to `by` after they were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_of_order: Option<Delay>,
    /// Share of readings that are sent between half of `by` and `by` after they were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late: Option<Delay>,
    /// Share of readings that are sent twice, the second time up to `by` after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Delay>,
    /// Share of time in which a device is offline; it keeps its readings and sends them at once afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline: Option<Spell>,
    /// Share of time in which a device measures nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Spell>,
    /// Share of readings that nobody can use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub malformed: Option<MalformedOptions>,
    /// Share of readings that bear a device's name which no list of devices has (`unknown-<n>`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_device: Option<Part>,
    /// Share of devices whose payload has changed: half of them say more than others, half leave out the last signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_drift: Option<Part>,
    /// Clocks that are wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockOptions>,
}

/// A share alone.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Share of readings (of devices for `schema_drift`).
    pub share: f64,
}

/// A share, and a bound on time where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    /// Share of readings (of devices for clocks).
    pub share: f64,
    /// The longest delay; none if left out.
    #[serde(default)]
    pub by: Span,
}

/// A share of time, in spells.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Spell {
    /// Share of the time of each device.
    pub share: f64,
    /// How long one spell is.
    pub lasting: Span,
}

/// Readings that nobody can use.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MalformedOptions {
    /// Share of readings.
    pub share: f64,
    /// In which ways, in turns; in all that the wire allows if left out.
    #[serde(default)]
    pub classes: Vec<Class>,
}

/// Clocks that are wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClockOptions {
    /// Share of devices whose clock is wrong by up to `by`, half of them ahead. Less than the source's `max_future`: those ahead by more
    /// are dead letters, which the truth does not foresee.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Delay>,
    /// Share of devices whose clock goes slow so that it loses `by` in a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Delay>,
    /// Spells in which a clock stands in another century.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jump: Option<JumpOptions>,
}

/// Spells in which a clock stands in another century.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JumpOptions {
    /// Share of the time of each device.
    pub share: f64,
    /// How long one spell is. Of two in a row the first is in 1970 (`time_too_old`), the second in 2099 (`time_in_future`).
    pub lasting: Span,
}

impl FaultOptions {
    /// What every fleet has a little of.
    pub fn usual() -> FaultOptions {
        let delay = |share, seconds| Some(Delay { share, by: Span::from_secs(seconds) });
        FaultOptions {
            out_of_order: delay(0.02, 4),
            late: delay(0.002, 20),
            duplicate: delay(0.01, 0),
            malformed: Some(MalformedOptions { share: 0.005, classes: Vec::new() }),
            ..FaultOptions::default()
        }
    }

    pub(super) fn check(&self, possible: &[Class]) -> Result<(), String> {
        let clock = self.clock.unwrap_or_default();
        let delays = [
            ("out_of_order", self.out_of_order),
            ("late", self.late),
            ("duplicate", self.duplicate),
            ("clock.offset", clock.offset),
            ("clock.drift", clock.drift),
        ];
        for (key, delay) in delays.into_iter().filter_map(|(key, delay)| Some((key, delay?))) {
            share(&format!("faults.{key}.share"), delay.share)?;
            if ["out_of_order", "late"].contains(&key) {
                positive(&format!("faults.{key}.by"), delay.by)?;
            }
        }
        for (key, part) in [("unknown_device", self.unknown_device), ("schema_drift", self.schema_drift)] {
            part.map_or(Ok(()), |part| share(&format!("faults.{key}.share"), part.share))?;
        }
        let jump = clock.jump.map(|jump| Spell { share: jump.share, lasting: jump.lasting });
        for (key, spell) in [("offline", self.offline), ("gap", self.gap), ("clock.jump", jump)] {
            if let Some(spell) = spell {
                share(&format!("faults.{key}.share"), spell.share)?;
                positive(&format!("faults.{key}.lasting"), spell.lasting)?;
            }
        }
        let Some(malformed) = &self.malformed else { return Ok(()) };
        share("faults.malformed.share", malformed.share)?;
        match malformed.classes.iter().find(|class| !possible.contains(class)) {
            Some(class) => Err(format!("faults.malformed.classes: {} cannot happen on this wire", class.as_str())),
            None => Ok(()),
        }
    }
}
