//! One slice of event time: live groups, and the partial aggregates that earlier saves have sealed.
//!
//! A partial is a batch of key columns and the functions' state columns, one row a group. It is written once and kept; new
//! readings start fresh groups; the close merges all in their order, so that groups come out in the order they were first seen,
//! whenever saves happened.

use super::aggregates::Aggregates;
use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use datafusion::common::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// Partials are merged into one, which is written anew, when there are more than `FEW` and those behind the first have more rows than it, so
/// that a row is written about twice; and beyond `MOST`, which adds less than a hundredth of the slice to a save.
const FEW: usize = 8;
const MOST: usize = 128;

/// The groups of one slice.
#[derive(Default)]
pub(super) struct Slice {
    live: Option<Live>,
    partials: Vec<RecordBatch>,
    /// How many of the partials are stored, from the first.
    stored: usize,
    /// Partials have been merged: what is stored must be replaced.
    merged: bool,
}

/// How much is held. A group in several partials counts in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) groups: usize,
    pub(super) bytes: usize,
}

impl Held {
    /// A part of what is held went from `before` to `after`.
    pub(super) fn change(&mut self, before: Self, after: Self) {
        self.groups = self.groups + after.groups - before.groups;
        self.bytes = self.bytes + after.bytes - before.bytes;
    }
}

/// What a save must do for a slice.
pub(super) struct Change {
    /// Remove what is stored first.
    pub(super) replace: bool,
    /// Partials to append.
    pub(super) append: Vec<RecordBatch>,
}

struct Live {
    keys: Box<dyn GroupValues>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
}

impl Slice {
    /// A slice as it was saved.
    pub(super) fn load(partials: Vec<RecordBatch>) -> Self {
        Self { stored: partials.len(), partials, ..Self::default() }
    }

    /// What it holds.
    pub(super) fn held(&self) -> Held {
        let live = self.live.as_ref();
        let groups = live.map_or(0, |l| l.keys.len()) + self.partials.iter().map(RecordBatch::num_rows).sum::<usize>();
        let bytes = live.map_or(0, |l| l.keys.size() + l.accumulators.iter().map(|a| a.size()).sum::<usize>());
        Held { groups, bytes: bytes + self.partials.iter().map(RecordBatch::get_array_memory_size).sum::<usize>() }
    }

    /// Whether nothing came since the last save.
    pub(super) fn is_saved(&self) -> bool {
        self.live.is_none() && !self.merged && self.stored == self.partials.len()
    }

    /// Whether storage holds something of it.
    pub(super) fn is_stored(&self) -> bool {
        self.stored > 0 || self.merged
    }

    /// Takes rows: key columns, arguments and filters as `Aggregates::evaluate` gives them.
    pub(super) fn add(&mut self, aggregates: &Aggregates, columns: &[ArrayRef], groups: &mut Vec<usize>) -> Result<()> {
        let live = match &mut self.live {
            Some(live) => live,
            none => none.insert(Live::open(aggregates)?),
        };
        live.update(aggregates, columns, groups)
    }

    /// Takes partial aggregates: columns of `Aggregates::partial_schema`.
    pub(super) fn add_partials(&mut self, aggregates: &Aggregates, columns: &[ArrayRef], groups: &mut Vec<usize>) -> Result<()> {
        let live = match &mut self.live {
            Some(live) => live,
            none => none.insert(Live::open(aggregates)?),
        };
        live.merge(aggregates, columns, groups)
    }

    /// Which rows may be taken when only `room` further groups may be held: those of known groups, and the first new ones.
    /// The slice is merged.
    pub(super) fn admit(&self, aggregates: &Aggregates, key: &[ArrayRef], room: usize, groups: &mut Vec<usize>) -> Result<BooleanArray> {
        assert!(self.live.is_none(), "live groups while {room} more are admitted");
        let mut known = Live::open(aggregates)?.keys;
        for partial in &self.partials {
            known.intern(&partial.columns()[..key.len()], groups)?;
        }
        let limit = known.len().saturating_add(room);
        known.intern(key, groups)?;
        Ok(groups.iter().map(|group| Some(*group < limit)).collect())
    }

    /// What came since the last save.
    pub(super) fn save(&mut self, aggregates: &Aggregates) -> Result<Change> {
        self.seal(aggregates)?;
        let rest: usize = self.partials.iter().skip(1).map(RecordBatch::num_rows).sum();
        let outgrown = self.partials.first().is_some_and(|first| rest > first.num_rows());
        if self.partials.len() > MOST || self.partials.len() > FEW && outgrown {
            self.merge(aggregates)?;
        }
        let replace = std::mem::take(&mut self.merged);
        let append = self.partials[self.stored..].to_vec();
        self.stored = self.partials.len();
        Ok(Change { replace, append })
    }

    /// One row a group, in the order in which the groups were first seen; columns as `Aggregates::result_schema`.
    pub(super) fn close(mut self, aggregates: &Aggregates) -> Result<RecordBatch> {
        if !self.partials.is_empty() {
            self.seal(aggregates)?;
        }
        let live = match self.live.take() {
            Some(live) => live,
            None => Live::of(aggregates, &self.partials)?,
        };
        live.evaluate(aggregates)
    }

    /// All that is held, as partials.
    pub(super) fn partials(&mut self, aggregates: &Aggregates) -> Result<Vec<RecordBatch>> {
        self.seal(aggregates)?;
        Ok(self.partials.clone())
    }

    /// Turns the live groups into a partial.
    fn seal(&mut self, aggregates: &Aggregates) -> Result<()> {
        if let Some(live) = self.live.take() {
            self.partials.push(live.into_partial(aggregates)?);
        }
        Ok(())
    }

    /// Turns all into one partial.
    pub(super) fn merge(&mut self, aggregates: &Aggregates) -> Result<()> {
        self.seal(aggregates)?;
        if self.partials.len() > 1 {
            let all = Live::of(aggregates, &self.partials)?;
            self.partials = vec![all.into_partial(aggregates)?];
            self.merged |= self.stored > 0;
            self.stored = 0;
        }
        Ok(())
    }
}

/// One row a group of some partials, in the order in which the groups are first seen; columns as `Aggregates::result_schema`.
pub(super) fn merged(aggregates: &Aggregates, partials: &[RecordBatch]) -> Result<RecordBatch> {
    Live::of(aggregates, partials)?.evaluate(aggregates)
}

impl Live {
    fn open(aggregates: &Aggregates) -> Result<Self> {
        Ok(Self {
            keys: new_group_values(aggregates.key_schema.clone(), &GroupOrdering::None)?,
            accumulators: aggregates.functions().iter().map(|f| f.accumulator()).collect::<Result<_>>()?,
        })
    }

    fn of(aggregates: &Aggregates, partials: &[RecordBatch]) -> Result<Self> {
        let (mut all, mut groups) = (Self::open(aggregates)?, Vec::new());
        for partial in partials {
            all.merge(aggregates, partial.columns(), &mut groups)?;
        }
        Ok(all)
    }

    fn merge(&mut self, aggregates: &Aggregates, partial: &[ArrayRef], groups: &mut Vec<usize>) -> Result<()> {
        let (key, mut states) = partial.split_at(aggregates.key.len());
        self.keys.intern(key, groups)?;
        let total = self.keys.len();
        for (accumulator, function) in self.accumulators.iter_mut().zip(aggregates.functions()) {
            let (of_function, rest) = states.split_at(function.states);
            accumulator.merge_batch(of_function, groups, total)?;
            states = rest;
        }
        Ok(())
    }

    fn update(&mut self, aggregates: &Aggregates, columns: &[ArrayRef], groups: &mut Vec<usize>) -> Result<()> {
        let (key, mut rest) = columns.split_at(aggregates.key.len());
        self.keys.intern(key, groups)?;
        let total = self.keys.len();
        for (accumulator, function) in self.accumulators.iter_mut().zip(aggregates.functions()) {
            let (arguments, after) = rest.split_at(function.arguments);
            let filter = if function.filtered { Some(after[0].as_boolean()) } else { None };
            accumulator.update_batch(arguments, groups, filter, total)?;
            rest = &after[usize::from(function.filtered)..];
        }
        Ok(())
    }

    fn into_partial(mut self, aggregates: &Aggregates) -> Result<RecordBatch> {
        let mut columns = self.keys.emit(EmitTo::All)?;
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        Ok(RecordBatch::try_new(aggregates.partial_schema.clone(), columns)?)
    }

    fn evaluate(mut self, aggregates: &Aggregates) -> Result<RecordBatch> {
        let mut columns = self.keys.emit(EmitTo::All)?;
        for accumulator in &mut self.accumulators {
            columns.push(accumulator.evaluate(EmitTo::All)?);
        }
        Ok(RecordBatch::try_new(aggregates.result_schema.clone(), columns)?)
    }
}
