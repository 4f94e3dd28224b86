//! Decoders: pure functions from messages to columns, plus the messages that could not be used.
//!
//! A decoder never fails: what a device can cause is a `Reject`, and one bad message costs only itself. What a user can get wrong is found
//! when the decoder is made, as an `OptionError` that names the key.

mod options;

pub use options::{ColumnOptions, Columns, DecodeOptions, EventTimeOptions, Format, OnMissing};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use flow::{Reason, WallTime};

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
}
