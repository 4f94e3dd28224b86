//! `join`: pairs of rows of two streams, left and right, that agree in a key and lie close in time:
//!
//! ```text
//!   left.event_time − before  ≤  right.event_time  ≤  left.event_time + after        (a null key agrees with none)
//! ```
//! A pair comes out when the later to arrive of the two comes, with the greater of the two event times, so it is never behind the
//! watermark. With `join = "left"` a left row that found no right row comes out alone, with its own event time, once none can come any
//! more (W > event time + `after`); what reads the join then has its watermark `after` behind, so that such a row is not late there.
//!
//! A row that is behind the watermark is late, and in no pair: what it belongs to may be gone. So the pairs are those of all rows that
//! came in time, however the two streams are split into batches and mixed. Rows are held until nothing in time can match them: left ones
//! while event time + `after` ≥ W, right ones while event time ≥ W − `before`; `max_rows` and `max_state` bound them.

mod chunks;
mod output;
mod pairing;
mod shape;
mod side;
#[cfg(test)]
mod tests;

use crate::{BuildError, Duration};
use arrow::datatypes::SchemaRef;
use bytesize::ByteSize;
use flow::Operator;
use indexmap::IndexMap;
use pairing::Pairing;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shape::Shape;

/// Options of a join, without `type` and `inputs`: the first input is left, the second right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinOptions {
    /// Columns in which a pair agrees; both inputs have them, of the same types.
    pub key: Vec<String>,
    /// How much earlier than the left row the right one may be.
    #[serde(default = "no_time")]
    pub before: Duration,
    /// How much later than the left row the right one may be.
    #[serde(default = "no_time")]
    pub after: Duration,
    /// What becomes of left rows without a right one.
    #[serde(default)]
    pub join: Unmatched,
    /// Output columns beside the key and `event_time`: name = `"left.column"` or `"right.column"`. If left out: all columns of both.
    #[serde(default)]
    pub select: IndexMap<String, String>,
    /// What stands before the names of the right columns where all are taken, and in the table of late rows.
    #[serde(default = "right")]
    pub prefix: String,
    /// How many rows of both sides may be held; further ones are dead letters with reason `state_limit`.
    #[serde(default = "million")]
    pub max_rows: u64,
    /// How many bytes of rows may be held; further ones are dead letters with reason `state_limit`.
    #[serde(default = "gibibyte")]
    #[schemars(with = "String")]
    pub max_state: ByteSize,
}

/// What becomes of left rows without a right one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unmatched {
    /// They are left out.
    #[default]
    Inner,
    /// They come out with nulls in the right columns.
    Left,
}

/// The columns of rows that come too late: the key, the left columns, the right columns with the prefix, `event_time`.
pub fn columns(options: &JoinOptions, left: &SchemaRef, right: &SchemaRef) -> Result<SchemaRef, BuildError> {
    shape::late(options, left, right)
}

/// Builds the operator for rows of these two schemas; rows come in by `on_input`, 0 for left and 1 for right.
pub fn build(options: &JoinOptions, left: &SchemaRef, right: &SchemaRef) -> Result<Box<dyn Operator>, BuildError> {
    if options.key.is_empty() {
        return Err(BuildError::new("key", "no column is named").hint("name the columns in which a pair agrees"));
    }
    if options.max_rows == 0 {
        return Err(BuildError::new("max_rows", "with no row there is no pair"));
    }
    if options.max_state.as_u64() == 0 {
        return Err(BuildError::new("max_state", "with no state there is no pair"));
    }
    Ok(Box::new(Pairing::new(options, Shape::new(options, left, right)?)?))
}

fn no_time() -> Duration {
    Duration::from_secs(0)
}

fn right() -> String {
    "right_".into()
}

/// 100,000 readings a second over 10 seconds; at about 200 bytes each it is 200 MB.
fn million() -> u64 {
    1_000_000
}

fn gibibyte() -> ByteSize {
    ByteSize::gib(1)
}
