//! The header of a frame; its picture stands in the module page.

use super::bytes::{Take, put_u32, put_u64};

/// Length of a header in bytes.
pub(super) const HEADER: usize = 42;

/// The first bytes of every frame: where a search behind damage looks.
pub(super) const MARK: [u8; 4] = *b"TGfr";

/// The lane number that means every lane.
pub(super) const EVERY_LANE: u32 = u32::MAX;

const LAST_OF_GROUP: u8 = 1;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rows = 1,
    Rejects,
    Connection,
    Tick,
    Note,
    Restatement,
    Lookup,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes of publishes and body.
    pub(super) length: u32,
    pub(super) offset: u64,
    pub(super) synced: u64,
    pub(super) lane: u32,
    pub(super) kind: Kind,
    pub(super) last: bool,
    pub(super) publishes: u32,
    pub(super) crc: u32,
}

impl Header {
    pub(super) fn encode(&self, to: &mut Vec<u8>, seed: u32) {
        assert!(self.synced <= self.offset, "frame {} is written when {} is on disk", self.offset, self.synced);
        let start = to.len();
        to.extend_from_slice(&MARK);
        put_u32(to, self.length);
        put_u64(to, self.offset);
        put_u64(to, self.synced);
        put_u32(to, self.lane);
        to.push(self.kind as u8);
        to.push(if self.last { LAST_OF_GROUP } else { 0 });
        put_u32(to, self.publishes);
        put_u32(to, self.crc);
        let crc = crc32c::crc32c_append(seed, &to[start..]);
        put_u32(to, crc);
    }

    /// None for bytes that are no header of this journal.
    pub(super) fn decode(bytes: &[u8; HEADER], seed: u32) -> Option<Self> {
        let (front, crc) = bytes.split_at(HEADER - 4);
        if front[..4] != MARK || crc32c::crc32c_append(seed, front).to_le_bytes() != crc {
            return None;
        }
        let mut take = Take::new(&front[4..]);
        let (length, offset, synced, lane) = (take.u32().ok()?, take.u64().ok()?, take.u64().ok()?, take.u32().ok()?);
        let (kind, flags) = (Kind::of(take.u8().ok()?)?, take.u8().ok()?);
        let (publishes, crc) = (take.u32().ok()?, take.u32().ok()?);
        Some(Self { length, offset, synced, lane, kind, last: flags & LAST_OF_GROUP != 0, publishes, crc })
    }
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Rows, Self::Rejects, Self::Connection, Self::Tick, Self::Note, Self::Restatement, Self::Lookup]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}
