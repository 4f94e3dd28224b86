//! What a query has seen stays true: a window that was shown once is in the tables at the end, with the same values, whatever crashed since;
//! and while a process lives, nothing that it has shown goes out of view again. Positions, epochs and watermarks never fall.

use crate::oracle::Tables;
use std::collections::{BTreeMap, BTreeSet};

/// What was shown so far.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// With their count and sum.
    windows: BTreeMap<(&'static str, String, i64), (i64, i64)>,
    /// The process that shows these readings. A later one may have to read them again first.
    life: u64,
    readings: BTreeSet<i64>,
}

impl Shown {
    /// Takes note of what the tables of a process show. An error when a window is not what it was, or a reading is gone.
    pub(crate) fn look(&mut self, life: u64, tables: &Tables) -> Result<(), String> {
        for (window, now) in &tables.windows {
            let before = self.windows.entry(window.clone()).or_insert(*now);
            if before != now {
                return Err(format!("window {window:?} was shown as {before:?} and is {now:?}"));
            }
        }
        if std::mem::replace(&mut self.life, life) != life {
            self.readings.clear();
        }
        if let Some(gone) = self.readings.iter().find(|n| !tables.readings.contains_key(n)) {
            return Err(format!("reading {gone} was shown and is out of view"));
        }
        self.readings.extend(tables.readings.keys());
        Ok(())
    }

    /// Whether tables hold all that was shown.
    pub(crate) fn all_in(&self, tables: &Tables) -> Result<(), String> {
        let gone = self.windows.iter().find(|(window, _)| !tables.windows.contains_key(*window));
        gone.map_or(Ok(()), |(window, value)| Err(format!("window {window:?} was shown as {value:?} and is gone")))
    }
}

/// Positions, epochs and watermarks that never fall.
#[derive(Debug, Default)]
pub(crate) struct Rising(BTreeMap<String, i64>);

impl Rising {
    pub(crate) fn at_least(&mut self, what: String, now: i64) -> Result<(), String> {
        let before = self.0.entry(what.clone()).or_insert(now);
        if now < *before {
            return Err(format!("{what} falls from {before} to {now}"));
        }
        *before = now;
        Ok(())
    }
}
