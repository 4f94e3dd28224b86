//! The list of a source's files: known ones first, new ones behind them by path.

use super::FileOptions;
use flow::{Error, FileMark, Offset, Position, Remedy, Result, WallTime};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a file that tell it from another under the same path.
const HEAD: u64 = 64 << 10;

/// Appends the files that are not in `files` yet, found at `now`.
pub(super) fn extend(options: &FileOptions, files: &mut Vec<Position>, now: WallTime) -> Result<()> {
    let known: BTreeSet<&str> = files.iter().map(|f| &*f.log).collect();
    let mut found = Vec::new();
    for path in matching(options)? {
        let text = path.to_str().ok_or_else(|| Error::new(Remedy::Stop, format!("the path {} is not UTF-8", path.display())))?;
        if !known.contains(text) {
            let bytes = path.metadata().map_err(|e| Error::stop(format!("looking at {text}"), e))?.len();
            let mark = FileMark { bytes, head: head(text, bytes)?, found: now };
            found.push(Position { log: text.into(), next: Offset(0), file: Some(mark) });
        }
    }
    files.extend(found);
    Ok(())
}

/// An error when the file is not the one that was found, or has lost its end.
pub(super) fn verify(file: &Position) -> Result<()> {
    let Some(mark) = file.file else { return Ok(()) };
    let bytes = std::fs::metadata(&*file.log).map_err(|e| Error::stop(format!("looking at {}", file.log), e))?.len();
    if bytes < mark.bytes {
        return Err(Error::new(Remedy::Stop, format!("{} has {bytes} bytes, it had {} when it was found", file.log, mark.bytes)));
    }
    if head(&file.log, mark.bytes)? != mark.head {
        return Err(Error::new(Remedy::Stop, format!("{} does not begin as it did when it was found", file.log)));
    }
    Ok(())
}

fn matching(options: &FileOptions) -> Result<BTreeSet<PathBuf>> {
    let mut paths = BTreeSet::new();
    for pattern in options.path.patterns() {
        let entries = glob::glob(pattern).map_err(|e| Error::stop(format!("path `{pattern}`"), e))?;
        for entry in entries {
            let path = entry.map_err(|e| Error::stop(format!("path `{pattern}`"), e))?;
            if path.is_file() {
                paths.insert(path);
            }
        }
    }
    Ok(paths)
}

fn head(path: &str, bytes: u64) -> Result<u64> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(|e| Error::stop(format!("opening {path}"), e))?;
    file.take(bytes.min(HEAD)).read_to_end(&mut head).map_err(|e| Error::stop(format!("reading {path}"), e))?;
    Ok(xxh3_64(&head))
}
