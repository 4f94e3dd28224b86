//! Files as a source: each is its own log, read from the front, row by row.
//!
//! A position is (file, row). Rows are records of the file (for JSON its lines, blank ones too) counted from 0 behind the header, so the same
//! file always has the same rows. The list of files grows only at its end; a file that shrank or whose head changed stops the source.
//! Blocking: a reader runs on a thread of its own, and decodes on several.

mod decoders;
mod list;
mod options;
mod reader;
mod records;

pub use options::{Compression, FileOptions, Mode, OnEnd, Paths};
pub use reader::{FileBatch, FileReader};
