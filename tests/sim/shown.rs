//! What a query has seen stays true: a window that was shown once is in the tables at the end, with the same values, whatever crashed since.

use crate::oracle::Tables;
use std::collections::BTreeMap;

/// The windows that were shown so far.
#[derive(Debug, Default)]
pub(crate) struct Shown(BTreeMap<(&'static str, String, i64), (i64, i64)>);

impl Shown {
    /// Takes note of what tables show. An error when a window is not what it was.
    pub(crate) fn look(&mut self, tables: &Tables) -> Result<(), String> {
        for (window, now) in &tables.windows {
            let before = self.0.entry(window.clone()).or_insert(*now);
            if before != now {
                return Err(format!("window {window:?} was shown as {before:?} and is {now:?}"));
            }
        }
        Ok(())
    }

    /// Whether tables hold all that was shown.
    pub(crate) fn all_in(&self, tables: &Tables) -> Result<(), String> {
        let gone = self.0.iter().find(|(window, _)| !tables.windows.contains_key(*window));
        gone.map_or(Ok(()), |(window, value)| Err(format!("window {window:?} was shown as {value:?} and is gone")))
    }
}
