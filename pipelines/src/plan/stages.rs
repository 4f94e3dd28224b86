//! Two stages: what an operator sees together has to be in one lane. Where a key reaches over lanes, the operator is in a second stage, a
//! lane of its own that reads what the first ones have sealed for it.
//!
//! A window that can be split is in both: each lane aggregates its own readings, the second stage merges the partial aggregates. Of all
//! else the rows themselves go over.

use super::{BuildOperator, Input, Plan, PlannedOperator, PlannedSource};
use arrow::datatypes::SchemaRef;
use std::collections::BTreeSet;

/// Where an operator is.
#[derive(Clone, Debug)]
pub enum Stage {
    /// In every lane.
    First,
    /// In the lane of the second stage.
    Second,
    /// In every lane as `first`, and in that of the second stage as `second`.
    Both {
        /// Makes partial aggregates of readings.
        first: BuildOperator,
        /// Makes windows of partial aggregates.
        second: BuildOperator,
    },
}

/// The operators and tables that a lane has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of them: the lane is alone.
    Whole,
    /// Those of the first stage.
    First,
    /// Those of the second.
    Second,
}

/// An operator as a part has it.
pub struct Placed<'p> {
    /// Its number in the plan.
    pub number: usize,
    /// The operator.
    pub planned: &'p PlannedOperator,
    /// Makes one.
    pub build: &'p BuildOperator,
    /// What it reads here.
    pub inputs: Vec<Input>,
    /// What others call its rows.
    pub gives: Input,
}

/// What leaves the first stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedExit {
    /// What the second stage calls the rows.
    pub input: Input,
    /// The name of the source, operator or branch.
    pub name: String,
    /// The sources that reach it, rising.
    pub sources: Vec<usize>,
    /// The columns of its rows; none where they are partial aggregates, whose columns are the operator's own affair.
    pub schema: Option<SchemaRef>,
}

impl Stage {
    /// Whether what it puts out is in the second stage.
    #[must_use]
    pub fn is_second(&self) -> bool {
        !matches!(self, Self::First)
    }
}

impl Plan {
    /// The operators of a part, in the order of the plan.
    pub fn operators_of(&self, part: Part) -> impl Iterator<Item = Placed<'_>> {
        self.operators.iter().enumerate().filter_map(move |(number, planned)| {
            let (inputs, gives) = (planned.inputs.clone(), Input::Operator(number));
            let placed = |build| Some(Placed { number, planned, build, inputs, gives });
            match (part, &planned.stage) {
                (Part::Whole, _) | (Part::First, Stage::First) | (Part::Second, Stage::Second) => placed(&planned.build),
                (Part::First, Stage::Both { first, .. }) => placed(first).map(|p| Placed { gives: Input::Partials(number), ..p }),
                (Part::Second, Stage::Both { second, .. }) => placed(second).map(|p| Placed { inputs: vec![Input::Partials(number)], ..p }),
                (Part::First, Stage::Second) | (Part::Second, Stage::First) => None,
            }
        })
    }

    /// What each table reads in a part.
    #[must_use]
    pub fn tables_of(&self, part: Part) -> Vec<Vec<Input>> {
        let there = |input: &Input| part == Part::Whole || self.is_second(input) == (part == Part::Second);
        self.tables.iter().map(|table| table.inputs.iter().copied().filter(there).collect()).collect()
    }

    /// What each sink reads in a part.
    #[must_use]
    pub fn sinks_of(&self, part: Part) -> Vec<Vec<Input>> {
        let there = |input: &Input| part == Part::Whole || self.is_second(input) == (part == Part::Second);
        self.sinks.iter().map(|sink| sink.inputs.iter().copied().filter(there).collect()).collect()
    }

    fn is_second(&self, input: &Input) -> bool {
        input.operator().is_some_and(|of| self.operators[of].stage.is_second())
    }
}

/// What leaves the first stage: what the second one reads of it.
pub(super) fn exits(
    operators: &[PlannedOperator],
    sources: &[PlannedSource],
    branches: &dyn Fn(usize, usize) -> String,
) -> Vec<PlannedExit> {
    let is_second = |input: &Input| input.operator().is_some_and(|of| operators[of].stage.is_second());
    let mut read = BTreeSet::new();
    for (number, operator) in operators.iter().enumerate() {
        match &operator.stage {
            Stage::First => {}
            Stage::Second => read.extend(operator.inputs.iter().copied().filter(|input| !is_second(input))),
            Stage::Both { .. } => read.extend([Input::Partials(number)]),
        }
    }
    let exit = |input: Input| {
        let (name, reached) = match input {
            Input::Source(n) => (sources[n].name.clone(), vec![n]),
            Input::Operator(n) | Input::Partials(n) => (operators[n].name.clone(), operators[n].sources.clone()),
            Input::Branch(n, branch) => (branches(n, branch), operators[n].sources.clone()),
        };
        let schema = match input {
            Input::Source(n) => Some(sources[n].schema.clone()),
            Input::Operator(n) | Input::Branch(n, _) => Some(operators[n].schema.clone()),
            Input::Partials(_) => None,
        };
        PlannedExit { input, name, sources: reached, schema }
    };
    read.into_iter().map(exit).collect()
}
