//! `alert`: raises an alert for a key when a condition has been true for long enough, and resolves it when another one is true.
//!
//! ```text
//!   idle ── when ──► pending ── `for` has passed, no reading said otherwise ──► firing ── clear ──► idle
//!                    pending ── not when ──► idle
//! ```
//! Only the two changes to and from firing are rows. All is in event time: a reading behind the watermark counts at the watermark, one
//! that is older than the newest of its key is late; `for` has passed when the watermark or a reading has reached its end. What is null
//! says nothing. The end of the input by itself raises nothing. A key that is pending or firing is never forgotten.
//!
//! Ids are hashes of the alert's name, the key's values and the time at which the condition became true, so a replay gives the same
//! ids, and both rows of an alert carry one.

use crate::keyed::{Forget, KeyState, Keyed, effective, million, week};
use crate::presence::origin;
use crate::refuse::refuse;
use crate::timers::Timers;
use crate::values::{self, numbers};
use crate::{BuildError, Duration, sql::Expression};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use flow::{
    Batch, Count, Error, EventTime, Operator, Origin, Output, Reason, Result, StateReader, StateWriter, event_time_field, event_time_type,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// Options of an alert, without `type` and `inputs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertOptions {
    /// Columns that name what is watched, for example the device; at least one. Each has an alert of its own.
    pub key: Vec<String>,
    /// The condition, in SQL.
    pub when: String,
    /// How long the condition must hold.
    #[serde(rename = "for", default = "no_time")]
    pub lasting: Duration,
    /// The condition that resolves a firing alert, in SQL; `NOT (when)` if left out. A weaker one gives hysteresis.
    #[serde(default)]
    pub clear: Option<String>,
    /// How bad it is.
    #[serde(default)]
    pub severity: Severity,
    /// Key columns whose values make alerts one group: they share a `group_id`. All of the key if left out.
    #[serde(default)]
    pub group_by: Option<Vec<String>>,
    /// A number to be kept with the alert, in SQL: its value at the last reading before the change. Null if left out.
    #[serde(default)]
    pub value: Option<String>,
    /// How many keys are held; readings of further ones are dead letters with reason `state_limit`.
    #[serde(default = "million")]
    pub max_keys: u64,
    /// A key without alert of which nothing came for this long is forgotten.
    #[serde(default = "week")]
    pub forget_after: Duration,
}

/// How bad an alert is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// To be known.
    Info,
    /// To be looked at.
    #[default]
    Warning,
    /// To be acted on at once.
    Critical,
}

impl Severity {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

fn no_time() -> Duration {
    Duration::from_secs(0)
}

/// Builds the operator for rows of the schema `input`. `name` is the alert's own. It puts out the key, `alert`, `severity`, `state`
/// (`firing`, `resolved`), `alert_id`, `group_id`, `started_at` (when the condition became true), `value` and `event_time`.
pub fn build(name: &str, options: &AlertOptions, input: &SchemaRef) -> Result<Box<dyn Operator>, BuildError> {
    let keys = Keyed::new(&options.key, options.max_keys, input)?;
    let condition = |key: &str, text: &str| {
        let parsed = Expression::parse(text, input).map_err(|e| e.at(key))?;
        match parsed.data_type() {
            DataType::Boolean => Ok(parsed),
            other => Err(BuildError::new(key, format!("the condition gives {other}, not true or false"))),
        }
    };
    let when = condition("when", &options.when)?;
    let clear = options.clear.as_deref().map(|text| condition("clear", text)).transpose()?;
    let value = options.value.as_deref().map(|text| Expression::parse(text, input).map_err(|e| e.at("value"))).transpose()?;
    if let Some(value) = value.as_ref().filter(|v| !v.data_type().is_numeric()) {
        return Err(BuildError::new("value", format!("the value is {}, not a number", value.data_type())));
    }
    let group = group(options)?;
    let mut fields: Vec<_> = keys.schema().fields().iter().cloned().collect();
    let text = |name| Arc::new(Field::new(name, DataType::Utf8View, false));
    fields.extend(["alert", "severity", "state", "alert_id", "group_id"].map(text));
    fields.push(Arc::new(Field::new("started_at", event_time_type(), false)));
    fields.push(Arc::new(Field::new("value", DataType::Float64, true)));
    fields.push(Arc::new(event_time_field()));
    if let Some(own) = options.key.iter().find(|k| fields.iter().filter(|f| f.name() == *k).count() > 1) {
        return Err(BuildError::new("key", format!("`{own}` is a column of alerts themselves")).hint("rename it in a `map` before"));
    }
    let engine = Engine { lasting: options.lasting.0.0, changes: vec![] };
    Ok(Box::new(Alert {
        name: name.to_owned(),
        severity: options.severity.as_str(),
        schema: Arc::new(Schema::new(fields)),
        keys,
        group,
        when,
        clear,
        value,
        engine,
        forget: Forget::new(options.forget_after.0.0),
        timers: Timers::default(),
        watermark: i64::MIN,
        slots: vec![],
    }))
}

/// The places of the grouping columns in the key.
fn group(options: &AlertOptions) -> Result<Vec<usize>, BuildError> {
    let Some(names) = &options.group_by else { return Ok((0..options.key.len()).collect()) };
    let place = |(at, name): (usize, &String)| {
        let error = || BuildError::new(format!("group_by.{at}"), format!("`{name}` is not a column of the key"));
        options.key.iter().position(|k| k == name).ok_or_else(error)
    };
    names.iter().enumerate().map(place).collect()
}

/// Where an alert is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Pending,
    Firing,
}

/// The alert of a key.
#[derive(Default)]
struct State {
    is_known: bool,
    phase: Phase,
    /// Effective time at which the condition became true.
    since: i64,
    /// Effective time of the newest reading.
    newest: i64,
    value: Option<f64>,
}

impl KeyState for State {
    fn write(&self, words: &mut Vec<i64>) {
        words.extend([self.phase as i64, self.since, self.newest]);
        values::write(self.value, words);
    }

    fn read(words: &[i64]) -> Option<Self> {
        let [phase, since, newest, is_there, bits] = words.try_into().ok()?;
        let phase = [Phase::Idle, Phase::Pending, Phase::Firing].into_iter().find(|p| *p as i64 == phase)?;
        Some(Self { is_known: true, phase, since, newest, value: values::read(&[is_there, bits])? })
    }
}

/// A row to be put out.
struct Change {
    slot: u32,
    is_firing: bool,
    since: i64,
    at: i64,
    value: Option<f64>,
}

/// The rules of one alert.
struct Engine {
    lasting: i64,
    changes: Vec<Change>,
}

impl Engine {
    /// Fires when the time has come.
    fn fire(&mut self, slot: u32, state: &mut State, now: i64) {
        let due = state.since.saturating_add(self.lasting);
        if state.phase == Phase::Pending && due <= now {
            state.phase = Phase::Firing;
            self.changes.push(Change { slot, is_firing: true, since: state.since, at: due, value: state.value });
        }
    }

    /// Takes what a reading says.
    fn step(&mut self, slot: u32, state: &mut State, now: i64, when: Option<bool>, clear: Option<bool>, value: Option<f64>) {
        self.fire(slot, state, now);
        state.newest = now;
        state.value = value;
        match state.phase {
            Phase::Idle if when == Some(true) => {
                (state.phase, state.since) = (Phase::Pending, now);
                self.fire(slot, state, now);
            }
            Phase::Pending if when == Some(false) => state.phase = Phase::Idle,
            Phase::Firing if clear == Some(true) => {
                state.phase = Phase::Idle;
                self.changes.push(Change { slot, is_firing: false, since: state.since, at: now, value });
            }
            _ => {}
        }
    }
}

struct Alert {
    name: String,
    severity: &'static str,
    schema: SchemaRef,
    keys: Keyed<State>,
    group: Vec<usize>,
    when: Expression,
    clear: Option<Expression>,
    value: Option<Expression>,
    engine: Engine,
    forget: Forget,
    timers: Timers,
    watermark: i64,
    slots: Vec<u32>,
}

impl Operator for Alert {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let (batch, when, clear, value) = self.evaluate(batch, out)?;
        let mut slots = std::mem::take(&mut self.slots);
        let all = batch.len();
        let batch = self.keys.admit(batch, &mut slots, out)?;
        // Expressions are pure, so after a refusal they are simply evaluated over what is left.
        let (batch, when, clear, value) = if batch.len() < all { self.evaluate(batch, out)? } else { (batch, when, clear, value) };
        let now = effective(&batch, self.watermark);
        let mut late = vec![false; slots.len()];
        for (row, slot) in slots.iter().enumerate() {
            let now = now(row);
            let state = self.keys.touch(*slot);
            if state.is_known && now < state.newest {
                late[row] = true;
                continue;
            }
            state.is_known = true;
            let is_when = (!when.is_null(row)).then(|| when.value(row));
            let is_clear = clear.as_ref().map_or(is_when.map(|w| !w), |c| (!c.is_null(row)).then(|| c.value(row)));
            let value = value.as_ref().and_then(|v| (!v.is_null(row)).then(|| v.value(row)));
            self.engine.step(*slot, state, now, is_when, is_clear, value);
            if state.phase == Phase::Pending {
                self.timers.set(*slot, state.since.saturating_add(self.engine.lasting));
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
        while let Some(slot) = self.timers.pop(w.0) {
            let state = self.keys.state(slot);
            if state.phase != Phase::Pending {
                continue;
            }
            let due = state.since.saturating_add(self.engine.lasting);
            if due > w.0 {
                self.timers.set(slot, due);
            } else {
                self.engine.fire(slot, self.keys.touch(slot), w.0);
            }
        }
        self.engine.changes.sort_by_key(|c| (c.at, c.slot));
        self.put_out(origin(), out)?;
        if self.forget.look(w.0) {
            let forget = &self.forget;
            self.keys.retain(|state| state.phase != Phase::Idle || !forget.is_due(state.newest, w.0));
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
        for (slot, state) in self.keys.iter().filter(|(_, s)| s.phase == Phase::Pending) {
            self.timers.set(slot, state.since.saturating_add(self.engine.lasting));
        }
        Ok(())
    }

    fn held(&self) -> (u64, u64) {
        self.keys.held()
    }
}

type Said = (Batch, BooleanArray, Option<BooleanArray>, Option<Float64Array>);

impl Alert {
    /// What the conditions say of each row; rows on which one fails are refused and left out.
    fn evaluate(&self, mut batch: Batch, out: &mut dyn Output) -> Result<Said> {
        loop {
            let parts = [("when", Some(&self.when)), ("clear", self.clear.as_ref()), ("value", self.value.as_ref())];
            let found = parts.map(|(key, e)| e.map(|e| (key, e.evaluate(batch.rows()))));
            if let Some((key, failed)) = found.iter().flatten().find(|(_, f)| !f.failed.is_empty()) {
                batch = refuse(batch, &failed.failed, Reason::Expression, format!("{key}: {}", failed.detail), out)?;
                continue;
            }
            let [when, clear, value] = found.map(|f| f.map(|(_, f)| f.values));
            let when = when.expect("`when` is always there").as_boolean().clone();
            return Ok((batch, when, clear.map(|c| c.as_boolean().clone()), value.map(|v| numbers(&v)).transpose()?));
        }
    }

    fn put_out(&mut self, origin: Arc<Origin>, out: &mut dyn Output) -> Result<()> {
        if self.engine.changes.is_empty() {
            return Ok(());
        }
        let changes = std::mem::take(&mut self.engine.changes);
        let key = self.keys.key_columns(&changes.iter().map(|c| c.slot).collect::<Vec<_>>())?;
        let ids = self.ids(&key, &changes)?;
        let text = |of: &dyn Fn(usize) -> String| -> ArrayRef { Arc::new(StringViewArray::from_iter_values((0..changes.len()).map(of))) };
        let same = |word: &str| -> ArrayRef { Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(word, changes.len()))) };
        let time = |of: fn(&Change) -> i64| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_iter_values(changes.iter().map(of)).with_timezone("UTC"))
        };
        let mut columns = key;
        columns.extend([
            same(&self.name),
            same(self.severity),
            text(&|at| if changes[at].is_firing { "firing" } else { "resolved" }.to_owned()),
            text(&|at| ids[at].0.clone()),
            text(&|at| ids[at].1.clone()),
            time(|c| c.since),
            Arc::new(changes.iter().map(|c| c.value).collect::<Float64Array>()),
            time(|c| c.at),
        ]);
        let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| Error::stop("rows of an alert", e))?;
        out.count(Count::Emitted, rows.num_rows() as u64);
        out.rows(Batch::new(rows, origin)?);
        Ok(())
    }

    /// The id of each change's alert, and of its group: 32 hexadecimal digits each.
    fn ids(&self, key: &[ArrayRef], changes: &[Change]) -> Result<Vec<(String, String)>> {
        let options = FormatOptions::default().with_null("\u{0}null");
        let failed = |e| Error::stop("naming an alert", e);
        let columns: Vec<_> = key.iter().map(|c| ArrayFormatter::try_new(c, &options)).collect::<Result<_, _>>().map_err(failed)?;
        // Lengths keep ("ab", "c") and ("a", "bc") apart.
        let put = |text: &mut String, part: &str| write!(text, "{}:{part};", part.len()).map_err(|e| Error::stop("naming an alert", e));
        let name = |row: usize, of: &mut dyn Iterator<Item = usize>| -> Result<String> {
            let mut text = String::new();
            put(&mut text, &self.name)?;
            for column in of {
                put(&mut text, &columns[column].value(row).to_string())?;
            }
            Ok(text)
        };
        let id = |text: &str| format!("{:032x}", xxh3_128(text.as_bytes()));
        let mut ids = Vec::with_capacity(changes.len());
        for (row, change) in changes.iter().enumerate() {
            let alert = name(row, &mut (0..columns.len()))?;
            let group = name(row, &mut self.group.iter().copied())?;
            ids.push((id(&format!("{alert}{}", change.since)), id(&group)));
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{drive, schema};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn alert(more: serde_json::Value) -> Box<dyn Operator> {
        let mut options =
            serde_json::json!({ "key": ["device"], "when": "value > 5", "clear": "value < 3", "for": "20us", "value": "value" });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        build("hot", &serde_json::from_value(options).unwrap(), &schema()).unwrap()
    }

    fn rows(got: &[String]) -> Vec<serde_json::Value> {
        got.iter().map(|r| serde_json::from_str(r).unwrap()).collect()
    }

    /// (device, event time, state), sorted.
    fn said(got: &[String]) -> Vec<(String, String, String)> {
        let field = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap().to_owned();
        let mut said: Vec<_> = rows(got).iter().map(|r| (field(r, "device"), field(r, "event_time"), field(r, "state"))).collect();
        said.sort();
        said
    }

    fn at(micros: i64) -> String {
        let fraction = if micros % 1_000 == 0 { format!("{:03}", micros / 1_000) } else { format!("{micros:06}") };
        format!("1970-01-01T00:00:00.{fraction}Z")
    }

    #[test]
    fn an_alert_fires_after_its_time_and_resolves_below_the_lower_limit() {
        let readings = [("a", 10, 9), ("a", 15, 9), ("a", 35, 4), ("a", 40, 2), ("a", 50, 9), ("a", 60, 1)];
        let got = drive(&|| alert(serde_json::json!({})), &readings, &[(1, 0)], 0, 100);
        assert_eq!(said(&got.rows), [("a".into(), at(30), "firing".into()), ("a".into(), at(40), "resolved".into())]);
        let rows = rows(&got.rows);
        assert_eq!((rows[0]["alert_id"].clone(), rows[0]["value"].clone()), (rows[1]["alert_id"].clone(), 9.0.into()));
        assert_eq!((&rows[0]["started_at"], &rows[0]["alert"], &rows[0]["severity"]), (&at(10).into(), &"hot".into(), &"warning".into()));
        assert_eq!(got.counts, [0, 6, 2]);
    }

    #[test]
    fn silence_lets_the_watermark_fire_it_and_its_time_is_known_before() {
        let got = drive(&|| alert(serde_json::json!({})), &[("a", 10, 9)], &[(1, 2)], 0, 30);
        assert_eq!(said(&got.rows), [("a".into(), at(30), "firing".into())]);
        let (mut operator, mut out) = (alert(serde_json::json!({})), crate::testing::Collect::default());
        operator.on_batch(crate::testing::batch(&[("a", 10, 9)]), &mut out).unwrap();
        assert_eq!((operator.next_timer(EventTime(10)), operator.last_timer()), (Some(EventTime(30)), None));
    }

    #[test]
    fn null_says_nothing_and_a_failing_row_is_refused() {
        let more = serde_json::json!({ "when": "nullif(value, 4) > 5", "clear": "10 / value > 4" });
        let got = drive(&|| alert(more.clone()), &[("a", 10, 9), ("a", 20, 4), ("a", 25, 0), ("a", 40, 9)], &[(2, 0)], 0, 45);
        assert_eq!(said(&got.rows), [("a".into(), at(30), "firing".into())]);
        assert_eq!((got.dead.len(), got.counts[1]), (1, 3));
    }

    #[test]
    fn mistakes_name_their_key() {
        let key = |more: serde_json::Value| {
            let mut options = serde_json::json!({ "key": ["device"], "when": "value > 5" });
            options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            build("hot", &serde_json::from_value(options).unwrap(), &schema()).err().unwrap().key
        };
        assert_eq!(key(serde_json::json!({ "when": "value" })), "when");
        assert_eq!(key(serde_json::json!({ "clear": "valu < 1" })), "clear");
        assert_eq!(key(serde_json::json!({ "value": "device" })), "value");
        assert_eq!(key(serde_json::json!({ "group_by": ["value"] })), "group_by.0");
        assert_eq!(key(serde_json::json!({ "key": ["value"] })), "key");
    }

    proptest! {
        #[test]
        fn any_split_and_any_restart_say_what_a_row_by_row_look_says(
            picks in prop::collection::vec((0..3usize, 0i64..9, -6i64..16), 1..100),
            steps in prop::collection::vec((1usize..9, 0..3u8), 1..20),
        ) {
            let (names, mut time) = (["a", "b", "c"], 100);
            let readings: Vec<_> = picks.iter().map(|(d, v, step)| (time += step, (names[*d], time, *v)).1).collect();
            let got = drive(&|| alert(serde_json::json!({})), &readings, &steps, 5, 100_000);
            // Device: (newest, since when the condition holds, whether it fires).
            let (mut states, mut want, mut w, mut late) = (BTreeMap::<&str, (i64, Option<i64>, bool)>::new(), vec![], i64::MIN, 0);
            for (device, time, value) in &readings {
                w = w.max(time - 5);
                let now = w.max(*time);
                let state = states.entry(device).or_insert((now, None, false));
                if now < state.0 {
                    late += 1;
                    continue;
                }
                state.0 = now;
                if let Some(since) = state.1.filter(|since| !state.2 && since + 20 <= now) {
                    want.push((*device, since + 20, "firing"));
                    state.2 = true;
                }
                if state.2 && *value < 3 {
                    want.push((*device, now, "resolved"));
                    (state.1, state.2) = (None, false);
                } else if !state.2 {
                    state.1 = (*value > 5).then(|| state.1.unwrap_or(now));
                }
            }
            want.extend(states.iter().filter(|(_, s)| !s.2).filter_map(|(device, s)| s.1.map(|since| (*device, since + 20, "firing"))));
            let mut want: Vec<_> = want.into_iter().map(|(d, t, s)| (d.to_owned(), at(t), s.to_owned())).collect();
            want.sort();
            prop_assert_eq!(said(&got.rows), want);
            prop_assert_eq!((got.late.len(), got.late.len() + got.counts[1] as usize), (late, readings.len()));
            prop_assert_eq!(got.rows, drive(&|| alert(serde_json::json!({})), &readings, &[(1, 0)], 5, 100_000).rows);
        }
    }
}
