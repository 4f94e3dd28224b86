//! Gives every lane what it has not sealed, before anything new: streamed, so the memory is bounded by the lanes' queues.

use super::body::{Body, Delivery};
use super::codec::{Content, decode};
use super::file::{Segment, SegmentReader, Step, corrupt};
use super::frame::{EVERY_LANE, HEADER};
use flow::{Error, Offset, Remedy, Result};
use tokio::sync::mpsc;
use world::{Bug, Disk, planted};

/// A delivery is sent when it has been made from this many bytes.
const DELIVERY_BYTES: usize = 1 << 20;

/// The way to the lanes, by number.
pub(super) struct Lanes {
    queues: Vec<mpsc::Sender<Delivery>>,
    waiting: Vec<Vec<(Offset, Body)>>,
}

impl Lanes {
    pub(super) fn new(queues: Vec<mpsc::Sender<Delivery>>) -> Self {
        let waiting = queues.iter().map(|_| Vec::new()).collect();
        Self { queues, waiting }
    }

    /// Adds a frame to the next delivery of its lane, or of every lane for which `wanted` holds.
    pub(super) fn add(&mut self, lane: Option<u32>, offset: Offset, body: Body, wanted: impl Fn(usize) -> bool) {
        match lane {
            Some(lane) if wanted(lane as usize) => self.waiting[lane as usize].push((offset, body)),
            Some(_) => {}
            None => (0..self.waiting.len()).filter(|lane| wanted(*lane)).for_each(|lane| self.waiting[lane].push((offset, body.clone()))),
        }
    }

    /// Sends every lane what waits for it, and `next`. Waits while a lane's queue is full. A lane that has gone reads the log again
    /// when it comes back.
    pub(super) async fn send(&mut self, next: Offset) {
        for (queue, waiting) in self.queues.iter().zip(&mut self.waiting) {
            let delivery = Delivery { lane_frames: std::mem::take(waiting), next };
            if queue.send(delivery).await.is_err() {
                tracing::debug!(next = next.0, "a lane has gone; it reads the journal again when it comes back");
            }
        }
    }
}

/// Sends each lane its frames from `from[lane]` up to `end`.
pub(super) async fn replay(disk: &dyn Disk, segments: &[Segment], seed: u32, from: &[Offset], end: u64, lanes: &mut Lanes) -> Result<()> {
    let least = from.iter().map(|o| o.0).min().unwrap_or(end);
    for (index, segment) in segments.iter().enumerate() {
        let behind = segments.get(index + 1).is_some_and(|following| following.first <= least);
        if !behind && segment.first < end {
            replay_segment(disk, segment, seed, from, end, lanes).await?;
        }
    }
    lanes.send(Offset(end)).await;
    Ok(())
}

async fn replay_segment(disk: &dyn Disk, segment: &Segment, seed: u32, from: &[Offset], end: u64, lanes: &mut Lanes) -> Result<()> {
    let mut reader = SegmentReader::open(disk, segment, seed)?;
    let mut bytes = 0;
    while reader.next < end {
        let byte = reader.byte;
        let (header, content) = match reader.step()? {
            Step::Frame(header, content) => (header, content),
            Step::End => return Ok(()),
            Step::Damage(what) => return Err(corrupt(&reader.path, byte, what)),
        };
        let offset = Offset(header.offset);
        let lane = (header.lane != EVERY_LANE).then_some(header.lane);
        if lane.is_some_and(|lane| lane as usize >= from.len()) {
            let what = format!("frame {} is for lane {}, the journal has {}", header.offset, header.lane, from.len());
            return Err(Error::new(Remedy::Stop, what));
        }
        let shift = if planted(Bug::ReplayBeginsLate) { 1 } else { 0 };
        let wanted = |lane: usize| from[lane].0 + shift <= offset.0 + u64::from(planted(Bug::ReplayBeginsEarly));
        if !lane.map_or_else(|| (0..from.len()).any(wanted), |lane| wanted(lane as usize)) {
            continue;
        }
        let decoded = decode(header.kind, header.publishes, &content).map_err(|e| corrupt(&reader.path, byte, &e.to_string()))?;
        if let Content::Body(body) = decoded {
            lanes.add(lane, offset, body, wanted);
        }
        bytes += HEADER + content.len();
        if bytes >= DELIVERY_BYTES {
            lanes.send(Offset(reader.next)).await;
            bytes = 0;
        }
    }
    Ok(())
}
