//! What a broker may still deliver again, and which producers are there: the memory that survives truncation.
//!
//! Acks are in order, so what a connection has open are its last publishes. Their number is not bounded by the source's Receive Maximum:
//! after a backlog Mosquitto 2.0 has more under way, since one ack lets it send a whole Receive Maximum anew. It is bounded by the packet
//! identifiers. Every segment begins with a restatement of this (512 KiB for a full connection), so the last segment alone is enough to
//! know it.

use super::Publish;
use super::bytes::{Take, put_u32, put_u64};
use flow::{Result, WallTime};
use std::collections::{BTreeMap, VecDeque};

/// Publishes remembered for each connection: a broker has no more packet identifiers to keep a publish open with.
pub(super) const KEPT: usize = 65_535;

/// Publishes and state of each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recent {
    connections: BTreeMap<u32, Connection>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Connection {
    /// Oldest first.
    keys: VecDeque<u64>,
    state: Option<(bool, WallTime)>,
}

impl Recent {
    /// Notes a publish that stands in the journal.
    pub(super) fn enter(&mut self, publish: Publish) {
        let keys = &mut self.connections.entry(publish.connection).or_default().keys;
        if publish.begins_session() {
            keys.clear();
            return;
        }
        if keys.len() == KEPT {
            keys.pop_front();
        }
        keys.push_back(publish.key);
    }

    /// Notes that a producer came or went.
    pub(super) fn connection(&mut self, producer: u32, connected: bool, at: WallTime) {
        self.connections.entry(producer).or_default().state = Some((connected, at));
    }

    /// The keys of each connection's publishes, oldest first.
    pub(super) fn keys(&self) -> BTreeMap<u32, Vec<u64>> {
        self.connections.iter().map(|(number, c)| (*number, c.keys.iter().copied().collect())).collect()
    }

    /// Producers whose coming or going is known.
    pub(super) fn states(&self) -> Vec<(u32, bool, WallTime)> {
        self.connections.iter().filter_map(|(number, c)| c.state.map(|(connected, at)| (*number, connected, at))).collect()
    }

    /// `count`, then for each `number | state (0 unknown, 1 gone, 2 there) | at | keys | key…`.
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        put_u32(to, self.connections.len() as u32);
        for (number, connection) in &self.connections {
            let (state, at) = connection.state.map_or((0, 0), |(connected, at)| (1 + u8::from(connected), at.0));
            put_u32(to, *number);
            to.push(state);
            put_u64(to, at as u64);
            put_u32(to, connection.keys.len() as u32);
            to.reserve(connection.keys.len() * size_of::<u64>());
            connection.keys.iter().for_each(|key| put_u64(to, *key));
        }
    }

    pub(super) fn decode(from: &mut Take<'_>) -> Result<Self> {
        let mut recent = Self::default();
        for _ in 0..from.u32()? {
            let number = from.u32()?;
            let (state, at) = (from.u8()?, WallTime(from.u64()? as i64));
            let mut connection = Connection { state: (state > 0).then_some((state == 2, at)), ..Connection::default() };
            let count = from.u32()? as usize;
            let mut keys = Take::new(from.slice(count.saturating_mul(size_of::<u64>()))?);
            connection.keys = (0..count).map(|_| keys.u64()).collect::<Result<_>>()?;
            recent.connections.insert(number, connection);
        }
        Ok(recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_keeps_its_newest_publishes() {
        let mut recent = Recent::default();
        let newest = KEPT as u64 + 500;
        for key in 0..newest {
            recent.enter(Publish { connection: 1, key });
        }
        recent.enter(Publish { connection: 2, key: 7 });
        recent.connection(3, false, WallTime(5));
        let keys = recent.keys();
        assert_eq!(keys[&1], (500..newest).collect::<Vec<u64>>());
        assert_eq!(keys[&2], [7]);
        assert_eq!(recent.states(), [(3, false, WallTime(5))]);
        let mut bytes = Vec::new();
        recent.encode(&mut bytes);
        assert!(bytes.len() < (512 << 10) + 100);
        assert_eq!(Recent::decode(&mut Take::new(&bytes)).unwrap(), recent);
        assert!(Recent::decode(&mut Take::new(&bytes[..bytes.len() - 1])).is_err());
    }
    #[test]
    fn a_new_session_begins_with_an_empty_memory() {
        let mut recent = Recent::default();
        let publishes = [Publish::new(1, 3, 9), Publish::new(2, 3, 9), Publish::new_session(1), Publish::new(1, 4, 9)];
        publishes.into_iter().for_each(|publish| recent.enter(publish));
        assert_eq!(recent.keys(), BTreeMap::from([(1, vec![(4 << 48) + 9]), (2, vec![(3 << 48) + 9])]));
    }
}
