//! Requests that may be sent again, known by their `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).
//!
//! The newest keys are remembered, as many as the journal keeps publishes of a connection, and over a restart by the journal itself.

use futures::FutureExt;
use futures::future::Shared;
use std::collections::{HashMap, VecDeque};
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64;

/// Keys that are remembered.
const REMEMBERED: usize = u16::MAX as usize;

/// Resolves when a request is durable; with an error when it never will be.
pub(super) type Settled = Shared<oneshot::Receiver<()>>;

/// The newest keys, and when their requests are durable; none: they are.
pub(super) struct Keys {
    order: VecDeque<u64>,
    known: HashMap<u64, Option<Settled>>,
}

/// The hash that stands for a key in the journal.
pub(super) fn key_hash(key: &str) -> u64 {
    xxh3_64(key.as_bytes())
}

/// What becomes true for all who wait when `tell` is used.
pub(super) fn settling() -> (oneshot::Sender<()>, Settled) {
    let (tell, settled) = oneshot::channel();
    (tell, settled.shared())
}

impl Keys {
    /// `recent`: the hashes of the last durable requests, oldest first.
    pub(super) fn new(recent: Vec<u64>) -> Self {
        let mut keys = Self { order: VecDeque::new(), known: HashMap::new() };
        recent.into_iter().for_each(|hash| keys.enter(hash, None));
        keys
    }

    /// When the request with this key is durable, if it was taken; the inner none: it is.
    pub(super) fn find(&self, hash: u64) -> Option<Option<Settled>> {
        self.known.get(&hash).cloned()
    }

    /// Remembers a request that is being taken.
    pub(super) fn enter(&mut self, hash: u64, settled: Option<Settled>) {
        if self.known.insert(hash, settled).is_some() {
            return;
        }
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_keys_are_forgotten() {
        let mut keys = Keys::new(vec![1, 2]);
        assert!(keys.find(1).is_some_and(|settled| settled.is_none()));
        (3..).take(REMEMBERED - 1).for_each(|hash| keys.enter(hash, Some(settling().1)));
        assert!(keys.find(1).is_none() && keys.find(2).is_some() && keys.find(3).is_some_and(|settled| settled.is_some()));
    }
}
