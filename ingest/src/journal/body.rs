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

/// One message taken from a broker: what it may deliver again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Number of the source connection (the producer).
    pub connection: u32,
    /// Hash of topic and payload.
    pub hash: u64,
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
