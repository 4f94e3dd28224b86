//! A segment being written: sorted batches in, a durable file and its entry for the record out. Memory holds one row group.

use super::{key_ends, properties, time_range};
use crate::durable::NewFile;
use crate::epoch::Segment;
use crate::options::TableSpec;
use arrow::array::RecordBatch;
use flow::{Error, Result};
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use world::Disk;
use xxhash_rust::xxh3::Xxh3;

/// Bytes that go to the disk at once.
const PIECE: usize = 1 << 20;

/// A segment that has no name yet. Dropped without `finish` it leaves nothing behind.
pub(super) struct Output<'a> {
    spec: &'a TableSpec,
    writer: ArrowWriter<BufWriter<Hashed<'a>>>,
    segment: Segment,
    /// No row was written whose key is not text, or null.
    keyed: bool,
}

impl<'a> Output<'a> {
    /// Begins `<dir>/<name>`; `level` is zstd's.
    pub(super) fn begin(disk: &'a dyn Disk, dir: &Path, name: &str, spec: &'a TableSpec, level: i32) -> Result<Self> {
        let file = NewFile::create(disk, &dir.join(name)).map_err(|e| failed(name, e.into()))?;
        let out = BufWriter::with_capacity(PIECE, Hashed { file, digest: Xxh3::new(), bytes: 0 });
        let properties = properties(spec, level).map_err(|e| failed(name, e))?;
        let writer = ArrowWriter::try_new(out, spec.schema.clone(), Some(properties)).map_err(|e| failed(name, e))?;
        let segment = Segment {
            file: name.to_owned(),
            rows: 0,
            bytes: 0,
            checksum: 0,
            min_time: i64::MAX,
            max_time: i64::MIN,
            min_key: String::new(),
            max_key: String::new(),
            epoch: 0,
            mark: None,
        };
        Ok(Self { spec, writer, segment, keyed: true })
    }

    /// Adds rows that follow those before in the order of the segment.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let Some((least, greatest)) = time_range(rows) else { return Ok(()) };
        self.writer.write(rows).map_err(|e| failed(&self.segment.file, e))?;
        match key_ends(rows, self.spec).map_err(|e| failed(&self.segment.file, e.into()))? {
            Some((first, last)) => {
                if self.segment.rows == 0 {
                    self.segment.min_key = first;
                }
                self.segment.max_key = last;
            }
            None => self.keyed = false,
        }
        self.segment.rows += rows.num_rows() as u64;
        self.segment.min_time = self.segment.min_time.min(least);
        self.segment.max_time = self.segment.max_time.max(greatest);
        Ok(())
    }

    /// Rows that were written.
    pub(super) fn rows(&self) -> u64 {
        self.segment.rows
    }

    /// Makes it durable under its name. `epoch`: the greatest whose rows are inside.
    pub(super) fn finish(self, epoch: u64) -> Result<Segment> {
        let Self { writer, mut segment, keyed, .. } = self;
        let out = writer.into_inner().map_err(|e| failed(&segment.file, e))?;
        let hashed = out.into_inner().map_err(|e| failed(&segment.file, e.into_error().into()))?;
        (segment.epoch, segment.bytes, segment.checksum) = (epoch, hashed.bytes, hashed.digest.digest());
        if !keyed {
            (segment.min_key, segment.max_key) = Default::default();
        }
        hashed.file.publish().map_err(|e| failed(&segment.file, e.into()))?;
        Ok(segment)
    }
}

fn failed(name: &str, error: ParquetError) -> Error {
    Error::stop(format!("writing segment {name}"), error)
}

/// A file with the checksum of what went into it.
struct Hashed<'a> {
    file: NewFile<'a>,
    digest: Xxh3,
    bytes: u64,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.append(bytes)?;
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
