//! Live groups of a slice, and the partial aggregates that they become.
//!
//! Up to `WHOLE` groups are one table. The memory of more does not fit the processor's nearer caches, and each row would wait for it several
//! times; so they are parted by the hash of their key into `PARTS` tables, and rows are gathered until each table has enough to do in one go.
//! This is partitioning before hashing as in Müller et al., "Cache-Efficient Aggregation: Hashing Is Sorting" (SIGMOD 2015).
//!
//! Groups come out in the order in which they were first seen; where there are more than `WHOLE`, part after part, and so in each. The order
//! depends on which groups there are and on the order of the rows, not on when a save was.

use super::aggregates::Aggregates;
use super::slice::Held;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{concat_batches, interleave};
use datafusion::common::Result;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use std::ops::Range;
use std::sync::Arc;

/// With five aggregates a group takes 100 to 150 bytes, so that a part of a million groups fits a second-level cache of 1 to 2 MiB.
const PARTS: usize = 64;
/// The most groups of one table.
const WHOLE: usize = if cfg!(test) { 48 } else { 1 << 17 };
/// Rows that are gathered for the parts, at least: about 4,000 for each.
const GATHERED: usize = if cfg!(test) { 32 } else { 1 << 18 };

/// Groups with their accumulators: one table, or `PARTS`.
pub(super) struct Live {
    tables: Vec<Table>,
    /// What the tables held when they were last written to.
    held: Held,
    gathered: Gathered,
}

/// Rows on their way to the parts, batch by batch.
#[derive(Default)]
struct Gathered {
    batches: Vec<Vec<ArrayRef>>,
    rows: usize,
    bytes: usize,
}

/// Partial aggregates: columns of `Aggregates::partial_schema`, one row a group; in one batch, or in one for each part.
#[derive(Clone)]
pub(super) struct Partial {
    batches: Vec<RecordBatch>,
    /// Counted once: it is asked for with each batch of readings.
    held: Held,
}

struct Table {
    keys: Box<dyn GroupValues>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
}

impl Partial {
    /// Partial aggregates whose parts are not known.
    pub(super) fn of(rows: RecordBatch) -> Self {
        Self::new(vec![rows])
    }

    fn new(batches: Vec<RecordBatch>) -> Self {
        let groups = batches.iter().map(RecordBatch::num_rows).sum();
        let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        Self { batches, held: Held { groups, bytes } }
    }

    /// The rows, in one batch or several.
    pub(super) fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    pub(super) fn held(&self) -> Held {
        self.held
    }

    fn is_parted(&self) -> bool {
        self.batches.len() == PARTS
    }

    fn parted(&self, aggregates: &Aggregates) -> Result<Self> {
        if self.is_parted() {
            return Ok(self.clone());
        }
        let batches: Vec<_> = self.batches.iter().map(|rows| rows.columns().to_vec()).collect();
        let parted = Parted::of(&batches, aggregates.key.len())?;
        let part = |range: Range<usize>| RecordBatch::try_new(aggregates.partial_schema.clone(), parted.part(&range));
        Ok(Self::new(parted.ranges().map(part).collect::<Result<_, _>>()?))
    }
}

/// One row a group of some partials; columns as `Aggregates::result_schema`.
pub(super) fn evaluated(aggregates: &Aggregates, partials: &[Partial]) -> Result<RecordBatch> {
    let results = each_table(aggregates, partials, Table::evaluate)?;
    Ok(concat_batches(&aggregates.result_schema, &results)?)
}

/// Some partials as one.
pub(super) fn merged(aggregates: &Aggregates, partials: &[Partial]) -> Result<Partial> {
    Ok(Partial::new(each_table(aggregates, partials, Table::into_partial)?))
}

/// Merges partials and ends each table: of those with parts one at a time, so that no more is held.
fn each_table(
    aggregates: &Aggregates,
    partials: &[Partial],
    end: impl Fn(Table, &Aggregates) -> Result<RecordBatch>,
) -> Result<Vec<RecordBatch>> {
    let mut groups = vec![];
    if !partials.iter().any(Partial::is_parted) {
        let mut live = Live::open(aggregates)?;
        for partial in partials {
            live.merge(aggregates, partial, &mut groups)?;
        }
        return live.tables.into_iter().map(|table| end(table, aggregates)).collect();
    }
    let parted = partials.iter().map(|partial| partial.parted(aggregates)).collect::<Result<Vec<_>>>()?;
    let table = |part: usize| {
        let mut table = Table::open(aggregates)?;
        parted.iter().try_for_each(|partial| table.merge(aggregates, partial.batches[part].columns(), &mut groups))?;
        end(table, aggregates)
    };
    (0..PARTS).map(table).collect()
}

impl Live {
    pub(super) fn open(aggregates: &Aggregates) -> Result<Self> {
        Ok(Self { tables: vec![Table::open(aggregates)?], held: Held::default(), gathered: Gathered::default() })
    }

    /// What it holds. Each row that waits for its part counts as a group.
    pub(super) fn held(&self) -> Held {
        Held { groups: self.held.groups + self.gathered.rows, bytes: self.held.bytes + self.gathered.bytes }
    }

    /// Takes rows: key columns, arguments and filters as `Aggregates::evaluate` gives them.
    pub(super) fn update(&mut self, aggregates: &Aggregates, columns: &[ArrayRef], groups: &mut Vec<usize>) -> Result<()> {
        if let [table] = self.tables.as_mut_slice() {
            table.update(aggregates, columns, groups)?;
            return self.grown(aggregates, groups);
        }
        self.gathered.push(columns);
        if self.gathered.rows >= GATHERED { self.flush(aggregates, groups) } else { Ok(()) }
    }

    /// Takes partial aggregates: columns of `Aggregates::partial_schema`.
    pub(super) fn merge_rows(&mut self, aggregates: &Aggregates, columns: &[ArrayRef], groups: &mut Vec<usize>) -> Result<()> {
        if let [table] = self.tables.as_mut_slice() {
            table.merge(aggregates, columns, groups)?;
            return self.grown(aggregates, groups);
        }
        let parted = Parted::of(&[columns.to_vec()], aggregates.key.len())?;
        for (table, range) in self.tables.iter_mut().zip(parted.ranges()) {
            table.merge(aggregates, &parted.part(&range), groups)?;
        }
        self.held = held(&self.tables);
        Ok(())
    }

    fn merge(&mut self, aggregates: &Aggregates, partial: &Partial, groups: &mut Vec<usize>) -> Result<()> {
        partial.batches.iter().try_for_each(|rows| self.merge_rows(aggregates, rows.columns(), groups))
    }

    /// Ends as partial aggregates.
    pub(super) fn into_partial(mut self, aggregates: &Aggregates) -> Result<Partial> {
        self.flush(aggregates, &mut vec![])?;
        Ok(Partial::new(self.tables.into_iter().map(|table| table.into_partial(aggregates)).collect::<Result<_>>()?))
    }

    /// Ends with one row a group: columns as `Aggregates::result_schema`.
    pub(super) fn evaluate(mut self, aggregates: &Aggregates) -> Result<RecordBatch> {
        self.flush(aggregates, &mut vec![])?;
        let results = self.tables.into_iter().map(|table| table.evaluate(aggregates)).collect::<Result<Vec<_>>>()?;
        Ok(concat_batches(&aggregates.result_schema, &results)?)
    }

    /// The one table was written to: it is parted when it has become too large.
    fn grown(&mut self, aggregates: &Aggregates, groups: &mut Vec<usize>) -> Result<()> {
        self.held = held(&self.tables);
        if self.held.groups <= WHOLE {
            return Ok(());
        }
        let parts = (0..PARTS).map(|_| Table::open(aggregates)).collect::<Result<_>>()?;
        for table in std::mem::replace(&mut self.tables, parts) {
            let rows = table.into_partial(aggregates)?;
            self.merge_rows(aggregates, rows.columns(), groups)?;
        }
        Ok(())
    }

    /// Gives the gathered rows to their parts.
    fn flush(&mut self, aggregates: &Aggregates, groups: &mut Vec<usize>) -> Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        if gathered.rows == 0 {
            return Ok(());
        }
        let parted = Parted::of(&gathered.batches, aggregates.key.len())?;
        for (table, range) in self.tables.iter_mut().zip(parted.ranges()) {
            table.update(aggregates, &parted.part(&range), groups)?;
        }
        self.held = held(&self.tables);
        Ok(())
    }
}

fn held(tables: &[Table]) -> Held {
    let bytes = |table: &Table| table.keys.size() + table.accumulators.iter().map(|a| a.size()).sum::<usize>();
    Held { groups: tables.iter().map(|table| table.keys.len()).sum(), bytes: tables.iter().map(bytes).sum() }
}

impl Gathered {
    fn push(&mut self, columns: &[ArrayRef]) {
        self.rows += columns[0].len();
        let fresh = columns.iter().enumerate().filter(|(at, column)| !columns[..*at].iter().any(|c| Arc::ptr_eq(c, column)));
        self.bytes += fresh.map(|(_, column)| column.to_data().get_slice_memory_size().unwrap_or_default()).sum::<usize>();
        self.batches.push(columns.to_vec());
    }
}

/// Rows in the order of their parts, and in each as they came.
struct Parted {
    columns: Vec<ArrayRef>,
    /// Where each part ends.
    ends: [usize; PARTS],
}

impl Parted {
    /// The first `keys` columns are the key.
    fn of(batches: &[Vec<ArrayRef>], keys: usize) -> Result<Self> {
        let (state, mut hashes, mut parts) = (RandomState::default(), vec![], vec![]);
        let mut ends = [0; PARTS];
        for columns in batches {
            hashes.clear();
            hashes.resize(columns[0].len(), 0);
            create_hashes(&columns[..keys], &state, &mut hashes)?;
            for hash in &hashes {
                // Neither the lowest nor the highest bits: the tables go by those.
                let part = (hash >> 40) as usize % PARTS;
                ends[part] += 1;
                parts.push(part as u8);
            }
        }
        let mut next = [0; PARTS];
        let mut rows = 0;
        for (next, end) in next.iter_mut().zip(&mut ends) {
            (*next, rows) = (rows, rows + *end);
            *end = rows;
        }
        let (mut order, mut parts) = (vec![(0, 0); parts.len()], parts.into_iter());
        for (at, columns) in batches.iter().enumerate() {
            for (row, part) in (0..columns[0].len()).zip(&mut parts) {
                let place = &mut next[usize::from(part)];
                order[*place] = (at, row);
                *place += 1;
            }
        }
        let mut columns: Vec<ArrayRef> = vec![];
        for column in 0..batches[0].len() {
            let same = |other: &usize| batches.iter().all(|b| Arc::ptr_eq(&b[*other], &b[column]));
            columns.push(match (0..column).find(same) {
                Some(other) => columns[other].clone(),
                None => {
                    let all: Vec<&dyn Array> = batches.iter().map(|b| b[column].as_ref()).collect();
                    interleave(&all, &order)?
                }
            });
        }
        Ok(Self { columns, ends })
    }

    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        (0..PARTS).map(|part| if part == 0 { 0..self.ends[0] } else { self.ends[part - 1]..self.ends[part] })
    }

    fn part(&self, range: &Range<usize>) -> Vec<ArrayRef> {
        self.columns.iter().map(|column| column.slice(range.start, range.len())).collect()
    }
}

impl Table {
    fn open(aggregates: &Aggregates) -> Result<Self> {
        Ok(Self {
            keys: new_group_values(aggregates.key_schema.clone(), &GroupOrdering::None)?,
            accumulators: aggregates.functions().iter().map(|f| f.accumulator()).collect::<Result<_>>()?,
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::slice::Slice;
    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use indexmap::IndexMap;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn aggregates() -> Aggregates {
        let fields =
            vec![Field::new("device", DataType::Utf8View, true), Field::new("value", DataType::Int64, true), flow::event_time_field()];
        let select = [("n", "count(*)"), ("total", "sum(value)"), ("few", "max(value) FILTER (WHERE value < 50)")];
        let select: IndexMap<_, _> = select.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Aggregates::parse(&select, &["device".to_owned()], &Arc::new(Schema::new(fields))).unwrap()
    }

    /// Rows of device and value, in batches.
    type Readings = Vec<Vec<(Option<String>, i64)>>;

    /// Devices around `WHOLE`, and far beyond it.
    fn readings() -> impl Strategy<Value = Readings> {
        let device = |number: u32| Some(format!("a device with a long name {number}")).filter(|_| number > 0);
        let reading = move |devices: u32| (0..devices, 0..100_i64).prop_map(move |(number, value)| (device(number), value));
        let batches = move |devices| prop::collection::vec(prop::collection::vec(reading(devices), 0..23), 40);
        prop::sample::select(vec![20_u32, 48, 52, 60, 300]).prop_flat_map(batches)
    }

    fn columns(aggregates: &Aggregates, batch: &[(Option<String>, i64)]) -> Vec<ArrayRef> {
        let devices: ArrayRef = Arc::new(batch.iter().map(|(device, _)| device.clone()).collect::<StringViewArray>());
        let values: ArrayRef = Arc::new(batch.iter().map(|(_, value)| *value).collect::<Int64Array>());
        let rows = RecordBatch::try_from_iter_with_nullable([("device", devices, true), ("value", values, true)]).unwrap();
        aggregates.evaluate(&rows).map_err(|failed| failed.detail).unwrap()
    }

    /// Closes a slice that took these readings; `saved` tells behind which batches it was saved, and `loaded` whether it was then loaded.
    fn closed(aggregates: &Aggregates, readings: &Readings, mut saved: impl FnMut() -> bool, loaded: bool) -> RecordBatch {
        let (mut slice, mut stored, mut groups) = (Slice::default(), vec![], vec![]);
        for batch in readings {
            slice.add(aggregates, &columns(aggregates, batch), &mut groups).unwrap();
            if saved() {
                let change = slice.save(aggregates).unwrap();
                if change.replace {
                    stored.clear();
                }
                stored.extend(change.append);
                if loaded {
                    slice = Slice::load(stored.clone());
                }
            }
        }
        assert!(slice.held().groups >= slice.partials(aggregates).unwrap().iter().map(|p| p.held().groups).max().unwrap_or(0));
        slice.close(aggregates).unwrap()
    }

    fn naive(readings: &Readings) -> BTreeMap<Option<String>, (i64, i64, Option<i64>)> {
        let mut all = BTreeMap::new();
        for (device, value) in readings.iter().flatten() {
            let (n, total, few) = all.entry(device.clone()).or_insert((0, 0, None));
            (*n, *total, *few) = (*n + 1, *total + value, (*few).max(Some(*value).filter(|v| *v < 50)));
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn saves_and_parts_change_neither_the_groups_nor_their_order(
            readings in readings(),
            saves in prop::collection::vec(prop::bool::weighted(0.4), 40),
            all in prop::bool::ANY,
            loaded in prop::bool::ANY,
        ) {
            let aggregates = aggregates();
            let plain = closed(&aggregates, &readings, || false, false);
            let mut saves = saves.into_iter();
            let saved = closed(&aggregates, &readings, || saves.next().unwrap_or_default() || all, loaded);
            prop_assert_eq!(saved, plain.clone());
            let mut found = BTreeMap::new();
            let text = |row: usize| plain.column(0).is_valid(row).then(|| plain.column(0).as_string_view().value(row).to_owned());
            let number = |at: usize, row| plain.column(at).is_valid(row).then(|| plain.column(at).as_primitive::<Int64Type>().value(row));
            for row in 0..plain.num_rows() {
                found.insert(text(row), (number(1, row).unwrap(), number(2, row).unwrap(), number(3, row)));
            }
            prop_assert_eq!(found.len(), plain.num_rows(), "a group comes out once");
            prop_assert_eq!(found, naive(&readings));
        }
    }
}
