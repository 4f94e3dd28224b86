//! `deadband`: report by exception. A reading passes when a watched column has moved far enough from what was last reported for its
//! key, when nothing was reported for `heartbeat`, or when it is the first; the others are counted as filtered.
//!
//! Readings of a key are compared in the order of their event time: one that is older than the newest of its key is late.

use crate::keyed::{Forget, KeyState, Keyed, effective, million, week};
use crate::values::{self, number_column, numbers};
use crate::{BuildError, Duration, error};
use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use flow::{Batch, Count, Error, EventTime, Operator, Output, Result, StateReader, StateWriter};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Options of a deadband, without `type` and `inputs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadbandOptions {
    /// Columns that name the device; at least one.
    pub key: Vec<String>,
    /// Columns of numbers: a reading passes when one has moved by more than this, in the column's unit.
    #[serde(default)]
    pub absolute: IndexMap<String, f64>,
    /// Columns of numbers: a reading passes when one has moved by more than this many percent of what was last reported.
    #[serde(default)]
    pub percent: IndexMap<String, f64>,
    /// Columns of any type: a reading passes when one is another than last reported.
    #[serde(default)]
    pub change: Vec<String>,
    /// A reading passes when the last reported one of its key is at least this much older; never if left out.
    #[serde(default)]
    pub heartbeat: Option<Duration>,
    /// How many keys are held; readings of further ones are dead letters with reason `state_limit`.
    #[serde(default = "million")]
    pub max_keys: u64,
    /// A key of which nothing came for this long is forgotten; its next reading is a first one.
    #[serde(default = "week")]
    pub forget_after: Duration,
}

/// Builds the operator for rows of the schema `input`.
pub fn build(options: &DeadbandOptions, input: &SchemaRef) -> Result<Box<dyn Operator>, BuildError> {
    let keys = Keyed::new(&options.key, options.max_keys, input)?;
    let mut watched = vec![];
    for (section, bands) in [("absolute", &options.absolute), ("percent", &options.percent)] {
        for (name, width) in bands {
            let key = format!("{section}.{name}");
            let at = number_column(input, &key, name)?;
            if !(width.is_finite() && *width >= 0.0) {
                return Err(BuildError::new(key, format!("{width} is not a width")));
            }
            let band = if section == "absolute" { Band::Absolute(*width) } else { Band::Percent(*width / 100.0) };
            watched.push((at, band));
        }
    }
    for (at, name) in options.change.iter().enumerate() {
        let key = format!("change.{at}");
        let column = error::column(input, &key, name)?;
        let fields = vec![SortField::new(input.field(column).data_type().clone())];
        let converter = RowConverter::new(fields).map_err(|e| BuildError::new(key, e.to_string()))?;
        watched.push((column, Band::Change(converter)));
    }
    if watched.is_empty() {
        return Err(BuildError::new("absolute", "no column is watched").hint("name columns in `absolute`, `percent` or `change`"));
    }
    let (heartbeat, forget) = (options.heartbeat.map_or(i64::MAX, |h| h.0.0), Forget::new(options.forget_after.0.0));
    Ok(Box::new(Deadband { schema: input.clone(), keys, watched, heartbeat, forget, watermark: i64::MIN, slots: vec![] }))
}

/// How far a column may move in silence.
enum Band {
    /// In its unit.
    Absolute(f64),
    /// As a share of what was reported.
    Percent(f64),
    /// Not at all; values are compared by a 64-bit hash.
    Change(RowConverter),
}

/// What was reported of a key.
#[derive(Default)]
struct Reported {
    /// Newest event time, reported or not, and the effective one.
    newest: i64,
    seen: i64,
    /// Event time of what was reported.
    at: i64,
    /// One a watched column; empty for a new key. Hashes stand in the bits of a number.
    values: Vec<Option<f64>>,
}

impl KeyState for Reported {
    fn write(&self, words: &mut Vec<i64>) {
        words.extend([self.newest, self.seen, self.at]);
        self.values.iter().for_each(|v| values::write(*v, words));
    }

    fn read(words: &[i64]) -> Option<Self> {
        let (times, values) = words.split_at_checked(3)?;
        let values = values.chunks(2).map(values::read).collect::<Option<_>>()?;
        Some(Self { newest: times[0], seen: times[1], at: times[2], values })
    }
}

struct Deadband {
    schema: SchemaRef,
    keys: Keyed<Reported>,
    watched: Vec<(usize, Band)>,
    heartbeat: i64,
    forget: Forget,
    watermark: i64,
    slots: Vec<u32>,
}

impl Operator for Deadband {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let mut slots = std::mem::take(&mut self.slots);
        let batch = self.keys.admit(batch, &mut slots, out)?;
        let columns: Vec<Float64Array> =
            self.watched.iter().map(|(at, band)| band.values(batch.rows().column(*at))).collect::<Result<_>>()?;
        let now = effective(&batch, self.watermark);
        let (mut keep, mut late) = (vec![false; slots.len()], vec![false; slots.len()]);
        for (row, slot) in slots.iter().enumerate() {
            let (time, seen) = (batch.times()[row], now(row));
            let state = self.keys.touch(*slot);
            let is_new = state.values.is_empty() || self.forget.is_due(state.seen, seen);
            if !is_new && time < state.newest {
                late[row] = true;
                continue;
            }
            (state.newest, state.seen) = (time, if is_new { seen } else { state.seen.max(seen) });
            let value = |column: &Float64Array| (!column.is_null(row)).then(|| column.value(row));
            let moved = || self.watched.iter().zip(&columns).zip(&state.values).any(|((w, c), old)| w.1.is_left(*old, value(c)));
            if is_new || time.saturating_sub(state.at) >= self.heartbeat || moved() {
                keep[row] = true;
                state.at = time;
                state.values.clear();
                state.values.extend(columns.iter().map(value));
            }
        }
        drop(now);
        self.slots = slots;
        put_out(batch, keep, late, out)
    }

    fn on_watermark(&mut self, w: EventTime, _: &mut dyn Output) -> Result<EventTime> {
        self.watermark = w.0;
        if self.forget.look(w.0) {
            let forget = &self.forget;
            self.keys.retain(|state| !forget.is_due(state.seen, w.0));
        }
        Ok(w)
    }

    fn save(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        self.keys.save(to)
    }

    fn load(&mut self, from: &mut dyn StateReader) -> Result<()> {
        self.keys.load(from)
    }

    fn held(&self) -> (u64, u64) {
        self.keys.held()
    }
}

fn put_out(batch: Batch, keep: Vec<bool>, late: Vec<bool>, out: &mut dyn Output) -> Result<()> {
    let (keep, late) = (BooleanArray::from(keep), BooleanArray::from(late));
    if late.has_true() {
        out.late(batch.filter(&late)?);
    }
    let filtered = batch.len() - keep.true_count() - late.true_count();
    if filtered > 0 {
        out.count(Count::Filtered, filtered as u64);
    }
    if keep.has_true() {
        out.rows(if keep.true_count() == batch.len() { batch } else { batch.filter(&keep)? });
    }
    Ok(())
}

impl Band {
    fn values(&self, column: &ArrayRef) -> Result<Float64Array> {
        let Self::Change(converter) = self else { return numbers(column) };
        let rows = converter.convert_columns(std::slice::from_ref(column)).map_err(|e| Error::stop("comparing a column", e))?;
        let hash = |(at, row): (usize, arrow::row::Row<'_>)| column.is_valid(at).then(|| f64::from_bits(xxh3_64(row.as_ref())));
        Ok(rows.iter().enumerate().map(hash).collect())
    }

    fn is_left(&self, old: Option<f64>, new: Option<f64>) -> bool {
        let (Some(old), Some(new)) = (old, new) else { return old.is_some() != new.is_some() };
        match self {
            Self::Absolute(width) => (new - old).abs() > *width || new.is_nan() != old.is_nan(),
            Self::Percent(share) => (new - old).abs() > *share * old.abs() || new.is_nan() != old.is_nan(),
            Self::Change(_) => new.to_bits() != old.to_bits(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Collect, batch, drive, schema};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn deadband(more: serde_json::Value) -> Box<dyn Operator> {
        let mut options = serde_json::json!({ "key": ["device"] });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        build(&serde_json::from_value(options).unwrap(), &schema()).unwrap()
    }

    fn passed(more: serde_json::Value, readings: &[(&str, i64, i64)]) -> (Vec<i64>, Collect) {
        let (mut operator, mut out) = (deadband(more), Collect::default());
        operator.on_batch(batch(readings), &mut out).unwrap();
        (out.rows.iter().flat_map(|b| b.times().to_vec()).collect(), out)
    }

    #[test]
    fn slow_drift_is_seen_because_it_is_measured_from_what_was_reported() {
        let drift = [("a", 1, 10), ("a", 2, 11), ("a", 3, 12), ("b", 4, 12), ("a", 5, 13), ("a", 6, 13)];
        let (times, out) = passed(serde_json::json!({ "absolute": { "value": 2.0 } }), &drift);
        assert_eq!((times, out.count(Count::Filtered)), (vec![1, 4, 5], 3));
    }

    #[test]
    fn a_heartbeat_passes_what_did_not_move() {
        let still = [("a", 0, 5), ("a", 40, 5), ("a", 100, 5), ("a", 150, 5)];
        assert_eq!(passed(serde_json::json!({ "change": ["value"], "heartbeat": "100us" }), &still).0, [0, 100]);
    }

    #[test]
    fn percent_is_of_what_was_reported_and_an_older_reading_is_late() {
        let (times, out) =
            passed(serde_json::json!({ "percent": { "value": 10 } }), &[("a", 1, 100), ("a", 3, 110), ("a", 2, 500), ("a", 4, 111)]);
        assert_eq!((times, out.late.len(), out.count(Count::Filtered)), (vec![1, 4], 1, 1));
    }

    #[test]
    fn mistakes_name_their_key() {
        let key = |more: serde_json::Value| {
            let mut options = serde_json::json!({ "key": ["device"] });
            options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            build(&serde_json::from_value(options).unwrap(), &schema()).err().unwrap().key
        };
        assert_eq!(key(serde_json::json!({})), "absolute");
        assert_eq!(key(serde_json::json!({ "absolute": { "device": 1.0 } })), "absolute.device");
        assert_eq!(key(serde_json::json!({ "percent": { "value": -1.0 } })), "percent.value");
        assert_eq!(key(serde_json::json!({ "change": ["value", "x"] })), "change.1");
        assert_eq!(key(serde_json::json!({ "change": ["value"], "max_keys": 0 })), "max_keys");
    }

    /// Row by row, with nothing but a map.
    fn naive(readings: &[(&str, i64, i64)]) -> (Vec<i64>, usize) {
        let (mut states, mut passed, mut late) = (BTreeMap::<&str, (i64, i64, i64)>::new(), vec![], 0);
        for (device, time, value) in readings {
            let Some((newest, at, old)) = states.get_mut(device) else {
                states.insert(device, (*time, *time, *value));
                passed.push(*time);
                continue;
            };
            if time < newest {
                late += 1;
                continue;
            }
            *newest = *time;
            if (value - *old).abs() > 2 || *time - *at >= 25 {
                (*at, *old) = (*time, *value);
                passed.push(*time);
            }
        }
        (passed, late)
    }

    proptest! {
        #[test]
        fn any_split_and_any_restart_pass_what_a_row_by_row_look_passes(
            picks in prop::collection::vec((0..3usize, 0i64..6, -4i64..12), 1..120),
            steps in prop::collection::vec((1usize..9, 0..3u8), 1..20),
        ) {
            let (names, mut time) = (["a", "b", "c"], 0);
            let readings: Vec<_> = picks.iter().map(|(d, v, step)| (time += step, (names[*d], time, *v)).1).collect();
            let make = || deadband(serde_json::json!({ "absolute": { "value": 2.0 }, "heartbeat": "25us" }));
            let got = drive(&make, &readings, &steps, 5, 1_000_000);
            prop_assert_eq!(&got, &drive(&make, &readings, &[(1, 0)], 5, 1_000_000));
            let (passed, late) = naive(&readings);
            prop_assert_eq!((got.rows.len(), got.late.len()), (passed.len(), late));
            prop_assert_eq!(got.rows.len() + got.late.len() + got.counts[0] as usize, readings.len());
        }
    }
}
