//! A message that is made and not due yet, in the order in which a heap gives it out.

use std::time::Duration;

use super::Message;

/// A message in the order of due, then of making.
pub(super) struct Waiting(pub(super) Message);

impl Waiting {
    fn order(&self) -> (Duration, u64) {
        (self.0.due, self.0.reading.number)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Waiting) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}
