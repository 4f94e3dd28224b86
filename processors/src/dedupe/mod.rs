//! `dedupe`: drops a reading only where it is proven that the same key and sequence has been here before.
//!
//! Each key remembers two spans of its event time, each with a bitmap of sequences: `current`, and `previous`, which ends where
//! `current` begins. A reading is looked up in the span of its event time; the bit is set and the time is not above the span's highest:
//! a duplicate. A new highest time begins a new span when `current` has grown to `horizon`, or when the sequence is not above the
//! highest one (the device's counter was restarted). A reading older than both spans passes and is counted `Unproven`.
//!
//! State: as `keyed` writes it, with the words of `memory`.

mod memory;
mod outdated;
#[cfg(test)]
mod tests;

use crate::duration::Duration;
use crate::keyed::{self, Keyed, million};
use crate::keys::AHEAD;
use crate::{BuildError, error};
use arrow::array::{Array, AsArray, BooleanArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef, UInt64Type};
use arrow::row::{RowConverter, SortField};
use flow::{Batch, Count, EVENT_TIME, Error, EventTime, Operator, Output, Result, StateReader, StateWriter, trail};
use memory::{Memory, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Options of a dedupe, without `type` and `inputs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DedupeOptions {
    /// Columns that name the device; at least one.
    pub key: Vec<String>,
    /// An integer column that the device counts up, or `event_time`. Not with `by = "row"`.
    #[serde(default)]
    pub sequence: Option<String>,
    /// How far back in event time duplicates are recognised, at least.
    #[serde(default = "ten_minutes")]
    pub horizon: Duration,
    /// What makes two readings the same.
    #[serde(default)]
    pub by: By,
    /// How many keys are held; readings of further ones are dead letters with reason `state_limit`. A key is forgotten when the watermark is
    /// `horizon` beyond its last reading.
    #[serde(default = "million")]
    pub max_keys: u64,
}

/// What makes two readings of a key the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Their sequence.
    #[default]
    Sequence,
    /// All their columns, by a 64-bit hash: drops equal readings that a device meant to send twice.
    Row,
}

/// Longer than a broker's usual redelivery after a reconnect.
fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

/// Builds the operator for rows of the schema `input`.
pub fn build(options: &DedupeOptions, input: &SchemaRef) -> Result<Box<dyn Operator>, BuildError> {
    if options.key.is_empty() {
        return Err(BuildError::new("key", "a sequence needs the columns within which it counts"));
    }
    let keys = Keyed::new(&options.key, options.max_keys, input)?;
    Ok(Box::new(Dedupe {
        schema: input.clone(),
        key: options.key.len(),
        sequence: sequence(options, input)?,
        horizon: options.horizon.0.0,
        keys,
        watermark: i64::MIN,
        evicted: i64::MIN,
        slots: vec![],
    }))
}

fn sequence(options: &DedupeOptions, input: &SchemaRef) -> Result<Sequence, BuildError> {
    let fields = |schema: &Schema| schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    match (options.by, options.sequence.as_deref()) {
        (By::Row, None) => RowConverter::new(fields(input)).map(Sequence::Row).map_err(|e| BuildError::new("by", e.to_string())),
        (By::Row, Some(_)) => Err(BuildError::new("sequence", "`by = \"row\"` compares whole rows: leave `sequence` out")),
        (By::Sequence, None) => {
            Err(BuildError::new("sequence", "there is no sequence to compare").hint("name the column, or `event_time`"))
        }
        (By::Sequence, Some(EVENT_TIME)) => Ok(Sequence::Time),
        (By::Sequence, Some(name)) => {
            let at = error::column(input, "sequence", name)?;
            if !input.field(at).data_type().is_integer() {
                return Err(BuildError::new("sequence", format!("`{name}` is {}, not an integer", input.field(at).data_type())));
            }
            Ok(Sequence::Column(at))
        }
    }
}

/// Where a row's sequence comes from.
enum Sequence {
    Column(usize),
    Time,
    Row(RowConverter),
}

struct Dedupe {
    schema: SchemaRef,
    /// How many columns the key has.
    key: usize,
    sequence: Sequence,
    horizon: i64,
    keys: Keyed<Memory>,
    watermark: i64,
    /// W at the last eviction.
    evicted: i64,
    /// Scratch: the slot of each row.
    slots: Vec<u32>,
}

impl Operator for Dedupe {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let mut slots = std::mem::take(&mut self.slots);
        let batch = self.keys.admit(batch, &mut slots, out)?;
        let sequences = self.sequences(&batch)?;
        let marks = batch.trail_column(trail::WATERMARK).map(|m| m.as_primitive::<Int64Type>().values());
        let (ordered, horizon) = (!matches!(self.sequence, Sequence::Row(_)), self.horizon);
        let (times, mut unproven, mut keep) = (batch.times(), 0, Vec::with_capacity(batch.len()));
        for (part, slots) in slots.chunks(AHEAD).enumerate() {
            self.keys.fetch(slots);
            for (row, slot) in (part * AHEAD..).zip(slots) {
                let time = times[row];
                let w = marks.map_or(self.watermark, |m| m[row]);
                let verdict = self.keys.change(*slot, |memory| {
                    if memory.is_new() {
                        memory.floor = w.saturating_sub(horizon);
                    }
                    let verdict = match (sequences.is_null(row), ordered) {
                        (true, _) => Verdict::Unproven,
                        (false, true) => memory.take(sequences.value(row), time, horizon),
                        (false, false) => memory.take_unordered(sequences.value(row), time, horizon),
                    };
                    (verdict == Verdict::New, verdict)
                });
                unproven += u64::from(verdict == Verdict::Unproven);
                keep.push(verdict != Verdict::Duplicate);
            }
        }
        self.slots = slots;
        put_out(batch, keep.into(), unproven, out)
    }

    fn on_watermark(&mut self, w: EventTime, _: &mut dyn Output) -> Result<EventTime> {
        self.watermark = self.watermark.max(w.0);
        // A quarter of the horizon: forgetting costs a pass over all keys.
        if self.watermark.saturating_sub(self.evicted) > (self.horizon / 4).max(1_000_000) {
            self.evicted = self.watermark;
            let edge = self.watermark.saturating_sub(self.horizon);
            self.keys.retain(|memory| memory.highest() >= edge);
        }
        Ok(w)
    }

    fn save(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        self.keys.save(to)
    }

    fn load(&mut self, from: &mut dyn StateReader) -> Result<()> {
        for batch in from.read(keyed::PART)? {
            let (keys, state) = batch.columns().split_at_checked(self.key).unwrap_or_default();
            match state.len() {
                outdated::COLUMNS => self.keys.load_outdated(keys, outdated::memories(state)?)?,
                _ => self.keys.load_batch(&batch)?,
            }
        }
        Ok(())
    }

    fn held(&self) -> (u64, u64) {
        let (keys, bytes) = self.keys.held();
        (keys, bytes + self.keys.iter().map(|(_, memory)| memory.bytes() as u64).sum::<u64>())
    }
}

impl Dedupe {
    /// The rows' sequences as unsigned numbers in the same order.
    fn sequences(&self, batch: &Batch) -> Result<UInt64Array> {
        let failed = |e| Error::stop("reading sequences", e);
        match &self.sequence {
            Sequence::Time => Ok(batch.times().iter().map(|t| Some(ordered(*t))).collect()),
            Sequence::Row(converter) => {
                let rows = converter.convert_columns(batch.rows().columns()).map_err(failed)?;
                Ok(rows.iter().map(|r| Some(xxh3_64(r.as_ref()))).collect())
            }
            Sequence::Column(at) => {
                let column = batch.rows().column(*at);
                if column.data_type().is_unsigned_integer() {
                    return Ok(cast(column, &DataType::UInt64).map_err(failed)?.as_primitive::<UInt64Type>().clone());
                }
                let signed = cast(column, &DataType::Int64).map_err(failed)?;
                Ok(signed.as_primitive::<Int64Type>().unary(ordered))
            }
        }
    }
}

/// Signed numbers as unsigned ones in the same order.
fn ordered(signed: i64) -> u64 {
    signed.cast_unsigned() ^ (1 << 63)
}

fn put_out(batch: Batch, keep: BooleanArray, unproven: u64, out: &mut dyn Output) -> Result<()> {
    let kept = keep.true_count();
    if unproven > 0 {
        out.count(Count::Unproven, unproven);
    }
    if kept < batch.len() {
        out.count(Count::Duplicate, (batch.len() - kept) as u64);
    }
    match kept {
        0 => {}
        all if all == batch.len() => out.rows(batch),
        _ => out.rows(batch.filter(&keep)?),
    }
    Ok(())
}
