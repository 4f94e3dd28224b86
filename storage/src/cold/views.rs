//! The cold tables of a pipeline as queries see them.

use super::table::{Cold, Snapshot, dropped, transaction};
use crate::view::{ColdView, ColdViews};
use async_trait::async_trait;
use flow::{Lane, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A view, with the version that it is of.
type Recent = (Option<u64>, ColdView);

/// The cold tables of a pipeline, and the lanes whose moves they hold. Clones share what they know.
#[derive(Clone)]
pub struct ColdTables {
    pipeline: Arc<str>,
    tables: Arc<BTreeMap<String, Cold>>,
    /// Lanes with their chains.
    lanes: Arc<Mutex<BTreeMap<Lane, String>>>,
    /// The newest view of each table that was taken, with its version.
    recent: Arc<Mutex<BTreeMap<String, Recent>>>,
}

impl ColdTables {
    /// Tables by name. No lane is known yet.
    #[must_use]
    pub fn new(pipeline: &str, tables: BTreeMap<String, Cold>) -> Self {
        Self { pipeline: pipeline.into(), tables: Arc::new(tables), lanes: Arc::default(), recent: Arc::default() }
    }

    /// A lane that moves rows into these tables, with the chain of its records.
    pub fn add_lane(&self, lane: Lane, chain: String) {
        let before = self.lanes.lock().expect("nothing panics while it holds the lanes").insert(lane, chain.clone());
        if before == Some(chain) {
            return;
        }
        self.recent.lock().expect("nothing panics while it holds the views").clear();
    }

    /// The table, if it has a cold tier.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Cold> {
        self.tables.get(name)
    }

    async fn read(&self, table: &str, snapshot: &Snapshot) -> Result<ColdView> {
        let lanes = self.lanes.lock().expect("nothing panics while it holds the lanes").clone();
        let mut moved = BTreeMap::new();
        for (lane, chain) in lanes {
            let t = snapshot.transaction(&transaction(&self.pipeline, table, &lane.0, &chain)).await?;
            moved.insert(lane, t);
        }
        let dropped = snapshot.transaction(&dropped(&self.pipeline, table)).await?;
        Ok(ColdView { provider: snapshot.provider().await?, moved, dropped })
    }
}

#[async_trait]
impl ColdViews for ColdTables {
    async fn cold(&self, table: &str, refresh: bool) -> Result<Option<ColdView>> {
        let Some(cold) = self.tables.get(table) else { return Ok(None) };
        let known = self.recent.lock().expect("nothing panics while it holds the views").get(table).cloned();
        // What upkeep has rewritten or dropped is not read for longer than it takes to see that.
        if let (Some((version, view)), false) = (known, refresh)
            && !cold.is_outdated(version)
        {
            return Ok(Some(view));
        }
        let Some(snapshot) = cold.snapshot().await? else { return Ok(None) };
        let view = self.read(table, &snapshot).await?;
        let recent = (snapshot.version(), view.clone());
        self.recent.lock().expect("nothing panics while it holds the views").insert(table.to_owned(), recent);
        Ok(Some(view))
    }
}
