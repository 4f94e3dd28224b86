//! The records of one file, a chunk at a time.

use super::Compression;
use crate::decode::record_end;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::sync::Arc;

/// Bytes read at once: large enough that a read costs nothing beside the decoding, small enough for the processor's cache.
const CHUNK: usize = 1 << 20;

/// Longest record. A quote that is never closed would otherwise take the rest of the file into memory.
const MAX_RECORD: usize = 16 << 20;

/// How records end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// At each line end.
    Lines,
    /// At a line end outside quotes, with this delimiter.
    Csv(u8),
}

/// Records of a file that follow each other.
pub(super) struct Chunk {
    /// The bytes in which they lie, which other chunks may share.
    pub(super) bytes: Arc<Vec<u8>>,
    /// Where each lies, its line end included.
    pub(super) places: Vec<Range<usize>>,
}

/// Cuts a file into records.
pub(super) struct Records {
    input: Box<dyn Read + Send>,
    form: Form,
    buffer: Arc<Vec<u8>>,
    /// The part of `buffer` that is not handed out yet.
    rest: Range<usize>,
    ended: bool,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
}

impl Records {
    pub(super) fn open(path: &str, compression: Compression, form: Form) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut magic = [0; 2];
        let read = file.read(&mut magic)?;
        file.rewind()?;
        let gzip = compression == Compression::Gzip || compression == Compression::Auto && read == 2 && magic == [0x1f, 0x8b];
        let input: Box<dyn Read + Send> = if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut records = Self { input, form, buffer: Arc::default(), rest: 0..0, ended: false, spare: vec![] };
        records.fill()?;
        // A byte order mark is no part of the first record.
        if records.buffer[records.rest.clone()].starts_with(b"\xef\xbb\xbf") {
            records.rest.start += 3;
        }
        Ok(records)
    }

    /// At most `most` whole records. There are none when nothing is left.
    pub(super) fn next(&mut self, most: usize) -> io::Result<Chunk> {
        let mut places = Vec::new();
        loop {
            self.cut(most, &mut places);
            if !places.is_empty() || (self.ended && self.rest.is_empty()) {
                return Ok(Chunk { bytes: self.buffer.clone(), places });
            }
            if self.rest.len() > MAX_RECORD {
                return Err(io::Error::other(format!("a record is longer than {MAX_RECORD} bytes")));
            }
            self.fill()?;
        }
    }

    /// The bytes of a chunk that is done with.
    pub(super) fn give_back(&mut self, bytes: Arc<Vec<u8>>) {
        self.spare.extend(Arc::into_inner(bytes));
    }

    fn cut(&mut self, most: usize, out: &mut Vec<Range<usize>>) {
        while out.len() < most && !self.rest.is_empty() {
            let bytes = &self.buffer[self.rest.clone()];
            let end = match self.form {
                Form::Lines => memchr::memchr(b'\n', bytes).map(|at| at + 1),
                Form::Csv(delimiter) => record_end(bytes, delimiter),
            };
            let end = match end {
                Some(end) => end,
                None if self.ended => bytes.len(),
                None => return,
            };
            out.push(self.rest.start..self.rest.start + end);
            self.rest.start += end;
        }
    }

    /// Reads a chunk behind what is left.
    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(&self.buffer[self.rest.clone()]);
        let before = buffer.len();
        (&mut self.input).take(CHUNK as u64).read_to_end(&mut buffer)?;
        self.ended = buffer.len() < before + CHUNK;
        self.rest = 0..buffer.len();
        let used = std::mem::replace(&mut self.buffer, Arc::new(buffer));
        self.give_back(used);
        Ok(())
    }
}
