//! A state for each key: found by the row's key columns, bounded in number, saved when it changed.
//!
//! Keys are in slots (`keys`), and beside them their states. Once `limit` keys are held, rows of further keys are dead letters with
//! reason `state_limit`; known keys go on untouched.
//!
//! State: one part `keys` of (key columns, `state`: a list of 64-bit words), a changed key a row; the last row of a key counts. An empty
//! list says that the key was forgotten.

use crate::keys::{self, Key, Keys, REFUSED};
use crate::{BuildError, error, refuse::refuse};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use flow::{Batch, Error, Output, Reason, Result, StateReader, StateWriter, trail};
use std::sync::Arc;

/// The part of the state.
pub(crate) const PART: &str = "keys";
/// Rewriting a part smaller than this saves nothing.
const SMALL: usize = 1_024;

/// What an operator remembers of a key, as 64-bit words.
pub(crate) trait KeyState: Default {
    /// Appends the words; at least one.
    fn write(&self, words: &mut Vec<i64>);
    /// The state of such words; none if they are not what `write` wrote.
    fn read(words: &[i64]) -> Option<Self>;
    /// Any bit of it: asked for so that its memory is fetched.
    fn glance(&self) -> bool {
        false
    }
}

/// States by key. See the page.
pub(crate) struct Keyed<S> {
    columns: Vec<usize>,
    schema: SchemaRef,
    keys: Keys,
    /// By slot.
    states: Vec<S>,
    dirty: Vec<bool>,
    /// Slots that changed since the last save; each once.
    changed: Vec<u32>,
    /// Keys that were forgotten since the last save.
    gone: Vec<Key>,
    /// Rows that the part holds.
    stored: usize,
    /// What the part holds is in a form that is no longer written.
    outdated: bool,
    limit: usize,
}

impl<S: KeyState> Keyed<S> {
    /// No key yet. The error names the key `key` of the options.
    pub(crate) fn new(key: &[String], max_keys: u64, input: &SchemaRef) -> Result<Self, BuildError> {
        if key.is_empty() {
            return Err(BuildError::new("key", "no column is named").hint("name the columns that tell one device from another"));
        }
        if max_keys == 0 {
            return Err(BuildError::new("max_keys", "with no key there is no state"));
        }
        let columns = key.iter().map(|k| error::column(input, "key", k)).collect::<Result<Vec<_>, _>>()?;
        let schema = Arc::new(input.project(&columns).map_err(|e| BuildError::new("key", e.to_string()))?);
        let keys = Keys::new(&schema).map_err(|e| BuildError::new("key", e.to_string()))?;
        let limit = usize::try_from(max_keys).unwrap_or(usize::MAX).min(REFUSED as usize - 1);
        Ok(Self { columns, schema, keys, states: vec![], dirty: vec![], changed: vec![], gone: vec![], stored: 0, outdated: false, limit })
    }

    /// The key columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Finds the slot of each row, making room for new keys; rows beyond the limit are refused and left out of what is returned.
    pub(crate) fn admit(&mut self, batch: Batch, slots: &mut Vec<u32>, out: &mut dyn Output) -> Result<Batch> {
        let key: Vec<ArrayRef> = self.columns.iter().map(|c| batch.rows().column(*c).clone()).collect();
        self.find(&key, self.limit, slots)?;
        if !slots.contains(&REFUSED) {
            return Ok(batch);
        }
        let refused: Vec<u32> = (0..).zip(slots.iter()).filter(|(_, slot)| **slot == REFUSED).map(|(row, _)| row).collect();
        slots.retain(|slot| *slot != REFUSED);
        refuse(batch, &refused, Reason::StateLimit, format!("all {} keys are taken (max_keys)", self.limit), out)
    }

    fn find(&mut self, key: &[ArrayRef], limit: usize, slots: &mut Vec<u32>) -> Result<()> {
        self.keys.find(key, limit, slots).map_err(broken)?;
        self.states.resize_with(self.keys.slots(), S::default);
        self.dirty.resize(self.keys.slots(), false);
        Ok(())
    }

    /// The state of a slot.
    pub(crate) fn state(&self, slot: u32) -> &S {
        &self.states[slot as usize]
    }

    /// The state of a slot, to be changed.
    pub(crate) fn touch(&mut self, slot: u32) -> &mut S {
        if !std::mem::replace(&mut self.dirty[slot as usize], true) {
            self.changed.push(slot);
        }
        &mut self.states[slot as usize]
    }

    /// Fetches the states of some rows, `AHEAD` of them or fewer, before they are taken one by one.
    pub(crate) fn fetch(&self, slots: &[u32]) {
        keys::fetch(slots, |slot| self.states[slot].glance() ^ self.dirty[slot]);
    }

    /// The state of a slot. Where the change returns true, it is saved.
    pub(crate) fn change<T>(&mut self, slot: u32, change: impl FnOnce(&mut S) -> (bool, T)) -> T {
        let (is_changed, gives) = change(&mut self.states[slot as usize]);
        if is_changed && !std::mem::replace(&mut self.dirty[slot as usize], true) {
            self.changed.push(slot);
        }
        gives
    }

    /// Forgets the keys whose state does not fulfil `keep`.
    pub(crate) fn retain(&mut self, keep: impl Fn(&S) -> bool) {
        let lost: Vec<u32> = self.iter().filter(|(_, state)| !keep(state)).map(|(slot, _)| slot).collect();
        lost.into_iter().for_each(|slot| self.forget_slot(slot));
    }

    /// Forgets the key of a slot; nothing where the slot is free.
    pub(crate) fn forget_slot(&mut self, slot: u32) {
        if let Some(key) = self.keys.forget(slot) {
            self.states[slot as usize] = S::default();
            self.gone.push(key);
        }
    }

    /// The slots in use with their states.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &S)> {
        (0..).zip(&self.states).filter(|(slot, _)| self.keys.is_held(*slot))
    }

    /// The key columns of some slots, a slot a row.
    pub(crate) fn key_columns(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.keys.columns(&[], slots).map_err(broken)
    }

    /// Keys held, and about how many bytes with them.
    pub(crate) fn held(&self) -> (u64, u64) {
        let each = size_of::<S>() + size_of::<bool>();
        (self.keys.len() as u64, (self.states.len() * each + self.keys.bytes()) as u64)
    }

    /// Appends what changed; when the part has grown to twice the keys, it is written anew.
    pub(crate) fn save(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        let mut slots = std::mem::take(&mut self.changed);
        let mut gone = std::mem::take(&mut self.gone);
        if self.outdated || self.stored + gone.len() + slots.len() > 2 * self.keys.len() + SMALL {
            to.remove(PART);
            (self.stored, self.outdated) = (0, false);
            gone.clear();
            self.dirty.fill(false);
            slots = self.iter().map(|(slot, _)| slot).collect();
        } else {
            if slots.len() > self.dirty.len() / 16 {
                // Reading memory in its order is worth a pass over all slots.
                slots.clear();
                slots.extend((0..).zip(&self.dirty).filter(|(_, dirty)| **dirty).map(|(slot, _)| slot));
            }
            slots.iter().for_each(|s| self.dirty[*s as usize] = false);
            slots.retain(|s| self.keys.is_held(*s));
        }
        if !(gone.is_empty() && slots.is_empty()) {
            self.stored += gone.len() + slots.len();
            to.append(PART, self.rows(&gone, &slots)?);
        }
        Ok(())
    }

    /// Takes over what the saves have written.
    pub(crate) fn load(&mut self, from: &mut dyn StateReader) -> Result<()> {
        from.read(PART)?.iter().try_for_each(|batch| self.load_batch(batch))
    }

    /// Takes over what saves have written, one after the other.
    pub(crate) fn load_batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let unlike = |what: &str| Error::new(flow::Remedy::Stop, format!("state of another form: {what}"));
        let (keys, words) = batch.columns().split_at_checked(self.columns.len()).ok_or_else(|| unlike("no key"))?;
        let words = words.first().and_then(|w| w.as_list_opt::<i32>()).ok_or_else(|| unlike("no list of words"))?;
        let is_gone = |row: &usize| words.value_length(*row) == 0;
        // A save has its forgotten keys first; one of them may have come again. The rows of several saves may stand in one batch.
        let (mut from, mut slots) = (0, vec![]);
        while from < batch.num_rows() {
            let gone = (from..batch.num_rows()).take_while(is_gone).count();
            let held = (from + gone..batch.num_rows()).take_while(|row| !is_gone(row)).count();
            let slice = |from: usize, rows: usize| keys.iter().map(|k| k.slice(from, rows)).collect::<Vec<_>>();
            self.find(&slice(from, gone), 0, &mut slots)?;
            for slot in slots.iter().filter(|slot| **slot != REFUSED) {
                self.keys.forget(*slot);
                self.states[*slot as usize] = S::default();
            }
            self.find(&slice(from + gone, held), usize::MAX, &mut slots)?;
            for (row, slot) in (from + gone..).zip(&slots) {
                let value = words.value(row);
                let read = value.as_primitive_opt::<Int64Type>().and_then(|w| S::read(w.values()));
                self.states[*slot as usize] = read.ok_or_else(|| unlike(&format!("{} words", value.len())))?;
            }
            from += gone + held;
        }
        self.stored += batch.num_rows();
        Ok(())
    }

    /// Takes over states in a form that is no longer written; the next save writes all anew.
    pub(crate) fn load_outdated(&mut self, keys: &[ArrayRef], states: Vec<S>) -> Result<()> {
        let mut slots = vec![];
        self.find(keys, usize::MAX, &mut slots)?;
        for (slot, state) in slots.into_iter().zip(states) {
            self.states[slot as usize] = state;
        }
        self.outdated = true;
        Ok(())
    }

    /// Rows of the part: forgotten keys, then the states of slots, so that a key that came again counts.
    fn rows(&self, gone: &[Key], slots: &[u32]) -> Result<RecordBatch> {
        let mut columns = self.keys.columns(gone, slots).map_err(broken)?;
        let item = Arc::new(Field::new_list_field(DataType::Int64, false));
        let (mut words, mut lengths) = (vec![], vec![0; gone.len()]);
        for slot in slots {
            let before = words.len();
            self.states[*slot as usize].write(&mut words);
            lengths.push(words.len() - before);
        }
        let lists = ListArray::try_new(item.clone(), OffsetBuffer::from_lengths(lengths), Arc::new(Int64Array::from(words)), None);
        columns.push(Arc::new(lists.map_err(broken)?));
        let mut fields: Vec<_> = self.schema.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new("state", DataType::List(item), false)));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| Error::stop("rows of keyed state", e))
    }
}

/// The time at which a row counts for timers: its event time, or the watermark if it is behind it.
///
/// A batch without marks has no row behind its watermark, so the last known one is enough: the same rows count at the same times
/// however they are split into batches.
pub(crate) fn effective(batch: &Batch, watermark: i64) -> impl Fn(usize) -> i64 + '_ {
    let marks = batch.trail_column(trail::WATERMARK).map(|m| m.as_primitive::<Int64Type>().values());
    let times = batch.times();
    move |row| times[row].max(marks.map_or(watermark, |m| m[row]))
}

/// When keys that have been silent are forgotten: looked for each time W has moved on by a quarter of `after`.
pub(crate) struct Forget {
    after: i64,
    looked: i64,
}

impl Forget {
    /// `after`: microseconds of silence.
    pub(crate) fn new(after: i64) -> Self {
        Self { after, looked: i64::MIN }
    }

    /// Whether a key last seen at `newest` counts as new at `now`.
    pub(crate) fn is_due(&self, newest: i64, now: i64) -> bool {
        newest < now.saturating_sub(self.after)
    }

    /// Whether it is time to look. A pass over all keys is worth it once in a while only.
    pub(crate) fn look(&mut self, w: i64) -> bool {
        let now = w.div_euclid((self.after / 4).max(1));
        std::mem::replace(&mut self.looked, now) != now
    }
}

/// 100,000 devices with room to spare: at about 100 bytes each it is 100 MB.
pub(crate) fn million() -> u64 {
    1_000_000
}

/// A device that was silent for a week begins anew.
pub(crate) fn week() -> crate::Duration {
    crate::Duration::from_secs(7 * 86_400)
}

fn broken(cause: arrow::error::ArrowError) -> Error {
    Error::stop("the keys of an operator", cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Collect, Parts, batch, schema};
    use arrow::compute::concat_batches;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Sum(i64);

    impl KeyState for Sum {
        fn write(&self, words: &mut Vec<i64>) {
            words.push(self.0);
        }
        fn read(words: &[i64]) -> Option<Self> {
            words.first().map(|w| Self(*w))
        }
    }

    fn keyed(limit: u64) -> Keyed<Sum> {
        Keyed::new(&["device".to_owned()], limit, &schema()).unwrap()
    }

    #[test]
    fn beyond_the_limit_new_keys_are_refused_and_known_ones_untouched() {
        let (mut keyed, mut slots, mut out) = (keyed(2), vec![], Collect::default());
        let rest = keyed.admit(batch(&[("a", 1, 1), ("b", 2, 1), ("c", 3, 1), ("a", 4, 1)]), &mut slots, &mut out).unwrap();
        assert_eq!((rest.times(), slots.as_slice()), ([1, 2, 4].as_slice(), [0, 1, 0].as_slice()));
        assert_eq!(out.refused(), [(Reason::StateLimit, 1)]);
        keyed.touch(0).0 = 7;
        keyed.retain(|s| s.0 > 0);
        keyed.admit(batch(&[("c", 5, 1), ("a", 6, 1), ("b", 7, 1)]), &mut slots, &mut out).unwrap();
        assert_eq!((slots.as_slice(), keyed.state(0).0, keyed.state(1).0), ([1, 0].as_slice(), 7, 0));
        assert_eq!(keyed.held().0, 2);
    }

    #[test]
    fn state_words_of_another_form_are_an_error() {
        let mut parts = Parts::default();
        let (mut keyed, mut slots) = (keyed(9), vec![]);
        keyed.admit(batch(&[("a", 1, 1)]), &mut slots, &mut Collect::default()).unwrap();
        keyed.touch(0);
        keyed.save(&mut parts).unwrap();
        let whole = parts.0.remove("keys").unwrap().remove(0);
        parts.0.insert("keys".into(), vec![whole.project(&[0]).unwrap()]);
        assert!(self::keyed(9).load(&mut parts).is_err());
    }

    #[test]
    fn a_key_that_was_forgotten_between_two_saves_does_not_come_back() {
        let (mut keyed, mut parts, mut slots, mut out) = (keyed(9), Parts::default(), vec![], Collect::default());
        keyed.admit(batch(&[("a", 1, 1), ("b", 1, 1)]), &mut slots, &mut out).unwrap();
        slots.iter().for_each(|s| keyed.touch(*s).0 = 1 + i64::from(*s));
        keyed.save(&mut parts).unwrap();
        keyed.touch(0).0 = 0;
        keyed.retain(|s| s.0 > 0);
        keyed.save(&mut parts).unwrap();
        let mut again = self::keyed(9);
        again.load(&mut parts).unwrap();
        again.admit(batch(&[("b", 1, 1), ("a", 1, 1)]), &mut slots, &mut out).unwrap();
        assert_eq!(slots.iter().map(|s| again.state(*s).0).collect::<Vec<_>>(), [2, 0]);
    }

    proptest! {
        #[test]
        fn sums_by_key_survive_any_saves_loads_and_forgetting(
            picks in prop::collection::vec((0..5usize, 1i64..4), 1..200),
            whats in prop::collection::vec(0..6u8, 1..20),
        ) {
            let names = ["a", "b", "c", "d", "e"];
            let (mut keyed, mut parts, mut slots, mut want) = (keyed(9), Parts::default(), vec![], [0i64; 5]);
            for ((device, value), what) in picks.iter().zip(whats.iter().cycle()) {
                keyed.admit(batch(&[(names[*device], 1, *value)]), &mut slots, &mut Collect::default()).unwrap();
                keyed.touch(slots[0]).0 += value;
                want[*device] += value;
                match what {
                    1 => keyed.save(&mut parts).unwrap(),
                    2 | 3 => {
                        keyed.save(&mut parts).unwrap();
                        if *what == 3 && let Some(saves) = parts.0.get_mut(PART) {
                            // As the store does, now and then.
                            *saves = vec![concat_batches(&saves[0].schema(), &*saves).unwrap()];
                        }
                        keyed = self::keyed(9);
                        keyed.load(&mut parts).unwrap();
                    }
                    4 => {
                        keyed.touch(slots[0]).0 = 0;
                        keyed.retain(|sum| sum.0 > 0);
                        want[*device] = 0;
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(keyed.held().0 as usize, want.iter().filter(|sum| **sum > 0).count());
            for (device, sum) in want.iter().enumerate().filter(|(_, sum)| **sum > 0) {
                keyed.admit(batch(&[(names[device], 1, 0)]), &mut slots, &mut Collect::default()).unwrap();
                prop_assert_eq!(keyed.state(slots[0]).0, *sum);
            }
        }
    }
}
