//! The one writer: group commit. Everything that waits is written and fsynced together; then it is acknowledged, then the
//! lanes take it.

use super::body::{Body, Group};
use super::codec::{Encoded, EncodedFrame};
use super::file::{SegmentHeader, create};
use super::frame::{HEADER, Header};
use super::handle::{Command, Pending, Shared};
use super::options::{JournalOptions, Sync};
use super::recent::Recent;
use super::replay::{Lanes, replay};
use crate::lock::DirectoryLock;
use flow::{Error, Offset, Result};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use world::{Bug, DiskFile, Point, World, is_full, planted, reach};

/// Most bytes of one write: enough that an fsync is well used, little enough that acks are not held up by it.
const COMMIT_BYTES: usize = 8 << 20;

/// How long the writer waits before it looks at a full disk again.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(250);

/// Free space is asked for again after this long.
const SPACE_CHECK: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    shared: Arc<Shared>,
    take: mpsc::UnboundedReceiver<Command>,
    lanes: Lanes,
    sync: Sync,
    reserve: u64,
    segment_bytes: u64,
    /// Where the segment ends: `segment_bytes` behind its restatement, so that a long one does not leave a segment without room.
    full_at: u64,
    file: Arc<dyn DiskFile>,
    /// Where in the file the next write goes.
    at: u64,
    next: u64,
    last_sync: Duration,
    last_check: Option<Duration>,
    _lock: DirectoryLock,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        take: mpsc::UnboundedReceiver<Command>,
        lanes: Lanes,
        options: &JournalOptions,
        lock: DirectoryLock,
    ) -> Self {
        let (file, at, next) = {
            let state = shared.state();
            let last = state.segments.last().expect("a journal is opened with a segment to write");
            (state.current.clone(), last.bytes, state.written)
        };
        let last_sync = shared.world.elapsed();
        let (sync, reserve, segment_bytes) = (options.sync, options.reserve.0, options.segment_bytes);
        Self {
            shared,
            take,
            lanes,
            sync,
            reserve,
            segment_bytes,
            full_at: at + segment_bytes,
            file,
            at,
            next,
            last_sync,
            last_check: None,
            _lock: lock,
        }
    }

    pub(super) async fn run(mut self, from: &[Offset]) {
        match self.live(from).await {
            Ok(()) => _ = self.shared.fail("it was closed"),
            Err(error) => {
                tracing::error!(%error, "the journal stops: nothing more is acknowledged");
                self.shared.fail(&error.to_string());
            }
        }
    }

    async fn live(&mut self, from: &[Offset]) -> Result<()> {
        let segments = self.shared.state().segments.clone();
        let disk = self.shared.world.disk.clone();
        replay(&*disk, &segments, self.shared.seed, from, self.next, &mut self.lanes).await?;
        loop {
            let (mut waiting, stop) = self.wait().await?;
            // The reason stands there before those who wait see that nobody will answer them.
            self.commit(&mut waiting).await.inspect_err(|e| _ = self.shared.fail(&e.to_string()))?;
            if stop {
                return self.force();
            }
        }
    }

    /// All that waits, up to a limit, and whether to stop after it.
    async fn wait(&mut self) -> Result<(Vec<Pending>, bool)> {
        let (mut waiting, mut bytes) = (Vec::new(), 0);
        let Some(mut command) = self.first().await? else { return Ok((waiting, false)) };
        loop {
            match command {
                Command::Write(pending) => {
                    bytes += pending.encoded.bytes();
                    waiting.push(pending);
                }
                Command::Stop => return Ok((waiting, true)),
            }
            match self.take.try_recv() {
                Ok(following) if bytes < COMMIT_BYTES => command = following,
                Ok(Command::Write(pending)) => {
                    waiting.push(pending);
                    return Ok((waiting, false));
                }
                Ok(Command::Stop) => return Ok((waiting, true)),
                Err(_) => return Ok((waiting, false)),
            }
        }
    }

    /// The next command; none when it is time to force the interval's writes to disk, which is then done.
    async fn first(&mut self) -> Result<Option<Command>> {
        if let Sync::Interval(distance) = self.sync
            && self.shared.durable.load(Ordering::Acquire) < self.next
        {
            let left = distance.saturating_sub(self.since(self.last_sync));
            let due = self.shared.world.time.sleep(left);
            tokio::select! {
                biased;
                command = self.take.recv() => return Ok(Some(command.unwrap_or(Command::Stop))),
                () = due => {}
            }
            return self.force().map(|()| None);
        }
        Ok(Some(self.take.recv().await.unwrap_or(Command::Stop)))
    }

    async fn commit(&mut self, waiting: &mut Vec<Pending>) -> Result<()> {
        if waiting.is_empty() {
            return Ok(());
        }
        self.shared.check()?;
        self.leave_reserve().await?;
        if self.at >= self.full_at {
            self.roll().await?;
        }
        let (first, mut buffer, mut ends) = (self.next, Vec::new(), Vec::with_capacity(waiting.len()));
        for pending in waiting.iter() {
            self.encode(&pending.encoded, &mut buffer);
            ends.push(self.next);
        }
        self.write(&buffer).await?;
        let due = match self.sync {
            Sync::Always => true,
            Sync::Interval(distance) => self.since(self.last_sync) >= distance,
            Sync::Never => false,
        };
        self.world().time.between().await;
        if planted(Bug::AckBeforeFsync) {
            self.hand_out(waiting, first, &ends).await;
            self.world().time.between().await;
            return self.force();
        }
        if due && !planted(Bug::NoFsync) {
            self.force()?;
            self.world().time.between().await;
        }
        self.hand_out(waiting, first, &ends).await;
        Ok(())
    }

    /// Adds a group's frames to what is to be written, and gives them their offsets.
    fn encode(&mut self, group: &Encoded, buffer: &mut Vec<u8>) {
        let synced = if planted(Bug::SyncedAhead) { self.next } else { self.shared.durable.load(Ordering::Acquire) };
        let last = group.frames.len() - 1;
        for (index, frame) in group.frames.iter().enumerate() {
            let header = Header {
                length: frame.content.len() as u32,
                offset: self.next,
                synced,
                lane: frame.lane,
                kind: frame.kind,
                last: index == last,
                publishes: frame.publishes,
                crc: frame.crc,
            };
            header.encode(buffer, self.shared.seed);
            buffer.extend_from_slice(&frame.content);
            self.next += 1;
        }
    }

    /// Writes at the end of the segment. Nothing of it counts before the fsync, so on a full disk the same is written again later.
    async fn write(&mut self, buffer: &[u8]) -> Result<()> {
        let (file, at) = (self.file.clone(), self.at);
        if planted(Bug::FullDiskIgnored) {
            // What could not be written is taken as written.
            let _ = file.write_all_at(buffer, at);
            return self.written(buffer.len());
        }
        self.when_there_is_room("writing the journal", || file.write_all_at(buffer, at)).await?;
        self.written(buffer.len())
    }

    fn written(&mut self, bytes: usize) -> Result<()> {
        self.at += bytes as u64;
        let mut state = self.shared.state();
        state.written = self.next;
        state.segments.last_mut().expect("the segment being written is in the list").bytes = self.at;
        Ok(())
    }

    /// Forces everything written to disk. A failure is never tried again: the kernel may have dropped the pages and say yes next time.
    fn force(&mut self) -> Result<()> {
        reach(Point::JournalWritten);
        let mut forced = self.shared.sync(&*self.file);
        if planted(Bug::FsyncTriedAgain) && forced.is_err() {
            forced = self.shared.sync(&*self.file);
        }
        if !planted(Bug::FailedFsyncIgnored) {
            forced.map_err(|e| Error::stop("fsync of the journal", e))?;
        }
        self.shared.check()?;
        self.shared.durable.fetch_max(self.next, Ordering::AcqRel);
        self.last_sync = self.shared.world.elapsed();
        reach(Point::JournalForced);
        Ok(())
    }

    /// Ends the segment, on disk, and begins the next.
    async fn roll(&mut self) -> Result<()> {
        self.file.set_len(self.at).and_then(|()| self.shared.sync(&*self.file)).map_err(|e| Error::stop("ending a journal segment", e))?;
        self.shared.durable.fetch_max(self.next, Ordering::AcqRel);
        let header = SegmentHeader { id: self.shared.number, first: self.next, follows: self.next };
        let recent = if planted(Bug::EmptyRestatement) { Recent::default() } else { self.shared.state().recent.clone() };
        let restatement = EncodedFrame::restatement(&recent, self.shared.seed);
        let (shared, allocate) = (self.shared.clone(), self.segment_bytes);
        let (file, segment) = self
            .when_there_is_room("making a journal segment", || {
                create(&*shared.world.disk, &shared.directory, header, &restatement, allocate)
            })
            .await?;
        (self.file, self.at, self.full_at) = (file, segment.bytes, segment.bytes + self.segment_bytes);
        self.next += 1;
        let mut state = self.shared.state();
        (state.current, state.written) = (self.file.clone(), self.next);
        state.segments.push(segment);
        self.shared.durable.fetch_max(self.next, Ordering::AcqRel);
        Ok(())
    }

    /// Acknowledges, then gives the lanes their frames: an ack never waits for a slow lane.
    async fn hand_out(&mut self, waiting: &mut Vec<Pending>, first: u64, ends: &[u64]) {
        let mut offset = first;
        let mut groups = Vec::with_capacity(waiting.len());
        {
            let mut state = self.shared.state();
            waiting.iter().for_each(|pending| remember(&pending.group, &mut state.recent));
        }
        for (pending, end) in waiting.drain(..).zip(ends) {
            if pending.tell.send(Offset(*end)).is_err() {
                tracing::trace!(end, "nobody waits for this group any more");
            }
            groups.push((pending.group, *end));
        }
        for (group, end) in groups {
            for (lane, body) in group.frames {
                self.lanes.add(lane, Offset(offset), body, |_| true);
                offset += 1;
            }
            offset = end;
        }
        self.lanes.send(Offset(offset)).await;
    }

    /// Waits until the disk has more room than the reserve.
    async fn leave_reserve(&mut self) -> Result<()> {
        if self.last_check.is_some_and(|at| self.since(at) < SPACE_CHECK) {
            return Ok(());
        }
        let (shared, reserve) = (self.shared.clone(), self.reserve);
        self.when_there_is_room("asking for free space", || match shared.world.disk.free_bytes(&shared.directory)? {
            free if free >= reserve => Ok(()),
            free => Err(io::Error::new(io::ErrorKind::StorageFull, format!("{free} bytes are free, {reserve} stay in reserve"))),
        })
        .await?;
        self.last_check = Some(self.world().elapsed());
        Ok(())
    }

    fn world(&self) -> &World {
        &self.shared.world
    }

    fn since(&self, then: Duration) -> Duration {
        self.world().elapsed().saturating_sub(then)
    }

    /// Does `step`, again and again while the disk is full. Nothing is acknowledged meanwhile.
    async fn when_there_is_room<T>(&self, what: &str, mut step: impl FnMut() -> io::Result<T>) -> Result<T> {
        loop {
            match step() {
                Err(e) if is_full(&e) && !self.shared.stopping.load(Ordering::Acquire) => {
                    if !self.shared.stalled.swap(true, Ordering::Relaxed) {
                        tracing::warn!(error = %e, "{what}: the disk is full, nothing is acknowledged until there is room");
                    }
                    self.world().sleep(FULL_DISK_PAUSE).await;
                }
                Err(e) => return Err(Error::stop(what, e)),
                Ok(done) => {
                    self.shared.stalled.store(false, Ordering::Relaxed);
                    return Ok(done);
                }
            }
        }
    }
}

impl Encoded {
    fn bytes(&self) -> usize {
        self.frames.iter().map(|f| HEADER + f.content.len()).sum()
    }
}

fn remember(group: &Group, recent: &mut Recent) {
    for (_, body) in &group.frames {
        if let Body::Connection { producer, connected, at } = body {
            recent.connection(*producer, *connected, *at);
        }
    }
    group.publishes.iter().for_each(|publish| recent.enter(*publish));
}
