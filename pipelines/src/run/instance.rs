//! One running pipeline: locks its data directory, claims its lanes, starts what reads and what answers, and ends all of it in order.
//!
//! I/O (brokers, moves), lanes and queries run on threads of their own, so that neither a busy lane nor a query delays an ack.

use crate::cli::RunArguments;
use crate::plan::Plan;
use crate::relay::ToKafka;
use crate::run::breaker::Breakers;
use crate::run::build::{self, Made, Role, SecondStage};
use crate::run::close::wait_for_room;
use crate::run::core::{self, JournalLanes, JournalMade, Wiring};
use crate::run::driver::{Command, Relays, Shared};
use crate::run::feed::Feed;
use crate::run::files;
use crate::run::goals::Goals;
use crate::run::handles::Handles;
use crate::run::http::{self, Intakes};
use crate::run::kafka::{self, KafkaFeed, Of};
use crate::run::liaison::Liaison;
use crate::run::lookups::{self, Opened, Readers, Watched};
use crate::run::moves::{self, MoveCounts, Moves};
use crate::run::observe::Observer;
use crate::run::outlets::Outlets;
use crate::run::shared::{self, Leaving};
use crate::spec::Source;
use flow::{Error, LookupVersion, Remedy, Result};
use gateway::access::{Access, Token};
use gateway::http::Ready;
use gateway::query::{Engine, Limits, Tables};
use ingest::journal::{Journal, JournalHandle};
use ingest::kafka::{Attach, Wanted};
use ingest::{Secret, SourceStatus};
use processors::watermark::WatermarkOptions;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use storage::cold::{ColdTable, ColdTables};
use storage::epoch::EpochStore;
use storage::view::{Live, Shared as SharedViews, Views};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use world::World;

/// Batches of a file that may wait for a lane: each is of up to 8,192 records, and those behind them wait in the file.
const FILE_DELIVERIES: usize = 8;

/// How long a stop may take; past it the process leaves unsealed, and the log is read again.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How often the end is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// How often it is looked for how far topics are sealed.
const SEALED: Duration = Duration::from_secs(1);
/// After this much silence nothing more is there of a topic that is read to its end.
const SILENT: Duration = Duration::from_secs(5);

/// A runtime of its own for one kind of work. Dropping it waits for nothing.
struct Threads(Option<Runtime>);

impl Threads {
    fn start(name: &str) -> Result<Self> {
        let built = tokio::runtime::Builder::new_multi_thread().thread_name(name).enable_all().build();
        Ok(Self(Some(built.map_err(|e| Error::stop(format!("starting the {name} threads"), e))?)))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why the pipeline ends.
enum Why {
    /// Everything is read, or everything is silent for long enough.
    Drained,
    /// A signal.
    Asked,
}

/// What runs.
struct Instance {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    live: Live,
    cold: ColdTables,
    lanes: Handles,
    /// How other processes know this one.
    owner: String,
    lane_tasks: JoinSet<(flow::Lane, Result<()>)>,
    /// Lanes whose partitions go to another process.
    leaving: Leaving,
    lane_threads: Threads,
    query_threads: Threads,
    sources: Vec<(String, Arc<SourceStatus>)>,
    source_tasks: Vec<JoinHandle<Result<()>>>,
    lookup_tasks: Vec<JoinHandle<Result<()>>>,
    readers: Vec<files::Reader>,
    intakes: Intakes,
    kafka: Vec<KafkaSource>,
    relay_tasks: JoinSet<(flow::Lane, Result<()>)>,
    stop_relays: CancellationToken,
    /// The same, of the relays of one lane.
    stop_relays_of: BTreeMap<flow::Lane, CancellationToken>,
    journal: Option<Journal>,
    incarnation: u64,
    /// The lookup tables until they are watched, and the versions to begin with.
    lookups: Vec<Watched>,
    first_lookups: Vec<LookupVersion>,
    /// Who is told of later versions.
    lookup_readers: Readers,
    stop_sources: CancellationToken,
    /// Where topics are only read so far.
    goals: Goals,
}

/// A Kafka source at work.
struct KafkaSource {
    /// Its number among the sources.
    index: usize,
    role: Role,
    /// What its lanes share with their second stage, where they have one.
    outlets: Option<Arc<Outlets>>,
    /// Between both, where processes share them.
    liaison: Option<Liaison>,
    wanted: mpsc::Receiver<Wanted>,
    /// What was asked and has to wait; nothing further is asked until it is done.
    postponed: Option<Wanted>,
}

/// Runs a pipeline until it is drained or told to stop. Says whether it was drained.
pub(crate) async fn run(plan: Plan, arguments: &RunArguments, goals: Goals) -> Result<bool> {
    make_private(&plan.data_dir)?;
    let owner = shared::owner(&plan, arguments.instance.as_deref())?;
    let home = shared::home(&plan, &owner);
    let _locks = shared::locks(&plan, &home)?;
    wait_for_room_to_start(&plan).await?;
    keep_plan(&plan, &arguments.file)?;
    let address = crate::metrics::install(plan.observability.metrics, &plan.name, &plan.fingerprint.hash())?;
    tracing::info!(%address, "metrics");
    let mut instance = Instance::new(plan, owner)?;
    instance.goals = goals;
    instance.open_lookups()?;
    instance.start_journal().await?;
    instance.start_files()?;
    instance.start_kafka()?;
    instance.watch_lookups();
    let is_ready = Arc::new(AtomicBool::new(false));
    let asked = is_ready.clone();
    let ready: Ready = Arc::new(move || (!asked.load(Ordering::Relaxed)).then(|| "the lanes are not all up".into()));
    let stop_serving = CancellationToken::new();
    let engine = instance.engine()?;
    let serving = instance.serve(engine.clone(), &home.join(INSTANCE), &ready, stop_serving.clone()).await?;
    let hurry = Arc::new(AtomicBool::new(false));
    let counts = Arc::new(MoveCounts::default());
    let moving = instance.start_moves(&hurry, &counts, stop_serving.clone());
    let observing = instance.observe(&counts, engine, stop_serving.clone());
    is_ready.store(true, Ordering::Relaxed);
    tracing::info!(pipeline = instance.plan.name, lanes = instance.lanes.all().len(), "ready");
    let ended = instance.until_ended(arguments.until_idle, &hurry).await;
    is_ready.store(false, Ordering::Relaxed);
    let left = tokio::time::timeout(STOP_WITHIN, instance.leave()).await;
    stop_serving.cancel();
    let _ = (moving.await, observing.await, serving.await);
    let _ = std::fs::remove_file(home.join(INSTANCE));
    let why = ended?;
    left.unwrap_or_else(|_| {
        Err(Error::new(Remedy::Stop, format!("not sealed within {STOP_WITHIN:?}; the log is safe and will be read again")))
    })?;
    Ok(matches!(why, Why::Drained))
}

/// Room without which a pipeline of files does not start, in bytes.
const FEW_RECORDS: u64 = 1 << 20;
/// The file that says where a running pipeline listens.
pub(crate) const INSTANCE: &str = "instance.json";
/// The copy of the pipeline's file that lets `sql` read a data directory by itself.
pub(crate) const PIPELINE: &str = "pipeline.toml";

impl Instance {
    fn new(plan: Plan, owner: String) -> Result<Self> {
        Ok(Self {
            owner,
            leaving: Leaving::default(),
            stop_relays_of: BTreeMap::new(),
            shared: Arc::new(build::shared(&plan, &World::real())?),
            cold: build::cold_tables(&plan)?,
            live: Live::default(),
            lanes: Handles::default(),
            lane_tasks: JoinSet::new(),
            lane_threads: Threads::start("lane")?,
            query_threads: Threads::start("query")?,
            sources: vec![],
            source_tasks: vec![],
            lookup_tasks: vec![],
            readers: vec![],
            intakes: Intakes::default(),
            kafka: vec![],
            relay_tasks: JoinSet::new(),
            stop_relays: CancellationToken::new(),
            journal: None,
            incarnation: rand::random(),
            lookups: vec![],
            first_lookups: vec![],
            lookup_readers: Readers::default(),
            stop_sources: CancellationToken::new(),
            goals: Goals::default(),
            plan: Arc::new(plan),
        })
    }

    fn open_lookups(&mut self) -> Result<()> {
        for Opened { table, first } in lookups::open(&self.plan, &self.shared.world)? {
            self.lookups.push(table);
            self.first_lookups.push(first);
        }
        self.lookup_readers = Readers::new(&self.first_lookups);
        Ok(())
    }

    /// Later versions go to the journal and to the lanes of files.
    fn watch_lookups(&mut self) {
        for table in self.lookups.drain(..) {
            let watching = table.run(self.lookup_readers.clone(), self.shared.world.clone(), self.stop_sources.clone());
            self.lookup_tasks.push(tokio::spawn(watching));
        }
    }

    /// Opens the journal, claims its lanes and starts them, gives them the lookup tables, then connects its sources.
    async fn start_journal(&mut self) -> Result<()> {
        if !self.plan.has_journal() {
            return Ok(());
        }
        let JournalLanes { mut journal, writing, lanes, second } = core::open_journal(&self.plan, &self.shared, self.incarnation)?;
        journal.start(writing)?;
        let handle = journal.handle();
        for JournalMade { made, feed, journal, outlet } in lanes {
            self.start_lane(made, Wiring { feed, journal: Some(journal), outlet, flush: true })?;
        }
        self.start_second(second, true)?;
        self.journal = Some(journal);
        lookups::log(&handle, self.first_lookups.iter().cloned()).await?;
        self.lookup_readers.journal = Some(handle.clone());
        self.start_mqtt(&handle)?;
        self.start_http(&handle)
    }

    fn start_http(&mut self, journal: &JournalHandle) -> Result<()> {
        for (index, source) in http::sources(&self.plan)? {
            let (name, status) = (self.plan.sources[index].name.clone(), Arc::new(SourceStatus::default()));
            let (intake, work) = ingest::http::open(source, journal.clone(), status.clone(), self.stop_sources.clone())?;
            self.source_tasks.push(tokio::spawn(work));
            self.intakes.0.insert(name.clone(), intake);
            self.sources.push((name, status));
        }
        Ok(())
    }

    fn start_mqtt(&mut self, journal: &JournalHandle) -> Result<()> {
        let mut statuses: BTreeMap<usize, Arc<SourceStatus>> = BTreeMap::new();
        for (index, connection) in core::mqtt_sources(&self.plan)? {
            let status = statuses.entry(index).or_default().clone();
            self.source_tasks.push(tokio::spawn(ingest::mqtt::run(connection, journal.clone(), status, self.stop_sources.clone())));
        }
        self.sources.extend(statuses.into_iter().map(|(index, status)| (self.plan.sources[index].name.clone(), status)));
        Ok(())
    }

    /// Claims the lanes of each file source and starts its reader.
    fn start_files(&mut self) -> Result<()> {
        let plan = self.plan.clone();
        for (index, source) in plan.sources.iter().enumerate() {
            let Source::File(_) = &source.kind else { continue };
            let (role, flush) = (Role::of(&plan, &[index]), !core::keeps_windows(&source.kind));
            let name = |lane: &dyn std::fmt::Display| format!("file/{}/{lane}", source.name);
            let made = (0..plan.lanes).map(|n| self.make(&name(&n), &role, &source.watermark)).collect::<Result<Vec<_>>>()?;
            let second = build::make_second(&plan, &self.shared, &name(&"stage"), &role, false, self.incarnation, &self.owner)?;
            let positions: Vec<_> = made.iter().map(|m| m.positions.clone()).collect();
            let (send, receive): (Vec<_>, Vec<_>) = (0..plan.lanes).map(|_| mpsc::channel(FILE_DELIVERIES)).unzip();
            for (made, deliveries) in made.into_iter().zip(receive) {
                let outlet = second.as_ref().map(|stage| stage.outlet(&made));
                self.start_lane(made, Wiring { feed: Feed::Files { source: index, deliveries }, journal: None, outlet, flush })?;
            }
            self.start_second(second, flush)?;
            let status = Arc::new(SourceStatus::default());
            self.sources.push((source.name.clone(), status.clone()));
            self.readers.push(files::Reader::start(source, positions, send, status, self.stop_sources.clone())?);
        }
        Ok(())
    }

    /// Claims the lanes that Kafka sources have from earlier runs, and starts their readers.
    fn start_kafka(&mut self) -> Result<()> {
        let plan = self.plan.clone();
        for (index, source) in plan.sources.iter().enumerate() {
            let Source::Kafka(_) = &source.kind else { continue };
            let role = Role::of(&plan, &[index]);
            let (stage, epochs) = (kafka::stage_name(&source.name), &self.shared.epochs);
            let (second, outlets) = if plan.shared {
                (None, build::outlets(&plan, &role, true))
            } else {
                let second = build::make_second(&plan, &self.shared, &stage, &role, true, self.incarnation, &self.owner)?;
                let outlets = second.as_ref().map(|stage| stage.outlets.clone());
                (second, outlets)
            };
            let liaison = outlets.as_ref().filter(|_| plan.shared).map(|outlets| {
                let (stem, stage) = (kafka::stem(&source.name), flow::Lane(stage.as_str().into()));
                Liaison { epochs: epochs.clone(), outlets: outlets.clone(), here: self.lanes.clone(), stem, stage }
            });
            if let Some(liaison) = &liaison {
                tokio::spawn(liaison.clone().run(plan.epoch.max(LOOK), self.stop_relays.clone()));
            }
            let (send, wanted) = mpsc::channel(1);
            let of = KafkaSource { index, role, outlets, liaison, wanted, postponed: None };
            let known = kafka::known(&source.name, &self.shared.epochs.lanes()?);
            let has_started = !known.is_empty();
            let lanes = if plan.shared { vec![] } else { self.make_partitions(&of, known)? };
            self.start_second(second, true)?;
            let status = Arc::new(SourceStatus::default());
            self.sources.push((source.name.clone(), status.clone()));
            let thread = kafka::start(&plan, source, has_started, lanes, send, status, self.stop_sources.clone())?;
            self.kafka.push(of);
            let broken = |_| Err(Error::new(Remedy::Stop, "a Kafka reader broke off"));
            self.source_tasks.push(tokio::task::spawn_blocking(move || thread.join().unwrap_or_else(broken)));
        }
        Ok(())
    }

    /// Claims a lane for each partition and starts it. All are claimed before the first one runs, so that a second stage knows of all.
    fn make_partitions(&mut self, of: &KafkaSource, partitions: Vec<Of>) -> Result<Vec<Attach>> {
        let plan = self.plan.clone();
        let source = &plan.sources[of.index];
        let mut claimed = vec![];
        for partition in partitions {
            let made = self.make(&kafka::lane_name(&source.name, &partition), &of.role, &source.watermark)?;
            let outlet = of.outlets.as_ref().map(|outlets| build::outlet(outlets, &made));
            claimed.push((partition, made, outlet));
        }
        let mut waiting = vec![];
        for (partition, made, outlet) in claimed {
            let (feed, attach) = KafkaFeed::new(of.index, partition, &made.positions);
            self.start_lane(made, Wiring { feed: Feed::Kafka(Box::new(feed)), journal: None, outlet, flush: true })?;
            waiting.push(attach);
        }
        Ok(waiting)
    }

    /// Does what Kafka readers ask for. A partition that comes back waits for its lane of before, which may still be sealing.
    async fn meet_all(&mut self) -> Result<()> {
        for number in 0..self.kafka.len() {
            let of = &mut self.kafka[number];
            let Some(wanted) = of.postponed.take().or_else(|| of.wanted.try_recv().ok()) else { continue };
            let is_leaving = |name: String| self.leaving.awaits(&flow::Lane(name.into()));
            if let Wanted::Lanes { partitions, .. } = &wanted
                && self.names(number, partitions).into_iter().any(is_leaving)
            {
                self.kafka[number].postponed = Some(wanted);
            } else {
                self.meet(number, wanted).await?;
            }
        }
        Ok(())
    }

    /// The names of the lanes of these partitions, and of the second stage that is with them.
    fn names(&self, number: usize, partitions: &[(String, i32)]) -> Vec<String> {
        let source = &self.plan.sources[self.kafka[number].index].name;
        let stage = partitions.iter().any(|partition| self.leads(number, partition)).then(|| kafka::stage_name(source));
        partitions
            .iter()
            .map(|(topic, partition)| kafka::lane_name(source, &Of { topic: topic.clone(), partition: *partition }))
            .chain(stage)
            .collect()
    }

    /// Makes or ends the lanes that a Kafka reader asks for.
    async fn meet(&mut self, number: usize, wanted: Wanted) -> Result<()> {
        let of = |(topic, partition)| Of { topic, partition };
        match wanted {
            Wanted::Lanes { partitions, all, made } => {
                let leads = partitions.iter().any(|partition| self.leads(number, partition));
                let source = self.kafka.remove(number);
                let lanes = self.make_partitions(&source, partitions.into_iter().map(of).collect());
                let stage = if leads { self.start_shared_stage(&source, all.into_iter().map(of)) } else { Ok(()) };
                self.kafka.insert(number, source);
                // A reader that has ended says why itself.
                let _ = made.send(stage.and(lanes)?);
            }
            Wanted::End { partitions, lost, ended } => {
                let names = self.names(number, &partitions);
                let handles: Vec<_> = names.into_iter().filter_map(|name| self.lanes.get(&flow::Lane(name.into()))).collect();
                for handle in &handles {
                    let _ = handle.commands.send(if lost { Command::Abandon } else { Command::Stop }).await;
                }
                self.leaving.add(handles.into_iter().map(|handle| handle.lane).collect(), ended);
            }
        }
        Ok(())
    }

    /// Whether the second stage of a source is where this partition is: with the first of its first topic.
    fn leads(&self, number: usize, (topic, partition): &(String, i32)) -> bool {
        let Source::Kafka(options) = &self.plan.sources[self.kafka[number].index].kind else { return false };
        self.plan.shared && *partition == 0 && options.topics.first() == Some(topic)
    }

    /// Claims the second stage of a source whose lanes are shared, once it knows of all of them: those that nobody has had yet are waited for.
    fn start_shared_stage(&mut self, of: &KafkaSource, all: impl Iterator<Item = Of>) -> Result<()> {
        let (plan, Some(liaison)) = (self.plan.clone(), &of.liaison) else { return Ok(()) };
        let source = &plan.sources[of.index].name;
        for partition in all {
            liaison.outlets.tell(kafka::lane_name(source, &partition), Arc::default());
        }
        liaison.feed()?;
        let (name, outlets) = (kafka::stage_name(source), liaison.outlets.clone());
        let second = build::begin_second(&plan, &self.shared, &name, &of.role, outlets, self.incarnation, &self.owner)?;
        self.start_second(second, true)
    }

    /// A lane has ended: as it was told to, or because another process has it, or something is wrong.
    fn lane_ended(&mut self, lane: &flow::Lane, how: Result<()>) -> Result<()> {
        let is_awaited = self.leaving.awaits(lane);
        match how {
            Ok(()) if is_awaited => {}
            Ok(()) => return Err(Error::new(Remedy::Stop, "a lane ended by itself")),
            Err(error) if self.is_ours(lane)? => return Err(error),
            Err(error) => tracing::warn!(lane = %lane.0, %error, "another instance has the lane"),
        }
        self.live.remove(lane);
        self.shared.lanes.store(self.lanes.remove(lane) as u64, Ordering::Relaxed);
        if let Some(stop) = self.stop_relays_of.remove(lane) {
            stop.cancel();
        }
        self.leaving.ended(lane);
        Ok(())
    }

    /// A relay has ended. That of a lane which another process has may find that its files are gone.
    fn relay_ended(&self, lane: &flow::Lane, how: Result<()>) -> Result<()> {
        match how {
            Err(error) if self.is_ours(lane)? => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether the newest record of a lane is of this process.
    fn is_ours(&self, lane: &flow::Lane) -> Result<bool> {
        Ok(!self.plan.shared
            || self.shared.epochs.newest_of_another(&lane.0)?.is_some_and(|newest| newest.header.incarnation == self.incarnation))
    }

    fn make(&self, name: &str, role: &Role, watermark: &WatermarkOptions) -> Result<Made> {
        build::make(&self.plan, &self.shared, name, role, watermark, self.incarnation, &self.owner)
    }

    fn start_second(&mut self, second: Option<SecondStage>, flush: bool) -> Result<()> {
        match second {
            Some(SecondStage { made, feed, .. }) => self.start_lane(made, Wiring { feed, journal: None, outlet: None, flush }),
            None => Ok(()),
        }
    }

    /// Starts the relays of a lane's sinks.
    fn start_relays(&mut self, made: &Made) -> Result<Relays> {
        let (relays, relaying) = core::relays(&self.plan, &self.shared, &ToKafka, made)?;
        let stop = self.stop_relays.child_token();
        for relay in relaying {
            let (lane, stop) = (made.name.clone(), stop.clone());
            self.relay_tasks.spawn(async move { (lane, relay.run(stop).await) });
        }
        self.stop_relays_of.insert(made.name.clone(), stop);
        Ok(relays)
    }

    fn start_lane(&mut self, made: Made, wiring: Wiring) -> Result<()> {
        self.live.add(made.live.clone());
        self.cold.add_lane(made.name.clone(), made.chain.clone());
        let is_journaled = wiring.journal.is_some();
        let relays = self.start_relays(&made)?;
        let (handle, mut driver) = core::wire(&self.shared, made, wiring, relays);
        if !is_journaled {
            driver.lookups = self.lookup_readers.join(handle.commands.clone());
        }
        let lane = handle.lane.clone();
        let lanes = self.lanes.add(handle);
        self.shared.lanes.store(lanes as u64, Ordering::Relaxed);
        let running = async move { (lane, driver.run().await) };
        self.lane_tasks.spawn_on(running, self.lane_threads.0.as_ref().expect("there until the drop").handle());
        Ok(())
    }

    fn start_moves(&self, hurry: &Arc<AtomicBool>, counts: &Arc<MoveCounts>, stop: CancellationToken) -> JoinHandle<()> {
        let tables = moves::moving(&self.plan, &self.shared.world, &self.moving_to(), &self.shared.warm, self.incarnation);
        let views = Arc::new(self.live.clone());
        let world = self.shared.world.clone();
        let (lanes, breakers) = (self.lanes.clone(), Breakers::default());
        let others = self.plan.shared.then(|| self.plan.data_dir.join(shared::MOVERS));
        let moves = Moves { world, tables, lanes, counts: counts.clone(), hurry: hurry.clone(), views, breakers, others };
        tokio::spawn(moves.run(stop))
    }

    /// The cold tables by name, as the mover sees them.
    fn moving_to(&self) -> BTreeMap<String, Arc<dyn ColdTable>> {
        let named = self.plan.tables.iter().filter_map(|t| Some((t.name.clone(), self.cold.table(&t.name)?.clone())));
        named.map(|(name, cold)| (name, Arc::new(cold) as Arc<dyn ColdTable>)).collect()
    }

    fn engine(&self) -> Result<Engine> {
        let (live, epochs, cold) = (self.live.clone(), self.shared.epochs.clone(), self.cold.clone());
        let views: Arc<dyn Views> = if self.plan.shared { Arc::new(SharedViews { live, epochs, cold }) } else { Arc::new(live) };
        let tables =
            Tables { specs: build::specs(&self.plan), views, cold: Some(Arc::new(self.cold.clone())), warm: self.shared.warm.clone() };
        let engine = Engine::new(tables, limits(&self.plan)).map_err(|e| Error::stop("starting the query engine", e))?;
        Ok(engine.with_functions(processors::functions::register))
    }

    async fn serve(&self, engine: Engine, at: &Path, ready: &Ready, stop: CancellationToken) -> Result<JoinHandle<()>> {
        let (wanted, access) = (self.plan.http.listen, access(&self.plan)?);
        let listener = gateway::http::bind(wanted, &access).await.map_err(|e| Error::stop(format!("listening on {wanted}"), e))?;
        let mut address = listener.local_addr().map_err(|e| Error::stop("the address of the HTTP listener", e))?;
        if address.ip().is_unspecified() {
            // What is listened on everywhere is asked here.
            address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        let text = json!({ "pipeline": self.plan.name, "pid": std::process::id(), "http": address.to_string(), "version": env!("CARGO_PKG_VERSION") });
        std::fs::write(at, text.to_string()).map_err(|e| Error::stop(format!("writing {}", at.display()), e))?;
        tracing::info!(%address, "answering SQL");
        let (ready, intakes) = (ready.clone(), Arc::new(self.intakes.clone()));
        Ok(self.query_threads.0.as_ref().expect("there until the drop").spawn(async move {
            if let Err(error) =
                gateway::http::serve(listener, gateway::http::router(engine, ready, intakes, access), async move { stop.cancelled().await })
                    .await
            {
                tracing::error!(%error, "the HTTP server ended");
            }
        }))
    }

    fn observe(&self, counts: &Arc<MoveCounts>, engine: Engine, stop: CancellationToken) -> JoinHandle<()> {
        let observer = Observer {
            plan: self.plan.clone(),
            lanes: self.lanes.clone(),
            sources: self.sources.clone(),
            live: self.live.clone(),
            journal: self.journal.as_ref().map(Journal::handle),
            moves: counts.clone(),
            engine,
        };
        tokio::spawn(observer.run(stop))
    }

    /// Waits until something ends the pipeline; a drained one closes its windows and moves what may move.
    async fn until_ended(&mut self, until_idle: Option<Duration>, hurry: &AtomicBool) -> Result<Why> {
        match self.why(until_idle).await? {
            Why::Asked => Ok(Why::Asked),
            Why::Drained => {
                hurry.store(true, Ordering::Relaxed);
                tokio::select! {
                    ended = self.end_lanes() => ended.map(|()| Why::Drained),
                    asked = signal() => asked.map(|()| Why::Asked),
                }
            }
        }
    }

    async fn why(&mut self, until_idle: Option<Duration>) -> Result<Why> {
        let mut asked = std::pin::pin!(signal());
        let (mut received, mut since, mut looked) = (0, Instant::now(), Instant::now());
        loop {
            tokio::select! {
                asked = &mut asked => return asked.map(|()| Why::Asked),
                Some(ended) = self.lane_tasks.join_next() => {
                    let (lane, how) = ended.map_err(|e| Error::stop("a lane broke off", e))?;
                    self.lane_ended(&lane, how)?;
                }
                Some(ended) = self.relay_tasks.join_next() => {
                    let (lane, how) = ended.map_err(|e| Error::stop("a relay broke off", e))?;
                    self.relay_ended(&lane, how)?;
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            self.meet_all().await?;
            for reader in &mut self.readers {
                reader.check()?;
            }
            if let Some(failed) = self.lookup_tasks.iter().position(JoinHandle::is_finished) {
                let ended = self.lookup_tasks.remove(failed).await;
                ended.map_err(|e| Error::stop("a lookup table broke off", e))??;
            }
            if let Some(failed) = self.source_tasks.iter().position(JoinHandle::is_finished) {
                let ended = self.source_tasks.remove(failed).await;
                ended.map_err(|e| Error::stop("a source broke off", e))??;
            }
            if self.sources_are_finite() && self.readers.iter().all(files::Reader::finished) {
                return Ok(Why::Drained);
            }
            let now: u64 =
                self.sources.iter().map(|(_, s)| s.received.load(Ordering::Relaxed) + s.redelivered.load(Ordering::Relaxed)).sum();
            if now != received {
                (received, since) = (now, Instant::now());
            }
            if until_idle.is_some_and(|idle| since.elapsed() >= idle) {
                return Ok(Why::Drained);
            }
            if looked.elapsed() >= SEALED && !self.goals.is_empty() {
                looked = Instant::now();
                if self.is_at_goals(since)? {
                    return Ok(Why::Drained);
                }
            }
        }
    }

    /// Whether topics are read as far as they are to be, and files to their end. `since`: since when nothing has come.
    fn is_at_goals(&self, since: Instant) -> Result<bool> {
        let epochs = &self.shared.epochs;
        let is_quiet = |status: &SourceStatus| status.connected.load(Ordering::Relaxed) > 0 && status.lag.load(Ordering::Relaxed) == 0;
        let mut of_topics = self.kafka.iter().filter_map(|of| {
            let name = &self.plan.sources[of.index].name;
            self.sources.iter().find(|(source, _)| source == name).map(|(_, status)| status)
        });
        let is_idle = since.elapsed() >= SILENT && of_topics.all(|status| is_quiet(status));
        if !self.readers.iter().all(files::Reader::finished) {
            return Ok(false);
        }
        Ok(self.goals.are_reached(epochs)? || (is_idle && self.goals.have_begun(epochs)?))
    }

    fn sources_are_finite(&self) -> bool {
        self.plan.sources.iter().all(|s| matches!(s.kind, Source::File(_))) && self.readers.iter().all(files::Reader::finite)
    }

    /// Stops the sources, then tells every lane that the input is at its end, and waits until all is sealed and moved.
    async fn end_lanes(&mut self) -> Result<()> {
        self.stop_sources().await?;
        tokio::select! {
            () = core::end(self.lanes.all()) => Ok(()),
            Some(ended) = self.lane_tasks.join_next() => Err(match ended {
                Ok((_, Err(error))) => error,
                Ok((_, Ok(()))) => Error::new(Remedy::Stop, "a lane ended by itself"),
                Err(error) => Error::stop("a lane broke off", error),
            }),
        }
    }

    async fn stop_sources(&mut self) -> Result<()> {
        self.stop_sources.cancel();
        for task in self.source_tasks.drain(..).chain(self.lookup_tasks.drain(..)) {
            task.await.map_err(|e| Error::stop("a source broke off", e))??;
        }
        Ok(())
    }

    /// Stops the sources, seals every lane, and closes the journal.
    async fn leave(&mut self) -> Result<()> {
        let mut outcome = self.stop_sources().await;
        for lane in self.lanes.all() {
            let _ = lane.commands.send(Command::Stop).await;
        }
        self.stop_relays.cancel();
        while let Some(ended) = self.lane_tasks.join_next().await {
            let how = match ended {
                Ok((lane, Err(error))) if self.is_ours(&lane)? => Err(error),
                Ok(_) => Ok(()),
                Err(error) => Err(Error::stop("a lane broke off", error)),
            };
            outcome = outcome.and(how);
        }
        if let Some(journal) = self.journal.take() {
            let closed = tokio::task::spawn_blocking(move || journal.close()).await;
            closed.map_err(|e| Error::stop("closing the journal", e))?;
        }
        outcome
    }
}

/// Who may ask and send. Reads the tokens.
fn access(plan: &Plan) -> Result<Access> {
    let read = |secret: &Option<Secret>, key: &str| {
        let read = secret.as_ref().map(|secret| secret.read(key).map(Token));
        read.transpose().map_err(|e| Error::new(Remedy::Stop, format!("[http] {}: {}", e.path, e.message)))
    };
    Ok(Access { token: read(&plan.http.token, "token")?, ingest_token: read(&plan.http.ingest_token, "ingest_token")? })
}

/// Bounds of queries as a plan says.
pub(crate) fn limits(plan: &Plan) -> Limits {
    let of = &plan.limits;
    Limits {
        memory_bytes: usize::try_from(of.query_memory.0).unwrap_or(usize::MAX),
        last_bytes: usize::try_from(of.last_rows.0).unwrap_or(usize::MAX),
        deadline: of.query_time.0,
        rows: usize::try_from(of.query_rows).unwrap_or(usize::MAX),
        concurrency: of.query_concurrency.get() as usize,
        ..Limits::default()
    }
}

async fn signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e| Error::stop("listening for signals", e);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: sealing what is there");
    Ok(())
}

/// Makes the data directory for its owner alone.
pub(crate) fn make_private(data_dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let made = std::fs::create_dir_all(data_dir).and_then(|()| std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700)));
    made.map_err(|e| Error::stop(format!("making {}", data_dir.display()), e))
}

/// A start needs room: for the journal's next segment, which is reserved as a whole, or for a few records. On a full disk it waits, as a
/// running process does, and takes nothing before: a start that is tried again and again would leave a record of each lane each time.
async fn wait_for_room_to_start(plan: &Plan) -> Result<()> {
    let (world, mut told) = (World::real(), false);
    let needed = if plan.has_journal() { plan.journal.segment_bytes } else { FEW_RECORDS };
    loop {
        let look = |e| Error::stop(format!("looking for room in {}", plan.data_dir.display()), e);
        let free = world.disk.free_bytes(&plan.data_dir).map_err(look)?;
        if free >= needed {
            return Ok(());
        }
        let what = format!("{free} bytes are free in {}, a start needs {needed}", plan.data_dir.display());
        wait_for_room(&world, &Error::new(Remedy::Retry, what), &mut told).await;
    }
}

/// Whoever reads the copy finds a whole one, also while another instance keeps it.
fn keep_plan(plan: &Plan, file: &Path) -> Result<()> {
    let to = plan.data_dir.join(PIPELINE);
    let part = plan.data_dir.join(format!("{PIPELINE}.{}.tmp", std::process::id()));
    let kept = std::fs::copy(file, &part).and_then(|_| std::fs::rename(&part, &to));
    kept.map_err(|e| Error::stop(format!("keeping a copy of {} as {}", file.display(), to.display()), e))
}
