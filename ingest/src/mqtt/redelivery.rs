//! Redelivery undone: after a reconnect a broker sends again what it has no acknowledgement for, though we may have it.
//!
//! What it can send again is what was in flight: at most one publish for each packet id. Their hashes are remembered here, entered at the
//! first receipt; the journal keeps the newest over a restart. A new connection starts with the whole list, each entry good for one
//! publish. A redelivered publish is not entered again: while the broker waits for its ack, its packet id is taken, so it stays in the list.
//!
//! `receive_maximum` would be a closer bound if brokers kept to it. Measured with mosquitto 2.0.11: each ack lets it send a whole Receive
//! Maximum from its queue (limit 100: 3,000 in flight after 61 acks).
//!
//! Two byte-equal publishes of one topic within that bound cannot be told apart when one of them was acknowledged.

use super::options::Redelivery;
use std::collections::{HashMap, VecDeque};
use world::{Bug, planted};
use xxhash_rust::xxh3::Xxh3Default;

/// The hash by which a publish is known again: xxh3-64 over the topic's length, the topic and the payload.
#[must_use]
pub fn publish_hash(topic: &[u8], payload: &[u8]) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(&(topic.len() as u64).to_le_bytes());
    hash.update(topic);
    hash.update(payload);
    hash.digest()
}

/// Publishes remembered for a connection: the packet ids there are. 512 KiB.
const REMEMBERED: usize = u16::MAX as usize;

/// The last publishes of one connection, and which of them may still come again.
pub(super) struct Redeliveries {
    rule: Redelivery,
    /// How many publishes after a reconnect may be redeliveries, where the broker does not mark them.
    first: usize,
    remembered: usize,
    recent: VecDeque<u64>,
    open: HashMap<u64, u32>,
    seen: usize,
}

impl Redeliveries {
    /// `recent`: the last publishes before the start, oldest first; none of them is awaited before `connected`.
    pub(super) fn new(rule: Redelivery, receive_maximum: u16, recent: impl IntoIterator<Item = u64>) -> Self {
        let (first, remembered) = (usize::from(receive_maximum), REMEMBERED);
        let mut new = Self { rule, first, remembered, recent: VecDeque::new(), open: HashMap::new(), seen: 0 };
        recent.into_iter().for_each(|hash| new.enter(hash));
        new
    }

    /// A connection is up. Without a session at the broker nothing comes again.
    pub(super) fn connected(&mut self, session_present: bool) {
        self.open.clear();
        self.seen = 0;
        if session_present && !planted(Bug::RedeliveryNotUndone) {
            for hash in &self.recent {
                *self.open.entry(*hash).or_default() += 1;
            }
        }
    }

    /// Takes a publish at its receipt; true when it is one that we have, else it is remembered.
    pub(super) fn take(&mut self, hash: u64, dup: bool) -> bool {
        self.seen += 1;
        if self.rule == Redelivery::Any && self.seen > self.first {
            self.open.clear();
        }
        let ours = (dup || self.rule == Redelivery::Any) && self.close(hash);
        if !ours {
            self.enter(hash);
        }
        ours
    }

    fn close(&mut self, hash: u64) -> bool {
        let Some(count) = self.open.get_mut(&hash) else { return false };
        *count -= 1;
        if *count == 0 {
            self.open.remove(&hash);
        }
        true
    }

    fn enter(&mut self, hash: u64) {
        if self.recent.len() == self.remembered {
            self.recent.pop_front();
        }
        self.recent.push_back(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(rule: Redelivery, recent: &[u64]) -> Redeliveries {
        let empty = Redeliveries { remembered: 3, ..Redeliveries::new(rule, 3, []) };
        recent.iter().fold(empty, |mut set, hash| {
            set.enter(*hash);
            set
        })
    }

    #[test]
    fn each_entry_is_good_for_one_publish() {
        let mut set = with(Redelivery::Dup, &[7, 7, 8]);
        set.connected(true);
        assert!(set.take(7, true));
        assert!(set.take(7, true));
        assert!(!set.take(7, true));
        assert!(!set.take(8, false), "no DUP: a new publish");
        assert!(set.take(8, true));
    }

    #[test]
    fn before_a_connection_and_without_a_session_nothing_is_awaited() {
        let mut set = with(Redelivery::Any, &[7]);
        assert!(!set.take(7, true));
        set.connected(false);
        assert!(!set.take(7, true));
    }

    #[test]
    fn a_publish_may_come_again_after_every_reconnect() {
        let mut set = with(Redelivery::Dup, &[0, 1, 2]);
        for _ in 0..3 {
            set.connected(true);
            assert!(set.take(1, true));
            assert!(set.take(2, true));
        }
        assert!(!set.take(4, false));
        set.connected(true);
        assert!(!set.take(0, true), "0 is older than the last three");
    }

    #[test]
    fn without_marks_only_the_first_publishes_can_be_redeliveries() {
        let mut set = with(Redelivery::Any, &[1, 2, 3]);
        set.connected(true);
        assert!(set.take(1, false));
        assert!(!set.take(9, false));
        assert!(!set.take(9, false));
        assert!(!set.take(2, false));
    }

    #[test]
    fn topic_and_payload_do_not_run_into_each_other() {
        assert_ne!(publish_hash(b"ab", b"c"), publish_hash(b"a", b"bc"));
        assert_eq!(publish_hash(b"ab", b"c"), publish_hash(b"ab", b"c"));
    }
}
