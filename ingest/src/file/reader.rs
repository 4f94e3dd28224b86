//! Reads a source's files one after the other, a batch at a time, some batches ahead of what is asked for.

use super::decoders::{Decoders, Job, OfFile};
use super::records::{Form, Records};
use super::{FileOptions, list};
use crate::Rejected;
use crate::decode::{Decoder, Format};
use flow::{Batch, Error, Offset, Position, Remedy, Result, WallTime};
use std::sync::Arc;

/// Most records in a batch: the batch size of the operators behind.
const BATCH: usize = 8192;

/// What some following records of one file gave.
#[derive(Debug)]
pub struct FileBatch {
    /// Index of the file in `FileReader::files`.
    pub file: usize,
    /// The rows, with their numbers in the file as trail column `OFFSET`.
    pub rows: Batch,
    /// The records that could not be used, with their numbers in the file.
    pub rejects: Vec<(u64, Rejected)>,
    /// Everything of the file below is in this batch or an earlier one.
    pub next_row: Offset,
    /// Nothing of the file follows.
    pub end_of_file: bool,
}

/// Reads the files of one source.
pub struct FileReader {
    options: FileOptions,
    format: Format,
    decoders: Decoders,
    files: Vec<Position>,
    /// Where reading stands: ahead of what was handed out.
    file: usize,
    row: u64,
    open: Option<(Records, Arc<OfFile>)>,
    /// The file is read to its end.
    ended: bool,
}

impl FileReader {
    /// Lists the files: those of `known` in their order, then new ones by path, found at `now`. Reading begins at the file after the last
    /// one that has been begun, or inside that. Each of `decoders`, which are alike, works on a thread of its own. An error (`Stop`) when a
    /// known file shrank or changed its head.
    pub fn open(
        source: &Arc<str>,
        options: FileOptions,
        format: Format,
        decoders: Vec<Box<dyn Decoder>>,
        known: &[Position],
        now: WallTime,
    ) -> Result<Self> {
        let mut files = known.to_vec();
        files.iter().try_for_each(list::verify)?;
        list::extend(&options, &mut files, now)?;
        let file = files.iter().rposition(|f| f.next > Offset(0)).unwrap_or(0);
        let row = files.get(file).map_or(0, |f| f.next.0);
        let decoders = Decoders::start(source, format, decoders)?;
        Ok(Self { options, format, decoders, files, file, row, open: None, ended: false })
    }

    /// The files in the order in which they are read; `next` is where `open` was told they stand.
    #[must_use]
    pub fn files(&self) -> &[Position] {
        &self.files
    }

    /// Goes to a row of a file. Rows before it are passed over without being decoded.
    pub fn start_at(&mut self, file: usize, row: Offset) {
        assert!(file <= self.files.len(), "file {file} of {}", self.files.len());
        while self.decoders.take().is_some() {}
        self.go_to(file, row.0);
    }

    fn go_to(&mut self, file: usize, row: u64) {
        (self.file, self.row, self.open, self.ended) = (file, row, None, false);
    }

    /// Looks for new files (`mode = "watch"`), found at `now`. Returns whether there are any.
    pub fn look(&mut self, now: WallTime) -> Result<bool> {
        let before = self.files.len();
        list::extend(&self.options, &mut self.files, now)?;
        Ok(self.files.len() > before)
    }

    /// The next batch, at most 8,192 records; none behind the last file. A batch may be empty (at the end of a file). An error (`Stop`) when
    /// a file cannot be read, its header lacks a declared field, or it ends before the row at which reading was to begin.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results invites going on after an error")]
    pub fn next(&mut self) -> Result<Option<FileBatch>> {
        // An error comes behind what was read before it.
        let ahead = self.read_ahead();
        let Some((batch, bytes)) = self.decoders.take() else { return ahead.map(|()| None) };
        if let Some((records, _)) = &mut self.open {
            records.give_back(bytes);
        }
        let batch = batch?;
        if batch.end_of_file {
            self.go_to(self.file + 1, 0);
        }
        Ok(Some(batch))
    }

    /// Gives the decoders what they have room for.
    fn read_ahead(&mut self) -> Result<()> {
        while !self.ended && self.decoders.has_room() {
            let Some(position) = self.files.get(self.file) else { return Ok(()) };
            if self.open.is_none() {
                list::verify(position)?;
                self.open = Some(self.open_file(position)?);
            }
            let (records, file) = self.open.as_mut().expect("opened above");
            let chunk = records.next(BATCH).map_err(|e| Error::stop(format!("reading {}", file.path), e))?;
            let (first, count) = (self.row, chunk.places.len());
            self.decoders.give(Job { file: file.clone(), first, chunk })?;
            self.row += count as u64;
            self.ended = count == 0;
        }
        Ok(())
    }

    /// Opens a file, reads its header and goes to the row at which to begin.
    fn open_file(&self, position: &Position) -> Result<(Records, Arc<OfFile>)> {
        let path = &position.log;
        let failed = |e| Error::stop(format!("reading {path}"), e);
        let form = match self.format {
            Format::Json => Form::Lines,
            Format::Csv => Form::Csv(self.options.csv.delimiter as u8),
        };
        let mut records = Records::open(path, self.options.compression, form).map_err(failed)?;
        let mut header = None;
        if self.format == Format::Csv && self.options.csv.header {
            let chunk = records.next(1).map_err(failed)?;
            // A file without a single byte has no header and no rows.
            header = chunk.places.first().map(|place| chunk.bytes[place.clone()].to_vec());
        }
        let mut left = self.row;
        while left > 0 {
            let passed = records.next(BATCH.min(usize::try_from(left).unwrap_or(BATCH))).map_err(failed)?.places.len();
            if passed == 0 {
                return Err(Error::new(Remedy::Stop, format!("{path} has {} rows, {} were read", self.row - left, self.row)));
            }
            left -= passed as u64;
        }
        let arrival = position.file.map_or(WallTime(0), |mark| mark.found);
        Ok((records, Arc::new(OfFile { number: self.file, path: path.clone(), arrival, header })))
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
