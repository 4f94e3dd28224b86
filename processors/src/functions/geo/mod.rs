//! Where things are: `geo_within` and `geo_distance`, over degrees of latitude and longitude (WGS 84).
//!
//! A place that is none gives null: where a coordinate is null or no finite number.

mod distance;
mod fence;
mod within;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::Float64Type;
use datafusion::common::Result;
use datafusion::logical_expr::ColumnarValue;
pub(super) use distance::Distance;
pub(super) use within::Within;
pub(crate) use within::prepare;

/// The arguments as columns of numbers, one value a row.
fn numbers(arguments: &[ColumnarValue], rows: usize) -> Result<Vec<Float64Array>> {
    let arrays: Result<Vec<ArrayRef>> = arguments.iter().map(|a| a.to_array(rows)).collect();
    Ok(arrays?.iter().map(|a| a.as_primitive::<Float64Type>().clone()).collect())
}

/// The numbers of a row; none where one of them is null or not finite.
fn row<const N: usize>(columns: &[Float64Array], row: usize) -> Option<[f64; N]> {
    let mut values = [0.0; N];
    for (value, column) in values.iter_mut().zip(columns) {
        *value = column.is_valid(row).then(|| column.value(row)).filter(|v| v.is_finite())?;
    }
    Some(values)
}
