//! Removes what no longer counts: old records, and files of earlier owners that no record names.

use super::{EpochError, EpochStore, Result, component, names};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use world::{Bug, Disk, Entry, planted};

/// This many of the newest records always stay: whoever stops for shorter than it takes to make them finds its parent's successors.
pub const KEEP_RECORDS: u64 = 1_000;

/// Deletes records below the newest whole one and below `readers` (the least number that a reader still needs), but never one of the
/// last 1,000. In rising order, so that a crash leaves no gap. Returns how many.
pub fn clean_records(store: &dyn EpochStore, lane: &str, last_whole: u64, readers: u64) -> Result<u64> {
    let numbers = store.numbers(lane)?;
    let Some(newest) = numbers.last() else { return Ok(0) };
    let keep_from = last_whole.min(readers).min((newest + 1).saturating_sub(KEEP_RECORDS));
    let mut deleted = 0;
    for number in numbers.into_iter().take_while(|n| *n < keep_from) {
        store.delete(lane, number)?;
        deleted += 1;
    }
    Ok(deleted)
}

/// Deletes files of the lane below `dirs` that carry a lower generation than ours and that no kept record names. Only after a claim.
///
/// Returns their names. A writer that we fenced may still make some: they go at the next clean-up. Records are read from the newest on, and only
/// until they have named all files of earlier owners.
pub fn clean_files(disk: &dyn Disk, store: &dyn EpochStore, lane: &str, generation: u64, dirs: &[&Path]) -> Result<Vec<String>> {
    let mut unnamed = BTreeMap::new();
    for dir in dirs {
        earlier(disk, dir, &component(lane), generation, &mut unnamed)?;
    }
    for number in store.numbers(lane)?.into_iter().rev() {
        if unnamed.is_empty() || planted(Bug::NamedFilesCleaned) {
            break;
        }
        for file in store.read(lane, number)?.map(|record| record.files()).unwrap_or_default() {
            unnamed.remove(&file);
        }
    }
    if planted(Bug::NothingCleaned) {
        return Ok(vec![]);
    }
    for path in unnamed.values() {
        disk.remove(path).map_err(EpochError::io("cannot delete", path))?;
    }
    Ok(unnamed.into_keys().collect())
}

/// The files of a lane below `dir` that carry a lower generation, by name.
fn earlier(disk: &dyn Disk, dir: &Path, lane: &str, generation: u64, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    if !disk.exists(dir).map_err(EpochError::io("cannot look for", dir))? {
        return Ok(());
    }
    for Entry { path, is_dir } in disk.list(dir).map_err(EpochError::io("cannot list", dir))? {
        if is_dir {
            earlier(disk, &path, lane, generation, found)?;
            continue;
        }
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        if names::lane_and_generation(name).is_some_and(|(l, g)| l == lane && g < generation) {
            found.insert(name.to_owned(), path);
        }
    }
    Ok(())
}
