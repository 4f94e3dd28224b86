//! Makes the lanes of a plan: claims each, loads its operators' state, and wires it to what the process shares.

use crate::plan::{Plan, PlannedOperator, TableKind};
use crate::run::driver::Shared;
use crate::run::graph::{Graph, Node};
use crate::run::lane::{Lane, LaneTable, Parts};
use crate::run::marks::MovePolicy;
use flow::{Result, Span};
use processors::watermark::Watermark;
use processors::watermark::WatermarkOptions;
use processors::window::REPLACES;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use storage::cold::{Cold, ColdTables};
use storage::durable::create_dir_all;
use storage::epoch::{Chain, Claimed, EpochStore, LocalEpochs, clean_files, clean_records};
use storage::hot::HotLimits;
use storage::options::TableSpec;
use storage::panes::Identity;
use storage::state::StateStore;
use storage::view::LiveLane;
use world::World;

/// Queries that began before a file lost its name may read it this much longer, in query deadlines.
const LINGER_DEADLINES: u32 = 2;

/// The tables of a plan as storage knows them.
pub(crate) fn specs(plan: &Plan) -> Vec<TableSpec> {
    let spec = |t: &crate::plan::PlannedTable| TableSpec {
        name: t.name.clone(),
        schema: t.schema.clone(),
        key: t.key.clone(),
        options: t.options.clone(),
    };
    plan.tables.iter().map(spec).collect()
}

/// The cold tables of a plan. Opens nothing.
pub(crate) fn cold_tables(plan: &Plan) -> Result<ColdTables> {
    let mut tables = BTreeMap::new();
    for table in &plan.tables {
        if let Some(cold) = &table.options.cold {
            tables.insert(table.name.clone(), Cold::new(&cold.url, &table.name, table.schema.clone())?);
        }
    }
    Ok(ColdTables::new(&plan.name, tables))
}

/// The folders below a data directory.
pub(crate) struct Folders {
    pub(crate) journal: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) warm: PathBuf,
}

impl Folders {
    pub(crate) fn of(data_dir: &Path) -> Self {
        Self { journal: data_dir.join("journal"), state: data_dir.join("state"), warm: data_dir.join("warm") }
    }
}

/// What all lanes of the process share. Makes the folders.
pub(crate) fn shared(plan: &Plan, world: &World) -> Result<Shared> {
    let folders = Folders::of(&plan.data_dir);
    let limits = |options: &storage::options::HotOptions| HotLimits { age: span(options.age), bytes: options.memory / lane_count(plan) };
    for table in &plan.tables {
        let folder = folders.warm.join(&table.name);
        create_dir_all(&*world.disk, &folder).map_err(|e| flow::Error::stop(format!("making {}", folder.display()), e))?;
    }
    Ok(Shared {
        specs: specs(plan).into_iter().map(Arc::new).collect(),
        state: StateStore::open(world.disk.clone(), &folders.state)?,
        state_dir: folders.state,
        warm: folders.warm,
        epochs: LocalEpochs::on(world.disk.clone(), &plan.data_dir, &plan.name),
        hot: plan.tables.iter().map(|t| (t.name.clone(), limits(&t.options.hot))).collect(),
        every: plan.epoch,
        world: world.clone(),
        linger: plan.limits.query_time.0 * LINGER_DEADLINES,
    })
}

/// A claimed lane before it is wired to a log.
pub(crate) struct Made {
    pub(crate) name: flow::Lane,
    pub(crate) chain: String,
    pub(crate) record: u64,
    pub(crate) positions: flow::Positions,
    pub(crate) lane: Lane,
    pub(crate) live: Arc<LiveLane>,
}

/// Claims a lane and makes it go on from its newest record.
pub(crate) fn make(plan: &Plan, shared: &Shared, name: &str, watermark: &WatermarkOptions, incarnation: u64, owner: &str) -> Result<Made> {
    let claimed = shared.epochs.claim(name, &plan.fingerprint, incarnation, owner)?;
    clean(plan, shared, name, &claimed)?;
    let (header, whole) = (claimed.header.clone(), claimed.whole.clone());
    let mut nodes = vec![];
    for planned in &plan.operators {
        let mut operator = planned.build.build()?;
        operator.load(&mut shared.state.load(&whole.state, &planned.name))?;
        nodes.push(node(planned, operator));
    }
    let lane = flow::Lane(name.into());
    let live = Arc::new(LiveLane::new(lane.clone(), header.number, whole.clone()));
    let parts = parts(plan, nodes, watermark, claimed);
    Ok(Made { name: lane, chain: header.chain, record: header.number, positions: whole.positions.clone(), lane: Lane::new(parts)?, live })
}

/// An operator of the plan as a part of the graph.
pub(crate) fn node(planned: &PlannedOperator, operator: Box<dyn flow::Operator>) -> Node {
    Node::new(planned.name.clone(), operator, planned.inputs.clone(), planned.kind.holds_rows())
}

/// What a claimed lane is made of.
pub(crate) fn parts(plan: &Plan, nodes: Vec<Node>, watermark: &WatermarkOptions, claimed: Claimed) -> Parts {
    Parts {
        graph: Graph::new(nodes, plan.tables.iter().map(|t| t.inputs.clone()).collect()),
        watermark: Watermark::new(watermark),
        sources: plan.sources.iter().map(|s| s.name.clone()).collect(),
        tables: plan.tables.iter().map(|table| lane_table(plan, table)).collect(),
        dead_letters: plan.dead_letters_table(),
        dead_letter_options: plan.dead_letters,
        lanes: plan.lanes,
        late: (0..plan.operators.len()).map(|of| plan.tables.iter().position(|t| t.kind == TableKind::Late(of))).collect(),
        chain: Chain::from_claimed(claimed),
    }
}

/// The watermark of the journal's lanes: the most patient of what its sources ask for.
pub(crate) fn journal_watermark(plan: &Plan) -> WatermarkOptions {
    let journaled = plan.sources.iter().filter(|s| s.is_journaled()).map(|s| &s.watermark);
    journaled.fold(None, |all: Option<WatermarkOptions>, one| Some(all.map_or(one.clone(), |all| all.or_later(one)))).unwrap_or_default()
}

fn lane_table(plan: &Plan, table: &crate::plan::PlannedTable) -> LaneTable {
    let warm = &table.options.warm;
    let moves = table.options.cold.as_ref().map(|_| MovePolicy { partition: span(warm.partition), age: span(warm.age) });
    LaneTable { name: table.name.clone(), schema: table.schema.clone(), moves, windows: windows(plan, table) }
}

/// The operators that give a table rows of windows that may still be revised.
fn windows(plan: &Plan, table: &crate::plan::PlannedTable) -> BTreeMap<usize, Arc<Identity>> {
    let identity = |of: usize| {
        let (operator, columns) = (plan.operators.get(of)?, plan.operators.get(of)?.identity.as_ref()?);
        let replaces = operator.schema.index_of(REPLACES).is_ok().then_some(REPLACES);
        Some((of, Arc::new(Identity::new(&table.schema, columns, replaces)?)))
    };
    table.inputs.iter().filter_map(|input| identity(input.operator()?)).collect()
}

fn clean(plan: &Plan, shared: &Shared, name: &str, claimed: &Claimed) -> Result<()> {
    let warm: Vec<PathBuf> = plan.tables.iter().map(|t| shared.warm.join(&t.name)).collect();
    let mut folders: Vec<&Path> = warm.iter().map(PathBuf::as_path).collect();
    folders.push(&shared.state_dir);
    let gone = clean_files(&*shared.world.disk, &shared.epochs, name, claimed.header.generation, &folders)?;
    if !gone.is_empty() {
        tracing::info!(lane = name, files = gone.len(), "removed files of an earlier owner that no record names");
    }
    clean_records(&shared.epochs, name, claimed.header.number, u64::MAX)?;
    Ok(())
}

fn lane_count(plan: &Plan) -> u64 {
    u64::from(plan.lanes).max(1)
}

fn span(of: Duration) -> Span {
    Span(i64::try_from(of.as_micros()).unwrap_or(i64::MAX))
}
