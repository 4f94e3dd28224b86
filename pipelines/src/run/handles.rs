//! The ways to the lanes of a process. Lanes may join while it runs.

use crate::run::driver::Command;
use crate::run::status::LaneStatus;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;

/// A way to a lane from the rest of the process.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) lane: flow::Lane,
    pub(crate) chain: String,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) status: Arc<LaneStatus>,
    /// Whether its open windows close when its input ends.
    pub(crate) flush: bool,
    /// Whether it reads what other lanes have sealed.
    pub(crate) second: bool,
}

/// All of them. Clones share the list.
#[derive(Clone, Default)]
pub(crate) struct Handles(Arc<Mutex<Vec<Handle>>>);

impl Handles {
    /// These lanes.
    pub(crate) fn of(lanes: Vec<Handle>) -> Self {
        Self(Arc::new(Mutex::new(lanes)))
    }

    /// Adds a lane; gives how many there are now.
    pub(crate) fn add(&self, lane: Handle) -> usize {
        let mut lanes = self.lanes();
        lanes.push(lane);
        lanes.len()
    }

    /// Takes a lane out; gives how many are left.
    pub(crate) fn remove(&self, lane: &flow::Lane) -> usize {
        let mut lanes = self.lanes();
        lanes.retain(|handle| handle.lane != *lane);
        lanes.len()
    }

    /// The way to a lane, if it is there.
    pub(crate) fn get(&self, lane: &flow::Lane) -> Option<Handle> {
        self.lanes().iter().find(|handle| handle.lane == *lane).cloned()
    }

    /// The lanes that are there now.
    pub(crate) fn all(&self) -> Vec<Handle> {
        self.lanes().clone()
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Handle>> {
        self.0.lock().expect("nothing panics while it holds the lanes")
    }
}
