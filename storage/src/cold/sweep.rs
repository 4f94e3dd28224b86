//! Takes away the files of moves that a crashed process began and nobody can finish any more.

use super::store::TEMPORARY_NAME;
use super::table::{Cold, DAY};
use flow::{Error, Result};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use std::collections::{BTreeMap, HashSet};
use xxhash_rust::xxh3::xxh3_64;

/// Stands in the place of the lane's hash in the names of rewritten files; no hash is written like this.
const REWRITE: &str = "rewrite";

/// The name of a move's files, without their number: `<incarnation>-<hash of the first lane>-<its move number>`.
#[must_use]
pub fn move_name(incarnation: u64, first_lane: &str, number: u64) -> String {
    format!("{incarnation:016x}-{:016x}-{number}", xxh3_64(first_lane.as_bytes()))
}

/// The name of the files of a rewrite on a version of the table, without their number: `<incarnation>-rewrite-<version>`.
#[must_use]
pub fn rewrite_name(incarnation: u64, version: u64) -> String {
    format!("{incarnation:016x}-{REWRITE}-{version}")
}

/// Whether a file of this name, which the log does not know, is of another process and nobody can commit it any more: it is of a move that
/// its lane has behind it in the newest version, or of a rewrite of a version that another one has followed. False for names that are not
/// ours. `lanes`: the highest move number in the newest version.
#[must_use]
pub fn is_abandoned(name: &str, incarnation: u64, lanes: &BTreeMap<String, u64>, newest: u64) -> bool {
    let mut words = name.split('-').map(|word| word.split('.').next().unwrap_or_default());
    let mut parse = || {
        let of = u64::from_str_radix(words.next()?, 16).ok()?;
        let by = words.next()?;
        let number: u64 = words.next()?.parse().ok()?;
        if by == REWRITE {
            return Some(of != incarnation && newest > number);
        }
        let lane = u64::from_str_radix(by, 16).ok()?;
        let (_, reached) = lanes.iter().find(|(name, _)| xxh3_64(name.as_bytes()) == lane)?;
        Some(of != incarnation && *reached >= number)
    };
    parse().unwrap_or(false)
}

/// Deletes the abandoned files of a table, and what was not complete; see `ColdTable::sweep`. The table has one mover, which writes
/// nothing meanwhile.
pub(super) async fn sweep(cold: &Cold, incarnation: u64, lanes: &BTreeMap<String, u64>) -> Result<usize> {
    let Some(snapshot) = cold.snapshot().await? else { return Ok(0) };
    let newest = snapshot.version().unwrap_or_default();
    let mut known: HashSet<String> = snapshot.files()?.into_iter().map(|file| file.path).collect();
    known.extend(snapshot.removed().await?.into_iter().map(|file| file.path));
    let failed = |e| Error::retry(format!("sweeping {}", cold.place()), e);
    let there: Vec<_> = cold.place().store().list(None).try_collect().await.map_err(failed)?;
    let mut gone = 0;
    for location in there.into_iter().map(|meta| meta.location).filter(|at| at.as_ref().starts_with(DAY)) {
        let name = location.filename().unwrap_or_default();
        let abandoned = name.starts_with(TEMPORARY_NAME) || is_abandoned(name, incarnation, lanes, newest);
        if abandoned && !known.contains(location.as_ref()) {
            cold.place().store().delete(&location).await.map_err(failed)?;
            gone += 1;
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::{Edit, MoveFile};

    #[test]
    fn only_files_of_moves_that_are_over_go() {
        let lanes = [("j/0".to_owned(), 3)].into();
        let is_abandoned =
            |incarnation, lane, number| is_abandoned(&format!("{}-0-0.parquet", move_name(incarnation, lane, number)), 7, &lanes, 9);
        assert!(is_abandoned(6, "j/0", 3));
        assert!(!is_abandoned(7, "j/0", 3), "ours");
        assert!(!is_abandoned(6, "j/0", 4), "its move may still be committed");
        assert!(!is_abandoned(6, "j/1", 1), "nothing is known of its lane");
        assert!(!super::is_abandoned("part-00000-a.parquet", 7, &lanes, 9), "of another writer");
        let rewrite =
            |incarnation, version| super::is_abandoned(&format!("{}-0-0.parquet", rewrite_name(incarnation, version)), 7, &lanes, 9);
        assert!(rewrite(6, 8));
        assert!(!rewrite(6, 9), "it may still be committed");
        assert!(!rewrite(7, 8), "ours");
    }

    #[tokio::test]
    async fn files_that_the_log_knows_and_those_of_this_process_stay() {
        let dir = tempfile::tempdir().unwrap();
        let cold = crate::testing::cold(dir.path());
        let folder = cold.place().folder().unwrap().to_owned();
        let file = |incarnation: u64, number: u64| {
            let path = format!("{DAY}=2025-01-01/{}-0.parquet", move_name(incarnation, "j/0", number));
            std::fs::create_dir_all(folder.join(&path).parent().unwrap()).unwrap();
            std::fs::write(folder.join(&path), b"x").unwrap();
            MoveFile { path, day: "2025-01-01".into(), rows: 1, bytes: 1, min_time: 0, max_time: 0, written_ms: 0 }
        };
        let (committed, removed, abandoned, ours) = (file(1, 1), file(4, 1), file(2, 1), file(3, 1));
        let edit = Edit { added: vec![committed.clone(), removed.clone()], ..Edit::default() };
        cold.commit(&cold.snapshot_or_create().await.unwrap(), &edit).await.unwrap();
        let snapshot = cold.snapshot().await.unwrap().unwrap();
        let gone = snapshot.files().unwrap().into_iter().filter(|f| f.path == removed.path).collect();
        let now_ms = chrono::Utc::now().timestamp_millis();
        cold.commit(&snapshot, &Edit { removed: gone, now_ms, ..Edit::default() }).await.unwrap();
        std::fs::write(folder.join(format!("{DAY}=2025-01-01/{TEMPORARY_NAME}1-1")), b"x").unwrap();
        assert_eq!(sweep(&cold, 3, &[("j/0".to_owned(), 1)].into()).await.unwrap(), 2);
        let there = |file: &MoveFile| folder.join(&file.path).exists();
        assert_eq!([&committed, &removed, &abandoned, &ours].map(there), [true, true, false, true]);
    }
}
