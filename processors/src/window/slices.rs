//! Open slices under a limit of groups and bytes: rows go to the slice that is named for them, and a save writes what changed.

use super::aggregates::Aggregates;
use super::live::Partial;
use super::slice::{Held, Slice};
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{FilterBuilder, filter, not, take};
use datafusion::common::DataFusionError;
use flow::{Batch, Count, DeadLetters, Error, Output, Reason, Result, StateReader, StateWriter};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows of so many slices are selected slice by slice; those of more are sorted.
const FEW: usize = 8;

/// The name of a slice, which is also that of its part of the state.
pub(super) trait Name: Copy + Ord {
    /// As it stands in the state.
    fn part(&self) -> String;
    /// The name that `part` gave.
    fn of_part(part: &str) -> Option<Self>;
}

/// The start of the slice, in microseconds.
impl Name for i64 {
    fn part(&self) -> String {
        self.to_string()
    }

    fn of_part(part: &str) -> Option<Self> {
        part.parse().ok()
    }
}

/// When the slice is due, then its start.
impl Name for (i64, i64) {
    fn part(&self) -> String {
        format!("{}/{}", self.0, self.1)
    }

    fn of_part(part: &str) -> Option<Self> {
        let (due, start) = part.split_once('/')?;
        Some((due.parse().ok()?, start.parse().ok()?))
    }
}

/// What rows carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intake {
    /// Readings: columns as `Aggregates::evaluate` gives them.
    Readings,
    /// Partial aggregates: columns of `Aggregates::partial_schema`.
    Partials,
}

/// See the page.
pub(super) struct Slices<K> {
    pub(super) aggregates: Arc<Aggregates>,
    intake: Intake,
    max_keys: usize,
    max_state: usize,
    open: BTreeMap<K, Slice>,
    /// What all of `open` hold: counted with each change of one, since there may be many.
    held: Held,
    /// Slices that are gone and still stored.
    gone: Vec<K>,
    /// Scratch: the group of each row.
    groups: Vec<usize>,
}

impl<K: Name> Slices<K> {
    /// No slices; `limits` are the most groups and bytes.
    pub(super) fn new(aggregates: Arc<Aggregates>, intake: Intake, limits: (usize, usize)) -> Self {
        let (open, held) = (BTreeMap::new(), Held::default());
        Self { aggregates, intake, max_keys: limits.0, max_state: limits.1, open, held, gone: vec![], groups: vec![] }
    }

    pub(super) fn held(&self) -> Held {
        self.held
    }

    pub(super) fn first(&self) -> Option<K> {
        self.open.first_key_value().map(|(key, _)| *key)
    }

    pub(super) fn last(&self) -> Option<K> {
        self.open.last_key_value().map(|(key, _)| *key)
    }

    /// Names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = K> {
        self.open.keys().copied()
    }

    /// Takes a slice out.
    pub(super) fn remove(&mut self, key: K) -> Option<Slice> {
        let slice = self.open.remove(&key)?;
        self.held.change(slice.held(), Held::default());
        if slice.is_stored() {
            self.gone.push(key);
        }
        Some(slice)
    }

    /// What the slices of a range hold, as partials.
    pub(super) fn partials(&mut self, range: std::ops::Range<K>) -> Result<Vec<Partial>> {
        let mut partials = vec![];
        for (key, slice) in self.open.range_mut(range) {
            let before = slice.held();
            partials.extend(slice.partials(&self.aggregates).map_err(|e| broken("reading", *key, e))?);
            self.held.change(before, slice.held());
        }
        Ok(partials)
    }

    pub(super) fn save(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        for key in self.gone.drain(..) {
            to.remove(&key.part());
        }
        for (key, slice) in &mut self.open {
            if slice.is_saved() {
                continue;
            }
            let before = slice.held();
            let change = slice.save(&self.aggregates).map_err(|e| broken("saving", *key, e))?;
            self.held.change(before, slice.held());
            let part = key.part();
            if change.replace {
                to.remove(&part);
            }
            for rows in change.append {
                to.append(&part, rows);
            }
        }
        Ok(())
    }

    pub(super) fn load(&mut self, from: &mut dyn StateReader) -> Result<()> {
        for part in from.parts() {
            let key =
                K::of_part(&part).ok_or_else(|| Error::new(flow::Remedy::Stop, format!("window state has a part `{part}`, not a time")))?;
            let partials = from.read(&part)?;
            let mut checked = Vec::with_capacity(partials.len());
            for rows in partials {
                let rows = RecordBatch::try_new(self.aggregates.partial_schema.clone(), rows.columns().to_vec());
                checked.push(rows.map_err(|e| Error::stop(format!("window state of slice {part} is of other aggregates"), e))?);
            }
            let slice = Slice::load(checked);
            self.held.change(Held::default(), slice.held());
            self.open.insert(key, slice);
        }
        Ok(())
    }

    /// Adds rows to the slices of these names, one a row: slice by slice in order, each with its rows in theirs.
    pub(super) fn take_rows(&mut self, names: &[K], batch: &Batch, columns: &[ArrayRef], out: &mut dyn Output) -> Result<()> {
        if names.is_sorted() {
            return self.take_runs(names, batch, columns, out);
        }
        let Some(slices) = few(names) else { return self.take_sorted(names, batch, columns, out) };
        for name in slices {
            let of_slice = BooleanArray::new(BooleanBuffer::collect_bool(names.len(), |row| names[row] == name), None);
            let part = FilterBuilder::new(&of_slice).optimize().build();
            let selected: Result<Vec<_>, _> = columns.iter().map(|c| part.filter(c)).collect();
            let selected = selected.map_err(|e| Error::stop("selecting the rows of a window", e))?;
            self.take_slice(name, &selected, || batch.filter(&of_slice), out)?;
        }
        Ok(())
    }

    fn take_sorted(&mut self, names: &[K], batch: &Batch, columns: &[ArrayRef], out: &mut dyn Output) -> Result<()> {
        let mut order: Vec<u32> = (0..).take(names.len()).collect();
        order.sort_by_key(|row| names[*row as usize]);
        let names: Vec<K> = order.iter().map(|row| names[*row as usize]).collect();
        let order = UInt32Array::from(order);
        let taken: Result<Vec<_>, _> = columns.iter().map(|c| take(c, &order, None)).collect();
        let taken = taken.map_err(|e| Error::stop("ordering rows by window", e))?;
        self.take_runs(&names, &batch.take(&order)?, &taken, out)
    }

    fn take_runs(&mut self, names: &[K], batch: &Batch, columns: &[ArrayRef], out: &mut dyn Output) -> Result<()> {
        let mut from = 0;
        for run in names.chunk_by(|a, b| a == b) {
            let part: Vec<_> = columns.iter().map(|c| c.slice(from, run.len())).collect();
            self.take_slice(run[0], &part, || Ok(batch.slice(from, run.len())), out)?;
            from += run.len();
        }
        Ok(())
    }

    /// Adds rows to one slice; `batch` gives the whole rows, for those that are refused.
    pub(super) fn take_slice(
        &mut self,
        key: K,
        columns: &[ArrayRef],
        batch: impl FnOnce() -> Result<Batch>,
        out: &mut dyn Output,
    ) -> Result<()> {
        let rows = columns[0].len();
        if self.held.groups.saturating_add(rows) > self.max_keys || self.held.bytes > self.max_state {
            return self.take_admitted(key, &batch()?, columns, out);
        }
        self.add(key, columns)?;
        out.count(Count::Taken, rows as u64);
        Ok(())
    }

    /// Near a limit: rows of known groups are taken, and new groups as far as there is room. No row where a function keeps them all and
    /// there are no bytes left.
    fn take_admitted(&mut self, key: K, batch: &Batch, columns: &[ArrayRef], out: &mut dyn Output) -> Result<()> {
        let key_columns = &columns[..self.aggregates.key.len()];
        let full = self.held.bytes > self.max_state;
        let slice = self.open.entry(key).or_default();
        let before = slice.held();
        // Merged first, so that a group counts once here.
        slice.merge(&self.aggregates).map_err(|e| broken("merging", key, e))?;
        self.held.change(before, slice.held());
        let room = if full { 0 } else { self.max_keys.saturating_sub(self.held.groups) };
        let admitted = if full && self.aggregates.grows {
            BooleanArray::from(vec![false; batch.len()])
        } else {
            slice.admit(&self.aggregates, key_columns, room, &mut self.groups).map_err(|e| broken("limiting", key, e))?
        };
        if slice.held() == Held::default() && !admitted.has_true() {
            self.open.remove(&key);
        }
        let refused = not(&admitted).map_err(|e| Error::stop("inverting the admitted rows", e))?;
        if refused.has_true() {
            let detail = format!("the window holds its limit of {} groups or {} bytes", self.max_keys, self.max_state);
            out.dead(DeadLetters { rows: batch.filter(&refused)?, reason: Reason::StateLimit, detail });
        }
        let kept: Result<Vec<_>, _> = columns.iter().map(|c| filter(c, &admitted)).collect();
        let kept = kept.map_err(|e| Error::stop("selecting the admitted rows", e))?;
        if admitted.has_true() {
            self.add(key, &kept)?;
            out.count(Count::Taken, admitted.true_count() as u64);
        }
        Ok(())
    }

    fn add(&mut self, key: K, columns: &[ArrayRef]) -> Result<()> {
        let slice = self.open.entry(key).or_default();
        let before = slice.held();
        let added = match self.intake {
            Intake::Readings => slice.add(&self.aggregates, columns, &mut self.groups),
            Intake::Partials => slice.add_partials(&self.aggregates, columns, &mut self.groups),
        };
        added.map_err(|e| broken("adding to", key, e))?;
        self.held.change(before, slice.held());
        Ok(())
    }
}

/// The slices among names, in order; none where they are too many to look at all rows for each.
fn few<K: Name>(names: &[K]) -> Option<Vec<K>> {
    let (mut found, mut last) = (Vec::with_capacity(FEW), None);
    for name in names {
        if last.replace(*name) == Some(*name) || found.contains(name) {
            continue;
        }
        if found.len() == FEW {
            return None;
        }
        found.push(*name);
    }
    found.sort_unstable();
    Some(found)
}

/// An error of DataFusion's aggregates: a broken promise of ours.
pub(super) fn broken(doing: &str, slice: impl Name, cause: DataFusionError) -> Error {
    Error::stop(format!("{doing} the window slice {}", slice.part()), cause)
}
