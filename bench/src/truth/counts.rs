//! How many messages of each kind were sent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fleet::{Reading, Timing};

/// Counts of messages; what a pipeline behind them must account for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All messages: `readings + duplicate + broken`.
    pub messages: u64,
    /// Different readings that can be used.
    pub readings: u64,
    /// Of messages that can be used, those that repeat another.
    pub duplicate: u64,
    /// Messages that nobody can use, repeated or not.
    pub broken: u64,
    /// The broken by the reason they must have in `dead_letters`.
    pub reasons: BTreeMap<String, u64>,
    /// Of the readings, those sent a little after they were measured.
    pub out_of_order: u64,
    /// Of the readings, those sent long after they were measured.
    pub late: u64,
    /// Of the readings, those kept while their device was offline.
    pub offline: u64,
    /// Of the readings, those of a device that is in no list.
    pub unknown_device: u64,
    /// The readings with something unusual, by label.
    pub anomalies: BTreeMap<String, u64>,
    /// Messages that the broker has acknowledged; all in a file.
    pub acknowledged: u64,
}

impl Counts {
    /// Counts one message.
    pub fn add(&mut self, reading: &Reading) {
        self.messages += 1;
        if let Some(reason) = reading.reason {
            self.broken += 1;
            *self.reasons.entry(reason.to_owned()).or_default() += 1;
            return;
        }
        if reading.duplicate_of.is_some() {
            self.duplicate += 1;
            return;
        }
        self.readings += 1;
        match reading.timing {
            Timing::OnTime => {}
            Timing::OutOfOrder => self.out_of_order += 1,
            Timing::Late => self.late += 1,
            Timing::Offline => self.offline += 1,
        }
        self.unknown_device += u64::from(reading.unknown_device);
        if let Some(anomaly) = reading.anomaly {
            *self.anomalies.entry(anomaly.as_str().to_owned()).or_default() += 1;
        }
    }
}
