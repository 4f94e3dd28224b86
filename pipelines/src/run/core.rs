//! The durable part of a pipeline, without threads and sockets: the journal, its lanes, and the moves to cold.
//!
//! Everything here is given its disk, clock and threads as a [`World`]. [`crate::run::run`] puts it on the threads of a process and connects
//! brokers, queries and metrics; a simulation polls the same futures in an order of its own, over a disk of its own.

use crate::plan::Plan;
use crate::relay::{Place, Publishers, Relay};
use crate::run::breaker::Breakers;
use crate::run::build::{self, Folders, Made, Role, SecondStage};
use crate::run::driver::{Command, Driver, JournalLane, Outlet, Relays, Shared};
use crate::run::feed::Feed;
use crate::run::files;
use crate::run::handles::{Handle, Handles};
use crate::run::moves::{self, MoveCounts, Moves};
use crate::run::status::LaneStatus;
use crate::spec::Source;
use flow::{Error, Offset, Remedy, Result};
use ingest::journal::{Journal, JournalHandle};
use ingest::lock::DirectoryLock;
use ingest::mqtt::MqttSource;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use storage::cold::ColdTable;
use storage::view::Live;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use world::World;

/// Deliveries that may wait for a lane: each is a group commit of the journal.
pub(crate) const DELIVERIES: usize = 64;

/// Something that goes on beside others until the process ends.
pub type Task = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// A journal that is open, and its claimed lanes with their logs.
pub(crate) struct JournalLanes {
    pub(crate) journal: Journal,
    pub(crate) writing: Pin<Box<dyn Future<Output = ()> + Send>>,
    pub(crate) lanes: Vec<JournalMade>,
    pub(crate) second: Option<SecondStage>,
}

/// A claimed lane of the journal.
pub(crate) struct JournalMade {
    pub(crate) made: Made,
    pub(crate) feed: Feed,
    pub(crate) journal: JournalLane,
    pub(crate) outlet: Option<Outlet>,
}

/// Opens the journal and claims its lanes: of a journal that is there first the lanes, since their records tell where to begin.
pub(crate) fn open_journal(plan: &Plan, shared: &Shared, incarnation: u64) -> Result<JournalLanes> {
    let (lanes, world) = (plan.lanes, &shared.world);
    let folder = Folders::of(&plan.data_dir).journal;
    let watermark = build::journal_watermark(plan);
    let journaled: Vec<usize> = (0..plan.sources.len()).filter(|source| plan.sources[*source].is_journaled()).collect();
    let role = Role::of(plan, &journaled);
    let make = |id: &str, n: u32| build::make(plan, shared, &format!("{id}/{n}"), &role, &watermark, incarnation, "local");
    let mut made = match Journal::peek_on(world, &folder)? {
        Some(id) => (0..lanes).map(|n| make(&id, n)).collect::<Result<Vec<_>>>()?,
        None => vec![],
    };
    let from = |made: &Made| made.positions.0.first().map_or(Offset(0), |p| p.next);
    let from: Vec<Offset> = if made.is_empty() { vec![Offset(0); lanes as usize] } else { made.iter().map(from).collect() };
    let (send, receive): (Vec<_>, Vec<_>) = (0..lanes).map(|_| mpsc::channel(DELIVERIES)).unzip();
    let (journal, writing) = Journal::prepare(world, &folder, &plan.journal, lanes, &from, send)?;
    let handle = journal.handle();
    let id = handle.id();
    if made.is_empty() {
        made = (0..lanes).map(|n| make(&id, n)).collect::<Result<_>>()?;
    }
    let numbers: HashMap<Arc<str>, usize> = plan.sources.iter().enumerate().map(|(i, s)| (s.name.as_str().into(), i)).collect();
    let sealed: Arc<Vec<AtomicU64>> = Arc::new(from.iter().map(|o| AtomicU64::new(o.0)).collect());
    let second = build::make_second(plan, shared, &format!("{id}/stage"), &role, false, incarnation, "local")?;
    let wired = (0..lanes).zip(made).zip(receive).map(|((number, made), deliveries)| JournalMade {
        outlet: second.as_ref().map(|stage| stage.outlet(&made)),
        made,
        feed: Feed::Journal { id: id.clone(), sources: numbers.clone(), deliveries },
        journal: JournalLane { number, handle: handle.clone(), sealed: sealed.clone() },
    });
    let lanes = wired.collect();
    Ok(JournalLanes { journal, writing: Box::pin(writing), lanes, second })
}

/// What a lane is wired to.
pub(crate) struct Wiring {
    pub(crate) feed: Feed,
    pub(crate) journal: Option<JournalLane>,
    pub(crate) outlet: Option<Outlet>,
    /// Whether its open windows close when its input ends.
    pub(crate) flush: bool,
}

/// A lane's shell and the way to it.
pub(crate) fn wire(shared: &Arc<Shared>, made: Made, wiring: Wiring, relays: Relays) -> (Handle, Driver) {
    let (commands, receive) = mpsc::channel(DELIVERIES);
    let status = Arc::new(LaneStatus::new(made.record));
    let Wiring { feed, journal, outlet, flush } = wiring;
    let second = matches!(feed, Feed::Stage(_));
    let handle = Handle { lane: made.name, chain: made.chain, commands, status: status.clone(), flush, second };
    let (lane, live, shared, memory) = (made.lane, made.live, shared.clone(), shared.memory.join());
    (handle, Driver { lane, feed, journal, outlet, relays, commands: receive, shared, live, status, memory, lookups: vec![] })
}

/// The relays of a lane's sinks, and what the lane needs of them.
pub(crate) fn relays(plan: &Plan, shared: &Shared, publishers: &dyn Publishers, made: &Made) -> Result<(Relays, Vec<Relay>)> {
    let (sealed, news) = watch::channel(made.lane.chain().whole().clone());
    let (mut links, mut relays) = (vec![], vec![]);
    for of in &made.sinks {
        let place = Place {
            pipeline: &plan.name,
            lane: &made.name.0,
            chain: &made.chain,
            world: &shared.world,
            outbox: shared.outbox.clone(),
            sealed: news.clone(),
        };
        let (relay, link) = Relay::new(&plan.sinks[*of], publishers, place)?;
        relays.push(relay);
        links.push(link);
    }
    Ok((Relays { sealed, links }, relays))
}

/// Tells lanes that their input is at its end, first those that others read; resolves when all is sealed and moved.
pub(crate) async fn end(lanes: Vec<Handle>) {
    for second in [false, true] {
        let mut told = vec![];
        for lane in lanes.iter().filter(|lane| lane.second == second) {
            let (tell, answer) = oneshot::channel();
            // A lane that has ended says why itself.
            let _ = lane.commands.send(Command::End { flush: lane.flush, tell }).await;
            told.push(answer);
        }
        for answer in told {
            let _ = answer.await;
        }
    }
}

/// The connections of the MQTT sources, each with its source's number.
pub(crate) fn mqtt_sources(plan: &Plan) -> Result<Vec<(usize, MqttSource)>> {
    let mut connections = vec![];
    for (index, source) in plan.sources.iter().enumerate() {
        let Source::Mqtt(options) = &source.kind else { continue };
        for (number, producer) in source.producers().enumerate() {
            let connection = MqttSource {
                name: source.name.as_str().into(),
                producer,
                client_id: options.client_id(&plan.name, &source.name, number as u32),
                options: options.as_ref().clone(),
                decoder: files::decoder(source)?,
                key: source.key_columns.clone(),
                lanes: plan.lanes,
                max_message: usize::try_from(source.max_message).unwrap_or(usize::MAX),
                max_future: source.watermark.max_future.0,
            };
            connections.push((index, connection));
        }
    }
    Ok(connections)
}

/// Whether a file source's windows stay open for a later run.
pub(crate) fn keeps_windows(source: &Source) -> bool {
    matches!(source, Source::File(options) if options.on_end == ingest::file::OnEnd::Keep)
}

/// A pipeline of journaled sources in a world that its caller owns.
pub struct Core {
    journal: Journal,
    lanes: Vec<Handle>,
    live: Live,
    sources: Vec<MqttSource>,
    hurry: Arc<AtomicBool>,
    warm: PathBuf,
    _lock: DirectoryLock,
}

/// What a lane has counted and where it stands.
#[derive(Clone, Debug)]
pub struct LaneFigures {
    /// The lane's name.
    pub lane: flow::Lane,
    /// The application's name for its moves, by which a cold table knows them.
    pub chain: String,
    /// Number of its newest sealed record.
    pub epoch: u64,
    /// Its watermark.
    pub watermark: flow::EventTime,
    /// Readings that no count explains.
    pub unaccounted: u64,
    /// All counts, by component and word.
    pub counters: BTreeMap<String, u64>,
}

impl Core {
    /// Opens a pipeline as a start of the process does, and gives the tasks that do its work. `cold` has its cold tables by name, `publishers` what
    /// its sinks publish with.
    pub fn open(
        plan: &Plan,
        world: &World,
        cold: &BTreeMap<String, Arc<dyn ColdTable>>,
        publishers: &dyn Publishers,
        incarnation: u64,
        stop: CancellationToken,
    ) -> Result<(Self, Vec<(String, Task)>)> {
        let lock = DirectoryLock::take(&*world.disk, &plan.data_dir)?;
        let shared = Arc::new(build::shared(plan, world)?);
        let JournalLanes { journal, writing, lanes: opened, second } = open_journal(plan, &shared, incarnation)?;
        let (live, mut lanes) = (Live::default(), vec![]);
        let of_it = journal.handle();
        let mut tasks: Vec<(String, Task)> = vec![(
            "journal".into(),
            Box::pin(async move {
                writing.await;
                Err(Error::new(Remedy::Stop, format!("the journal has ended: {}", of_it.failed().as_deref().unwrap_or("it was closed"))))
            }),
        )];
        let mut add = |name: String, made: Made, wiring: Wiring| -> Result<()> {
            live.add(made.live.clone());
            let (relays, relaying) = relays(plan, &shared, publishers, &made)?;
            tasks.extend(relaying.into_iter().map(|relay| ("relay".to_owned(), Box::pin(relay.run(stop.clone())) as Task)));
            let (handle, driver) = wire(&shared, made, wiring, relays);
            lanes.push(handle);
            tasks.push((name, Box::pin(driver.run())));
            Ok(())
        };
        for JournalMade { made, feed, journal, outlet } in opened {
            add(format!("lane {}", journal.number), made, Wiring { feed, journal: Some(journal), outlet, flush: true })?;
        }
        if let Some(SecondStage { made, feed, .. }) = second {
            add("second stage".into(), made, Wiring { feed, journal: None, outlet: None, flush: true })?;
        }
        let hurry = Arc::new(AtomicBool::new(false));
        let moves = Moves {
            world: world.clone(),
            tables: moves::moving(plan, world, cold, &shared.warm, incarnation),
            lanes: Handles::of(lanes.clone()),
            counts: Arc::new(MoveCounts::default()),
            hurry: hurry.clone(),
            views: Arc::new(live.clone()),
            breakers: Breakers::default(),
            others: None,
        };
        tasks.push((
            "mover".into(),
            Box::pin(async move {
                moves.run(stop).await;
                Ok(())
            }),
        ));
        let sources = mqtt_sources(plan)?.into_iter().map(|(_, source)| source).collect();
        let warm = shared.warm.clone();
        Ok((Self { journal, lanes, live, sources, hurry, warm, _lock: lock }, tasks))
    }

    /// The connections of the MQTT sources; once.
    pub fn take_sources(&mut self) -> Vec<MqttSource> {
        std::mem::take(&mut self.sources)
    }

    /// The way to the journal.
    #[must_use]
    pub fn journal(&self) -> JournalHandle {
        self.journal.handle()
    }

    /// The lanes as queries see them.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// The folder of the warm segments.
    #[must_use]
    pub fn warm(&self) -> &PathBuf {
        &self.warm
    }

    /// What every lane shows.
    #[must_use]
    pub fn figures(&self) -> Vec<LaneFigures> {
        let figures = |handle: &Handle| {
            let facts = handle.status.get();
            LaneFigures {
                lane: handle.lane.clone(),
                chain: handle.chain.clone(),
                epoch: facts.epoch,
                watermark: facts.watermark,
                unaccounted: facts.unaccounted,
                counters: facts.counters,
            }
        };
        self.lanes.iter().map(figures).collect()
    }

    /// Closes all windows, seals all epochs and moves all that may move; resolves when that is done. The sources must have stopped.
    pub fn end(&self) -> impl Future<Output = ()> + Send + 'static {
        self.hurry.store(true, Ordering::Relaxed);
        end(self.lanes.clone())
    }
}
