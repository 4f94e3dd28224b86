//! Partial aggregates of groups that are told apart by a number: windows whose bounds depend on their readings, or that are put out
//! one by one.
//!
//! Readings are aggregated in place, each group at a place of its own, until results of one of these groups are asked for, a save comes, or
//! there are many places. Then they are sealed: one row of partial state a place, behind the earlier rows of its group. Rows are merged
//! when there are many more of them than groups. A number is given anew only after such a merge, so that rows which are stored under
//! it are not taken for another's.
//!
//! State: the part `partials` of (`group`, the functions' state columns); rows of groups that nobody names are skipped.

use super::aggregates::Aggregates;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, interleave};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use datafusion::common::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use flow::{Error, StateReader, StateWriter};
use std::sync::Arc;

const PART: &str = "partials";
const NONE: u32 = u32::MAX;
/// Merging fewer rows than this saves nothing.
const SMALL: usize = 8_192;
/// The most groups that are aggregated in place: with five functions about 16 MB.
const MOST_PLACES: usize = 262_144;

/// See the page.
pub(super) struct Store {
    /// `group`, then the state columns.
    schema: SchemaRef,
    /// Rows in the order in which they came. Each batch is at least twice as long as the next, so there are few.
    chunks: Vec<RecordBatch>,
    /// By row: the next row of the same group.
    next: Vec<u32>,
    /// By number of a group: its first and last row.
    chains: Vec<(u32, u32)>,
    /// By number of a group: its place among the latest readings; `NONE` where it has none, and past the end.
    places: Vec<u32>,
    latest: Option<Latest>,
    free: Vec<u32>,
    live: usize,
    /// Rows that storage has, from the first.
    stored: usize,
    /// What is stored must be replaced.
    replace: bool,
}

/// Readings that are not sealed.
struct Latest {
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    /// By place: the group, the same at several places after a join; `NONE` where it was closed.
    groups: Vec<u32>,
    /// Places of groups that have another one, after a join.
    second: Vec<u32>,
    /// Scratch: the place of each reading.
    of_readings: Vec<usize>,
}

impl Store {
    pub(super) fn new(aggregates: &Aggregates) -> Self {
        let states = aggregates.partial_schema.fields().iter().skip(aggregates.key.len()).cloned();
        let fields: Vec<_> = std::iter::once(Arc::new(Field::new("group", DataType::UInt32, false))).chain(states).collect();
        Self {
            schema: Arc::new(Schema::new(fields)),
            chunks: vec![],
            next: vec![],
            chains: vec![],
            places: vec![],
            latest: None,
            free: vec![],
            live: 0,
            stored: 0,
            replace: false,
        }
    }

    /// The number of a new group.
    pub(super) fn open(&mut self) -> u32 {
        self.live += 1;
        self.free.pop().unwrap_or_else(|| {
            self.chains.push((NONE, NONE));
            u32::try_from(self.chains.len() - 1).expect("groups are fewer than the limit, which fits")
        })
    }

    /// The group is no longer needed.
    pub(super) fn close(&mut self, group: u32) {
        self.live -= 1;
        self.chains[group as usize] = (NONE, NONE);
        self.relabel(group, NONE);
    }

    /// The readings of `from` belong to `into` from now on; `from` is closed.
    pub(super) fn join(&mut self, into: u32, from: u32) {
        let (head, tail) = self.chains[from as usize];
        self.relabel(from, into);
        self.close(from);
        self.chain(into, head, tail);
    }

    /// What stands at the place of a group belongs to another from now on.
    fn relabel(&mut self, from: u32, into: u32) {
        let place = self.places.get(from as usize).copied().unwrap_or(NONE);
        let Some(latest) = self.latest.as_mut().filter(|_| place != NONE) else { return };
        self.places.resize(self.chains.len(), NONE);
        self.places[from as usize] = NONE;
        latest.groups[place as usize] = into;
        for second in &latest.second {
            let group = &mut latest.groups[*second as usize];
            *group = if *group == from { into } else { *group };
        }
        match self.places.get_mut(into as usize) {
            Some(first) if *first == NONE => *first = place,
            Some(_) => latest.second.push(place),
            None => {}
        }
    }

    /// Adds readings: arguments and filters as `Aggregates::evaluate` gives them after the key, for each reading its group.
    pub(super) fn add(&mut self, aggregates: &Aggregates, arguments: &[ArrayRef], groups: impl Iterator<Item = u32>) -> Result<()> {
        let latest = match &mut self.latest {
            Some(latest) => latest,
            none => none.insert(Latest::open(aggregates)?),
        };
        self.places.resize(self.chains.len(), NONE);
        latest.of_readings.clear();
        for group in groups {
            let place = &mut self.places[group as usize];
            if *place == NONE {
                *place = latest.groups.len() as u32;
                latest.groups.push(group);
            }
            latest.of_readings.push(*place as usize);
        }
        latest.update(aggregates, arguments)?;
        if latest.groups.len() >= MOST_PLACES {
            self.seal()?;
        }
        Ok(())
    }

    /// Makes rows of what is aggregated in place.
    fn seal(&mut self) -> Result<()> {
        let Some(Latest { mut accumulators, groups, .. }) = self.latest.take() else { return Ok(()) };
        let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(groups.clone()))];
        for accumulator in &mut accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        let mut rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        if groups.contains(&NONE) {
            let held: BooleanArray = groups.iter().map(|group| Some(*group != NONE)).collect();
            rows = filter_record_batch(&rows, &held)?;
        }
        let first = self.next.len() as u32;
        self.next.resize(self.next.len() + rows.num_rows(), NONE);
        for (row, group) in (first..).zip(groups.iter().filter(|group| **group != NONE)) {
            self.places[*group as usize] = NONE;
            self.chain(*group, row, row);
        }
        if rows.num_rows() == 0 {
            return Ok(());
        }
        self.chunks.push(rows);
        self.gather()
    }

    /// Results of the functions: `of` has pairs of (row of the result, group), `rows` is how many rows there are.
    pub(super) fn results(&mut self, aggregates: &Aggregates, of: &[(usize, u32)], rows: usize) -> Result<Vec<ArrayRef>> {
        if of.iter().any(|(_, group)| self.places.get(*group as usize).is_some_and(|place| *place != NONE)) {
            self.seal()?;
        }
        let mut merged = self.merge(aggregates, of, rows)?;
        merged.iter_mut().map(|accumulator| accumulator.evaluate(EmitTo::All)).collect()
    }

    /// Whether merging all rows would make the store much smaller.
    pub(super) fn is_sparse(&self) -> bool {
        self.next.len() > 2 * self.live + SMALL
    }

    /// Merges the rows of each group into one, and frees the numbers of closed and joined groups: nobody may name those any more.
    pub(super) fn compact(&mut self, aggregates: &Aggregates) -> Result<()> {
        self.seal()?;
        let groups: Vec<u32> = (0..).zip(&self.chains).filter(|(_, chain)| chain.0 != NONE).map(|(group, _)| group).collect();
        // Rows that nobody owns are merged into one behind the others, which is left out.
        let mut owners = vec![groups.len(); self.next.len()];
        for (place, group) in groups.iter().enumerate() {
            let mut row = self.chains[*group as usize].0;
            while row != NONE {
                owners[row as usize] = place;
                row = self.next[row as usize];
            }
        }
        let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(groups.clone()))];
        let mut column = 1;
        for function in aggregates.functions() {
            let (mut accumulator, mut from) = (function.accumulator()?, 0);
            for chunk in &self.chunks {
                let states = &chunk.columns()[column..column + function.states];
                accumulator.merge_batch(states, &owners[from..from + chunk.num_rows()], groups.len() + 1)?;
                from += chunk.num_rows();
            }
            columns.extend(accumulator.state(EmitTo::First(groups.len()))?);
            column += function.states;
        }
        self.chunks = vec![RecordBatch::try_new(self.schema.clone(), columns)?];
        self.next = vec![NONE; groups.len()];
        self.chains.iter_mut().for_each(|chain| *chain = (NONE, NONE));
        for (row, group) in (0..).zip(&groups) {
            self.chains[*group as usize] = (row, row);
        }
        self.replace |= self.stored > 0;
        self.stored = 0;
        Ok(())
    }

    /// After `compact`: the numbers that are not among those in use.
    pub(super) fn free_all_but(&mut self, used: impl Iterator<Item = u32>) {
        let mut is_used = vec![false; self.chains.len()];
        used.for_each(|group| is_used[group as usize] = true);
        self.free = (0..).zip(is_used).filter(|(_, used)| !used).map(|(group, _)| group).collect();
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let rows: usize = self.chunks.iter().map(RecordBatch::get_array_memory_size).sum();
        let numbers = self.next.capacity() + 2 * self.chains.capacity() + self.places.capacity();
        rows + numbers * size_of::<u32>() + self.latest.as_ref().map_or(0, Latest::bytes)
    }

    /// Appends the rows that storage lacks.
    pub(super) fn save(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        self.seal()?;
        if std::mem::take(&mut self.replace) {
            to.remove(PART);
        }
        let mut from = 0;
        for chunk in &self.chunks {
            let known = self.stored.saturating_sub(from).min(chunk.num_rows());
            if known < chunk.num_rows() {
                to.append(PART, chunk.slice(known, chunk.num_rows() - known));
            }
            from += chunk.num_rows();
        }
        self.stored = self.next.len();
        Ok(())
    }

    /// Takes over the rows of groups. `owner` gives for a stored number the group it belongs to.
    pub(super) fn load(&mut self, from: &mut dyn StateReader, live: usize, owner: &[Option<u32>]) -> flow::Result<()> {
        let unlike = |e| Error::stop("window state is of other aggregates", e);
        self.chains = vec![(NONE, NONE); owner.len()];
        self.live = live;
        for rows in from.read(PART)? {
            let rows = RecordBatch::try_new(self.schema.clone(), rows.columns().to_vec()).map_err(unlike)?;
            let first = self.next.len() as u32;
            self.next.resize(self.next.len() + rows.num_rows(), NONE);
            for (row, group) in (first..).zip(rows.column(0).as_primitive::<UInt32Type>().values()) {
                // Numbers that nobody names any more are not given anew while rows stand under them.
                if self.chains.len() <= *group as usize {
                    self.chains.resize(*group as usize + 1, (NONE, NONE));
                }
                if let Some(group) = owner.get(*group as usize).copied().flatten() {
                    self.chain(group, row, row);
                }
            }
            self.chunks.push(rows);
            self.gather().map_err(|e| Error::stop("joining window state", e))?;
        }
        self.stored = self.next.len();
        Ok(())
    }

    /// Hangs rows behind those of a group.
    fn chain(&mut self, group: u32, head: u32, tail: u32) {
        let chain = &mut self.chains[group as usize];
        if head == NONE {
            return;
        }
        match chain.0 {
            NONE => *chain = (head, tail),
            _ => {
                self.next[chain.1 as usize] = head;
                chain.1 = tail;
            }
        }
    }

    /// Joins neighbouring chunks until each is at least twice as long as the next.
    fn gather(&mut self) -> Result<()> {
        let length = |chunk: &RecordBatch| chunk.num_rows();
        let mut from = self.chunks.len() - 1;
        let mut rows = length(&self.chunks[from]);
        while from > 0 && length(&self.chunks[from - 1]) < 2 * rows {
            from -= 1;
            rows += length(&self.chunks[from]);
        }
        if from + 1 < self.chunks.len() {
            let joined = concat_batches(&self.schema, &self.chunks[from..])?;
            self.chunks.truncate(from);
            self.chunks.push(joined);
        }
        Ok(())
    }

    fn merge(&self, aggregates: &Aggregates, of: &[(usize, u32)], rows: usize) -> Result<Vec<Box<dyn GroupsAccumulator>>> {
        let firsts: Vec<usize> = self.chunks.iter().scan(0, |sum, c| Some(std::mem::replace(sum, *sum + c.num_rows()))).collect();
        let (mut at, mut places) = (Vec::with_capacity(of.len()), Vec::with_capacity(of.len()));
        for (place, group) in of {
            let mut row = self.chains[*group as usize].0;
            while row != NONE {
                let chunk = firsts.partition_point(|first| *first <= row as usize) - 1;
                at.push((chunk, row as usize - firsts[chunk]));
                places.push(*place);
                row = self.next[row as usize];
            }
        }
        let (mut merged, mut column) = (vec![], 1);
        for function in aggregates.functions() {
            let states = (column..column + function.states).map(|c| self.column(c, &at)).collect::<Result<Vec<_>>>()?;
            let mut accumulator = function.accumulator()?;
            if states.first().is_none_or(|s| !s.is_empty()) {
                accumulator.merge_batch(&states, &places, rows)?;
            }
            merged.push(accumulator);
            column += function.states;
        }
        Ok(merged)
    }

    fn column(&self, column: usize, at: &[(usize, usize)]) -> Result<ArrayRef> {
        if self.chunks.is_empty() {
            return Ok(arrow::array::new_empty_array(self.schema.field(column).data_type()));
        }
        let of_chunks: Vec<&dyn Array> = self.chunks.iter().map(|c| c.column(column).as_ref()).collect();
        Ok(interleave(&of_chunks, at)?)
    }
}

impl Latest {
    fn open(aggregates: &Aggregates) -> Result<Self> {
        let accumulators = aggregates.functions().iter().map(|f| f.accumulator()).collect::<Result<_>>()?;
        Ok(Self { accumulators, groups: vec![], second: vec![], of_readings: vec![] })
    }

    fn update(&mut self, aggregates: &Aggregates, arguments: &[ArrayRef]) -> Result<()> {
        let mut rest = arguments;
        for (accumulator, function) in self.accumulators.iter_mut().zip(aggregates.functions()) {
            let (values, after) = rest.split_at(function.arguments);
            let filter = if function.filtered { Some(after[0].as_boolean()) } else { None };
            accumulator.update_batch(values, &self.of_readings, filter, self.groups.len())?;
            rest = &after[usize::from(function.filtered)..];
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        let accumulators: usize = self.accumulators.iter().map(|a| a.size()).sum();
        accumulators + self.groups.capacity() * size_of::<u32>() + self.of_readings.capacity() * size_of::<usize>()
    }
}
