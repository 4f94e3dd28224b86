//! The readings of groups, as DataFusion's accumulators keep them.
//!
//! State: two columns of lists, times (microseconds) and values, one list a group, ascending by time and value. Merging puts lists
//! together, so that partial states of any readings in any order merge to the same, and results are equal to the last bit.

use super::measure::{Measure, Reading};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::compute::kernels::cmp::eq;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, TimestampMicrosecondType};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use std::sync::Arc;

/// The types of the state's columns.
pub(super) fn state_types() -> [DataType; 2] {
    [DataType::Int64, DataType::Float64].map(|t| DataType::List(Arc::new(Field::new_list_field(t, true))))
}

/// The readings of one group.
#[derive(Clone, Debug, Default)]
struct History {
    readings: Vec<Reading>,
    ordered: bool,
}

impl History {
    /// Keeps a reading; gives by how many bytes its memory grew.
    fn push(&mut self, reading: Reading) -> usize {
        let before = self.readings.capacity();
        self.readings.push(reading);
        self.ordered = false;
        (self.readings.capacity() - before) * size_of::<Reading>()
    }

    fn ordered(&mut self) -> &[Reading] {
        if !self.ordered {
            self.readings.sort_unstable_by(|a, b| a.time.cmp(&b.time).then(a.value.total_cmp(&b.value)));
            self.ordered = true;
        }
        &self.readings
    }

    fn bytes(&self) -> usize {
        self.readings.capacity() * size_of::<Reading>()
    }
}

/// The histories of many groups.
#[derive(Debug)]
pub(super) struct Histories {
    measure: Measure,
    groups: Vec<History>,
    /// What `groups` hold: kept up with each change, since the window operator asks for it with each batch.
    bytes: usize,
}

impl Histories {
    pub(super) fn new(measure: Measure) -> Self {
        Self { measure, groups: Vec::new(), bytes: 0 }
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<History> {
        let taken = emit_to.take_needed(&mut self.groups);
        self.bytes -= taken.iter().map(History::bytes).sum::<usize>();
        taken
    }
}

impl GroupsAccumulator for Histories {
    fn update_batch(&mut self, values: &[ArrayRef], groups: &[usize], filter: Option<&BooleanArray>, total: usize) -> Result<()> {
        self.groups.resize_with(total, History::default);
        let rows = Rows::of(self.measure, values)?;
        for (row, group) in groups.iter().enumerate() {
            if filter.is_some_and(|f| f.is_null(row) || !f.value(row)) {
                continue;
            }
            if let Some(reading) = rows.get(row) {
                self.bytes += self.groups[*group].push(reading);
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.groups.resize_with(total, History::default);
        for (row, group) in groups.iter().enumerate() {
            for reading in kept(states, row)? {
                self.bytes += self.groups[*group].push(reading);
            }
        }
        Ok(())
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        lists(&mut self.take(emit_to))
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let results: Float64Array = self.take(emit_to).iter_mut().map(|group| self.measure.of(group.ordered())).collect();
        Ok(Arc::new(results))
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |v| v.len());
        let mut each = Self::new(self.measure);
        each.update_batch(values, &(0..rows).collect::<Vec<_>>(), filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.groups.capacity() * size_of::<History>() + self.bytes
    }
}

/// The history of one group, where DataFusion asks for that (`OVER`, no `GROUP BY`).
#[derive(Debug)]
pub(super) struct Single {
    measure: Measure,
    history: History,
}

impl Single {
    pub(super) fn new(measure: Measure) -> Self {
        Self { measure, history: History::default() }
    }
}

impl Accumulator for Single {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = Rows::of(self.measure, values)?;
        for reading in (0..values[0].len()).filter_map(|row| rows.get(row)) {
            self.history.push(reading);
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for row in 0..states[0].len() {
            for reading in kept(states, row)? {
                self.history.push(reading);
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let lists = lists(std::slice::from_mut(&mut self.history))?;
        lists.iter().map(|list| ScalarValue::try_from_array(list, 0)).collect()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.measure.of(self.history.ordered())))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.history.bytes()
    }
}

/// The arguments of a batch.
struct Rows {
    times: arrow::array::PrimitiveArray<TimestampMicrosecondType>,
    values: Float64Array,
}

impl Rows {
    fn of(measure: Measure, arguments: &[ArrayRef]) -> Result<Self> {
        let times = arguments[1].as_primitive::<TimestampMicrosecondType>().clone();
        let values = match measure {
            Measure::StateDuration => cast(&eq(&arguments[0], &arguments[2])?, &DataType::Float64)?,
            Measure::TimeWeightedAvg | Measure::CounterIncrease | Measure::CounterRate => arguments[0].clone(),
        };
        Ok(Self { times, values: values.as_primitive::<Float64Type>().clone() })
    }

    /// The reading of a row; none where its time is null or its value is no finite number.
    fn get(&self, row: usize) -> Option<Reading> {
        let present = self.times.is_valid(row) && self.values.is_valid(row);
        let reading = Reading { time: self.times.value(row), value: self.values.value(row) };
        (present && reading.value.is_finite()).then_some(reading)
    }
}

/// The readings in a row of a state.
fn kept(states: &[ArrayRef], row: usize) -> Result<impl Iterator<Item = Reading>> {
    let [times, values] = [0, 1].map(|column| states[column].as_list::<i32>());
    // A null is a group of which an outer join or a filter left nothing.
    let (times, values) =
        if times.is_null(row) { (times.values().slice(0, 0), values.values().slice(0, 0)) } else { (times.value(row), values.value(row)) };
    if times.len() != values.len() {
        return Err(DataFusionError::Internal(format!("a state has {} times and {} values", times.len(), values.len())));
    }
    let (times, values) = (times.as_primitive::<Int64Type>().clone(), values.as_primitive::<Float64Type>().clone());
    Ok((0..times.len()).map(move |at| Reading { time: times.value(at), value: values.value(at) }))
}

/// The state of groups, a row each.
fn lists(groups: &mut [History]) -> Result<Vec<ArrayRef>> {
    let offsets = OffsetBuffer::from_lengths(groups.iter().map(|g| g.readings.len()));
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for reading in groups.iter_mut().flat_map(|group| group.ordered()) {
        times.push(reading.time);
        values.push(reading.value);
    }
    let times: ArrayRef = Arc::new(Int64Array::from(times));
    let values: ArrayRef = Arc::new(Float64Array::from(values));
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(2);
    for items in [times, values] {
        let field = Arc::new(Field::new_list_field(items.data_type().clone(), true));
        columns.push(Arc::new(ListArray::try_new(field, offsets.clone(), items, None)?));
    }
    Ok(columns)
}
