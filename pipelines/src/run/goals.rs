//! How far topics are to be read, where a run ends though more may come.

use crate::plan::Plan;
use crate::run::kafka::{Of, lane_name};
use crate::spec::Source;
use flow::Result;
use storage::epoch::LocalEpochs;

/// The ends of all partitions at some instant; empty where a run has no such end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Goals(Vec<Goal>);

#[derive(Clone, Debug)]
struct Goal {
    lane: String,
    log: String,
    end: u64,
}

impl Goals {
    /// The ends of the topics of all Kafka sources, as brokers say now. It waits for them.
    pub(crate) fn of(plan: &Plan) -> Result<Self> {
        let mut all = vec![];
        for source in &plan.sources {
            let Source::Kafka(options) = &source.kind else { continue };
            for (topic, partition, end) in ingest::kafka::reach(options)? {
                let log = ingest::kafka::log_name(&topic, partition).to_string();
                all.push(Goal { lane: lane_name(&source.name, &Of { topic, partition }), log, end });
            }
        }
        Ok(Self(all))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every lane has sealed that much.
    pub(crate) fn are_reached(&self, epochs: &LocalEpochs) -> Result<bool> {
        self.all(epochs, |next, end| next >= end)
    }

    /// Whether every lane has begun to read. Behind the last record may be marks of transactions, which no lane ever takes: where all have begun and
    /// nothing comes any more, all is read.
    pub(crate) fn have_begun(&self, epochs: &LocalEpochs) -> Result<bool> {
        self.all(epochs, |_, _| true)
    }

    fn all(&self, epochs: &LocalEpochs, is_good: impl Fn(u64, u64) -> bool) -> Result<bool> {
        for Goal { lane, log, end } in &self.0 {
            let newest = epochs.newest_of_another(lane)?;
            let position = newest.as_ref().and_then(|newest| newest.whole.positions.0.iter().find(|of| *of.log == **log));
            if !position.is_some_and(|of| is_good(of.next.0, *end)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
