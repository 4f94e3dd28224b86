//! What a frame carries, and the groups in which frames come and go.

use crate::rejected::Rejected;
use flow::{Batch, EventTime, LookupVersion, Offset, WallTime};

/// What a group costs in the queue beyond its contents, so that empty groups are bounded too.
const GROUP_COST: usize = 1024;

/// The content of one frame.
#[derive(Clone, Debug)]
pub enum Body {
    /// Decoded rows with their origin and trail.
    Rows(Batch),
    /// Messages that could not be decoded.
    Rejects(Vec<Rejected>),
    /// A producer came or went. For every lane.
    Connection {
        /// Number of the source connection.
        producer: u32,
        /// Whether it is there now.
        connected: bool,
        /// When it came or went.
        at: WallTime,
    },
    /// A lane should move its watermark at least to here, because nothing came for a while.
    Tick {
        /// The least watermark from now on.
        watermark: EventTime,
        /// When this was decided.
        at: WallTime,
    },
    /// A lookup table has a new version, which counts for the rows that follow. For every lane.
    Lookup(LookupVersion),
}

/// One message, or request, that was taken and may be delivered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Number of the source connection (the producer).
    pub connection: u32,
    /// What it is known by when it comes again. Of MQTT: the packet id in the upper 16 bits, which a redelivery keeps and which is never 0,
    /// and a hash of topic and payload in the lower 48. Of HTTP: a hash of the sender's key.
    pub key: u64,
}

impl Publish {
    /// The part of a key that tells of topic and payload.
    pub const HASH: u64 = u64::MAX >> 16;
    const NEW_SESSION: u64 = Self::HASH;

    /// A publish with this packet id and hash of topic and payload.
    #[must_use]
    pub const fn new(connection: u32, packet: u16, hash: u64) -> Self {
        Self { connection, key: ((packet as u64) << 48) | (hash & Self::HASH) }
    }

    /// The broker has begun a new session: nothing that stands before this is delivered again.
    #[must_use]
    pub const fn new_session(connection: u32) -> Self {
        Self { connection, key: Self::NEW_SESSION }
    }

    /// The packet id in a key.
    #[must_use]
    pub const fn packet(key: u64) -> u16 {
        (key >> 48) as u16
    }

    pub(super) const fn begins_session(&self) -> bool {
        self.key == Self::NEW_SESSION
    }
}

/// All that came from one decoded batch: in the journal as a whole or not at all.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Lane (none = every lane) and content, in order.
    pub frames: Vec<(Option<u32>, Body)>,
    /// The messages that the group was made from, in order of receipt. They may be more than the frames hold: a message may have no rows.
    pub publishes: Vec<Publish>,
}

/// What a lane is given after the fsync.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The lane's frames, in order of offset.
    pub lane_frames: Vec<(Offset, Body)>,
    /// The lane has now been given all its frames below this, also where none was its own.
    pub next: Offset,
}

impl Group {
    /// Cuts the payloads of rejects, so that a lane sees the same now as after a replay.
    pub(super) fn cut(&mut self) {
        for (_, body) in &mut self.frames {
            if let Body::Rejects(rejects) = body {
                rejects.iter_mut().for_each(|r| r.payload.truncate(Rejected::PAYLOAD_LIMIT));
            }
        }
    }

    /// About how many bytes it holds while it waits.
    pub(super) fn cost(&self) -> usize {
        let frames: usize = self.frames.iter().map(|(_, body)| body.cost()).sum();
        GROUP_COST + frames + self.publishes.len() * size_of::<Publish>()
    }
}

impl Body {
    fn cost(&self) -> usize {
        match self {
            Self::Rows(batch) => {
                let trail = batch.trail().map_or(0, |t| t.get_array_memory_size());
                batch.rows().get_array_memory_size() + trail
            }
            Self::Rejects(rejects) => rejects.iter().map(|r| size_of::<Rejected>() + r.detail.len() + r.payload.len()).sum(),
            Self::Lookup(version) => version.rows.get_array_memory_size(),
            Self::Connection { .. } | Self::Tick { .. } => 0,
        }
    }
}
