//! Decoders: pure functions from messages to columns, plus the messages that could not be used.
//!
//! A decoder never fails: what a device can cause is a `Reject`, and one bad message costs only itself. What a user can get wrong is found
//! when the decoder is made, as an `OptionError` that names the key.

mod csv;
mod json;
mod layout;
mod options;
mod path;
mod scan;
mod shape;
mod time;
mod topic;
mod value;

pub(crate) use csv::{record_end, without_line_end};
pub use options::{ColumnOptions, Columns, CsvOptions, DecodeOptions, EventTimeOptions, Format, OnMissing};
pub use topic::TopicPattern;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use flow::{Reason, WallTime};
use layout::Layout;
use std::sync::Arc;

/// A mistake in the options of a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct OptionError {
    /// The key inside the source's table, e.g. `columns.t.type`.
    pub path: String,
    /// What is wrong, naming the value.
    pub message: String,
    /// What to write instead, where we know.
    pub hint: Option<String>,
}

/// A message as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its topic, or the path of its file.
    pub topic: Option<&'a str>,
    /// Values of the topic's named captures, in the order given to `decoder`.
    pub captures: &'a [&'a str],
    /// The bytes.
    pub payload: &'a [u8],
}

/// What became of a slice of messages. A message has either rows or one reject; one without readings (an empty array) has neither.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The rows, in the order of their messages; the columns are those of `Decoder::schema`.
    pub rows: RecordBatch,
    /// For each row the index of its message; never falls.
    pub messages: Vec<u32>,
    /// The messages that could not be used, in their order.
    pub rejects: Vec<Reject>,
}

/// A message that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Index of the message.
    pub message: u32,
    /// Why.
    pub reason: Reason,
    /// What a person should know beyond the reason.
    pub detail: String,
}

/// Makes columns of messages. It keeps buffers between calls and nothing else: the same messages always give the same rows.
pub trait Decoder: Send {
    /// Captures (`Utf8View`), declared columns in their order, `event_time` last. Captures, key columns and `event_time` are never null.
    fn schema(&self) -> &SchemaRef;

    /// Decodes messages that reached us at `arrival`.
    fn decode(&mut self, messages: &[Message<'_>], arrival: WallTime) -> Decoded;

    /// Takes the header of the file that follows. An error when a declared field is not in it. Only CSV has one.
    fn begin(&mut self, _header: &[u8]) -> Result<(), OptionError> {
        Ok(())
    }
}

/// The columns that the decoder of these options makes. `captures` are the topic's named levels, `key` the key columns of the source.
pub fn schema(decode: &DecodeOptions, columns: &Columns, captures: &[String], key: &[String]) -> Result<SchemaRef, OptionError> {
    decoder(decode, columns, captures, key).map(|d| d.schema().clone())
}

/// Makes a decoder for messages. CSV messages are records without a header.
pub fn decoder(decode: &DecodeOptions, columns: &Columns, captures: &[String], key: &[String]) -> Result<Box<dyn Decoder>, OptionError> {
    decoder_with(decode, columns, captures, key, &CsvOptions { header: false, ..CsvOptions::default() })
}

/// Makes a decoder, with a word on how CSV is written.
pub fn decoder_with(
    decode: &DecodeOptions,
    columns: &Columns,
    captures: &[String],
    key: &[String],
    csv: &CsvOptions,
) -> Result<Box<dyn Decoder>, OptionError> {
    let layout = Arc::new(Layout::new(decode, columns, captures, key)?);
    Ok(match decode.format {
        Format::Json => Box::new(json::Json::new(decode, layout)?),
        Format::Csv => Box::new(csv::Csv::new(decode, layout, csv)?),
    })
}
