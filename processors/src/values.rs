//! Columns of numbers as operators compare them.

use crate::{BuildError, error};
use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use flow::{Error, Result};

/// The index of a column of numbers named in an option.
pub(crate) fn number_column(input: &SchemaRef, key: &str, name: &str) -> Result<usize, BuildError> {
    let at = error::column(input, key, name)?;
    let of = input.field(at).data_type();
    if of.is_numeric() { Ok(at) } else { Err(BuildError::new(key, format!("`{name}` is {of}, not a number"))) }
}

/// A column as 64-bit floating numbers; integers above 2^53 are rounded.
pub(crate) fn numbers(column: &ArrayRef) -> Result<Float64Array> {
    let cast = cast(column, &DataType::Float64).map_err(|e| Error::stop("a column as numbers", e))?;
    Ok(cast.as_primitive::<Float64Type>().clone())
}

/// Words of state for a number that may be missing: whether it is there, and its bits.
pub(crate) fn write(number: Option<f64>, words: &mut Vec<i64>) {
    words.extend([i64::from(number.is_some()), number.unwrap_or(0.0).to_bits().cast_signed()]);
}

/// The number of two words that `write` made.
pub(crate) fn read(words: &[i64]) -> Option<Option<f64>> {
    match words {
        [0, _] => Some(None),
        [1, bits] => Some(Some(f64::from_bits(bits.cast_unsigned()))),
        _ => None,
    }
}
