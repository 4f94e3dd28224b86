//! How the Parquet files of a cold table are laid out, whoever writes them: a move, or the rewrite of small files.

use crate::encoding::encoded;
use arrow::datatypes::Schema;
use flow::EVENT_TIME;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

/// Rows of a row group: small enough to skip, large enough to compress.
const ROW_GROUP_ROWS: usize = 128 << 10;

/// zstd 3, row groups of 128 Ki rows, deltas for whole numbers and times, a bloom filter on the key.
pub(crate) fn properties(schema: &Schema, key: &[String]) -> WriterProperties {
    let level = ZstdLevel::try_new(3).expect("zstd has a level 3");
    let order = key.iter().map(String::as_str).chain([EVENT_TIME]).filter_map(|c| schema.index_of(c).ok());
    let sorting = order.map(|i| SortingColumn { column_idx: i as i32, descending: false, nulls_first: true }).collect();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_sorting_columns(Some(sorting));
    if let Some(key) = key.first() {
        properties = properties.set_column_bloom_filter_enabled(ColumnPath::from(key.as_str()), true);
    }
    encoded(schema, properties).build()
}
