//! Makes the lanes of a plan: claims each, loads its operators' state, and wires it to what the process shares.

use crate::plan::{Input, Part, Placed, Plan, PlannedExit, TableKind};
use crate::run::driver::{Outlet, Shared};
use crate::run::feed::Feed;
use crate::run::graph::{Graph, Node};
use crate::run::lane::{Lane, LaneSink, LaneSource, LaneTable, Parts};
use crate::run::memory::Memory;
use crate::run::outlets::Outlets;
use crate::run::stage::StageFeed;
use flow::{Positions, Result, Span};
use processors::watermark::Watermark;
use processors::watermark::WatermarkOptions;
use processors::window::REPLACES;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use storage::cold::{Cold, ColdTables};
use storage::durable::create_dir_all;
use storage::epoch::{Chain, Claimed, EpochStore, LocalEpochs, clean_files, clean_records};
use storage::hot::HotLimits;
use storage::options::TableSpec;
use storage::outbox::outbox_dir;
use storage::panes::Identity;
use storage::state::StateStore;
use storage::view::LiveLane;
use storage::warm::policy::Compaction;
use tokio::sync::Semaphore;
use world::{Point, World, reach};

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
            tables.insert(table.name.clone(), Cold::new(cold, &table.name, table.schema.clone())?);
        }
    }
    Ok(ColdTables::new(&plan.name, tables))
}

/// The folders below a data directory.
pub(crate) struct Folders {
    pub(crate) journal: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) warm: PathBuf,
    pub(crate) outbox: PathBuf,
}

impl Folders {
    pub(crate) fn of(data_dir: &Path) -> Self {
        let [journal, state, warm] = ["journal", "state", "warm"].map(|folder| data_dir.join(folder));
        Self { journal, state, warm, outbox: outbox_dir(data_dir) }
    }
}

/// What all lanes of the process share. Makes the folders.
pub(crate) fn shared(plan: &Plan, world: &World) -> Result<Shared> {
    let folders = Folders::of(&plan.data_dir);
    let limits = |options: &storage::options::HotOptions| HotLimits { age: span(options.age), bytes: options.memory };
    let warm = plan.tables.iter().map(|table| folders.warm.join(&table.name));
    for folder in warm.chain([folders.outbox.clone()]) {
        create_dir_all(&*world.disk, &folder).map_err(|e| flow::Error::stop(format!("making {}", folder.display()), e))?;
    }
    Ok(Shared {
        specs: specs(plan).into_iter().map(Arc::new).collect(),
        state: StateStore::open(world.disk.clone(), &folders.state)?,
        state_dir: folders.state,
        warm: folders.warm,
        outbox: folders.outbox,
        epochs: LocalEpochs::on(world.disk.clone(), &plan.data_dir, &plan.name),
        hot: plan.tables.iter().map(|t| (t.name.clone(), limits(&t.options.hot))).collect(),
        lanes: AtomicU64::new(u64::from(plan.lanes)),
        memory: Memory::new(plan.limits.memory.0),
        compactions: Arc::new(Semaphore::new(1)),
        free_disk: plan.limits.free_disk.0,
        every: plan.epoch,
        world: world.clone(),
        linger: plan.limits.query_time.0 * LINGER_DEADLINES,
    })
}

/// What a lane is for: the part of the plan that it has, and the exits that it gives rows or reads.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub(crate) part: Part,
    pub(crate) exits: Vec<PlannedExit>,
    /// The numbers of the sinks that it has rows for.
    pub(crate) sinks: Vec<usize>,
    /// The producers of each source whose readings come through the journal.
    pub(crate) producers: Vec<Range<u32>>,
}

impl Role {
    /// The role of the lanes of these sources, which share a log.
    pub(crate) fn of(plan: &Plan, sources: &[usize]) -> Self {
        let exits: Vec<_> = plan.exits.iter().filter(|exit| exit.sources.iter().any(|of| sources.contains(of))).cloned().collect();
        let part = if exits.is_empty() { Part::Whole } else { Part::First };
        Self { part, exits, sinks: sinks(plan, part, sources), producers: producers(plan, sources) }
    }

    /// A lane that has everything.
    pub(crate) fn whole(plan: &Plan) -> Self {
        Self { part: Part::Whole, exits: vec![], sinks: (0..plan.sinks.len()).collect(), producers: vec![] }
    }

    /// That of the second stage of such lanes; none where they need none.
    fn second(&self, plan: &Plan) -> Option<Self> {
        let mut sources: Vec<usize> = self.exits.iter().flat_map(|exit| exit.sources.iter().copied()).collect();
        sources.dedup();
        let sinks = || sinks(plan, Part::Second, &sources);
        (self.part == Part::First).then(|| Self { part: Part::Second, exits: vec![], sinks: sinks(), producers: vec![] })
    }
}

/// The sinks that lanes of these sources have rows for.
fn sinks(plan: &Plan, part: Part, sources: &[usize]) -> Vec<usize> {
    let reached = |of: usize| plan.sinks[of].sources.iter().any(|source| sources.contains(source));
    let reads = |(of, inputs): &(usize, &Vec<Input>)| (plan.sinks[*of].moves || !inputs.is_empty()) && reached(*of);
    plan.sinks_of(part).iter().enumerate().filter(reads).map(|(of, _)| of).collect()
}

/// The producers of these sources in the journal, by source.
fn producers(plan: &Plan, sources: &[usize]) -> Vec<Range<u32>> {
    sources.iter().map(|of| plan.sources[*of].producers()).filter(|of| !of.is_empty()).collect()
}

/// A claimed lane before it is wired to a log.
pub(crate) struct Made {
    pub(crate) name: flow::Lane,
    pub(crate) chain: String,
    pub(crate) record: u64,
    pub(crate) positions: flow::Positions,
    pub(crate) lane: Lane,
    pub(crate) live: Arc<LiveLane>,
    /// The numbers of the sinks that it has rows for.
    pub(crate) sinks: Vec<usize>,
}

/// Claims a lane and makes it go on from its newest record.
pub(crate) fn make(
    plan: &Plan,
    shared: &Shared,
    name: &str,
    role: &Role,
    watermark: &WatermarkOptions,
    incarnation: u64,
    owner: &str,
) -> Result<Made> {
    let claimed = shared.epochs.claim(name, &plan.fingerprint, incarnation, owner)?;
    reach(Point::LaneClaimed);
    clean(plan, shared, name, &claimed)?;
    reach(Point::LaneCleaned);
    let (header, whole) = (claimed.header.clone(), claimed.whole.clone());
    let mut nodes = vec![];
    for placed in plan.operators_of(role.part) {
        let mut operator = placed.build.build()?;
        operator.load(&mut shared.state.load(&whole.state, &placed.planned.name))?;
        nodes.push(node(&placed, operator));
    }
    reach(Point::LaneLoaded);
    let lane = flow::Lane(name.into());
    let live = Arc::new(LiveLane::new(lane.clone(), header.number, whole.clone()).owned_by(owner));
    let parts = parts(plan, role, nodes, watermark, claimed);
    Ok(Made {
        name: lane,
        chain: header.chain,
        record: header.number,
        positions: whole.positions.clone(),
        lane: Lane::new(parts)?,
        live,
        sinks: role.sinks.clone(),
    })
}

/// An operator of the plan as a part of the graph.
pub(crate) fn node(placed: &Placed<'_>, operator: Box<dyn flow::Operator>) -> Node {
    let Placed { number, planned, inputs, gives, .. } = placed;
    let mut node = Node::new(*number, planned.name.clone(), operator, inputs.clone(), planned.kind.holds_rows());
    node.gives = *gives;
    node
}

/// What a claimed lane is made of.
pub(crate) fn parts(plan: &Plan, role: &Role, nodes: Vec<Node>, watermark: &WatermarkOptions, claimed: Claimed) -> Parts {
    let mut stores = plan.tables_of(role.part);
    let of_sinks = plan.sinks_of(role.part);
    stores.extend(role.sinks.iter().map(|of| of_sinks[*of].clone()));
    let sink = |of: &usize| {
        let sink = &plan.sinks[*of];
        LaneSink { name: sink.name.clone(), schema: sink.schema.clone(), moves: sink.moves }
    };
    Parts {
        graph: Graph::new(nodes, stores, role.exits.iter().map(|exit| exit.input).collect()),
        sinks: role.sinks.iter().map(sink).collect(),
        exits: role.exits.iter().map(|exit| exit.name.clone()).collect(),
        watermark: Watermark::new(watermark).with_sources(role.producers.clone()),
        sources: plan.sources.iter().map(|s| LaneSource { name: s.name.clone(), schema: s.schema.clone() }).collect(),
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
    let (warm, is_cold) = (&table.options.warm, table.options.cold.is_some());
    LaneTable {
        name: table.name.clone(),
        schema: table.schema.clone(),
        compaction: Compaction { partition: span(warm.partition).0, fan_in: u64::from(warm.fan_in) },
        age: warm.kept(is_cold).map(span),
        is_cold,
        windows: windows(plan, table),
    }
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
    folders.extend([shared.state_dir.as_path(), shared.outbox.as_path()]);
    let gone = clean_files(&*shared.world.disk, &shared.epochs, name, claimed.header.generation, &folders)?;
    if !gone.is_empty() {
        tracing::info!(lane = name, files = gone.len(), "removed files of an earlier owner that no record names");
    }
    clean_records(&shared.epochs, name, claimed.header.number, u64::MAX)?;
    Ok(())
}

fn span(of: Duration) -> Span {
    Span(i64::try_from(of.as_micros()).unwrap_or(i64::MAX))
}

/// Claims the lane of a second stage of lanes with this role; none where they need none. `own_logs`: each of them has a log of its own.
pub(crate) fn make_second(
    plan: &Plan,
    shared: &Shared,
    name: &str,
    role: &Role,
    own_logs: bool,
    incarnation: u64,
    owner: &str,
) -> Result<Option<SecondStage>> {
    let Some(outlets) = outlets(plan, role, own_logs) else { return Ok(None) };
    begin_second(plan, shared, name, role, outlets, incarnation, owner)
}

/// What lanes with this role share with their second stage; none where they need none.
pub(crate) fn outlets(plan: &Plan, role: &Role, own_logs: bool) -> Option<Arc<Outlets>> {
    role.second(plan).map(|_| Arc::new(Outlets::new(role.exits.clone(), own_logs, Positions::default())))
}

/// Claims the lane of a second stage of the lanes that are in `outlets`, and of those that will be.
pub(crate) fn begin_second(
    plan: &Plan,
    shared: &Shared,
    name: &str,
    role: &Role,
    outlets: Arc<Outlets>,
    incarnation: u64,
    owner: &str,
) -> Result<Option<SecondStage>> {
    let Some(second) = role.second(plan) else { return Ok(None) };
    let made = make(plan, shared, name, &second, &WatermarkOptions::default(), incarnation, owner)?;
    outlets.reached(&made.positions);
    let feed = StageFeed::new(outlets.clone(), &shared.world, shared.outbox.clone(), &made.positions, made.lane.watermark());
    Ok(Some(SecondStage { made, feed: Feed::Stage(Box::new(feed)), outlets }))
}

/// A claimed second stage.
pub(crate) struct SecondStage {
    pub(crate) made: Made,
    pub(crate) feed: Feed,
    pub(crate) outlets: Arc<Outlets>,
}

impl SecondStage {
    /// What a claimed lane that feeds it needs.
    pub(crate) fn outlet(&self, made: &Made) -> Outlet {
        outlet(&self.outlets, made)
    }
}

/// What a claimed lane needs to feed a second stage.
pub(crate) fn outlet(outlets: &Arc<Outlets>, made: &Made) -> Outlet {
    let feeder = outlets.add(made.name.to_string(), made.lane.chain().whole().clone());
    Outlet { outlets: outlets.clone(), feeder }
}
