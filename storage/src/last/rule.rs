//! `SELECT DISTINCT ON (device) … ORDER BY device, event_time DESC` over a table reads `<table>_last`, where `device` is the table's key: of
//! each key there is one row left to choose from.

use super::LastTable;
use crate::table::OneTable;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::Transformed;
use datafusion::config::ConfigOptions;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result;
use datafusion::logical_expr::{Distinct, DistinctOn, Expr, LogicalPlan, SortExpr};
use datafusion::optimizer::AnalyzerRule;
use flow::EVENT_TIME;
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// See the page.
#[derive(Debug)]
pub(crate) struct LastRule(pub(crate) BTreeMap<String, Arc<LastTable>>);

impl AnalyzerRule for LastRule {
    fn name(&self) -> &str {
        "last_row_of_each_key"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_down_with_subqueries(|node| self.replace(node)).map(|done| done.data)
    }
}

impl LastRule {
    fn replace(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Distinct(Distinct::On(on)) = &node else { return Ok(Transformed::no(node)) };
        let Some(input) = names(&on.on_expr).and_then(|key| self.input(&on.input, &key, on.sort_expr.as_deref())) else {
            return Ok(Transformed::no(node));
        };
        let DistinctOn { on_expr, select_expr, sort_expr, schema, .. } = on.clone();
        let on = DistinctOn { on_expr, select_expr, sort_expr, schema, input: Arc::new(input) };
        Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(on))))
    }

    /// The same plan over `<table>_last`; none if it may not be.
    fn input(&self, plan: &LogicalPlan, key: &BTreeSet<String>, order: Option<&[SortExpr]>) -> Option<LogicalPlan> {
        match plan {
            LogicalPlan::TableScan(scan) if scan.filters.is_empty() && scan.fetch.is_none() => {
                let provider = source_as_provider(&scan.source).ok()?;
                let table = (provider.as_ref() as &dyn Any).downcast_ref::<OneTable>()?;
                let last = self.0.get(table.with_last()?)?;
                let is_key = last.key().iter().cloned().collect::<BTreeSet<_>>() == *key;
                let mut scan = scan.clone();
                scan.source = provider_as_source(last.clone() as Arc<dyn TableProvider>);
                (is_key && order.is_none_or(|order| is_newest_first(order, key))).then_some(LogicalPlan::TableScan(scan))
            }
            // Conditions on the key take or leave all rows of a key.
            LogicalPlan::Filter(filter) if filter.predicate.column_refs().iter().all(|c| key.contains(&c.name)) => {
                let mut filter = filter.clone();
                filter.input = Arc::new(self.input(&filter.input, key, order)?);
                Some(LogicalPlan::Filter(filter))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let mut alias = alias.clone();
                alias.input = Arc::new(self.input(&alias.input, key, order)?);
                Some(LogicalPlan::SubqueryAlias(alias))
            }
            _ => None,
        }
    }
}

/// The names of plain columns.
fn names(columns: &[Expr]) -> Option<BTreeSet<String>> {
    columns.iter().map(|e| if let Expr::Column(c) = e { Some(c.name.clone()) } else { None }).collect()
}

/// Whether the order is by the key, and then from the newest on and by nothing else.
fn is_newest_first(order: &[SortExpr], key: &BTreeSet<String>) -> bool {
    let Some((last, before)) = order.split_last() else { return false };
    let by_key: Option<BTreeSet<String>> = names(&before.iter().map(|s| s.expr.clone()).collect::<Vec<_>>());
    let by_time = matches!(&last.expr, Expr::Column(c) if c.name == EVENT_TIME);
    by_key.as_ref() == Some(key) && by_time && !last.asc
}
