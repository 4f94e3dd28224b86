//! Copies a folder of an export into a bucket. Files of rows go first and the log that names them last, so a Delta table is there as a whole.

use crate::cold::Place;
use crate::options::ColdOptions;
use flow::{Error, Remedy, Result};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path as ObjectPath;
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt;

/// Copies all files below `folder` to `<url>/<name>` of these options, where nothing may be yet.
pub async fn upload(folder: &Path, to: &ColdOptions, name: &str) -> Result<()> {
    let place = Place::new(to, name)?;
    let failed = |e: &dyn std::fmt::Display| Error::new(Remedy::Stop, format!("copying an export to {place}: {e}"));
    if place.store().list(None).try_next().await.map_err(|e| failed(&e))?.is_some() {
        return Err(Error::new(Remedy::Stop, format!("{place} is not empty: an export makes a folder of its own")));
    }
    for file in files(folder).map_err(|e| failed(&e))? {
        let parts = file.strip_prefix(folder).unwrap_or(&file).iter().map(|part| part.to_string_lossy().into_owned());
        let at = ObjectPath::from_iter(parts);
        let mut from = tokio::fs::File::open(&file).await.map_err(|e| failed(&e))?;
        let mut out = BufWriter::new(place.store().clone(), at);
        tokio::io::copy(&mut from, &mut out).await.map_err(|e| failed(&e))?;
        out.shutdown().await.map_err(|e| failed(&e))?;
    }
    Ok(())
}

/// All files below a folder: those of the log behind all others, in the order of their names.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (mut folders, mut found) = (vec![folder.to_owned()], vec![]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort_by_key(|path| (path.starts_with(folder.join("_delta_log")), path.clone()));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_has_all_files_and_goes_nowhere_twice() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for path in ["_delta_log/0.json", "day=2026-01-01/b.parquet", "day=2026-01-01/a.parquet", "z.parquet"] {
            std::fs::create_dir_all(from.path().join(path).parent().unwrap()).unwrap();
            std::fs::write(from.path().join(path), path).unwrap();
        }
        let ordered = files(from.path()).unwrap();
        assert_eq!(ordered.len(), 4);
        assert!(ordered[3].ends_with("_delta_log/0.json"), "the log is last");
        let options = ColdOptions::at(to.path().to_str().unwrap().to_owned());
        upload(from.path(), &options, "copy").await.unwrap();
        let copied = to.path().join("copy/day=2026-01-01/a.parquet");
        assert_eq!(std::fs::read_to_string(copied).unwrap(), "day=2026-01-01/a.parquet");
        let again = upload(from.path(), &options, "copy").await.unwrap_err();
        assert!(again.to_string().contains("not empty"), "{again}");
    }
}
