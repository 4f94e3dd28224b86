//! After a restart hot gets back what it had: the newest sealed epochs, read from their segments on another thread.
//!
//! Until they are here their rows are answered from warm, and compaction and moves leave their segments alone. A segment that cannot be
//! read ends it: everything stays in warm, where queries name the damage.

use crate::run::driver::Shared;
use flow::{Error, Remedy, Result, WallTime};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;
use storage::epoch::{Segment, Whole};
use storage::hot::{HotLimits, Recalled};
use storage::warm::{read_segment, segment_path};

/// Segments of a table that come back, the newest first: all that it has of epochs from `floor` on.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) table: usize,
    pub(crate) floor: u64,
    segments: Vec<(Segment, WallTime)>,
}

/// What came back of a table.
pub(crate) struct Back {
    pub(crate) table: usize,
    pub(crate) floor: u64,
    pub(crate) epochs: Vec<Recalled>,
}

/// What of a lane would be hot if the process had gone on: segments as their seal has written them, younger than the table's age.
pub(crate) fn wanted(shared: &Shared, whole: &Whole) -> Vec<Wanted> {
    let of = |(table, spec): (usize, &Arc<storage::TableSpec>)| {
        let (limits, state) = (shared.hot.get(&spec.name)?, whole.tables.get(&spec.name)?);
        let mut newest: Vec<&Segment> = state.segments.iter().collect();
        newest.sort_by_key(|segment| std::cmp::Reverse(segment.epoch));
        let (mut floor, mut segments) = (0, vec![]);
        for segment in newest {
            let sealed = sealed(shared, &spec.name, segment).filter(|at| segment.is_fresh() && shared.world.now().since(*at) < limits.age);
            let Some(sealed) = sealed else {
                floor = segment.epoch + 1;
                break;
            };
            segments.push((segment.clone(), sealed));
        }
        segments.retain(|(segment, _)| segment.epoch >= floor);
        let floor = segments.iter().map(|(segment, _)| segment.epoch).min()?;
        Some(Wanted { table, floor, segments })
    };
    shared.specs.iter().enumerate().filter_map(of).collect()
}

/// A segment is written when its epoch is sealed; its time may lie ahead where the clock was set back.
fn sealed(shared: &Shared, table: &str, segment: &Segment) -> Option<WallTime> {
    let written = shared.world.disk.modified(&segment_path(&shared.warm, table, &segment.file)).ok()?;
    let written = i64::try_from(written.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()?;
    Some(WallTime(written).min(shared.world.now()))
}

/// Reads them, one lane at a time.
pub(crate) async fn recall(shared: Arc<Shared>, wanted: Vec<Wanted>) -> Result<Vec<Back>> {
    let turn = shared.compactions.clone().acquire_owned().await;
    let _turn = turn.map_err(|_| Error::new(Remedy::Stop, "nothing more is read back"))?;
    let of = shared.clone();
    shared.world.blocking("reading hot rows back", move || wanted.into_iter().map(|wanted| read(&of, wanted)).collect()).await?
}

/// The epochs of a table, from the newest back to the bytes that it may keep.
fn read(shared: &Shared, wanted: Wanted) -> Result<Back> {
    let spec = &shared.specs[wanted.table];
    let all = shared.hot.get(&spec.name).map_or(0, |HotLimits { bytes, .. }| *bytes);
    let limit = all / shared.lanes.load(Ordering::Relaxed).max(1);
    let (mut floor, mut bytes, mut epochs) = (wanted.floor, 0, BTreeMap::<u64, Recalled>::new());
    for (segment, sealed) in wanted.segments {
        let batches = read_segment(&*shared.world.disk, &shared.warm, spec, &segment)?;
        bytes += batches.iter().map(|rows| rows.get_array_memory_size() as u64).sum::<u64>();
        if bytes > limit {
            floor = segment.epoch + 1;
            break;
        }
        let epoch = epochs.entry(segment.epoch).or_insert_with(|| Recalled { epoch: segment.epoch, sealed, batches: vec![] });
        epoch.batches.extend(batches);
    }
    let epochs = epochs.split_off(&floor).into_values().collect();
    Ok(Back { table: wanted.table, floor, epochs })
}
