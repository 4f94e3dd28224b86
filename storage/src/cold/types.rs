//! How the columns of a table are stored in Delta, which knows no unsigned numbers and no views.

use arrow::datatypes::{DataType, TimeUnit};
use deltalake::kernel::{DataType as Delta, PrimitiveType};
use flow::{Error, Remedy, Result};

/// The Arrow type in the Parquet files and the Delta type in the table's schema. Unsigned numbers take the next larger signed type,
/// so that every value keeps its meaning.
pub(super) fn stored_type(column: &str, of: &DataType) -> Result<(DataType, Delta)> {
    use PrimitiveType as P;
    let (arrow, delta) = match of {
        DataType::Boolean => (DataType::Boolean, P::Boolean),
        DataType::Int8 => (DataType::Int8, P::Byte),
        DataType::Int16 | DataType::UInt8 => (DataType::Int16, P::Short),
        DataType::Int32 | DataType::UInt16 => (DataType::Int32, P::Integer),
        DataType::Int64 | DataType::UInt32 => (DataType::Int64, P::Long),
        DataType::UInt64 => (DataType::Decimal128(20, 0), P::decimal(20, 0).map_err(|e| unfit(column, of, &e))?),
        DataType::Float32 => (DataType::Float32, P::Float),
        DataType::Float64 => (DataType::Float64, P::Double),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => (DataType::Utf8, P::String),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => (DataType::Binary, P::Binary),
        DataType::Date32 => (DataType::Date32, P::Date),
        DataType::Timestamp(_, Some(_)) => (flow::event_time_type(), P::Timestamp),
        DataType::Timestamp(_, None) => (DataType::Timestamp(TimeUnit::Microsecond, None), P::TimestampNtz),
        DataType::Decimal128(precision, scale) if *scale >= 0 => {
            (of.clone(), P::decimal(*precision, *scale as u8).map_err(|e| unfit(column, of, &e))?)
        }
        _ => return Err(Error::new(Remedy::Stop, format!("column {column} of type {of} has no form in a Delta table"))),
    };
    Ok((arrow, Delta::Primitive(delta)))
}

fn unfit(column: &str, of: &DataType, why: &dyn std::fmt::Display) -> Error {
    Error::new(Remedy::Stop, format!("column {column} of type {of} has no form in a Delta table: {why}"))
}
