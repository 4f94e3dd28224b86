//! The outbox of a lane: what it has for others, as files that its epoch records name. Readers take their rows in order, and each file goes
//! when all of its rows are taken.
//!
//! A file holds the rows of one exit and one epoch as an Arrow IPC stream (lz4), durable before it is named. The rows of an exit are
//! numbered from 0, through all files and epochs; a record that counts says how far.

use crate::durable;
use crate::epoch::{EpochError, ExitFile};
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use flow::{Error, Result};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use world::Disk;
use xxhash_rust::xxh3::xxh3_64;

/// What an epoch has for one exit.
#[derive(Clone, Debug)]
pub struct ExitRows {
    /// The exit's name.
    pub exit: String,
    /// Number of the first row.
    pub first: u64,
    /// The rows, of one schema; at least one.
    pub rows: Vec<RecordBatch>,
}

/// The folder of outbox files in a data directory.
#[must_use]
pub fn outbox_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("outbox")
}

/// Writes rows as `<dir>/<name>`, durably, and gives the entry for the record. `dir` exists.
pub fn write_exit(disk: &dyn Disk, dir: &Path, name: &str, of: &ExitRows) -> Result<ExitFile> {
    let bytes = encode(&of.rows).map_err(|e| Error::stop(format!("outbox file {name}"), e))?;
    durable::write_new(disk, &dir.join(name), &bytes).map_err(|e| Error::stop(format!("writing outbox file {name}"), e))?;
    let rows = of.rows.iter().map(|b| b.num_rows() as u64).sum();
    Ok(ExitFile { file: name.to_owned(), first: of.first, rows, bytes: bytes.len() as u64, checksum: xxh3_64(&bytes) })
}

/// The batches of a file, in order, as they were written. Every byte is checked.
pub fn read_exit(disk: &dyn Disk, dir: &Path, file: &ExitFile) -> Result<Vec<RecordBatch>> {
    let path = dir.join(&file.file);
    let bytes = world::read(disk, &path).map_err(EpochError::io("cannot read", &path))?;
    let held = bytes.len() as u64;
    if held != file.bytes {
        return Err(EpochError::damaged(&path, held.min(file.bytes), format!("it should have {} bytes and has {held}", file.bytes)).into());
    }
    if xxh3_64(&bytes) != file.checksum {
        return Err(EpochError::damaged(&path, 0, "wrong checksum").into());
    }
    let batches: Result<Vec<RecordBatch>, ArrowError> = StreamReader::try_new(Cursor::new(bytes), None).and_then(Iterator::collect);
    let batches = batches.map_err(|e| Error::stop(format!("reading outbox file {}", path.display()), e))?;
    let rows: u64 = batches.iter().map(|b| b.num_rows() as u64).sum();
    match rows == file.rows {
        true => Ok(batches),
        false => Err(EpochError::damaged(&path, 0, format!("it should have {} rows and has {rows}", file.rows)).into()),
    }
}

fn encode(batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let schema = batches.first().map(RecordBatch::schema).ok_or_else(|| ArrowError::InvalidArgumentError("no batches".into()))?;
    let mut stream = StreamWriter::try_new_with_options(Vec::new(), &schema, options)?;
    for batch in batches {
        stream.write(batch)?;
    }
    stream.finish()?;
    stream.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::readings;
    use world::LocalDisk;

    #[test]
    fn what_is_written_comes_back_as_it_was_and_damage_is_told_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let rows = vec![readings(&[("a", 1, 1.0), ("b", 2, 2.0)]), readings(&[("a", 3, 3.0)])];
        let of = ExitRows { exit: "x".into(), first: 7, rows: rows.clone() };
        let file = write_exit(&LocalDisk, dir.path(), "l-1-2-0.outbox", &of).unwrap();
        assert_eq!((file.first, file.rows), (7, 3));
        assert_eq!(read_exit(&LocalDisk, dir.path(), &file).unwrap(), rows);
        let path = dir.path().join(&file.file);
        let mut bytes = std::fs::read(&path).unwrap();
        let half = bytes.len() / 2;
        bytes[half] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(read_exit(&LocalDisk, dir.path(), &file).unwrap_err().to_string().contains("wrong checksum"));
        std::fs::write(&path, &bytes[..half]).unwrap();
        let error = read_exit(&LocalDisk, dir.path(), &file).unwrap_err().to_string();
        assert!(error.contains(&format!("{half}")), "{error}");
    }
}
