//! Gives a session its tables: each under its own name, once more in the schema `tiers` with the column `_tier`, its newest rows as
//! `<table>_last`, and the inside in `tidegate`.

use crate::last::{LastRows, LastRule};
use crate::options::TableSpec;
use crate::system::{SYSTEM, System};
use crate::table::OneTable;
use crate::view::View;
use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::TableReference;
use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The schema whose tables say where each row lies.
pub const TIERS: &str = "tiers";

/// What the table of a table's newest rows has behind its name.
const LAST: &str = "_last";

/// Registers the tables of a view. The session is for one query: its tables stay as the view is.
pub fn register(session: &SessionContext, specs: &[TableSpec], view: &Arc<View>, last: &LastRows) -> Result<()> {
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
    let tables = specs.iter().filter_map(|spec| Some((spec.name.clone(), Arc::new(last.table(spec, view)?))));
    let tables: BTreeMap<_, _> = tables.collect();
    for (name, table) in &tables {
        let name = format!("{name}{LAST}");
        // A table that somebody declared under that name is theirs.
        if !specs.iter().any(|spec| spec.name == name) {
            session.register_table(TableReference::bare(name), table.clone())?;
        }
    }
    session.add_analyzer_rule(Arc::new(LastRule(tables)));
    Ok(())
}
