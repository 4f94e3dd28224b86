//! Redelivery undone: after a reconnect a broker sends again what it has no acknowledgement for, though we may have it.
//!
//! What it can send again is what was in flight: at most one publish for each packet id. It must keep that id (MQTT-4.4.0-1 in both
//! versions), so what a redelivered publish is compared with is the last one that we had under its id, and nothing else: publishes of
//! equal bytes stay apart. The journal keeps the newest over a restart. A redelivered publish is not entered again: while the broker waits
//! for its ack, its id is taken.
//!
//! Where a broker sets no DUP mark it may not keep the id either (AWS IoT Core says so of itself), so with `redelivery = "any"` bytes alone
//! are compared, each publish that we had is good for one, and two of equal bytes around a reconnect can count once.
//!
//! `receive_maximum` would be a closer bound if brokers kept to it. Measured with mosquitto 2.0.11: each ack lets it send a whole Receive
//! Maximum from its queue (limit 100: 3,000 in flight after 61 acks).

use super::options::Redelivery;
use crate::journal::Publish;
use std::collections::{HashMap, VecDeque};
use world::{Bug, planted};
use xxhash_rust::xxh3::Xxh3Default;

/// xxh3-64 over the topic's length, the topic and the payload.
#[must_use]
pub fn publish_hash(topic: &[u8], payload: &[u8]) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(&(topic.len() as u64).to_le_bytes());
    hash.update(topic);
    hash.update(payload);
    hash.digest()
}

/// Publishes remembered for a connection where ids are not kept: the packet ids there are. 512 KiB.
const REMEMBERED: usize = u16::MAX as usize;

/// The last publishes of one connection, and which of them may still come again.
pub(super) struct Redeliveries {
    rule: Rule,
}

enum Rule {
    Marked(Marked),
    Unmarked(Unmarked),
}

/// The broker marks what it sends again, and keeps its packet id.
#[derive(Default)]
struct Marked {
    /// The key of the last publish by packet id; 0 for none. As long as the highest id so far: 512 KiB at most.
    last: Vec<u64>,
}

/// Any of the first publishes after a reconnect may be a redelivery, under any packet id.
struct Unmarked {
    first: usize,
    remembered: usize,
    /// Hashes of the last publishes, oldest first.
    recent: VecDeque<u64>,
    open: HashMap<u64, u32>,
    seen: usize,
}

impl Redeliveries {
    /// `recent`: the keys of the last publishes before the start ([`Publish::key`]), oldest first; none is awaited before `connected`.
    pub(super) fn new(rule: Redelivery, receive_maximum: u16, recent: impl IntoIterator<Item = u64>) -> Self {
        let mut rule = match rule {
            Redelivery::Dup => Rule::Marked(Marked::default()),
            Redelivery::Any => Rule::Unmarked(Unmarked::new(usize::from(receive_maximum), REMEMBERED)),
        };
        for key in recent {
            match &mut rule {
                Rule::Marked(marked) => marked.enter(key),
                Rule::Unmarked(unmarked) => unmarked.enter(key & Publish::HASH),
            }
        }
        Self { rule }
    }

    /// A connection is up. Without a session at the broker nothing comes again.
    pub(super) fn connected(&mut self, session_present: bool) {
        match &mut self.rule {
            Rule::Marked(marked) if !session_present => marked.last.clear(),
            Rule::Marked(_) => {}
            Rule::Unmarked(unmarked) => unmarked.connected(session_present),
        }
    }

    /// Takes a publish at its receipt; true when it is one that we have, else it is remembered.
    pub(super) fn take(&mut self, key: u64, dup: bool) -> bool {
        match &mut self.rule {
            _ if planted(Bug::RedeliveryNotUndone) => false,
            Rule::Marked(marked) => marked.take(key, dup),
            Rule::Unmarked(unmarked) => unmarked.take(key & Publish::HASH),
        }
    }
}

impl Marked {
    fn take(&mut self, key: u64, dup: bool) -> bool {
        let ours = dup && if planted(Bug::RedeliveryByBytes) { self.has_bytes(key) } else { self.last.get(packet(key)) == Some(&key) };
        if !ours {
            self.enter(key);
        }
        ours
    }

    fn enter(&mut self, key: u64) {
        if self.last.len() <= packet(key) {
            self.last.resize(packet(key) + 1, 0);
        }
        self.last[packet(key)] = key;
    }

    fn has_bytes(&self, key: u64) -> bool {
        self.last.iter().any(|had| had & Publish::HASH == key & Publish::HASH)
    }
}

fn packet(key: u64) -> usize {
    usize::from(Publish::packet(key))
}

impl Unmarked {
    fn new(first: usize, remembered: usize) -> Self {
        Self { first, remembered, recent: VecDeque::new(), open: HashMap::new(), seen: 0 }
    }

    fn connected(&mut self, session_present: bool) {
        self.open.clear();
        self.seen = 0;
        if session_present {
            for hash in &self.recent {
                *self.open.entry(*hash).or_default() += 1;
            }
        } else {
            self.recent.clear();
        }
    }

    fn take(&mut self, hash: u64) -> bool {
        self.seen += 1;
        if self.seen > self.first {
            self.open.clear();
        }
        let ours = self.close(hash);
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

    fn key(packet: u16, bytes: &[u8]) -> u64 {
        Publish::new(0, packet, publish_hash(b"t", bytes)).key
    }

    fn marked(recent: &[u64]) -> Redeliveries {
        Redeliveries::new(Redelivery::Dup, 3, recent.iter().copied())
    }

    fn unmarked(first: usize, recent: &[u64]) -> Redeliveries {
        let mut rule = Unmarked::new(first, 3);
        recent.iter().for_each(|hash| rule.enter(*hash));
        Redeliveries { rule: Rule::Unmarked(rule) }
    }

    #[test]
    fn equal_publishes_are_told_apart_by_their_packet() {
        let mut set = marked(&[key(1, b"a")]);
        set.connected(true);
        assert!(!set.take(key(2, b"a"), true), "its first sending was lost on the way");
        assert!(set.take(key(1, b"a"), true));
        assert!(set.take(key(2, b"a"), true), "the broker may ask again");
    }

    #[test]
    fn only_the_last_publish_of_a_packet_can_come_again() {
        let mut set = marked(&[key(1, b"a")]);
        set.connected(true);
        assert!(!set.take(key(1, b"b"), false), "the ack of a came, its packet is another's");
        set.connected(true);
        assert!(!set.take(key(1, b"a"), true), "another a, whose first sending was lost");
        assert!(!set.take(key(9, b"a"), false), "no DUP: a new publish");
        assert!(set.take(key(9, b"a"), true));
    }

    #[test]
    fn without_a_session_nothing_is_awaited() {
        for mut set in [marked(&[key(7, b"a")]), Redeliveries::new(Redelivery::Any, 3, [key(7, b"a")])] {
            set.connected(false);
            set.connected(true);
            assert!(!set.take(key(7, b"a"), true));
        }
    }

    #[test]
    fn a_publish_may_come_again_after_every_reconnect() {
        let mut set = marked(&[key(1, b"a"), key(2, b"b")]);
        for _ in 0..3 {
            set.connected(true);
            assert!(set.take(key(1, b"a"), true));
            assert!(set.take(key(2, b"b"), true));
        }
    }

    #[test]
    fn without_marks_each_entry_is_good_for_one_publish_of_any_packet() {
        let mut set = Redeliveries::new(Redelivery::Any, 30, [key(7, b"a"), key(8, b"a"), key(9, b"b")]);
        assert!(!set.take(key(7, b"c"), true), "before a connection nothing is awaited");
        set.connected(true);
        assert!(set.take(key(70, b"a"), false));
        assert!(set.take(key(71, b"a"), false));
        assert!(!set.take(key(72, b"a"), false));
        assert!(set.take(key(9, b"b"), false));
    }

    #[test]
    fn without_marks_only_the_first_publishes_can_be_redeliveries() {
        let mut set = unmarked(3, &[0, 1, 2, 3]);
        set.connected(true);
        assert!(!set.take(0, false), "older than the last three");
        assert!(set.take(1, false));
        assert!(!set.take(9, false));
        assert!(!set.take(2, false));
    }

    #[test]
    fn topic_and_payload_do_not_run_into_each_other() {
        assert_ne!(publish_hash(b"ab", b"c"), publish_hash(b"a", b"bc"));
        assert_eq!(publish_hash(b"ab", b"c"), publish_hash(b"ab", b"c"));
    }
}
