//! The records of one file, a chunk at a time.

use super::Compression;
use crate::decode::record_end;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::Range;

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

/// Cuts a file into records.
pub(super) struct Records {
    input: Box<dyn Read + Send>,
    form: Form,
    buffer: Vec<u8>,
    /// The part of `buffer` that is not handed out yet.
    rest: Range<usize>,
    ended: bool,
}

impl Records {
    pub(super) fn open(path: &str, compression: Compression, form: Form) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut magic = [0; 2];
        let read = file.read(&mut magic)?;
        file.rewind()?;
        let gzip = compression == Compression::Gzip || compression == Compression::Auto && read == 2 && magic == [0x1f, 0x8b];
        let input: Box<dyn Read + Send> = if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut records = Self { input, form, buffer: vec![], rest: 0..0, ended: false };
        records.fill()?;
        // A byte order mark is no part of the first record.
        if records.buffer[records.rest.clone()].starts_with(b"\xef\xbb\xbf") {
            records.rest.start += 3;
        }
        Ok(records)
    }

    /// Puts the places of at most `most` whole records into `out`; they stay in `bytes` until the next call. None are left when it is empty.
    pub(super) fn next(&mut self, most: usize, out: &mut Vec<Range<usize>>) -> io::Result<()> {
        out.clear();
        loop {
            self.cut(most, out);
            if !out.is_empty() || (self.ended && self.rest.is_empty()) {
                return Ok(());
            }
            if self.rest.len() > MAX_RECORD {
                return Err(io::Error::other(format!("a record is longer than {MAX_RECORD} bytes")));
            }
            self.fill()?;
        }
    }

    /// The bytes in which the last records lie.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer
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

    /// Moves what is left to the front and reads a chunk behind it.
    fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.rest.start);
        self.buffer.truncate(self.rest.len());
        let before = self.buffer.len();
        (&mut self.input).take(CHUNK as u64).read_to_end(&mut self.buffer)?;
        self.ended = self.buffer.len() < before + CHUNK;
        self.rest = 0..self.buffer.len();
        Ok(())
    }
}
