//! `geo_within(lat, lon, 'GeoJSON')`: whether a place lies in an area (see `fence`).
//!
//! The area is a constant and read once: by `prepare` for the texts of operators, by DataFusion's simplifier for queries.

use super::fence::{Fence, Wrong};
use super::{numbers, row};
use arrow::array::BooleanArray;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

const NAME: &str = "geo_within";

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(in crate::functions) struct Within {
    signature: Signature,
    /// The area, once it was read.
    fence: Option<Arc<Fence>>,
}

/// An area in an expression that cannot be read.
#[derive(Debug)]
pub(crate) struct Misplaced {
    /// The area's text.
    pub(crate) text: String,
    pub(crate) wrong: Wrong,
}

/// Reads the areas in an expression, once for all its batches.
pub(crate) fn prepare(expr: Expr) -> Result<Expr, Misplaced> {
    let mut misplaced = None;
    let prepared = expr.transform_up(|part| {
        let Expr::ScalarFunction(call) = part else { return Ok(Transformed::no(part)) };
        Ok(match prepared(&call) {
            None => Transformed::no(Expr::ScalarFunction(call)),
            Some(Ok(fence)) => Transformed::yes(with_fence(call.args, fence)),
            Some(Err(error)) => {
                misplaced = Some(error);
                Transformed::no(Expr::ScalarFunction(call))
            }
        })
    });
    match (misplaced, prepared) {
        (None, Ok(prepared)) => Ok(prepared.data),
        (Some(misplaced), _) => Err(misplaced),
        (None, Err(error)) => Err(Misplaced { text: NAME.into(), wrong: Wrong { message: error.strip_backtrace(), at: None } }),
    }
}

/// The area of a call whose area is not read yet.
fn prepared(call: &ScalarFunction) -> Option<Result<Fence, Misplaced>> {
    call.func.inner().downcast_ref::<Within>().filter(|w| w.fence.is_none())?;
    let text = match call.args.get(2).map(|area| area.as_literal().and_then(text)) {
        Some(Some(text)) => text,
        _ => return Some(Err(Misplaced { text: NAME.into(), wrong: Wrong { message: not_constant(), at: None } })),
    };
    Some(Fence::parse(text).map_err(|wrong| Misplaced { text: text.to_owned(), wrong }))
}

fn with_fence(args: Vec<Expr>, fence: Fence) -> Expr {
    let within = Within { fence: Some(Arc::new(fence)), ..Within::new() };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(within)), args))
}

fn text(value: &ScalarValue) -> Option<&str> {
    value.try_as_str().flatten()
}

fn not_constant() -> String {
    format!("{NAME}(lat, lon, area): the area is no constant GeoJSON text")
}

fn parse(value: Option<&ScalarValue>) -> Result<Fence> {
    let text = value.and_then(text).ok_or_else(|| DataFusionError::Plan(not_constant()))?;
    Fence::parse(text).map_err(|wrong| DataFusionError::Plan(format!("{NAME}: {}", wrong.message)))
}

impl Within {
    pub(in crate::functions) fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable), fence: None }
    }
}

impl ScalarUDFImpl for Within {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [lat, lon, area] = types else {
            return Err(DataFusionError::Plan(format!("{NAME}(lat, lon, area): {} arguments are given", types.len())));
        };
        let is_number = |t: &DataType| t.is_numeric() || t.is_null();
        if !is_number(lat) || !is_number(lon) {
            return Err(DataFusionError::Plan(format!("{NAME}(lat, lon, area): a {lat} and a {lon} are no degrees")));
        }
        Ok(vec![DataType::Float64, DataType::Float64, area.clone()])
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if self.fence.is_none() {
            parse(args.scalar_arguments.get(2).copied().flatten())?;
        }
        Ok(Arc::new(Field::new(NAME, DataType::Boolean, true)))
    }

    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        if self.fence.is_some() {
            return Ok(ExprSimplifyResult::Original(args));
        }
        let fence = parse(args.get(2).and_then(Expr::as_literal))?;
        Ok(ExprSimplifyResult::Simplified(with_fence(args, fence)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let fence = match (&self.fence, args.args.get(2)) {
            (Some(fence), _) => fence.clone(),
            (None, Some(ColumnarValue::Scalar(area))) => Arc::new(parse(Some(area))?),
            (None, _) => return Err(DataFusionError::Plan(not_constant())),
        };
        let columns = numbers(&args.args[..2], args.number_rows)?;
        let within: BooleanArray =
            (0..args.number_rows).map(|at| row(&columns, at).map(|[lat, lon]: [f64; 2]| fence.holds(lat, lon))).collect();
        Ok(ColumnarValue::Array(Arc::new(within)))
    }
}
