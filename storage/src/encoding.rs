//! How columns are encoded in Parquet files, warm and cold.
//!
//! Measured on the reference readings (`make bench-bytes`): deltas make a whole number that counts or drifts almost nothing, and a decimal
//! of up to 18 digits is one too. Floats with few digits are few different ones, so a dictionary is best: `BYTE_STREAM_SPLIT` takes two to
//! three times as much. Text keeps Parquet's default, a dictionary.

use arrow::datatypes::{DataType, Schema};
use parquet::basic::Encoding;
use parquet::file::properties::WriterPropertiesBuilder;
use parquet::schema::types::ColumnPath;

/// The most digits of a decimal that Parquet stores as a whole number of 8 bytes.
const DIGITS: u8 = 18;

/// Sets the encoding of every column.
pub(crate) fn encoded(schema: &Schema, mut builder: WriterPropertiesBuilder) -> WriterPropertiesBuilder {
    for field in schema.fields().iter().filter(|field| is_whole(field.data_type())) {
        let path = ColumnPath::from(field.name().as_str());
        builder = builder.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    builder
}

/// Whether values are whole numbers in the file.
fn is_whole(of: &DataType) -> bool {
    match of {
        DataType::Decimal128(digits, _) => *digits <= DIGITS,
        of => of.is_integer() || of.is_temporal(),
    }
}
