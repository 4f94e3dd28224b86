//! Gives a session its tables: each under its own name, once more in the schema `tiers` with the column `_tier`, and the inside in `tidegate`.

use crate::options::TableSpec;
use crate::system::{SYSTEM, System};
use crate::table::OneTable;
use crate::view::View;
use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::TableReference;
use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use std::sync::Arc;

/// The schema whose tables say where each row lies.
pub const TIERS: &str = "tiers";

/// Registers the tables of a view. The session is for one query: its tables stay as the view is.
pub fn register(session: &SessionContext, specs: &[TableSpec], view: &Arc<View>) -> Result<()> {
    let name = session.copied_config().options().catalog.default_catalog.clone();
    let catalog = session.catalog(&name).ok_or_else(|| datafusion::error::DataFusionError::Plan(format!("no catalog {name}")))?;
    catalog.register_schema(TIERS, Arc::new(MemorySchemaProvider::new()))?;
    catalog.register_schema(SYSTEM, Arc::new(System { specs: specs.to_vec(), view: view.clone() }))?;
    for spec in specs {
        session.register_table(TableReference::bare(spec.name.as_str()), Arc::new(OneTable::new(spec.clone(), view.clone(), false)))?;
        session.register_table(
            TableReference::partial(TIERS, spec.name.as_str()),
            Arc::new(OneTable::new(spec.clone(), view.clone(), true)),
        )?;
    }
    Ok(())
}
