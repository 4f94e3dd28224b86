//! One memory budget for all lanes: open epochs and operators' state take what they need, hot rows have the rest.
//!
//! A lane that holds more than its part of the rest lets its oldest sealed epochs go; they are in warm. State has bounds of its own
//! (`max_keys`, `max_state`), and an open epoch that takes too much of the budget closes early.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// The most that an open epoch takes, whatever the budget: two of them are in memory while one is being written.
const EPOCH_BYTES: u64 = 64 << 20;

/// The part of the budget that all open epochs may take.
const OPEN_PART: u64 = 4;

/// The budget.
#[derive(Debug)]
pub(crate) struct Memory {
    budget: u64,
    lanes: Mutex<Vec<Arc<LaneMemory>>>,
}

/// What one lane holds, in bytes.
#[derive(Debug, Default)]
pub(crate) struct LaneMemory {
    /// Rows of epochs that are not written, and the operators' state.
    needed: AtomicU64,
    hot: AtomicU64,
}

impl LaneMemory {
    pub(crate) fn show(&self, needed: u64, hot: u64) {
        self.needed.store(needed, Relaxed);
        self.hot.store(hot, Relaxed);
    }
}

impl Memory {
    pub(crate) fn new(budget: u64) -> Self {
        Self { budget, lanes: Mutex::default() }
    }

    /// A lane that joins.
    pub(crate) fn join(&self) -> Arc<LaneMemory> {
        let lane = Arc::new(LaneMemory::default());
        self.lanes.lock().expect("nothing panics while it holds the lanes' memory").push(lane.clone());
        lane
    }

    /// Bytes of hot rows that the lane may keep: what the others leave, shared in proportion to what each has.
    pub(crate) fn hot(&self, lane: &LaneMemory) -> u64 {
        let lanes = self.lanes.lock().expect("nothing panics while it holds the lanes' memory");
        let (needed, hot) = lanes.iter().fold((0, 0), |(n, h), l| (n + l.needed.load(Relaxed), h + l.hot.load(Relaxed)));
        let room = self.budget.saturating_sub(needed);
        if hot <= room {
            return u64::MAX;
        }
        (u128::from(room) * u128::from(lane.hot.load(Relaxed)) / u128::from(hot)) as u64
    }

    /// Bytes at which an open epoch closes, whatever its age.
    pub(crate) fn epoch(&self) -> u64 {
        let lanes = self.lanes.lock().expect("nothing panics while it holds the lanes' memory").len().max(1) as u64;
        EPOCH_BYTES.min(self.budget / OPEN_PART / lanes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hot_rows_have_what_the_rest_leaves() {
        let memory = Memory::new(1_000);
        let (a, b) = (memory.join(), memory.join());
        a.show(100, 300);
        b.show(200, 100);
        assert_eq!((memory.hot(&a), memory.hot(&b)), (u64::MAX, u64::MAX));
        a.show(500, 300);
        assert_eq!((memory.hot(&a), memory.hot(&b)), (225, 75));
        b.show(900, 100);
        assert_eq!((memory.hot(&a), memory.hot(&b)), (0, 0));
    }

    #[test]
    fn open_epochs_take_a_part_of_a_small_budget() {
        let memory = Memory::new(80 << 20);
        let _lanes = (memory.join(), memory.join());
        assert_eq!(memory.epoch(), 10 << 20);
        assert_eq!(Memory::new(1 << 40).epoch(), EPOCH_BYTES);
    }
}
