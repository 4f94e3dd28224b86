//! One slice of event time: live groups, and the partial aggregates that earlier saves have sealed.
//!
//! A partial has the functions' state columns beside the key, one row a group. It is written once and kept; new readings start fresh groups;
//! the close merges all in their order.

use super::aggregates::Aggregates;
use super::live::{self, Live, Partial};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use datafusion::common::Result;
use datafusion::physical_plan::aggregates::group_values::new_group_values;
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// Partials are merged into one, which is written anew, when there are more than `FEW` and those behind the first have more rows than it, so
/// that a row is written about twice; and beyond `MOST`, which adds less than a hundredth of the slice to a save.
const FEW: usize = 8;
const MOST: usize = 128;

/// The groups of one slice.
#[derive(Default)]
pub(super) struct Slice {
    live: Option<Live>,
    partials: Vec<Partial>,
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

impl Slice {
    /// A slice as it was saved.
    pub(super) fn load(partials: Vec<RecordBatch>) -> Self {
        Self { stored: partials.len(), partials: partials.into_iter().map(Partial::of).collect(), ..Self::default() }
    }

    /// What it holds.
    pub(super) fn held(&self) -> Held {
        let parts = self.live.iter().map(Live::held).chain(self.partials.iter().map(Partial::held));
        parts.fold(Held::default(), |all, part| Held { groups: all.groups + part.groups, bytes: all.bytes + part.bytes })
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
        self.live(aggregates)?.update(aggregates, columns, groups)
    }

    /// Takes partial aggregates: columns of `Aggregates::partial_schema`.
    pub(super) fn add_partials(&mut self, aggregates: &Aggregates, columns: &[ArrayRef], groups: &mut Vec<usize>) -> Result<()> {
        self.live(aggregates)?.merge_rows(aggregates, columns, groups)
    }

    fn live(&mut self, aggregates: &Aggregates) -> Result<&mut Live> {
        Ok(match &mut self.live {
            Some(live) => live,
            none => none.insert(Live::open(aggregates)?),
        })
    }

    /// Which rows may be taken when only `room` further groups may be held: those of known groups, and the first new ones.
    /// The slice is merged.
    pub(super) fn admit(&self, aggregates: &Aggregates, key: &[ArrayRef], room: usize, groups: &mut Vec<usize>) -> Result<BooleanArray> {
        assert!(self.live.is_none(), "live groups while {room} more are admitted");
        let mut known = new_group_values(aggregates.key_schema.clone(), &GroupOrdering::None)?;
        for partial in self.partials.iter().flat_map(Partial::batches) {
            known.intern(&partial.columns()[..key.len()], groups)?;
        }
        let limit = known.len().saturating_add(room);
        known.intern(key, groups)?;
        Ok(groups.iter().map(|group| Some(*group < limit)).collect())
    }

    /// What came since the last save.
    pub(super) fn save(&mut self, aggregates: &Aggregates) -> Result<Change> {
        self.seal(aggregates)?;
        let rest: usize = self.partials.iter().skip(1).map(|partial| partial.held().groups).sum();
        let outgrown = self.partials.first().is_some_and(|first| rest > first.held().groups);
        if self.partials.len() > MOST || self.partials.len() > FEW && outgrown {
            self.merge(aggregates)?;
        }
        let replace = std::mem::take(&mut self.merged);
        let append = self.partials[self.stored..].iter().flat_map(Partial::batches).filter(|rows| rows.num_rows() > 0).cloned().collect();
        self.stored = self.partials.len();
        Ok(Change { replace, append })
    }

    /// One row a group, columns as `Aggregates::result_schema`; in the order that `live` tells.
    pub(super) fn close(mut self, aggregates: &Aggregates) -> Result<RecordBatch> {
        if self.partials.is_empty()
            && let Some(live) = self.live.take()
        {
            return live.evaluate(aggregates);
        }
        self.seal(aggregates)?;
        live::evaluated(aggregates, &self.partials)
    }

    /// All that is held, as partials.
    pub(super) fn partials(&mut self, aggregates: &Aggregates) -> Result<Vec<Partial>> {
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
            self.partials = vec![live::merged(aggregates, &self.partials)?];
            self.merged |= self.stored > 0;
            self.stored = 0;
        }
        Ok(())
    }
}
