//! When readings are due: how many a second, evenly or by chance, and how that changes with time. The factors of `burst`, `daily` and
//! `ramp` multiply.

use serde::{Deserialize, Serialize};

use super::{Span, positive, share};

/// The rate of a fleet.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateOptions {
    /// Readings a second of each device, before the factors.
    pub each: f64,
    /// How they are spread.
    pub arrivals: Arrivals,
    /// More, again and again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
    /// Less at night.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily: Option<Daily>,
    /// Less at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
    /// Share of the readings that come from one device, the first; none in particular if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hot: Option<f64>,
    /// How long a device lives before another with a new name takes its place; for ever if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub churn: Option<Span>,
}

/// How readings are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Devices take turns, evenly.
    #[default]
    Fixed,
    /// A Poisson process, each reading of any device.
    Poisson,
}

/// `factor` times as many readings for `lasting`, at the end of each `every`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// From the end of one to the end of the next.
    pub every: Span,
    /// How long one is.
    pub lasting: Span,
    /// How many times the rate.
    pub factor: f64,
}

/// A sine between `low` and 1 of the rate, highest at noon of each `period` (UTC for a day).
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Daily {
    /// The length of a day.
    #[serde(default = "one_day")]
    pub period: Span,
    /// The share of the rate at midnight.
    pub low: f64,
}

/// From `from` of the rate up to all of it, in a line.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    /// How long it takes.
    pub over: Span,
    /// The share of the rate at the start.
    #[serde(default)]
    pub from: f64,
}

fn one_day() -> Span {
    Span::from_secs(86_400)
}

impl Default for RateOptions {
    fn default() -> RateOptions {
        RateOptions { each: 5.0, arrivals: Arrivals::Fixed, burst: None, daily: None, ramp: None, hot: None, churn: None }
    }
}

impl RateOptions {
    pub(super) fn check(&self) -> Result<(), String> {
        if !(self.each > 0.0 && self.each.is_finite()) {
            return Err(format!("rate.each = {}: more than 0 readings a second", self.each));
        }
        if let Some(burst) = self.burst {
            positive("rate.burst.every", burst.every)?;
            if burst.lasting > burst.every || !(burst.factor >= 0.0 && burst.factor.is_finite()) {
                return Err("rate.burst: `lasting` is at most `every`, `factor` 0 or more".to_owned());
            }
        }
        if let Some(daily) = self.daily {
            positive("rate.daily.period", daily.period)?;
            share("rate.daily.low", daily.low)?;
        }
        if let Some(ramp) = self.ramp {
            positive("rate.ramp.over", ramp.over)?;
            share("rate.ramp.from", ramp.from)?;
        }
        if let Some(hot) = self.hot {
            share("rate.hot", hot)?;
        }
        self.churn.map_or(Ok(()), |churn| positive("rate.churn", churn))
    }
}
