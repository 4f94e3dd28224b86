//! The rows of warm segments or of cold files as one stream, in the order in which cold keeps them: day, key, event time.

use super::table::{Cold, DAY};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::SortExpr;
use datafusion::prelude::{Expr, ParquetReadOptions, SessionConfig, SessionContext, cast, col, ident};
use flow::{EVENT_TIME, Error, Result};
use std::path::PathBuf;
use std::sync::Arc;

/// Memory of the sort; more goes to temporary files.
const SORT_MEMORY: usize = 256 << 20;

/// What is read.
pub(super) enum From<'a> {
    /// Warm segments, by their paths; they have the table's own types.
    Segments(&'a [PathBuf]),
    /// Files of the cold table, by their paths below its root; they have the stored types.
    Cold(&'a [String]),
}

/// All rows, with the stored columns and the day as the last one. A column that a file lacks is null.
pub(super) async fn sorted(cold: &Cold, from: From<'_>, key: &[String]) -> Result<SendableRecordBatchStream> {
    let failed = |e| Error::retry(format!("sorting rows for {}", cold.place()), e);
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(SORT_MEMORY))).build_arc().map_err(failed)?;
    let context = SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(1), runtime);
    let stored = cold.stored()?;
    let (paths, schema): (Vec<String>, _) = match from {
        From::Segments(paths) => (paths.iter().map(|p| p.display().to_string()).collect(), nullable(cold.schema())),
        From::Cold(files) => {
            context.register_object_store(cold.place().url(), cold.place().root().clone());
            let fields: Vec<_> = stored.iter().map(|(name, of)| Field::new(name, of.clone(), true)).collect();
            (files.iter().map(|f| format!("{}{f}", cold.place().url())).collect(), Schema::new(fields))
        }
    };
    let rows = context.read_parquet(paths, ParquetReadOptions::default().schema(&schema)).await.map_err(failed)?;
    let mut columns: Vec<Expr> = stored.into_iter().map(|(name, of)| cast(ident(&name), of).alias(name)).collect();
    columns.push(cast(ident(EVENT_TIME), DataType::Date32).alias(DAY));
    let order = std::iter::once(DAY).chain(key.iter().map(String::as_str)).chain([EVENT_TIME]);
    let order: Vec<SortExpr> = order.map(|c| col(datafusion::common::Column::from_name(c)).sort(true, true)).collect();
    rows.select(columns).and_then(|d| d.sort(order)).map_err(failed)?.execute_stream().await.map_err(failed)
}

fn nullable(schema: &Schema) -> Schema {
    Schema::new(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>())
}
