//! Reads a source's files one after the other and decodes them a batch at a time.

use super::records::{Form, Records};
use super::{FileOptions, list};
use crate::Rejected;
use crate::decode::{Decoded, Decoder, Format, Message, Reject};
use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use flow::{Batch, Error, Offset, Origin, Position, Remedy, Result, WallTime, trail};
use std::ops::Range;
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
    source: Arc<str>,
    options: FileOptions,
    format: Format,
    decoder: Box<dyn Decoder>,
    files: Vec<Position>,
    file: usize,
    row: u64,
    open: Option<Records>,
    places: Vec<Range<usize>>,
}

impl FileReader {
    /// Lists the files: those of `known` in their order, then new ones by path, found at `now`. Reading begins at the file after the last
    /// one that has been begun, or inside that. An error (`Stop`) when a known file shrank or changed its head.
    pub fn open(
        source: Arc<str>,
        options: FileOptions,
        format: Format,
        decoder: Box<dyn Decoder>,
        known: &[Position],
        now: WallTime,
    ) -> Result<Self> {
        let mut files = known.to_vec();
        files.iter().try_for_each(list::verify)?;
        list::extend(&options, &mut files, now)?;
        let file = files.iter().rposition(|f| f.next > Offset(0)).unwrap_or(0);
        let row = files.get(file).map_or(0, |f| f.next.0);
        Ok(Self { source, options, format, decoder, files, file, row, open: None, places: vec![] })
    }

    /// The files in the order in which they are read; `next` is where `open` was told they stand.
    #[must_use]
    pub fn files(&self) -> &[Position] {
        &self.files
    }

    /// Goes to a row of a file. Rows before it are passed over without being decoded.
    pub fn start_at(&mut self, file: usize, row: Offset) {
        assert!(file <= self.files.len(), "file {file} of {}", self.files.len());
        (self.file, self.row, self.open) = (file, row.0, None);
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
        let Some(position) = self.files.get(self.file) else { return Ok(None) };
        let position = position.clone();
        let failed = |e| Error::stop(format!("reading {}", position.log), e);
        if self.open.is_none() {
            list::verify(&position)?;
            self.open = Some(self.open_file(&position.log)?);
        }
        let records = self.open.as_mut().expect("opened above");
        records.next(BATCH, &mut self.places).map_err(failed)?;
        let batch = self.decode(&position)?;
        if batch.end_of_file {
            (self.file, self.row, self.open) = (self.file + 1, 0, None);
        } else {
            self.row = batch.next_row.0;
        }
        Ok(Some(batch))
    }

    /// Opens a file, reads its header and goes to the row at which to begin.
    fn open_file(&mut self, path: &Arc<str>) -> Result<Records> {
        let failed = |e| Error::stop(format!("reading {path}"), e);
        let form = match self.format {
            Format::Json => Form::Lines,
            Format::Csv => Form::Csv(self.options.csv.delimiter as u8),
        };
        let mut records = Records::open(path, self.options.compression, form).map_err(failed)?;
        if self.format == Format::Csv && self.options.csv.header {
            records.next(1, &mut self.places).map_err(failed)?;
            // A file without a single byte has no header and no rows.
            if let Some(place) = self.places.first() {
                let header = &records.bytes()[place.clone()];
                self.decoder.begin(header).map_err(|e| Error::stop(format!("header of {path}"), e))?;
            }
        }
        let mut left = self.row;
        while left > 0 {
            records.next(BATCH.min(usize::try_from(left).unwrap_or(BATCH)), &mut self.places).map_err(failed)?;
            if self.places.is_empty() {
                return Err(Error::new(Remedy::Stop, format!("{path} has {} rows, {} were read", self.row - left, self.row)));
            }
            left -= self.places.len() as u64;
        }
        Ok(records)
    }

    fn decode(&mut self, position: &Position) -> Result<FileBatch> {
        let bytes = self.open.as_ref().expect("a file is open").bytes();
        let arrival = position.file.map_or(WallTime(0), |mark| mark.found);
        // Blank lines are rows without readings. They are told apart here, so that a decoder sees only records.
        let mut numbers = Vec::with_capacity(self.places.len());
        let mut messages = Vec::with_capacity(self.places.len());
        for (number, place) in (self.row..).zip(&self.places) {
            let record = &bytes[place.clone()];
            let payload = record.strip_suffix(b"\n").unwrap_or(record);
            let payload = payload.strip_suffix(b"\r").unwrap_or(payload);
            // In CSV spaces and tabs may be fields.
            let blank = if self.format == Format::Json { payload.trim_ascii().is_empty() } else { payload.is_empty() };
            if !blank {
                numbers.push(number);
                messages.push(Message { topic: Some(&position.log), captures: &[], payload });
            }
        }
        let Decoded { rows, messages: of, rejects } = self.decoder.decode(&messages, arrival);
        let offsets: ArrayRef = Arc::new(UInt64Array::from_iter_values(of.iter().map(|&m| numbers[m as usize])));
        let trail = RecordBatch::try_from_iter([(trail::OFFSET, offsets)]).map_err(|e| Error::stop("numbering rows", e))?;
        let origin = Origin { source: self.source.clone(), producer: 0, topic: Some(position.log.clone()), arrival };
        let reject = |r: Reject| {
            let (number, payload) = (numbers[r.message as usize], messages[r.message as usize].payload);
            let rejected = Rejected {
                source: self.source.clone(),
                topic: Some(position.log.clone()),
                offset: Some(number),
                reason: r.reason,
                detail: r.detail,
                payload: Rejected::cut(payload),
                length: payload.len() as u64,
                arrival,
            };
            (number, rejected)
        };
        Ok(FileBatch {
            file: self.file,
            rejects: rejects.into_iter().map(reject).collect(),
            rows: Batch::new(rows, Arc::new(origin))?.with_trail(Some(trail)),
            next_row: Offset(self.row + self.places.len() as u64),
            end_of_file: self.places.is_empty(),
        })
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
