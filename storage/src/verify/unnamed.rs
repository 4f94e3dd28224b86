//! Files that no record names: no damage, since they may be younger than the records or wait for their deletion.

use super::Subject;
use super::report::{Report, Unnamed};
use crate::epoch::EpochStore;
use flow::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Lists what lies in the folders of segments, state and outbox and is in no lane's newest record, as it is now.
pub(super) fn list(subject: Subject<'_>, report: &mut Report) -> Result<()> {
    let mut named = BTreeSet::new();
    for lane in subject.epochs.lanes()? {
        // A lane whose record is damaged is in the report already, and its files are not known.
        let Ok(newest) = subject.epochs.newest(&lane) else { return Ok(()) };
        named.extend(newest.map(|n| n.whole.files()).unwrap_or_default());
    }
    let mut found = vec![];
    for folder in [subject.warm, subject.state, subject.outbox] {
        files(folder, &mut found).map_err(|e| Error::stop(format!("listing {}", folder.display()), e))?;
    }
    found.retain(|(path, _)| path.file_name().and_then(|n| n.to_str()).is_some_and(|name| !named.contains(name)));
    found.sort();
    report.unnamed = found.into_iter().map(|(path, bytes)| Unnamed { file: path.display().to_string(), bytes }).collect();
    Ok(())
}

fn files(folder: &Path, found: &mut Vec<(PathBuf, u64)>) -> std::io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else if let Ok(metadata) = path.metadata() {
            // Without metadata it went a moment ago.
            found.push((path, metadata.len()));
        }
    }
    Ok(())
}
