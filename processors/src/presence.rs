//! `presence`: says when a device comes and when it is gone, in event time: a row `online` at its first reading, a row `offline`
//! `offline_after` after its last one, and `online` again at the next.
//!
//! A reading behind the watermark counts at the watermark. `offline` is said when the watermark, or the next reading, has reached its
//! time; the end of the input by itself takes nobody offline. Each reading is taken into state, whatever its order.

use crate::keyed::{Forget, KeyState, Keyed, effective, million, week};
use crate::timers::Timers;
use crate::{BuildError, Duration};
use arrow::array::{ArrayRef, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flow::{
    Batch, Count, Error, EventTime, Operator, Origin, Output, Result, StateReader, StateWriter, WallTime, event_time_field, event_time_type,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Options of a presence, without `type` and `inputs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PresenceOptions {
    /// Columns that name the device; at least one.
    pub key: Vec<String>,
    /// A device of which nothing came for this long is offline.
    pub offline_after: Duration,
    /// How many keys are held; readings of further ones are dead letters with reason `state_limit`.
    #[serde(default = "million")]
    pub max_keys: u64,
    /// A device of which nothing came for this long is forgotten. Not less than `offline_after`.
    #[serde(default = "week")]
    pub forget_after: Duration,
}

/// Builds the operator for rows of the schema `input`. It puts out the key, `state`, `last_seen` and `event_time`.
pub fn build(options: &PresenceOptions, input: &SchemaRef) -> Result<Box<dyn Operator>, BuildError> {
    let keys = Keyed::new(&options.key, options.max_keys, input)?;
    if options.offline_after.0.0 == 0 {
        return Err(BuildError::new("offline_after", "nobody can be seen all the time"));
    }
    if options.forget_after < options.offline_after {
        return Err(BuildError::new("forget_after", "a device would be forgotten before it is offline"));
    }
    let mut fields: Vec<_> = keys.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("state", DataType::Utf8View, false)));
    fields.push(Arc::new(Field::new("last_seen", event_time_type(), false)));
    fields.push(Arc::new(event_time_field()));
    Ok(Box::new(Presence {
        schema: Arc::new(Schema::new(fields)),
        keys,
        after: options.offline_after.0.0,
        forget: Forget::new(options.forget_after.0.0),
        timers: Timers::default(),
        watermark: i64::MIN,
        slots: vec![],
        changes: vec![],
    }))
}

/// Where a key is.
#[derive(Default)]
struct Seen {
    is_known: bool,
    is_online: bool,
    /// Effective time of the last reading.
    last: i64,
}

impl KeyState for Seen {
    fn write(&self, words: &mut Vec<i64>) {
        words.extend([i64::from(self.is_online), self.last]);
    }

    fn read(words: &[i64]) -> Option<Self> {
        let [online, last] = words.try_into().ok()?;
        Some(Self { is_known: true, is_online: online == 1, last })
    }
}

/// A row to be put out.
struct Change {
    slot: u32,
    is_online: bool,
    last: i64,
    at: i64,
}

struct Presence {
    schema: SchemaRef,
    keys: Keyed<Seen>,
    after: i64,
    forget: Forget,
    timers: Timers,
    watermark: i64,
    slots: Vec<u32>,
    changes: Vec<Change>,
}

impl Operator for Presence {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let mut slots = std::mem::take(&mut self.slots);
        let batch = self.keys.admit(batch, &mut slots, out)?;
        let now = effective(&batch, self.watermark);
        for (row, slot) in slots.iter().enumerate() {
            let seen = now(row);
            let state = self.keys.touch(*slot);
            // A forgotten device has been said to be offline: it is not forgotten earlier.
            if state.is_known && state.is_online && state.last.saturating_add(self.after) <= seen {
                let at = state.last.saturating_add(self.after);
                self.changes.push(Change { slot: *slot, is_online: false, last: state.last, at });
                state.is_online = false;
            }
            state.last = if state.is_known { state.last.max(seen) } else { seen };
            if !state.is_online {
                self.changes.push(Change { slot: *slot, is_online: true, last: seen, at: seen });
            }
            (state.is_known, state.is_online) = (true, true);
            let due = state.last.saturating_add(self.after);
            self.timers.set(*slot, due);
        }
        drop(now);
        self.slots = slots;
        out.count(Count::Taken, batch.len() as u64);
        self.put_out(batch.origin().clone(), out)
    }

    fn on_watermark(&mut self, w: EventTime, out: &mut dyn Output) -> Result<EventTime> {
        self.watermark = w.0;
        while let Some(slot) = self.timers.pop(w.0) {
            let state = self.keys.state(slot);
            let (last, due) = (state.last, state.last.saturating_add(self.after));
            if !state.is_known || !state.is_online {
                continue;
            }
            if due > w.0 {
                self.timers.set(slot, due);
                continue;
            }
            self.keys.touch(slot).is_online = false;
            self.changes.push(Change { slot, is_online: false, last, at: due });
        }
        self.changes.sort_by_key(|c| (c.at, c.slot));
        self.put_out(origin(), out)?;
        if self.forget.look(w.0) {
            let forget = &self.forget;
            self.keys.retain(|state| state.is_online || !forget.is_due(state.last, w.0));
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
        for (slot, _) in self.keys.iter().filter(|(_, s)| s.is_online) {
            self.timers.set(slot, self.keys.state(slot).last.saturating_add(self.after));
        }
        Ok(())
    }

    fn held(&self) -> (u64, u64) {
        self.keys.held()
    }
}

impl Presence {
    fn put_out(&mut self, origin: Arc<Origin>, out: &mut dyn Output) -> Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let changes = std::mem::take(&mut self.changes);
        let mut columns = self.keys.key_columns(&changes.iter().map(|c| c.slot).collect::<Vec<_>>())?;
        let word = |c: &Change| if c.is_online { "online" } else { "offline" };
        let time = |of: fn(&Change) -> i64| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_iter_values(changes.iter().map(of)).with_timezone("UTC"))
        };
        columns.push(Arc::new(StringViewArray::from_iter_values(changes.iter().map(word))));
        columns.extend([time(|c| c.last), time(|c| c.at)]);
        let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| Error::stop("rows of a presence", e))?;
        out.count(Count::Emitted, rows.num_rows() as u64);
        out.rows(Batch::new(rows, origin)?);
        Ok(())
    }
}

/// Where rows come from that a watermark brought.
pub(crate) fn origin() -> Arc<Origin> {
    Arc::new(Origin { source: "watermark".into(), producer: 0, topic: None, arrival: WallTime(0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{drive, schema};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn presence(more: serde_json::Value) -> Box<dyn Operator> {
        let mut options = serde_json::json!({ "key": ["device"], "offline_after": "30us", "forget_after": "100us" });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        build(&serde_json::from_value(options).unwrap(), &schema()).unwrap()
    }

    /// (device, event time, state), sorted.
    fn said(rows: &[String]) -> Vec<(String, String, String)> {
        let field = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap().to_owned();
        let rows = rows.iter().map(|r| serde_json::from_str(r).unwrap());
        let mut said: Vec<_> =
            rows.map(|r: serde_json::Value| (field(&r, "device"), field(&r, "event_time"), field(&r, "state"))).collect();
        said.sort();
        said
    }

    fn at(micros: i64) -> String {
        let fraction = if micros % 1_000 == 0 { format!("{:03}", micros / 1_000) } else { format!("{micros:06}") };
        format!("1970-01-01T00:00:00.{fraction}Z")
    }

    #[test]
    fn a_device_comes_goes_and_comes_again() {
        let got = drive(&|| presence(serde_json::json!({})), &[("a", 10, 0), ("a", 20, 0), ("b", 60, 0), ("a", 70, 0)], &[(1, 0)], 0, 80);
        let row = |d: &str, t, s: &str| (d.to_owned(), at(t), s.to_owned());
        assert_eq!(said(&got.rows), [row("a", 10, "online"), row("a", 50, "offline"), row("a", 70, "online"), row("b", 60, "online")]);
        assert_eq!(got.counts, [0, 4, 4]);
    }

    #[test]
    fn the_next_timer_is_when_the_first_device_goes() {
        let mut operator = presence(serde_json::json!({}));
        let mut out = crate::testing::Collect::default();
        operator.on_batch(crate::testing::batch(&[("a", 10, 0), ("b", 5, 0)]), &mut out).unwrap();
        assert_eq!((operator.next_timer(EventTime(10)), operator.last_timer()), (Some(EventTime(35)), None));
        operator.on_watermark(EventTime(35), &mut out).unwrap();
        assert_eq!(operator.next_timer(EventTime(35)), Some(EventTime(40)));
    }

    #[test]
    fn mistakes_name_their_key() {
        let key = |more: serde_json::Value| {
            let mut options = serde_json::json!({ "key": ["device"], "offline_after": "30us" });
            options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            build(&serde_json::from_value(options).unwrap(), &schema()).err().unwrap().key
        };
        assert_eq!(key(serde_json::json!({ "offline_after": "0s" })), "offline_after");
        assert_eq!(key(serde_json::json!({ "forget_after": "29us" })), "forget_after");
        assert_eq!(key(serde_json::json!({ "key": [] })), "key");
    }

    proptest! {
        #[test]
        fn any_split_and_any_restart_say_what_a_row_by_row_look_says(
            picks in prop::collection::vec((0..3usize, -8i64..40), 1..100),
            steps in prop::collection::vec((1usize..9, 0..3u8), 1..20),
        ) {
            let (names, mut time) = (["a", "b", "c"], 100);
            let readings: Vec<_> = picks.iter().map(|(d, step)| (time += step, (names[*d], time, 0)).1).collect();
            let got = drive(&|| presence(serde_json::json!({})), &readings, &steps, 5, 100_000);
            let (mut seen, mut want, mut w) = (BTreeMap::<&str, i64>::new(), vec![], i64::MIN);
            for (device, time, _) in &readings {
                w = w.max(time - 5);
                let now = w.max(*time);
                match seen.get(device).copied() {
                    Some(last) if last + 30 > now => {}
                    Some(last) => want.extend([(*device, last + 30, "offline"), (*device, now, "online")]),
                    None => want.push((*device, now, "online")),
                }
                let last = seen.entry(device).or_insert(now);
                *last = now.max(*last);
            }
            want.extend(seen.iter().map(|(device, last)| (*device, last + 30, "offline")));
            let mut want: Vec<_> = want.into_iter().map(|(d, t, s)| (d.to_owned(), at(t), s.to_owned())).collect();
            want.sort();
            prop_assert_eq!(said(&got.rows), want);
            prop_assert_eq!(got.counts[1] as usize, readings.len());
        }
    }
}
