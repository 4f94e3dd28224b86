//! What readings say: each signal is a function of device and time, so that a reading can be computed alone; and what is unusual in the
//! first of them, with a label in the truth.

use serde::{Deserialize, Serialize};

use super::{Span, positive, share};

/// One column of a reading. Options that a type does not use are ignored by it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignalOptions {
    /// What moves it.
    pub r#type: SignalKind,
    /// Its name in the payload; the name of the signal if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Digits after the point.
    pub decimals: u8,
    /// wave: the middle; counter: where it begins; latitude, longitude: the middle of the track in degrees.
    pub base: f64,
    /// wave: how much the middle differs between devices, up or down.
    pub spread: f64,
    /// wave: height of the season.
    pub amplitude: f64,
    /// wave: length of the season; latitude, longitude: time of a lap.
    pub period: Span,
    /// wave: rise an hour.
    pub trend: f64,
    /// wave: standard deviation of what is each reading's own.
    pub noise: f64,
    /// wave: standard deviation of what the devices of a site have in common; it changes within half a minute.
    pub site_noise: f64,
    /// counter: how much it rises a second.
    pub rate: f64,
    /// counter: it falls back to `base` once in this time; never if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset: Option<Span>,
    /// latitude, longitude: how far from the middle, in metres. Give both signals of a track the same `period`.
    pub radius: f64,
    /// longitude: the latitude at which `radius` is measured.
    pub at_latitude: f64,
}

/// What moves a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SignalKind {
    /// Season, trend and noise around a middle.
    #[default]
    Wave,
    /// Rises steadily.
    Counter,
    /// A vehicle on laps around a place: how far north.
    Latitude,
    /// The same: how far east.
    Longitude,
}

impl Default for SignalOptions {
    /// A boiler's thermometer.
    fn default() -> SignalOptions {
        SignalOptions {
            r#type: SignalKind::Wave,
            field: None,
            decimals: 2,
            base: 80.0,
            spread: 20.0,
            amplitude: 1.0,
            period: Span::from_secs(600),
            trend: 0.0,
            noise: 0.5,
            site_noise: 0.5,
            rate: 1.0,
            reset: None,
            radius: 1_000.0,
            at_latitude: 0.0,
        }
    }
}

/// What is unusual in the first signal.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnomalyOptions {
    /// Single readings far off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spike: Option<Spike>,
    /// Spells in which a device is off by `size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<UnusualSpell>,
    /// Spells in which a device goes off by `size` little by little.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<UnusualSpell>,
    /// Spells in which all signals of a device keep their values (`size` has no meaning).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stuck: Option<UnusualSpell>,
}

/// Single readings far off.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Spike {
    /// Share of readings.
    pub share: f64,
    /// How far off, up or down.
    pub size: f64,
}

/// Spells of a device.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UnusualSpell {
    /// Share of time.
    pub share: f64,
    /// How long one is.
    pub lasting: Span,
    /// How far off.
    #[serde(default)]
    pub size: f64,
}

impl AnomalyOptions {
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(spike) = self.spike {
            share("anomalies.spike.share", spike.share)?;
        }
        for (key, spell) in [("shift", self.shift), ("drift", self.drift), ("stuck", self.stuck)] {
            if let Some(spell) = spell {
                share(&format!("anomalies.{key}.share"), spell.share)?;
                positive(&format!("anomalies.{key}.lasting"), spell.lasting)?;
            }
        }
        Ok(())
    }
}
