//! The records of all lanes and one version of each cold table that fit together: no row of them is in two tiers or in none.

use super::report::{Part, Report};
use super::{Fault, Subject};
use crate::cold::{Snapshot, dropped, transaction};
use crate::epoch::{EpochError, EpochStore, Whole};
use flow::Result;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often it is tried again when a move was between lanes and cold tables.
const TRIES: usize = 5;

/// A lane as its newest record says.
pub(super) struct LaneNow {
    pub(super) name: String,
    pub(super) record: u64,
    pub(super) chain: String,
    pub(super) whole: Arc<Whole>,
}

/// A cold table with the move numbers that are in it, by lane.
pub(super) struct ColdNow {
    pub(super) snapshot: Snapshot,
    pub(super) moved: BTreeMap<String, u64>,
    /// Rows that went for good with their days.
    pub(super) dropped: u64,
}

/// What is verified: lanes first, cold tables after them.
#[derive(Default)]
pub(super) struct Instant {
    pub(super) lanes: Vec<LaneNow>,
    pub(super) cold: BTreeMap<String, ColdNow>,
    /// Some lane or cold table cannot be read, so that rows cannot be counted.
    pub(super) is_partial: bool,
}

impl Instant {
    /// Tries until lanes and tables fit; what does not fit then is in the report.
    pub(super) async fn take(subject: Subject<'_>, report: &mut Report) -> Result<Self> {
        let mut tries = 1;
        loop {
            let mut found = Report::default();
            let instant = Self::read(subject, &mut found).await?;
            if found.is_sound() || tries == TRIES {
                report.damage.append(&mut found.damage);
                report.lanes = instant.lanes.iter().map(|lane| (lane.name.clone(), lane.record)).collect();
                report.cold = instant.cold.iter().map(|(t, c)| (t.clone(), c.snapshot.version().unwrap_or_default())).collect();
                return Ok(instant);
            }
            tries += 1;
        }
    }

    async fn read(subject: Subject<'_>, report: &mut Report) -> Result<Self> {
        let mut instant = Self::default();
        for lane in subject.epochs.lanes()? {
            match subject.epochs.newest(&lane) {
                Ok(Some(newest)) => instant.lanes.push(LaneNow {
                    name: lane,
                    record: newest.header.number,
                    chain: newest.header.chain,
                    whole: newest.whole,
                }),
                Ok(None) => {}
                Err(error) => {
                    instant.is_partial = true;
                    damaged_record(&lane, error, report);
                }
            }
        }
        for spec in subject.specs {
            instant.read_cold(subject, &spec.name, report).await;
        }
        instant.check_fit(report);
        Ok(instant)
    }

    async fn read_cold(&mut self, subject: Subject<'_>, table: &str, report: &mut Report) {
        let Some(cold) = subject.cold.table(table) else { return };
        let read = async {
            let Some(snapshot) = cold.snapshot().await? else { return Ok(None) };
            let mut moved = BTreeMap::new();
            for lane in &self.lanes {
                let app = transaction(subject.pipeline, table, &lane.name, &lane.chain);
                moved.insert(lane.name.clone(), snapshot.transaction(&app).await?);
            }
            let dropped = snapshot.transaction(&dropped(subject.pipeline, table)).await?;
            Ok::<_, flow::Error>(Some(ColdNow { snapshot, moved, dropped }))
        };
        match read.await {
            Ok(Some(now)) => {
                self.cold.insert(table.to_owned(), now);
            }
            Ok(None) => {}
            Err(error) => {
                self.is_partial = true;
                report.fault(Part::Cold, Some(table), None, String::new(), Fault::wrong(error.to_string()));
            }
        }
    }

    /// `dropped <= t <= marked` for every lane of every table.
    fn check_fit(&self, report: &mut Report) {
        for lane in &self.lanes {
            for (table, state) in &lane.whole.tables {
                let t = self.moved(table, &lane.name);
                let what = if t < state.dropped {
                    format!(
                        "the cold table has moves up to {t}, the lane has let its segments go up to {}: commits were lost",
                        state.dropped
                    )
                } else if t > state.marked {
                    format!("the cold table has moves up to {t}, the lane has given {}: its records were lost", state.marked)
                } else {
                    continue;
                };
                report.fault(Part::Cold, Some(table), Some(&lane.name), String::new(), Fault::wrong(what));
            }
        }
    }

    /// The highest move number of a lane that is in the cold table.
    pub(super) fn moved(&self, table: &str, lane: &str) -> u64 {
        self.cold.get(table).and_then(|cold| cold.moved.get(lane)).copied().unwrap_or(0)
    }
}

fn damaged_record(lane: &str, error: EpochError, report: &mut Report) {
    let (file, fault) = match error {
        EpochError::Damaged { path, byte, what } => (path.display().to_string(), Fault::at(byte, what)),
        EpochError::Io { path, source, .. } => (path.display().to_string(), source.into()),
        other => (String::new(), Fault::wrong(other.to_string())),
    };
    report.fault(Part::Record, None, Some(lane), file, fault);
}
