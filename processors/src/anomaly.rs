//! `anomaly`: says where a number behaves as it did not before, by key, with what it has learned of the key.
//!
//! | kind | said when |
//! |---|---|
//! | `zscore` | the value is far from the mean of the last ones, in their standard deviations |
//! | `mad` | the same by the median and the median absolute deviation, times 1.4826: a few outliers do not hide others |
//! | `ewma` | far from the exponentially weighted mean, in its standard deviations (West 1979, "Updating mean and variance estimates") |
//! | `rate_of_change` | it changed faster than allowed since the reading before |
//! | `stuck` | readings came, and it has stayed within a tolerance for long; once for each time |
//! | `missing` | no reading with a value came for long; once for each time |
//!
//! A value is judged by what came before it, then learned, anomalies too: a new level is normal after a while. A spread of zero judges
//! nothing. Null, NaN and infinite values are no values. Values of a key are taken in the order of their event time: a reading that is
//! older than the newest of its key is late. `missing` counts a reading behind the watermark at the watermark, and is said when the
//! watermark, or a reading, has reached its time; the end of the input by itself misses nothing.

use crate::keyed::{Forget, KeyState, Keyed, effective, million, week};
use crate::presence::origin;
use crate::timers::Timers;
use crate::values::{number_column, numbers};
use crate::{BuildError, Duration};
use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flow::{Batch, Count, Error, EventTime, Operator, Origin, Output, Result, StateReader, StateWriter, event_time_field};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// Makes the median absolute deviation of a normal distribution its standard deviation.
const MAD_TO_DEVIATION: f64 = 1.4826;
/// More values than this cost too much memory for a key, and time for a reading.
const LONGEST_WINDOW: u32 = 1_000;

/// Options of an anomaly, without `type` and `inputs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnomalyOptions {
    /// Columns that name the device; at least one.
    pub key: Vec<String>,
    /// The column of numbers that is watched.
    pub column: String,
    /// Far from the mean of the last values.
    #[serde(default)]
    pub zscore: Option<Spread>,
    /// Far from the median of the last values.
    #[serde(default)]
    pub mad: Option<Spread>,
    /// Far from the exponentially weighted mean.
    #[serde(default)]
    pub ewma: Option<Ewma>,
    /// Changed too fast.
    #[serde(default)]
    pub rate_of_change: Option<RateOfChange>,
    /// Does not change any more.
    #[serde(default)]
    pub stuck: Option<Stuck>,
    /// Does not come any more.
    #[serde(default)]
    pub missing: Option<Missing>,
    /// How many keys are held; readings of further ones are dead letters with reason `state_limit`.
    #[serde(default = "million")]
    pub max_keys: u64,
    /// A key of which nothing came for this long is forgotten and learned anew. Not less than `missing.after`.
    #[serde(default = "week")]
    pub forget_after: Duration,
}

/// `zscore = { … }`, `mad = { … }`: how far from the last values is too far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// How many standard deviations are too far.
    #[serde(default = "four")]
    pub threshold: f64,
    /// How many values are remembered: 3 to 1,000. A key needs 8 bytes for each.
    #[serde(default = "hundred")]
    pub window: u32,
    /// How many values must be there before one is judged: at least 3.
    #[serde(default = "thirty")]
    pub learn: u32,
}

/// `ewma = { … }`: how far from the weighted mean is too far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ewma {
    /// The weight of a new value: above 0, below 1. At 0.1 about the last 20 values count.
    #[serde(default = "tenth")]
    pub alpha: f64,
    /// How many standard deviations are too far.
    #[serde(default = "four")]
    pub threshold: f64,
    /// How many values must be there before one is judged: at least 3.
    #[serde(default = "thirty")]
    pub learn: u32,
}

/// `rate_of_change = { … }`: how fast is too fast.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateOfChange {
    /// The greatest change a second, up or down, in the column's unit.
    pub per_second: f64,
}

/// `stuck = { … }`: how long may it stay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stuck {
    /// How long.
    pub after: Duration,
    /// What counts as the same: no further than this from the value at which it began to stay.
    #[serde(default)]
    pub tolerance: f64,
}

/// `missing = { … }`: how long may it be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Missing {
    /// How long.
    pub after: Duration,
}

/// One normal value in 16,000 lies further out.
fn four() -> f64 {
    4.0
}

fn hundred() -> u32 {
    100
}

fn thirty() -> u32 {
    30
}

fn tenth() -> f64 {
    0.1
}

impl AnomalyOptions {
    fn check(&self) -> Result<(), BuildError> {
        let refuse = |key: &str, message: &str| Err(BuildError::new(key, message));
        for (kind, spread) in [("zscore", self.zscore), ("mad", self.mad)] {
            let Some(Spread { threshold, window, learn }) = spread else { continue };
            if !(3..=LONGEST_WINDOW).contains(&window) {
                return refuse(&format!("{kind}.window"), &format!("{window} values are not between 3 and {LONGEST_WINDOW}"));
            }
            if !(3..=window).contains(&learn) {
                return refuse(&format!("{kind}.learn"), &format!("{learn} values are not between 3 and the window's {window}"));
            }
            positive(&format!("{kind}.threshold"), threshold)?;
        }
        if let Some(Ewma { alpha, threshold, learn }) = self.ewma {
            if !(alpha > 0.0 && alpha < 1.0) {
                return refuse("ewma.alpha", &format!("{alpha} is not between 0 and 1"));
            }
            if learn < 3 {
                return refuse("ewma.learn", &format!("{learn} values are less than 3"));
            }
            positive("ewma.threshold", threshold)?;
        }
        if let Some(limit) = self.rate_of_change {
            positive("rate_of_change.per_second", limit.per_second)?;
        }
        if let Some(Stuck { after, tolerance }) = self.stuck {
            if after.0.0 == 0 {
                return refuse("stuck.after", "every value would be stuck");
            }
            if !(tolerance.is_finite() && tolerance >= 0.0) {
                return refuse("stuck.tolerance", &format!("{tolerance} is not a width"));
            }
        }
        if let Some(Missing { after }) = self.missing {
            if after.0.0 == 0 {
                return refuse("missing.after", "every value would be missing");
            }
            if self.forget_after < after {
                return refuse("forget_after", "a key would be forgotten before it is missed");
            }
        }
        let none = self.zscore.is_none() && self.mad.is_none() && self.ewma.is_none();
        if none && self.rate_of_change.is_none() && self.stuck.is_none() && self.missing.is_none() {
            return Err(BuildError::new("column", "nothing is looked for")
                .hint("add one of `zscore`, `mad`, `ewma`, `rate_of_change`, `stuck`, `missing`"));
        }
        Ok(())
    }

    /// How many values a key remembers.
    fn remembered(&self) -> usize {
        [self.zscore, self.mad].iter().flatten().map(|s| s.window as usize).max().unwrap_or(0)
    }
}

fn positive(key: &str, number: f64) -> Result<(), BuildError> {
    if number.is_finite() && number > 0.0 { Ok(()) } else { Err(BuildError::new(key, format!("{number} is not above 0"))) }
}

/// Builds the operator for rows of the schema `input`. It puts out the key, `kind`, `value` (null for `missing`), `expected` (mean, median,
/// the value before, the value at which it stays), `score` (deviations, change a second, seconds) and `event_time`.
pub fn build(options: &AnomalyOptions, input: &SchemaRef) -> Result<Box<dyn Operator>, BuildError> {
    let keys = Keyed::new(&options.key, options.max_keys, input)?;
    let column = number_column(input, "column", &options.column)?;
    options.check()?;
    let own = ["kind", "value", "expected", "score"];
    if let Some(name) = options.key.iter().find(|k| own.contains(&k.as_str())) {
        return Err(BuildError::new("key", format!("`{name}` is a column of anomalies themselves")).hint("rename it in a `map` before"));
    }
    let mut fields: Vec<_> = keys.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("kind", DataType::Utf8View, false)));
    fields.extend(["value", "expected", "score"].map(|name| Arc::new(Field::new(name, DataType::Float64, true))));
    fields.push(Arc::new(event_time_field()));
    let judge = Judge { options: options.clone(), remembered: options.remembered(), found: vec![], scratch: vec![] };
    Ok(Box::new(Anomaly {
        schema: Arc::new(Schema::new(fields)),
        keys,
        column,
        judge,
        forget: Forget::new(options.forget_after.0.0),
        timers: Timers::default(),
        watermark: i64::MIN,
        slots: vec![],
    }))
}

/// What is known of a key.
#[derive(Default)]
struct Learned {
    is_known: bool,
    /// Event time of the newest value, and the effective one.
    newest: i64,
    seen: i64,
    /// Whether it has been said that the key is missing, or stuck.
    is_missing: bool,
    is_stuck: bool,
    /// The value before.
    before: f64,
    /// Since when, and at which value, it stays.
    since: i64,
    stays: f64,
    /// Values counted for the weighted mean, the mean, and the variance.
    count: i64,
    mean: f64,
    variance: f64,
    /// The last values, the oldest first.
    last: VecDeque<f64>,
}

impl KeyState for Learned {
    fn write(&self, words: &mut Vec<i64>) {
        // A key of which no value came has nothing to be kept: no words, as if it were forgotten.
        if !self.is_known {
            return;
        }
        let bits = |number: f64| number.to_bits().cast_signed();
        words.extend([self.newest, self.seen, i64::from(self.is_missing), i64::from(self.is_stuck), bits(self.before), self.since]);
        words.extend([bits(self.stays), self.count, bits(self.mean), bits(self.variance)]);
        words.extend(self.last.iter().map(|v| bits(*v)));
    }

    fn read(words: &[i64]) -> Option<Self> {
        let number = |word: &i64| f64::from_bits(word.cast_unsigned());
        let [newest, seen, missing, stuck, before, since, stays, count, mean, variance, last @ ..] = words else { return None };
        Some(Self {
            is_known: true,
            newest: *newest,
            seen: *seen,
            is_missing: *missing == 1,
            is_stuck: *stuck == 1,
            before: number(before),
            since: *since,
            stays: number(stays),
            count: *count,
            mean: number(mean),
            variance: number(variance),
            last: last.iter().map(number).collect(),
        })
    }
}

/// A row to be put out.
struct Found {
    slot: u32,
    kind: &'static str,
    value: Option<f64>,
    expected: f64,
    score: f64,
    at: i64,
}

/// What is looked for.
struct Judge {
    options: AnomalyOptions,
    remembered: usize,
    found: Vec<Found>,
    scratch: Vec<f64>,
}

impl Judge {
    /// Says that a key is missing, when its time has come.
    fn miss(&mut self, slot: u32, state: &mut Learned, now: i64) {
        let Some(missing) = self.options.missing else { return };
        let due = state.seen.saturating_add(missing.after.0.0);
        if state.is_known && !state.is_missing && due <= now {
            state.is_missing = true;
            let score = missing.after.0.0 as f64 / 1e6;
            self.found.push(Found { slot, kind: "missing", value: None, expected: state.before, score, at: due });
        }
    }

    /// Judges a value by what is known of its key, then learns it. `now`: its effective time.
    fn take(&mut self, slot: u32, state: &mut Learned, value: f64, time: i64, now: i64) {
        if state.is_known {
            self.spreads(slot, state, value, time);
            self.change(slot, state, value, time);
        }
        self.stay(slot, state, value, time);
        self.learn(state, value);
        (state.is_known, state.is_missing, state.newest, state.before) = (true, false, time, value);
        state.seen = state.seen.max(now);
    }

    fn say(&mut self, slot: u32, kind: &'static str, value: f64, (expected, score): (f64, f64), at: i64) {
        self.found.push(Found { slot, kind, value: Some(value), expected, score, at });
    }

    fn spreads(&mut self, slot: u32, state: &Learned, value: f64, time: i64) {
        if let Some(spread) = self.options.zscore.filter(|s| state.last.len() >= s.learn as usize) {
            let (mean, deviation) = mean_and_deviation(window(state, spread));
            self.far(slot, "zscore", value, mean, deviation, spread.threshold, time);
        }
        if let Some(spread) = self.options.mad.filter(|s| state.last.len() >= s.learn as usize) {
            self.scratch.clear();
            self.scratch.extend(window(state, spread));
            let middle = median(&mut self.scratch);
            self.scratch.iter_mut().for_each(|v| *v = (*v - middle).abs());
            let deviation = MAD_TO_DEVIATION * median(&mut self.scratch);
            self.far(slot, "mad", value, middle, deviation, spread.threshold, time);
        }
        if let Some(ewma) = self.options.ewma.filter(|e| state.count >= i64::from(e.learn)) {
            self.far(slot, "ewma", value, state.mean, state.variance.sqrt(), ewma.threshold, time);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one comparison")]
    fn far(&mut self, slot: u32, kind: &'static str, value: f64, middle: f64, deviation: f64, threshold: f64, at: i64) {
        let score = (value - middle) / deviation;
        if deviation > 0.0 && score.abs() > threshold {
            self.say(slot, kind, value, (middle, score), at);
        }
    }

    fn change(&mut self, slot: u32, state: &Learned, value: f64, time: i64) {
        let Some(limit) = self.options.rate_of_change else { return };
        let seconds = time.saturating_sub(state.newest) as f64 / 1e6;
        let score = (value - state.before) / seconds;
        if seconds > 0.0 && score.abs() > limit.per_second {
            self.say(slot, "rate_of_change", value, (state.before, score), time);
        }
    }

    fn stay(&mut self, slot: u32, state: &mut Learned, value: f64, time: i64) {
        let Some(stuck) = self.options.stuck else { return };
        if !state.is_known || (value - state.stays).abs() > stuck.tolerance {
            (state.stays, state.since, state.is_stuck) = (value, time, false);
        }
        let long = time.saturating_sub(state.since);
        if !state.is_stuck && long >= stuck.after.0.0 {
            state.is_stuck = true;
            self.say(slot, "stuck", value, (state.stays, long as f64 / 1e6), time);
        }
    }

    fn learn(&self, state: &mut Learned, value: f64) {
        if self.remembered > 0 {
            // More than one goes where the window was made shorter since they were saved.
            state.last.drain(..(state.last.len() + 1).saturating_sub(self.remembered));
            state.last.push_back(value);
        }
        if let Some(Ewma { alpha, .. }) = self.options.ewma {
            let off = value - state.mean;
            (state.mean, state.variance) = match state.count {
                0 => (value, 0.0),
                _ => (state.mean + alpha * off, (1.0 - alpha) * (state.variance + alpha * off * off)),
            };
            state.count = state.count.saturating_add(1);
        }
    }
}

/// The values that a spread looks at.
fn window(state: &Learned, spread: Spread) -> impl Iterator<Item = f64> + Clone + '_ {
    state.last.iter().skip(state.last.len().saturating_sub(spread.window as usize)).copied()
}

/// Mean and sample standard deviation, in two passes: no value is lost in a large mean.
fn mean_and_deviation(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let squares: f64 = values.map(|v| (v - mean) * (v - mean)).sum();
    (mean, (squares / (count - 1.0)).sqrt())
}

/// The median; of an even number the mean of the two in the middle.
fn median(values: &mut [f64]) -> f64 {
    let (middle, is_odd) = (values.len() / 2, values.len() % 2 == 1);
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if is_odd {
        return upper;
    }
    let lower = below.iter().copied().max_by(f64::total_cmp).unwrap_or(upper);
    lower + (upper - lower) / 2.0
}

struct Anomaly {
    schema: SchemaRef,
    keys: Keyed<Learned>,
    column: usize,
    judge: Judge,
    forget: Forget,
    timers: Timers,
    watermark: i64,
    slots: Vec<u32>,
}

impl Operator for Anomaly {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let mut slots = std::mem::take(&mut self.slots);
        let batch = self.keys.admit(batch, &mut slots, out)?;
        let values = numbers(batch.rows().column(self.column))?;
        let now = effective(&batch, self.watermark);
        let mut late = vec![false; slots.len()];
        for (row, slot) in slots.iter().enumerate() {
            let (time, now) = (batch.times()[row], now(row));
            let state = self.keys.touch(*slot);
            self.judge.miss(*slot, state, now);
            if state.is_known && self.forget.is_due(state.seen, now) {
                *state = Learned::default();
            }
            if state.is_known && time < state.newest {
                late[row] = true;
                continue;
            }
            let value = values.value(row);
            if values.is_null(row) || !value.is_finite() {
                continue;
            }
            if !state.is_known {
                state.seen = now;
            }
            self.judge.take(*slot, state, value, time, now);
            if let Some(missing) = self.judge.options.missing {
                self.timers.set(*slot, state.seen.saturating_add(missing.after.0.0));
            }
        }
        drop(now);
        self.slots = slots;
        let late = BooleanArray::from(late);
        out.count(Count::Taken, (batch.len() - late.true_count()) as u64);
        if late.has_true() {
            out.late(batch.filter(&late)?);
        }
        self.put_out(batch.origin().clone(), out)
    }

    fn on_watermark(&mut self, w: EventTime, out: &mut dyn Output) -> Result<EventTime> {
        self.watermark = w.0;
        let missing = self.judge.options.missing.map_or(i64::MAX, |m| m.after.0.0);
        while let Some(slot) = self.timers.pop(w.0) {
            let state = self.keys.state(slot);
            let due = state.seen.saturating_add(missing);
            if !state.is_known || state.is_missing {
                continue;
            }
            if due > w.0 {
                self.timers.set(slot, due);
            } else {
                self.judge.miss(slot, self.keys.touch(slot), w.0);
            }
        }
        self.judge.found.sort_by_key(|f| (f.at, f.slot));
        self.put_out(origin(), out)?;
        if self.forget.look(w.0) {
            let forget = &self.forget;
            self.keys.retain(|state| state.is_known && !forget.is_due(state.seen, w.0));
        }
        Ok(w)
    }

    fn next_timer(&self, w: EventTime) -> Option<EventTime> {
        self.timers.next(w.0).map(EventTime)
    }

    fn save(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        self.keys.save(to)
    }

    fn load(&mut self, from: &mut dyn StateReader) -> Result<()> {
        self.keys.load(from)?;
        if let Some(missing) = self.judge.options.missing {
            for (slot, state) in self.keys.iter().filter(|(_, s)| s.is_known && !s.is_missing) {
                self.timers.set(slot, state.seen.saturating_add(missing.after.0.0));
            }
        }
        Ok(())
    }

    fn held(&self) -> (u64, u64) {
        let (keys, bytes) = self.keys.held();
        (keys, bytes + keys * (self.judge.remembered * size_of::<f64>()) as u64)
    }
}

impl Anomaly {
    fn put_out(&mut self, origin: Arc<Origin>, out: &mut dyn Output) -> Result<()> {
        if self.judge.found.is_empty() {
            return Ok(());
        }
        let found = std::mem::take(&mut self.judge.found);
        let mut columns = self.keys.key_columns(&found.iter().map(|f| f.slot).collect::<Vec<_>>())?;
        let number = |of: fn(&Found) -> Option<f64>| -> ArrayRef { Arc::new(found.iter().map(of).collect::<Float64Array>()) };
        columns.push(Arc::new(StringViewArray::from_iter_values(found.iter().map(|f| f.kind))));
        columns.extend([number(|f| f.value), number(|f| Some(f.expected)), number(|f| Some(f.score))]);
        columns.push(Arc::new(TimestampMicrosecondArray::from_iter_values(found.iter().map(|f| f.at)).with_timezone("UTC")));
        let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| Error::stop("rows of an anomaly", e))?;
        out.count(Count::Emitted, rows.num_rows() as u64);
        out.rows(Batch::new(rows, origin)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{drive, schema};
    use arrow::array::AsArray;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn options(more: &serde_json::Value) -> AnomalyOptions {
        let mut options = json!({ "key": ["device"], "column": "value" });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(options).unwrap()
    }

    fn anomaly(more: &serde_json::Value) -> Box<dyn Operator> {
        build(&options(more), &schema()).unwrap()
    }

    /// (kind, value, expected, score) of the rows, sorted.
    fn said(more: &serde_json::Value, readings: &[(&str, i64, i64)], end: i64) -> Vec<(String, Option<f64>, f64, f64)> {
        let got = drive(&|| anomaly(more), readings, &[(3, 1)], 0, end);
        let rows = got.rows.iter().map(|r| serde_json::from_str::<serde_json::Value>(r).unwrap());
        rows.map(|r| {
            (r["kind"].as_str().unwrap().to_owned(), r["value"].as_f64(), r["expected"].as_f64().unwrap(), r["score"].as_f64().unwrap())
        })
        .collect()
    }

    fn series(values: &[i64]) -> Vec<(&'static str, i64, i64)> {
        values.iter().zip(1..).map(|(v, at)| ("a", at * 1_000_000, *v)).collect()
    }

    #[test]
    fn a_value_far_from_the_last_ones_is_said_by_each_measure_of_spread() {
        let readings = series(&[10, 12, 11, 10, 12, 11, 30]);
        let spread = json!({ "window": 6, "learn": 4 });
        let z = said(&json!({ "zscore": spread }), &readings, 0);
        assert_eq!((z.len(), z[0].1, z[0].2), (1, Some(30.0), 11.0));
        let deviation = (4.0_f64 / 5.0).sqrt();
        assert!((z[0].3 - 19.0 / deviation).abs() < 1e-12, "{}", z[0].3);
        // Deviations from the median 11 are 1 1 0 1 1 0: their median is 1.
        let mad = said(&json!({ "mad": spread }), &readings, 0);
        assert_eq!((mad.len(), mad[0].1, mad[0].2), (1, Some(30.0), 11.0));
        assert!((mad[0].3 - 19.0 / 1.4826).abs() < 1e-12, "{}", mad[0].3);
        assert_eq!(said(&json!({ "ewma": { "alpha": 0.5, "learn": 4 } }), &readings, 0).len(), 1);
        assert!(said(&json!({ "zscore": { "window": 10, "learn": 7 } }), &readings, 0).is_empty(), "nothing is judged while it learns");
    }

    #[test]
    fn a_fast_change_a_stuck_value_and_silence_are_said_once() {
        let fast = said(&json!({ "rate_of_change": { "per_second": 5.0 } }), &series(&[1, 4, 14, 14]), 0);
        assert_eq!(fast, [("rate_of_change".to_owned(), Some(14.0), 4.0, 10.0)]);
        let stuck = said(&json!({ "stuck": { "after": "3s", "tolerance": 1.0 } }), &series(&[5, 6, 5, 4, 5, 9, 9]), 0);
        assert_eq!(stuck, [("stuck".to_owned(), Some(4.0), 5.0, 3.0)]);
        let gap = [("a", 1_000_000, 5), ("a", 2_000_000, 5), ("a", 9_000_000, 5)];
        let missing = said(&json!({ "missing": { "after": "3s" } }), &gap, 10_000_000);
        assert_eq!(missing, [("missing".to_owned(), None, 5.0, 3.0)]);
    }

    #[test]
    fn a_key_without_a_value_is_new_after_a_restart_too() {
        let more = json!({ "rate_of_change": { "per_second": 1.0 }, "column": "nothing" });
        let mut fields: Vec<_> = schema().fields().iter().cloned().collect();
        fields.insert(2, Arc::new(Field::new("nothing", DataType::Float64, true)));
        let with_nothing: arrow::datatypes::SchemaRef = Arc::new(Schema::new(fields));
        let rows = |time: i64, value: Option<f64>| {
            let plain = crate::testing::batch(&[("a", time, 1)]);
            let mut columns = plain.rows().columns().to_vec();
            columns.insert(2, Arc::new(Float64Array::from(vec![value])));
            plain.with_rows(RecordBatch::try_new(with_nothing.clone(), columns).unwrap()).unwrap()
        };
        let (mut parts, mut out) = (crate::testing::Parts::default(), crate::testing::Collect::default());
        let mut operator = build(&options(&more), &with_nothing).unwrap();
        operator.on_batch(rows(1, None), &mut out).unwrap();
        operator.save(&mut parts).unwrap();
        let mut operator = build(&options(&more), &with_nothing).unwrap();
        operator.load(&mut parts).unwrap();
        operator.on_batch(rows(2, Some(50.0)), &mut out).unwrap();
        assert!(out.rows.is_empty(), "the first value is no change");
        operator.on_batch(rows(3, Some(90.0)), &mut out).unwrap();
        assert_eq!((out.rows.len(), out.count(Count::Taken)), (1, 3));
    }

    #[test]
    fn what_is_alike_has_no_spread_and_judges_nothing() {
        assert!(said(&json!({ "zscore": { "window": 5, "learn": 3 } }), &series(&[7, 7, 7, 7, 8]), 0).is_empty());
    }

    #[test]
    fn a_window_that_was_made_shorter_forgets_the_oldest_values() {
        let of = |window: u32| anomaly(&json!({ "zscore": { "window": window, "learn": 3 } }));
        let (mut parts, mut out) = (crate::testing::Parts::default(), crate::testing::Collect::default());
        let mut operator = of(8);
        operator.on_batch(crate::testing::batch(&series(&[1, 2, 3, 4, 5, 6, 7, 8])), &mut out).unwrap();
        operator.save(&mut parts).unwrap();
        let mut operator = of(4);
        operator.load(&mut parts).unwrap();
        operator.on_batch(crate::testing::batch(&[("a", 9_000_000, 9)]), &mut out).unwrap();
        let mut parts = crate::testing::Parts::default();
        operator.save(&mut parts).unwrap();
        let words = parts.0["keys"][0].column(1).as_list::<i32>().value(0);
        assert_eq!(words.len(), 10 + 4, "ten words and the last four values");
    }

    #[test]
    fn mistakes_name_their_key() {
        let key = |more| build(&options(&more), &schema()).err().unwrap().key;
        assert_eq!(key(json!({})), "column");
        assert_eq!(key(json!({ "column": "device", "missing": { "after": "1s" } })), "column");
        assert_eq!(key(json!({ "zscore": { "window": 2 } })), "zscore.window");
        assert_eq!(key(json!({ "mad": { "window": 10 } })), "mad.learn");
        assert_eq!(key(json!({ "ewma": { "alpha": 1.0 } })), "ewma.alpha");
        assert_eq!(key(json!({ "zscore": { "threshold": 0.0 } })), "zscore.threshold");
        assert_eq!(key(json!({ "stuck": { "after": "0s" } })), "stuck.after");
        assert_eq!(key(json!({ "missing": { "after": "8d" } })), "forget_after");
        assert_eq!(key(json!({ "key": ["value"], "missing": { "after": "1s" } })), "key");
    }

    /// Row by row, with all values of a key in a list: how many of each kind.
    fn naive(readings: &[(&str, i64, i64)], lag: i64) -> (BTreeMap<&'static str, usize>, usize) {
        let (mut keys, mut counts, mut late, mut w) = (BTreeMap::<&str, Vec<(i64, i64, f64)>>::new(), BTreeMap::new(), 0, i64::MIN);
        let mut stuck = BTreeMap::<&str, (f64, i64, bool)>::new();
        let mut add = |kind: &'static str| *counts.entry(kind).or_insert(0) += 1;
        for (device, time, value) in readings {
            w = w.max(time - lag);
            let (now, value) = (w.max(*time), *value as f64);
            let past = keys.entry(device).or_default();
            if let Some(last) = past.iter().map(|p| p.1).max() {
                if past.last().is_some_and(|p| *time < p.0) {
                    late += 1;
                    continue;
                }
                if last + 20 <= now {
                    add("missing");
                }
                let values: Vec<f64> = past.iter().rev().take(6).map(|p| p.2).collect();
                if values.len() >= 4 {
                    let mean = values.iter().sum::<f64>() / values.len() as f64;
                    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt();
                    if deviation > 1e-9 && ((value - mean) / deviation).abs() > 2.03 {
                        add("zscore");
                    }
                }
            }
            let state = stuck.entry(device).or_insert((value, *time, false));
            if (value - state.0).abs() > 1.0 {
                *state = (value, *time, false);
            }
            if !state.2 && time - state.1 >= 12 {
                state.2 = true;
                add("stuck");
            }
            past.push((*time, now, value));
        }
        keys.values().for_each(|_| add("missing"));
        (counts, late)
    }

    proptest! {
        #[test]
        fn any_split_and_any_restart_say_what_a_row_by_row_look_says(
            picks in prop::collection::vec((0..3usize, 0i64..9, -4i64..10), 1..120),
            steps in prop::collection::vec((1usize..9, 0..3u8), 1..20),
        ) {
            let (names, mut time) = (["a", "b", "c"], 100);
            let readings: Vec<_> = picks.iter().map(|(d, v, step)| (time += step, (names[*d], time, *v)).1).collect();
            let more = json!({
                "zscore": { "threshold": 2.03, "window": 6, "learn": 4 },
                "stuck": { "after": "12us", "tolerance": 1.0 },
                "missing": { "after": "20us" },
            });
            let got = drive(&|| anomaly(&more), &readings, &steps, 3, 1_000_000);
            let (counts, late) = naive(&readings, 3);
            for kind in ["zscore", "stuck", "missing"] {
                let word = format!("\"{kind}\"");
                let said = got.rows.iter().filter(|r| r.contains(&word)).count();
                prop_assert_eq!((kind, said), (kind, counts.get(kind).copied().unwrap_or(0)));
            }
            prop_assert_eq!((got.late.len(), got.counts[1] as usize), (late, readings.len() - late));
            let all = json!({
                "mad": { "threshold": 2.5, "window": 6, "learn": 4 }, "ewma": { "alpha": 0.3, "threshold": 1.7, "learn": 3 },
                "rate_of_change": { "per_second": 900_000.0 }, "zscore": { "threshold": 2.03, "window": 6, "learn": 4 },
            });
            let split = drive(&|| anomaly(&all), &readings, &steps, 3, 1_000_000);
            prop_assert_eq!(split, drive(&|| anomaly(&all), &readings, &[(1, 0)], 3, 1_000_000));
        }
    }
}
