//! What a lane shows to metrics, the live table and whoever waits: a copy of its counts, made a few times a second.

use crate::run::lane::Lane;
use flow::{Epoch, EventTime};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;
use storage::epoch::Whole;

/// A lane as seen from outside.
#[derive(Clone, Debug)]
pub(crate) struct LaneFacts {
    pub(crate) epoch: u64,
    pub(crate) sealed_at: Instant,
    pub(crate) watermark: EventTime,
    pub(crate) counters: BTreeMap<String, u64>,
    pub(crate) unaccounted: u64,
    pub(crate) dirty: bool,
    /// Segments that are marked for a move and not yet let go.
    pub(crate) moving: bool,
    /// Operators' keys and bytes.
    pub(crate) held: (u64, u64),
    pub(crate) windows_open: u64,
}

/// Where a lane writes its facts.
#[derive(Debug)]
pub(crate) struct LaneStatus(Mutex<LaneFacts>);

impl LaneStatus {
    pub(crate) fn new(epoch: u64) -> Self {
        Self(Mutex::new(LaneFacts {
            epoch,
            sealed_at: Instant::now(),
            watermark: EventTime::MIN,
            counters: BTreeMap::new(),
            unaccounted: 0,
            dirty: false,
            moving: false,
            held: (0, 0),
            windows_open: 0,
        }))
    }

    pub(crate) fn show(&self, lane: &Lane) {
        let mut facts = self.facts();
        facts.watermark = lane.watermark();
        facts.counters = lane.counters();
        facts.unaccounted = lane.unaccounted();
        facts.dirty = lane.dirty() || lane.closing();
        facts.held = lane.held();
        facts.windows_open = lane.windows_open();
    }

    pub(crate) fn sealed(&self, epoch: Epoch, whole: &Whole) {
        let mut facts = self.facts();
        facts.epoch = epoch.0;
        facts.sealed_at = Instant::now();
        facts.moving = whole.tables.values().any(|t| t.marked > t.dropped);
    }

    pub(crate) fn get(&self) -> LaneFacts {
        self.facts().clone()
    }

    fn facts(&self) -> MutexGuard<'_, LaneFacts> {
        self.0.lock().expect("nothing panics while it holds a lane's facts")
    }
}
