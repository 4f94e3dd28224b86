//! The durable steps of a close: segments, outbox and state, then the record, which is the commit. Both wait while the disk is full.

use crate::run::driver::Shared;
use crate::run::lane::{Cut, Event, Written};
use flow::{Offset, Result};
use ingest::journal::JournalHandle;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use storage::epoch::{EpochStore, Names, Record, Sealed, StateChange, Whole};
use storage::outbox::write_exit;
use storage::warm::write_segment;
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
    let mut begun = vec![];
    let all = write_segments(shared, cut, names, &mut written, &mut begun)
        .and_then(|()| write_exits(shared, cut, names, &mut written, &mut begun))
        .and_then(|()| Ok(shared.state.finish(&cut.state, &whole.state, names)?));
    match all {
        Ok(state) => {
            reach(Point::EpochWritten);
            Ok(Event::Written(Written { state, ..written }))
        }
        Err(error) => {
            if is_out_of_room(&error) {
                remove(shared, &begun);
            }
            Err(error)
        }
    }
}

/// No record names the files; what stays goes at the next claim. The last one may have its name although it failed.
fn remove(shared: &Shared, begun: &[PathBuf]) {
    for path in begun {
        let _ = shared.world.disk.remove(path);
    }
}

fn write_exits(shared: &Shared, cut: &Cut, names: &mut Names, written: &mut Written, begun: &mut Vec<PathBuf>) -> Result<()> {
    for exit in &cut.exits {
        let name = names.next("outbox");
        begun.push(shared.outbox.join(&name));
        written.exits.push((exit.exit.clone(), write_exit(&*shared.world.disk, &shared.outbox, &name, exit)?));
    }
    Ok(())
}

fn write_segments(shared: &Shared, cut: &Cut, names: &mut Names, written: &mut Written, begun: &mut Vec<PathBuf>) -> Result<()> {
    for (table, rows) in &cut.tables {
        let spec = &shared.specs[*table];
        let name = names.next("parquet");
        let folder = shared.warm.join(&spec.name);
        begun.push(folder.join(&name));
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

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
    use flow::{EVENT_TIME, Epoch, StateWriter};
    use std::io;
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::SystemTime;
    use storage::epoch::LocalEpochs;
    use storage::outbox::ExitRows;
    use storage::state::{StateSave, StateStore};
    use storage::{TableOptions, TableSpec};
    use world::{Disk, DiskFile, Entry, LocalDisk};

    /// The local disk, on which so many more steps find room; all but removing needs some.
    #[derive(Clone, Debug)]
    struct Filling(Arc<AtomicU64>);

    impl Filling {
        fn step(&self) -> io::Result<()> {
            let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            left.map(|_| ()).map_err(|_| io::ErrorKind::StorageFull.into())
        }
    }

    impl Disk for Filling {
        fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
            self.step()?;
            Ok(Arc::new(Open(LocalDisk.create(path)?, self.clone())))
        }
        fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
            LocalDisk.open(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.step()?;
            LocalDisk.rename(from, to)
        }
        fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.step()?;
            LocalDisk.link(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            LocalDisk.remove(path)
        }
        fn create_dir(&self, path: &Path) -> io::Result<()> {
            self.step()?;
            LocalDisk.create_dir(path)
        }
        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            self.step()?;
            LocalDisk.sync_dir(path)
        }
        fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
            LocalDisk.list(path)
        }
        fn exists(&self, path: &Path) -> io::Result<bool> {
            LocalDisk.exists(path)
        }
        fn free_bytes(&self, path: &Path) -> io::Result<u64> {
            LocalDisk.free_bytes(path)
        }
        fn modified(&self, path: &Path) -> io::Result<SystemTime> {
            LocalDisk.modified(path)
        }
        fn lock(&self, directory: &Path) -> io::Result<Box<dyn Send + Sync>> {
            LocalDisk.lock(directory)
        }
    }

    #[derive(Debug)]
    struct Open(Arc<dyn DiskFile>, Filling);

    impl DiskFile for Open {
        fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
            self.0.read_at(into, offset)
        }
        fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.1.step()?;
            self.0.write_all_at(bytes, offset)
        }
        fn allocate(&self, length: u64) -> io::Result<()> {
            self.1.step()?;
            self.0.allocate(length)
        }
        fn set_len(&self, length: u64) -> io::Result<()> {
            self.1.step()?;
            self.0.set_len(length)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.1.step()?;
            self.0.sync_data()
        }
        fn length(&self) -> io::Result<u64> {
            self.0.length()
        }
    }

    fn rows() -> RecordBatch {
        let value: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1, 2]).with_timezone("UTC"));
        RecordBatch::try_from_iter([("value", value), (EVENT_TIME, time)]).unwrap()
    }

    fn shared(data: &Path, disk: &Filling) -> Shared {
        let world = World { disk: Arc::new(disk.clone()), ..World::real() };
        let [warm, outbox, state_dir] = ["warm", "outbox", "state"].map(|folder| data.join(folder));
        [warm.join("t"), outbox.clone()].iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
        let spec = TableSpec { name: "t".into(), schema: rows().schema(), key: vec![], options: TableOptions::default() };
        Shared {
            specs: vec![Arc::new(spec)],
            state: StateStore::open(world.disk.clone(), &state_dir).unwrap(),
            epochs: LocalEpochs::on(world.disk.clone(), data, "p"),
            hot: [].into(),
            lanes: std::sync::atomic::AtomicU64::new(1),
            memory: crate::run::memory::Memory::new(u64::MAX),
            compactions: Arc::new(tokio::sync::Semaphore::new(1)),
            free_disk: 0,
            every: Duration::from_secs(1),
            linger: Duration::ZERO,
            warm,
            outbox,
            state_dir,
            world,
        }
    }

    /// Names of all files, finished or not.
    fn files(shared: &Shared) -> Vec<PathBuf> {
        let folders = [shared.warm.join("t"), shared.outbox.clone(), shared.state_dir.clone()];
        folders.iter().flat_map(|folder| LocalDisk.list(folder).unwrap()).map(|entry| entry.path).collect()
    }

    #[test]
    fn an_attempt_that_found_no_room_leaves_nothing_wherever_it_ended() {
        let (data, disk) = (tempfile::tempdir().unwrap(), Filling(Arc::new(AtomicU64::new(u64::MAX))));
        let shared = shared(data.path(), &disk);
        let mut state = StateSave::default();
        state.operator("w").append("open", rows());
        let exits = vec![ExitRows { exit: "x".into(), first: 0, rows: vec![rows()] }];
        let cut = Cut { epoch: Epoch(2), names: Names::new("j/0", 1, 2), tables: vec![(0, vec![rows()])], exits, state };
        let (whole, mut names) = (Whole::default(), cut.names.clone());
        let mut attempts = 0;
        loop {
            disk.0.store(attempts, Ordering::Relaxed);
            match write(&shared, &whole, &cut, &mut names) {
                Ok(_) => break,
                Err(error) => assert!(is_out_of_room(&error), "step {attempts}: {error}"),
            }
            assert_eq!(files(&shared), Vec::<PathBuf>::new(), "after the attempt with room for {attempts} steps");
            attempts += 1;
        }
        // Three files, each created, written, forced, named and its name forced.
        assert_eq!((attempts, files(&shared).len()), (15, 3));
    }
}
