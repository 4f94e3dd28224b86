//! `rate`: adds columns with how fast others change, by key: for counters the increase since the reading before (a fall is a restart from
//! zero, as Prometheus' `rate` takes it), for gauges the difference; both divided by the event time between.
//!
//! The rate is null at the first reading, where a value is null, at an equal event time and after more than `max_gap`. A reading that
//! is older than the newest of its key is late.

use crate::keyed::{Forget, KeyState, Keyed, effective, million, week};
use crate::values::{number_column, numbers};
use crate::{BuildError, Duration};
use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Float64Builder, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flow::{Batch, Error, EventTime, Operator, Output, Result, StateReader, StateWriter};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Options of a rate, without `type` and `inputs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateOptions {
    /// Columns that name the device; at least one.
    pub key: Vec<String>,
    /// New columns: name = the column of numbers whose rate it holds. Values are taken as 64-bit floating numbers.
    pub columns: IndexMap<String, String>,
    /// What the columns are.
    #[serde(default)]
    pub kind: RateKind,
    /// The unit of time of the rates: `"1s"` gives changes a second, `"1h"` an hour.
    #[serde(default = "second")]
    pub per: Duration,
    /// After a longer silence there is no rate; none if left out.
    #[serde(default)]
    pub max_gap: Option<Duration>,
    /// How many keys are held; readings of further ones are dead letters with reason `state_limit`.
    #[serde(default = "million")]
    pub max_keys: u64,
    /// A key of which nothing came for this long is forgotten; its next reading is a first one.
    #[serde(default = "week")]
    pub forget_after: Duration,
}

/// What a column is of which a rate is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RateKind {
    /// It only rises, and begins at zero again when the device restarts.
    #[default]
    Counter,
    /// It rises and falls.
    Gauge,
}

fn second() -> Duration {
    Duration::from_secs(1)
}

/// Builds the operator for rows of the schema `input`.
pub fn build(options: &RateOptions, input: &SchemaRef) -> Result<Box<dyn Operator>, BuildError> {
    let keys = Keyed::new(&options.key, options.max_keys, input)?;
    if options.columns.is_empty() {
        return Err(BuildError::new("columns", "there is no rate to make"));
    }
    if options.per.0.0 == 0 {
        return Err(BuildError::new("per", "a rate is over some time"));
    }
    let (mut fields, mut of): (Vec<_>, _) = (input.fields().iter().cloned().collect(), vec![]);
    for (name, column) in &options.columns {
        let key = format!("columns.{name}");
        if input.index_of(name).is_ok() {
            return Err(BuildError::new(key, format!("the input has a column `{name}` already")));
        }
        of.push(number_column(input, &key, column)?);
        fields.push(Arc::new(Field::new(name, DataType::Float64, true)));
    }
    Ok(Box::new(Rate {
        schema: Arc::new(Schema::new(fields)),
        keys,
        of,
        kind: options.kind,
        per: options.per.0.0 as f64,
        max_gap: options.max_gap.map_or(i64::MAX, |g| g.0.0),
        forget: Forget::new(options.forget_after.0.0),
        watermark: i64::MIN,
        slots: vec![],
    }))
}

/// The last values of a key.
#[derive(Default)]
struct Last {
    /// Newest event time, and the effective one.
    newest: i64,
    seen: i64,
    /// One a column of which a rate is made: (event time, value) of its last one that was there; empty for a new key.
    values: Vec<Option<(i64, f64)>>,
}

impl KeyState for Last {
    fn write(&self, words: &mut Vec<i64>) {
        words.extend([self.newest, self.seen]);
        for value in &self.values {
            let (time, number) = value.unwrap_or((0, 0.0));
            words.extend([i64::from(value.is_some()), time, number.to_bits().cast_signed()]);
        }
    }

    fn read(words: &[i64]) -> Option<Self> {
        let (times, values) = words.split_at_checked(2)?;
        let value = |words: &[i64]| match words {
            [0, ..] => Some(None),
            [1, time, bits] => Some(Some((*time, f64::from_bits(bits.cast_unsigned())))),
            _ => None,
        };
        Some(Self { newest: times[0], seen: times[1], values: values.chunks(3).map(value).collect::<Option<_>>()? })
    }
}

struct Rate {
    schema: SchemaRef,
    keys: Keyed<Last>,
    of: Vec<usize>,
    kind: RateKind,
    per: f64,
    max_gap: i64,
    forget: Forget,
    watermark: i64,
    slots: Vec<u32>,
}

impl Operator for Rate {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let mut slots = std::mem::take(&mut self.slots);
        let batch = self.keys.admit(batch, &mut slots, out)?;
        let columns: Vec<Float64Array> = self.of.iter().map(|at| numbers(batch.rows().column(*at))).collect::<Result<_>>()?;
        let now = effective(&batch, self.watermark);
        let mut rates: Vec<_> = columns.iter().map(|c| Float64Builder::with_capacity(c.len())).collect();
        let mut keep = Vec::with_capacity(slots.len());
        for (row, slot) in slots.iter().enumerate() {
            let (time, seen) = (batch.times()[row], now(row));
            let state = self.keys.touch(*slot);
            if state.values.is_empty() || self.forget.is_due(state.seen, seen) {
                *state = Last { newest: time, seen, values: vec![None; columns.len()] };
            }
            keep.push(time >= state.newest);
            if time < state.newest {
                continue;
            }
            (state.newest, state.seen) = (time, state.seen.max(seen));
            for ((column, rates), last) in columns.iter().zip(&mut rates).zip(&mut state.values) {
                let new = (!column.is_null(row)).then(|| (time, column.value(row)));
                rates.append_option(new.and_then(|new| change(self.kind, self.max_gap, (*last)?, new)).map(|c| c * self.per));
                *last = new.or(*last);
            }
        }
        drop(now);
        self.slots = slots;
        self.put_out(batch, keep.into(), rates, out)
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

/// The change a microsecond between two values, if there is one.
fn change(kind: RateKind, max_gap: i64, (before, old): (i64, f64), (time, new): (i64, f64)) -> Option<f64> {
    let gap = time.saturating_sub(before);
    if gap <= 0 || gap > max_gap {
        return None;
    }
    let by = if kind == RateKind::Counter && new < old { new } else { new - old };
    Some(by / gap as f64)
}

impl Rate {
    /// The rows in order with their rates; `rates` has a value for each of them.
    fn put_out(&self, batch: Batch, keep: BooleanArray, rates: Vec<Float64Builder>, out: &mut dyn Output) -> Result<()> {
        let kept = keep.true_count();
        let mut rest = batch;
        if kept < rest.len() {
            let late = arrow::compute::not(&keep).map_err(|e| Error::stop("late rows of a rate", e))?;
            out.late(rest.filter(&late)?);
            rest = rest.filter(&keep)?;
        }
        if kept > 0 {
            let mut columns = rest.rows().columns().to_vec();
            columns.extend(rates.into_iter().map(|mut r| Arc::new(r.finish()) as ArrayRef));
            let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| Error::stop("columns of a rate", e))?;
            out.rows(rest.with_rows(rows)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Collect, batch, drive, schema};
    use arrow::array::AsArray;
    use arrow::datatypes::Float64Type;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn rate(more: serde_json::Value) -> Box<dyn Operator> {
        let mut options = serde_json::json!({ "key": ["device"], "columns": { "speed": "value" }, "per": "1us" });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        build(&serde_json::from_value(options).unwrap(), &schema()).unwrap()
    }

    fn rates(more: serde_json::Value, readings: &[(&str, i64, i64)]) -> Vec<Option<f64>> {
        let (mut operator, mut out) = (rate(more), Collect::default());
        operator.on_batch(batch(readings), &mut out).unwrap();
        out.rows
            .iter()
            .flat_map(|b| b.rows().column_by_name("speed").unwrap().as_primitive::<Float64Type>().iter().collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn a_counter_that_falls_was_restarted_and_a_gauge_that_falls_fell() {
        let readings = [("a", 0, 10), ("b", 1, 7), ("a", 10, 30), ("a", 20, 5)];
        assert_eq!(rates(serde_json::json!({}), &readings), [None, None, Some(2.0), Some(0.5)]);
        assert_eq!(rates(serde_json::json!({ "kind": "gauge" }), &readings), [None, None, Some(2.0), Some(-2.5)]);
    }

    #[test]
    fn there_is_no_rate_over_a_gap_or_within_one_instant() {
        let readings = [("a", 0, 10), ("a", 0, 30), ("a", 10, 40), ("a", 100, 50)];
        assert_eq!(rates(serde_json::json!({ "max_gap": "50us" }), &readings), [None, None, Some(1.0), None]);
    }

    #[test]
    fn a_silent_key_begins_anew() {
        let readings = [("a", 0, 10), ("a", 500, 30)];
        assert_eq!(rates(serde_json::json!({ "forget_after": "100us" }), &readings), [None, None]);
    }

    #[test]
    fn mistakes_name_their_key() {
        let key = |columns: serde_json::Value, per: &str| {
            let options = serde_json::json!({ "key": ["device"], "columns": columns, "per": per });
            build(&serde_json::from_value(options).unwrap(), &schema()).err().unwrap().key
        };
        assert_eq!(key(serde_json::json!({}), "1s"), "columns");
        assert_eq!(key(serde_json::json!({ "value": "value" }), "1s"), "columns.value");
        assert_eq!(key(serde_json::json!({ "x": "device" }), "1s"), "columns.x");
        assert_eq!(key(serde_json::json!({ "x": "value" }), "0s"), "per");
    }

    proptest! {
        #[test]
        fn any_split_and_any_restart_give_the_rates_of_a_row_by_row_look(
            picks in prop::collection::vec((0..3usize, 0i64..50, -4i64..12), 1..120),
            steps in prop::collection::vec((1usize..9, 0..3u8), 1..20),
        ) {
            let (names, mut time) = (["a", "b", "c"], 0);
            let readings: Vec<_> = picks.iter().map(|(d, v, step)| (time += step, (names[*d], time, *v)).1).collect();
            let make = || rate(serde_json::json!({}));
            let got = drive(&make, &readings, &steps, 5, 1_000_000);
            prop_assert_eq!(&got, &drive(&make, &readings, &[(1, 0)], 5, 1_000_000));
            let (mut last, mut want, mut late) = (BTreeMap::<&str, (i64, i64)>::new(), vec![], 0);
            for (device, time, value) in &readings {
                match last.get(device) {
                    Some((before, _)) if time < before => late += 1,
                    Some((before, old)) => {
                        let by = if value < old { *value } else { value - old };
                        want.push((time > before).then(|| by as f64 / (time - before) as f64));
                        last.insert(device, (*time, *value));
                    }
                    None => {
                        want.push(None);
                        last.insert(device, (*time, *value));
                    }
                }
            }
            prop_assert_eq!((got.rows.len(), got.late.len()), (want.len(), late));
            let (sum, whole) = (want.iter().flatten().count(), got.rows.iter().filter(|r| r.contains("speed")).count());
            prop_assert_eq!(sum, whole);
            let in_order: Vec<_> = readings.iter().scan(BTreeMap::new(), |newest, r| {
                let is_in_order = newest.get(r.0).is_none_or(|n| r.1 >= *n);
                if is_in_order { newest.insert(r.0, r.1); }
                Some((is_in_order, *r))
            }).filter(|(ok, _)| *ok).map(|(_, r)| r).collect();
            prop_assert_eq!(rates(serde_json::json!({}), &in_order), want);
        }
    }
}
