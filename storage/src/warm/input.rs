//! A segment being read through the `Disk` it lies on. It must hold the bytes that were written: whatever is made from it takes its place.

use super::segment_path;
use crate::epoch::Segment;
use bytes::Bytes;
use flow::{Error, Remedy, Result};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::Arc;
use world::{Disk, DiskFile};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes that have a checksum of their own, from the check on.
const PIECE: usize = 64 << 10;

/// Whether a segment holds the bytes that were written. An error with remedy `Retry` names the file and both checksums.
pub fn check_segment(disk: &dyn Disk, dir: &Path, segment: &Segment) -> Result<()> {
    Checked::open(disk, &dir.join(&segment.file), segment).map(|_| ())
}

/// The rows of a segment, in its order, `rows` at a time.
pub(super) fn read(disk: &dyn Disk, warm: &Path, table: &str, segment: &Segment, rows: usize) -> Result<ParquetRecordBatchReader> {
    let path = segment_path(warm, table, &segment.file);
    let file = Pieces(Arc::new(Checked::open(disk, &path, segment)?));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.with_batch_size(rows).build());
    reader.map_err(|e| Error::retry(format!("reading segment {}", path.display()), e))
}

/// A file whose checksum was right when it was read once. It is read again piece by piece, and each must be what it was then.
struct Checked {
    file: Arc<dyn DiskFile>,
    length: u64,
    pieces: Vec<u64>,
}

impl Checked {
    fn open(disk: &dyn Disk, path: &Path, segment: &Segment) -> Result<Self> {
        let (checked, found) = Self::look(disk, path).map_err(|e| Error::retry(format!("reading segment {}", path.display()), e))?;
        let expected = segment.checksum;
        if found == expected {
            return Ok(checked);
        }
        let path = path.display();
        Err(Error::new(Remedy::Retry, format!("segment {path} has checksum {found:016x}, its record says {expected:016x}")))
    }

    fn look(disk: &dyn Disk, path: &Path) -> io::Result<(Self, u64)> {
        let file = disk.open(path)?;
        let mut checked = Self { length: file.length()?, file, pieces: vec![] };
        let mut all = Xxh3::new();
        for number in 0..checked.length.div_ceil(PIECE as u64) {
            let piece = checked.raw(number)?;
            all.update(&piece);
            checked.pieces.push(xxh3_64(&piece));
        }
        Ok((checked, all.digest()))
    }

    fn raw(&self, number: u64) -> io::Result<Vec<u8>> {
        let start = number * PIECE as u64;
        let length = (self.length - start).min(PIECE as u64) as usize;
        let (mut bytes, mut done) = (vec![0; length], 0);
        while done < length {
            match self.file.read_at(&mut bytes[done..], start + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(bytes)
    }

    fn piece(&self, number: u64) -> io::Result<Bytes> {
        let bytes = self.raw(number)?;
        if xxh3_64(&bytes) == self.pieces[number as usize] {
            return Ok(bytes.into());
        }
        let what = format!("{} bytes from {} on are not what they were a moment ago", bytes.len(), number * PIECE as u64);
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

/// The file for the Parquet reader.
struct Pieces(Arc<Checked>);

impl Length for Pieces {
    fn len(&self) -> u64 {
        self.0.length
    }
}

impl ChunkReader for Pieces {
    type T = PieceReader;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(PieceReader { file: self.0.clone(), at: start, left: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut bytes = vec![0; length];
        self.get_read(start)?.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// The bytes of a file from a place on.
struct PieceReader {
    file: Arc<Checked>,
    at: u64,
    left: Bytes,
}

impl BufRead for PieceReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left.is_empty() && self.at < self.file.length {
            let piece = self.file.piece(self.at / PIECE as u64)?;
            self.left = piece.slice(self.at as usize % PIECE..);
        }
        Ok(&self.left)
    }

    fn consume(&mut self, bytes: usize) {
        self.left = self.left.split_off(bytes);
        self.at += bytes as u64;
    }
}

impl Read for PieceReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}
