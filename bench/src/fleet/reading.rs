//! A message of a device with all that is true about it.

use std::time::Duration;

use super::payload::{Class, Schema};
use super::signal::Anomaly;

/// One message of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// When it is sent, from the start of the simulation.
    pub due: Duration,
    /// Which of the devices at a time sends it.
    pub slot: u32,
    /// Its topic; empty for files.
    pub topic: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// What is true about it.
    pub reading: Reading,
}

/// What is true about a message, whatever becomes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Its number among all messages, in the order in which they were made.
    pub number: u64,
    /// The number of the message whose bytes it repeats.
    pub duplicate_of: Option<u64>,
    /// The device as the message names it.
    pub device: String,
    /// Its site.
    pub site: String,
    /// Its sequence, from 0, per device.
    pub sequence: u64,
    /// When it was measured, in Unix microseconds.
    pub measured_us: i64,
    /// The time that the message says, in Unix microseconds; none where it says none that can be read.
    pub event_time_us: Option<i64>,
    /// The signals in the order of the scenario; none where the message does not say them.
    pub values: Vec<Option<f64>>,
    /// How its sending relates to its measuring.
    pub timing: Timing,
    /// What is wrong with the device's clock.
    pub clock: Clock,
    /// How it is broken.
    pub class: Option<Class>,
    /// Why nobody can use it: the reason in `dead_letters`.
    pub reason: Option<&'static str>,
    /// What is unusual about its first signal.
    pub anomaly: Option<Anomaly>,
    /// How its payload differs from that of others.
    pub schema: Option<Schema>,
    /// Its device is in no list.
    pub unknown_device: bool,
}

/// How the sending of a reading relates to its measuring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Sent at once.
    OnTime,
    /// Sent a little later.
    OutOfOrder,
    /// Sent much later.
    Late,
    /// Kept while the device was offline, and sent when it came back.
    Offline,
}

impl Timing {
    /// The word in the truth.
    pub const fn as_str(self) -> &'static str {
        match self {
            Timing::OnTime => "on_time",
            Timing::OutOfOrder => "out_of_order",
            Timing::Late => "late",
            Timing::Offline => "offline",
        }
    }
}

/// What is wrong with a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Nothing.
    Right,
    /// It is off by the same all the time.
    Offset,
    /// It goes slow.
    Drift,
    /// It stands in 1970.
    In1970,
    /// It stands in 2099.
    In2099,
}

impl Clock {
    /// The word in the truth.
    pub const fn as_str(self) -> &'static str {
        match self {
            Clock::Right => "right",
            Clock::Offset => "offset",
            Clock::Drift => "drift",
            Clock::In1970 => "1970",
            Clock::In2099 => "2099",
        }
    }

    /// Why its readings cannot be used, if they cannot.
    pub(super) const fn reason(self) -> Option<&'static str> {
        match self {
            Clock::In1970 => Some("time_too_old"),
            Clock::In2099 => Some("time_in_future"),
            _ => None,
        }
    }
}
