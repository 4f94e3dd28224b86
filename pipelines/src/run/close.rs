//! The durable steps of a close: segments, outbox and state, then the record, which is the commit. Both wait while the disk is full.

use crate::run::driver::Shared;
use crate::run::lane::{Cut, Event, Written};
use flow::{Offset, Result};
use ingest::journal::JournalHandle;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use storage::epoch::{EpochStore, Names, Record, Sealed, StateChange, Whole};
use storage::outbox::write_exit;
use storage::warm::{segment_path, write_segment};
use world::{Point, World, is_full, reach};

/// How long a lane waits before it tries again on a full disk.
const ROOM: Duration = Duration::from_secs(1);

/// Writes an epoch's segments and state, durably, when there is room for them. An attempt that found none leaves nothing, so that waiting
/// does not fill the disk; each has names of its own.
pub(crate) async fn write_out(shared: Arc<Shared>, whole: Arc<Whole>, cut: Cut) -> Result<Event> {
    let (cut, mut names) = (Arc::new(cut), None);
    let mut told = false;
    loop {
        let (of, whole, cut, given) = (shared.clone(), whole.clone(), cut.clone(), names.take());
        let job = move || {
            let mut names = given.unwrap_or_else(|| cut.names.clone());
            let written = write(&of, &whole, &cut, &mut names);
            (names, written)
        };
        let (used, written) = shared.world.blocking("the write of an epoch", job).await?;
        match written {
            Err(error) if is_out_of_room(&error) => wait_for_room(&shared.world, &error, &mut told).await,
            done => return done,
        }
        names = Some(used);
    }
}

fn write(shared: &Shared, whole: &Whole, cut: &Cut, names: &mut Names) -> Result<Event> {
    let mut written = Written { segments: vec![], exits: vec![], state: StateChange::default() };
    let all = write_segments(shared, cut, names, &mut written)
        .and_then(|()| write_exits(shared, cut, names, &mut written))
        .and_then(|()| Ok(shared.state.finish(&cut.state, &whole.state, names)?));
    match all {
        Ok(state) => {
            reach(Point::EpochWritten);
            Ok(Event::Written(Written { state, ..written }))
        }
        Err(error) => {
            remove(shared, &written);
            Err(error)
        }
    }
}

/// No record names the files; what stays goes at the next claim.
fn remove(shared: &Shared, written: &Written) {
    for (table, segment) in &written.segments {
        let _ = shared.world.disk.remove(&segment_path(&shared.warm, &shared.specs[*table].name, &segment.file));
    }
    for (_, file) in &written.exits {
        let _ = shared.world.disk.remove(&shared.outbox.join(&file.file));
    }
}

fn write_exits(shared: &Shared, cut: &Cut, names: &mut Names, written: &mut Written) -> Result<()> {
    for exit in &cut.exits {
        let name = names.next("outbox");
        written.exits.push((exit.exit.clone(), write_exit(&*shared.world.disk, &shared.outbox, &name, exit)?));
    }
    Ok(())
}

fn write_segments(shared: &Shared, cut: &Cut, names: &mut Names, written: &mut Written) -> Result<()> {
    for (table, rows) in &cut.tables {
        let spec = &shared.specs[*table];
        let name = names.next("parquet");
        let folder = shared.warm.join(&spec.name);
        if let Some(segment) = write_segment(&*shared.world.disk, &folder, &name, spec, cut.epoch.0, rows)? {
            written.segments.push((*table, segment));
        }
    }
    reach(Point::SegmentsWritten);
    Ok(())
}

/// Whether a full disk is at the root of it.
pub(crate) fn is_out_of_room(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if inner.downcast_ref::<std::io::Error>().is_some_and(is_full) {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// A lane takes no more than one epoch meanwhile; nothing is lost, and nobody has to start it again.
pub(crate) async fn wait_for_room(world: &World, error: &(dyn Error + Send + Sync), told: &mut bool) {
    if !std::mem::replace(told, true) {
        tracing::warn!(%error, "the disk is full: what was to be written waits until there is room");
    }
    world.time.sleep(ROOM).await;
}

/// Creates the record: the commit.
pub(crate) async fn seal(shared: Arc<Shared>, log: Option<(JournalHandle, Offset)>, record: Record) -> Result<Event> {
    if let Some((handle, below)) = log {
        shared.world.blocking("the fsync of the journal", move || handle.sync_below(below)).await??;
    }
    reach(Point::SealForced);
    let lane = record.header.lane.clone();
    let (number, record, mut told) = (record.header.number, Arc::new(record), false);
    let sealed = loop {
        let (last, record) = (shared.clone(), record.clone());
        match shared.world.blocking("the seal of an epoch", move || last.epochs.seal(&record)).await? {
            // The same number with the same bytes again.
            Err(error) if is_out_of_room(&error) => wait_for_room(&shared.world, &error, &mut told).await,
            done => break done?,
        }
    };
    reach(Point::EpochSealed);
    match sealed {
        Sealed::Ours => Ok(Event::Sealed),
        Sealed::Fenced => {
            let what = format!("record {number} of lane {lane} is another process's: it owns the lane now");
            Err(flow::Error::new(flow::Remedy::Stop, what))
        }
    }
}
