//! The aggregates over time as DataFusion knows them: `name(value, event_time)`, and `state_duration(state, event_time, wanted)`.
//!
//! They are exact whatever the order of arrival and however readings are split into partial states, at the price of keeping every
//! reading of a group (16 bytes) until the group is done: what lies between two readings is known only when nothing can come between
//! them. So memory grows with the readings of a window, `max_state` bounds it, and `check` warns.
//!
//! Values are 64-bit floating numbers; rows whose value is null, NaN or infinite, or whose time is null, are no readings. What is
//! computed, at the edges too, stands at `Measure`. `ORDER BY` within them changes nothing, `DISTINCT` is refused.

use super::history::{Histories, Single, state_types};
use super::measure::Measure;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};
use std::sync::Arc;

/// One of the aggregates over time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct OverTime {
    measure: Measure,
    signature: Signature,
}

impl OverTime {
    pub(super) fn new(measure: Measure) -> Self {
        Self { measure, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn arguments(&self) -> &'static str {
        match self.measure {
            Measure::StateDuration => "state, event_time, wanted",
            Measure::TimeWeightedAvg | Measure::CounterIncrease | Measure::CounterRate => "value, event_time",
        }
    }

    fn refuse<T>(&self, why: impl std::fmt::Display) -> Result<T> {
        Err(DataFusionError::Plan(format!("{}({}): {why}", self.measure.name(), self.arguments())))
    }

    fn distinct(&self, is_distinct: bool) -> Result<()> {
        if is_distinct { self.refuse("DISTINCT is not possible: equal values at other times count") } else { Ok(()) }
    }
}

impl AggregateUDFImpl for OverTime {
    fn name(&self) -> &str {
        self.measure.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if types.len() != self.arguments().split(',').count() {
            return self.refuse(format!("{} arguments are given", types.len()));
        }
        if !matches!(types[1], DataType::Timestamp(..)) {
            return self.refuse(format!("the time is a {}", types[1]));
        }
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        if self.measure == Measure::StateDuration {
            return match comparison_coercion(&types[0], &types[2]) {
                Some(common) => Ok(vec![common.clone(), time, common]),
                None => self.refuse(format!("a {} cannot be compared with a {}", types[0], types[2])),
            };
        }
        if !types[0].is_numeric() {
            return self.refuse(format!("the value is a {}, not a number", types[0]));
        }
        Ok(vec![DataType::Float64, time])
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.distinct(args.is_distinct)?;
        let named = ["times", "values"].into_iter().zip(state_types());
        Ok(named.map(|(name, list)| Arc::new(Field::new(format_state_name(args.name, name), list, true))).collect())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.distinct(args.is_distinct)?;
        Ok(Box::new(Single::new(self.measure)))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.distinct(args.is_distinct)?;
        Ok(Box::new(Histories::new(self.measure)))
    }
}
