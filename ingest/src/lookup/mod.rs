//! Where lookup tables come from: today files; whatever can say "these are all my rows now" fits behind [`LookupSource`].
//!
//! A file is read whole and told from the one before by a hash of its content: its time of change proves nothing. A changed file counts
//! once it has been the same in two looks, so that one that is being written is not taken half; better still, write it elsewhere and rename
//! it into place. One that cannot be used is told once, with its line, and the version before goes on.

mod options;
mod read;

pub use options::{LookupFormat, LookupOptions};
pub use read::parse;

use flow::{LookupShape, LookupVersion};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use xxhash_rust::xxh3::xxh3_64;

/// A source of versions of one lookup table.
///
/// A database answers with what a query gives, a compacted topic with the last row of each key; both compare with what they gave before.
pub trait LookupSource: Send {
    /// What its versions look like.
    fn shape(&self) -> &LookupShape;

    /// All rows as they are now; none when they are what the last call that gave some, or failed, found. Blocks. After an error the version
    /// before goes on.
    fn look(&mut self) -> Result<Option<LookupVersion>, LookupError>;
}

/// Why a version cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupError {
    /// The file, or what else it is read from.
    pub from: String,
    /// The line in it, from 1, where one is to blame.
    pub line: Option<u64>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.from, self.message),
            None => write!(f, "{}: {}", self.from, self.message),
        }
    }
}

impl std::error::Error for LookupError {}

/// A lookup table in a file.
#[derive(Debug)]
pub struct FileLookup {
    shape: LookupShape,
    options: LookupOptions,
    looked: bool,
    /// Hash of the content that was given out or refused last.
    judged: Option<u64>,
    /// Hash of a new content that was seen once.
    seen: Option<u64>,
    /// Why the file could not be read in the last look.
    unread: Option<String>,
}

impl FileLookup {
    /// A table that was not read yet.
    #[must_use]
    pub fn new(shape: LookupShape, options: LookupOptions) -> Self {
        Self { shape, options, looked: false, judged: None, seen: None, unread: None }
    }

    /// The file's content, at most one byte more than allowed.
    fn content(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![];
        File::open(&self.options.path)?.take(self.options.max_bytes.0.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl LookupSource for FileLookup {
    fn shape(&self) -> &LookupShape {
        &self.shape
    }

    fn look(&mut self) -> Result<Option<LookupVersion>, LookupError> {
        let is_first = !std::mem::replace(&mut self.looked, true);
        let bytes = match self.content() {
            Ok(bytes) => bytes,
            Err(error) => {
                let message = error.to_string();
                let is_known = self.unread.replace(message.clone()).as_ref() == Some(&message);
                let error = LookupError { from: self.options.path.clone(), line: None, message };
                return if is_known { Ok(None) } else { Err(error) };
            }
        };
        self.unread = None;
        let hash = xxh3_64(&bytes);
        if self.judged == Some(hash) {
            self.seen = None;
            return Ok(None);
        }
        if !is_first && self.seen.replace(hash) != Some(hash) {
            return Ok(None);
        }
        self.judged = Some(hash);
        parse(&self.shape, &self.options, &self.options.path, bytes).map(Some)
    }
}

#[cfg(test)]
mod tests;
