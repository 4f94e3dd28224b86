//! Takes away the files of moves that a crashed process began and nobody can finish any more.

use super::table::{Cold, DAY};
use flow::{Error, Result};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// The name of a move's files, without their number: `<incarnation>-<hash of the first lane>-<its move number>`.
#[must_use]
pub fn move_name(incarnation: u64, first_lane: &str, number: u64) -> String {
    format!("{incarnation:016x}-{:016x}-{number}", xxh3_64(first_lane.as_bytes()))
}

/// Whether a file of this name, which the newest version does not name, is of another process and of a move that its lane has behind it
/// there: a commit that names it would be refused. False for names that are not ours. `lanes`: the highest move number in that version.
#[must_use]
pub fn is_abandoned(name: &str, incarnation: u64, lanes: &BTreeMap<String, u64>) -> bool {
    let mut words = name.split('-').map(|word| word.split('.').next().unwrap_or_default());
    let mut parse = || {
        let of = u64::from_str_radix(words.next()?, 16).ok()?;
        let lane = u64::from_str_radix(words.next()?, 16).ok()?;
        let number: u64 = words.next()?.parse().ok()?;
        let (_, reached) = lanes.iter().find(|(name, _)| xxh3_64(name.as_bytes()) == lane)?;
        Some(of != incarnation && *reached >= number)
    };
    parse().unwrap_or(false)
}

/// Deletes the abandoned files of a table; see `ColdTable::sweep`.
pub(super) async fn sweep(cold: &Cold, incarnation: u64, lanes: &BTreeMap<String, u64>) -> Result<usize> {
    let Some(snapshot) = cold.snapshot().await? else { return Ok(0) };
    let named: HashSet<PathBuf> = snapshot.files()?.into_iter().map(|path| cold.root().join(path)).collect();
    let mut gone = 0;
    for path in parquet_files(cold.root())? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !named.contains(&path) && is_abandoned(name, incarnation, lanes) {
            std::fs::remove_file(&path).map_err(|e| Error::retry(format!("deleting {}", path.display()), e))?;
            gone += 1;
        }
    }
    Ok(gone)
}

fn parquet_files(root: &Path) -> Result<Vec<PathBuf>> {
    let pattern = format!("{}/{DAY}=*/*.parquet", glob::Pattern::escape(&root.to_string_lossy()));
    let found = glob::glob(&pattern).map_err(|e| Error::stop(format!("looking for files as {pattern}"), e))?;
    found.collect::<Result<_, _>>().map_err(|e| Error::retry(format!("listing {}", root.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::MoveFile;

    #[test]
    fn only_files_of_moves_that_are_over_go() {
        let lanes = [("j/0".to_owned(), 3)].into();
        let is_abandoned =
            |incarnation, lane, number| is_abandoned(&format!("{}-0-0.parquet", move_name(incarnation, lane, number)), 7, &lanes);
        assert!(is_abandoned(6, "j/0", 3));
        assert!(!is_abandoned(7, "j/0", 3), "ours");
        assert!(!is_abandoned(6, "j/0", 4), "its move may still be committed");
        assert!(!is_abandoned(6, "j/1", 1), "nothing is known of its lane");
        assert!(!super::is_abandoned("part-00000-a.parquet", 7, &lanes), "of another writer");
    }

    #[tokio::test]
    async fn committed_files_and_those_of_this_process_stay() {
        let dir = tempfile::tempdir().unwrap();
        let cold = Cold::new(dir.path().to_str().unwrap(), "t", crate::testing::spec().schema).unwrap();
        let snapshot = cold.snapshot_or_create().await.unwrap();
        let file = |incarnation: u64, number: u64| {
            let path = format!("{DAY}=2025-01-01/{}-0.parquet", move_name(incarnation, "j/0", number));
            std::fs::create_dir_all(cold.root().join(&path).parent().unwrap()).unwrap();
            std::fs::write(cold.root().join(&path), b"x").unwrap();
            MoveFile { path, day: "2025-01-01".into(), rows: 1, bytes: 1, min_time: 0, max_time: 0, written_ms: 0 }
        };
        let (committed, abandoned, ours) = (file(1, 1), file(2, 1), file(3, 1));
        cold.commit(&snapshot, std::slice::from_ref(&committed), &BTreeMap::new()).await.unwrap();
        assert_eq!(sweep(&cold, 3, &[("j/0".to_owned(), 1)].into()).await.unwrap(), 1);
        let there = |file: &MoveFile| cold.root().join(&file.path).exists();
        assert_eq!([&committed, &abandoned, &ours].map(there), [true, false, true]);
    }
}
