//! One seed from its first start to its last: crashes and restarts under faults, then all heals, drains and is judged.

use crate::broker::Broker;
use crate::clockwork::{Ended, Process, ProcessTime, Scheduler, Sim};
use crate::cold::{SimCold, SimColdViews};
use crate::coverage::Coverage;
use crate::disk::{Medium, ProcessDisk};
use crate::faults::Faults;
use crate::oracle::Tables;
use crate::shown::{Rising, Shown};
use crate::sinks::{MOVES, Published, SINKS, SimPublishers};
use flow::{Error, Result};
use futures::FutureExt;
use ingest::SourceStatus;
use ingest::mqtt::Session;
use pipelines::plan::Plan;
use pipelines::run::core::Core;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::cold::ColdTable;
use storage::epoch::{Body, EpochStore, LocalEpochs};
use storage::view::{View, Views};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use world::World;

const DATA: &str = "/sim/data";
const COLD: &str = "/sim/cold";
const NAME: &str = "sim";
/// The tables that the oracle reads.
const TABLES: [&str; 8] =
    ["readings", "per_window", "late_per_window", "total", "late_total", "per_value", "late_per_value", "dead_letters"];
/// Faults end when everything was published, or after this time.
const FAULTY: Duration = Duration::from_secs(120);
/// After the faults everything must be drained within this time.
const DRAIN: Duration = Duration::from_secs(600);
/// Starts after which faults end in any case, and starts that may fail after that.
const STARTS: (u64, u64) = (60, 5);
/// Steps of the scheduler in all.
const STEPS: u64 = 2_000_000;
/// Steps of the scheduler between two looks at lanes that must only rise.
const LOOK: u64 = 64;

/// How a seed ended.
pub(crate) struct Report {
    pub(crate) violation: Option<String>,
    pub(crate) last_events: Vec<String>,
    pub(crate) hash: u64,
    pub(crate) coverage: Coverage,
    pub(crate) starts: u64,
}

/// Runs one seed.
pub(crate) fn run(seed: u64) -> Report {
    let faults = Faults::of(seed);
    let sim = Sim::new(seed, faults);
    let mut starts = 0;
    let outcome = catch_unwind(AssertUnwindSafe(|| Run::new(&sim).and_then(|mut run| run.all(&mut starts))));
    let violation = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(panic) => Some(format!("panic: {}", words(&*panic))),
    };
    let coverage = catch_unwind(AssertUnwindSafe(|| sim.state().coverage.clone())).unwrap_or_default();
    let last_events = catch_unwind(AssertUnwindSafe(|| sim.last_events())).unwrap_or_default();
    let hash = catch_unwind(AssertUnwindSafe(|| sim.hash())).unwrap_or_default();
    Report { violation, last_events, hash, coverage, starts }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
}

struct Run {
    sim: Arc<Sim>,
    medium: Arc<Medium>,
    broker: Arc<Broker>,
    published: Arc<Published>,
    scheduler: Scheduler,
    plan: Plan,
    rising: Rising,
    shown: Shown,
    /// The process of devices and time, which never dies.
    outside: Arc<Process>,
    zombies: Vec<(Arc<Process>, Duration)>,
    started: u64,
}

/// A start of the product.
struct Life {
    process: Arc<Process>,
    core: Core,
    views: SimColdViews,
    /// The disk as the judge sees it.
    eyes: World,
    stop: CancellationToken,
    /// Stops the clients of the broker.
    quiet: CancellationToken,
    ended: Arc<AtomicBool>,
    ending: bool,
    sources: u32,
    status: Arc<SourceStatus>,
}

/// Why a life is over.
enum Over {
    Crash,
    Failed(String),
    Restart,
    Drained,
}

impl Run {
    fn new(sim: &Arc<Sim>) -> Result<Self, String> {
        let medium = Arc::new(Medium::default());
        let broker = Broker::new(sim, &medium, Path::new(DATA).join("journal"));
        let mut scheduler = Scheduler::new(sim);
        let outside = Process::new(0, -1);
        scheduler.spawn(&outside, "devices", broker.clone().publish());
        scheduler.spawn(&outside, "clock", steps(sim.clone()));
        let (plan, rising, shown) = (plan(&sim.faults)?, Rising::default(), Shown::default());
        let published = Arc::default();
        Ok(Self { sim: sim.clone(), medium, broker, published, scheduler, plan, rising, shown, outside, zombies: vec![], started: 0 })
    }

    fn all(&mut self, starts: &mut u64) -> Result<(), String> {
        let mut failed = 0;
        loop {
            self.started += 1;
            *starts = self.started;
            if self.started > STARTS.0 {
                self.heal();
            }
            self.rotten_start()?;
            let over = match self.start() {
                Ok(mut life) => {
                    let over = self.live(&mut life)?;
                    if matches!(over, Over::Drained) {
                        self.judge(&life)?;
                        self.end(&life.process, &over);
                        return self.after();
                    }
                    if matches!(over, Over::Restart) && self.sim.fault(self.sim.faults.zombie) {
                        self.leave_zombie(life);
                        continue;
                    }
                    self.end(&life.process, &over);
                    over
                }
                Err((process, error)) => {
                    let over = if process.is_dead() { Over::Crash } else { Over::Failed(error.to_string()) };
                    self.end(&process, &over);
                    over
                }
            };
            if let (Over::Failed(why), true) = (&over, self.sim.state().healed) {
                failed += 1;
                if failed > STARTS.1 {
                    return Err(format!("after all faults it fails again and again: {why}"));
                }
            }
            if let Some(violation) = self.broker.violation() {
                return Err(violation);
            }
            self.pause();
        }
    }

    /// Damage on the medium below what was on disk must be told, and nothing may be changed: the start fails, and works when the bit is
    /// back in its place.
    fn rotten_start(&mut self) -> Result<(), String> {
        if !self.zombies.is_empty() || !self.sim.fault(self.sim.faults.rot) {
            return Ok(());
        }
        let Some(rot) = self.medium.rot(&Path::new(DATA).join("journal"), &self.sim) else { return Ok(()) };
        self.sim.event("damage on the medium");
        let started = self.start();
        self.medium.flip(rot);
        match started {
            Ok(_) => Err("damage in the journal below what was on disk is passed over".into()),
            Err((process, _)) => {
                self.end(&process, &Over::Restart);
                self.started += 1;
                Ok(())
            }
        }
    }

    fn heal(&self) {
        let mut state = self.sim.state();
        state.healed = true;
    }

    /// Time passes between two lives.
    fn pause(&mut self) {
        let until = self.sim.now() + Duration::from_millis(self.sim.below(2_000));
        while self.sim.now() < until {
            let outside = self.scheduler.step();
            drop(outside);
            if !self.something_waits() {
                break;
            }
        }
    }

    fn something_waits(&self) -> bool {
        self.sim.now() < FAULTY * 20
    }

    fn world(&self, process: &Arc<Process>, judging: bool) -> World {
        let time = Arc::new(ProcessTime { sim: self.sim.clone(), process: process.clone() });
        let disk = ProcessDisk { sim: self.sim.clone(), medium: self.medium.clone(), process: process.clone(), judging };
        World { disk: Arc::new(disk), time: time.clone(), threads: time }
    }

    fn start(&mut self) -> std::result::Result<Life, (Arc<Process>, Error)> {
        let faults = self.sim.faults.clone();
        let healed = self.sim.state().healed;
        let crash = !healed && faults.crash_every > 0;
        let at_once = crash && faults.crash_in_recovery && self.sim.below(3) == 0;
        // Otherwise the count begins when it has started.
        let process = Process::new(self.started, if at_once { self.sim.below(400) as i64 } else { -1 });
        let left = 1 + self.sim.below(2 * faults.crash_every) as i64;
        self.sim.note(|| format!("start {} {}", self.started, if healed { "healed" } else { "" }));
        let world = self.world(&process, false);
        match self.open(&process, &world) {
            Ok(life) => {
                process.left.store(if crash { left } else { -1 }, Ordering::Relaxed);
                Ok(life)
            }
            Err(error) => {
                self.sim.note(|| format!("it does not start: {error}"));
                Err((process, error))
            }
        }
    }

    fn open(&mut self, process: &Arc<Process>, world: &World) -> Result<Life> {
        let eyes = self.world(&self.outside, true);
        let cold = |world: &World| -> BTreeMap<String, SimCold> {
            let table = |name: &str| SimCold { sim: self.sim.clone(), world: world.clone(), root: PathBuf::from(COLD).join(name) };
            ["readings", "per_window"].map(|name| (name.to_owned(), table(name))).into()
        };
        let (cold, tables) = (cold(world), cold(&eyes));
        let seen = cold.iter().map(|(name, cold)| (name.clone(), Arc::new(cold.clone()) as Arc<dyn ColdTable>)).collect();
        let stop = CancellationToken::new();
        let incarnation = world.time.chance();
        let publishers = SimPublishers { sim: self.sim.clone(), process: process.clone(), published: self.published.clone() };
        let (mut core, tasks) = Core::open(&self.plan, world, &seen, &publishers, incarnation, stop.clone())?;
        process.recovering.store(false, Ordering::Relaxed);
        if process.is_dead() {
            return Err(Error::new(flow::Remedy::Stop, "crashed while starting"));
        }
        for (name, task) in tasks {
            self.scheduler.spawn(process, &name, task);
        }
        let (quiet, status) = (CancellationToken::new(), Arc::new(SourceStatus::default()));
        let sources = core.take_sources();
        let count = sources.len() as u32;
        for (number, source) in sources.into_iter().enumerate() {
            let (send, events) = mpsc::channel(64);
            let Session { worker, acks } = Session::new(source, core.journal(), status.clone(), events)?;
            self.scheduler.spawn(process, "worker", worker);
            self.scheduler.spawn(process, "acks", acks);
            self.scheduler.spawn(
                process,
                "client",
                self.broker.clone().serve(number, process.clone(), send, status.clone(), quiet.clone()),
            );
        }
        let ended = Arc::new(AtomicBool::new(false));
        let lanes = core.figures().into_iter().map(|f| (f.lane, f.chain)).collect();
        let views = SimColdViews { pipeline: NAME.into(), tables, lanes, recent: Mutex::default() };
        Ok(Life { process: process.clone(), core, views, eyes, stop, quiet, ended, ending: false, sources: count, status })
    }

    /// Lets a process live until something ends it.
    fn live(&mut self, life: &mut Life) -> Result<Over, String> {
        let restart = self.sim.now() + Duration::from_millis(self.sim.below(15_000));
        let restarts = self.sim.faults.zombie > 0 || self.sim.faults.crash_every == 0;
        let (mut quiet_tasks, mut healed_at) = (0, None);
        loop {
            let ended = self.scheduler.step();
            self.bury_zombies();
            if let Some(Ended { name, process, outcome }) = ended
                && process == life.process.number
            {
                match outcome {
                    Err(error) if !life.process.is_dead() => {
                        self.sim.note(|| format!("{name} ends: {error}"));
                        return Ok(Over::Failed(format!("{name}: {error}")));
                    }
                    Ok(()) if ["worker", "acks", "client"].contains(&name.as_str()) => quiet_tasks += 1,
                    _ => {}
                }
            }
            if life.process.is_dead() {
                return Ok(Over::Crash);
            }
            if let Some(violation) = self.broker.violation() {
                return Err(violation);
            }
            if self.scheduler.steps > STEPS {
                return Err(format!("not at an end after {STEPS} steps"));
            }
            if self.scheduler.steps.is_multiple_of(LOOK) {
                self.look(life)?;
            }
            let (now, healed) = (self.sim.now(), self.sim.state().healed);
            if !healed && restarts && now >= restart {
                return Ok(Over::Restart);
            }
            if !healed && (now > FAULTY || self.broker.is_drained()) {
                self.sim.note(|| "all heals".into());
                self.heal();
                life.process.left.store(-1, Ordering::Relaxed);
            }
            if !healed {
                continue;
            }
            let since = *healed_at.get_or_insert(now);
            if now > since + DRAIN {
                return Err(format!(
                    "not drained {DRAIN:?} after the last fault: drained {}, ending {}",
                    self.broker.is_drained(),
                    life.ending
                ));
            }
            if self.broker.is_drained() {
                life.quiet.cancel();
            }
            if quiet_tasks == 3 * life.sources && !life.ending {
                life.ending = true;
                let (end, ended) = (life.core.end(), life.ended.clone());
                self.scheduler.spawn(&life.process, "end", async move {
                    end.await;
                    ended.store(true, Ordering::Relaxed);
                    Ok(())
                });
            }
            if life.ended.load(Ordering::Relaxed) {
                return Ok(Over::Drained);
            }
        }
    }

    /// What must hold at every moment.
    fn look(&mut self, life: &Life) -> Result<(), String> {
        for lane in life.core.figures() {
            self.rising.at_least(format!("epoch of {}", lane.lane), lane.epoch as i64)?;
            self.rising.at_least(format!("watermark of {} in life {}", lane.lane, life.process.number), lane.watermark.0)?;
            if lane.unaccounted > 0 {
                return Err(format!("{} readings of lane {} are unaccounted: {:?}", lane.unaccounted, lane.lane, lane.counters));
            }
        }
        let unacked = life.status.unacked.load(Ordering::Relaxed);
        let most = self.sim.faults.receive_maximum * u64::from(life.sources) * 8 + 4_096;
        if unacked > most {
            return Err(format!("{unacked} messages are unacknowledged, at most {most} may be"));
        }
        if self.scheduler.steps.is_multiple_of(LOOK * 32) {
            let tables = self.tables(life)?;
            self.shown.look(life.process.number, &tables)?;
        }
        Ok(())
    }

    fn tables(&self, life: &Life) -> Result<Tables, String> {
        let taken = View::take(life.core.warm().clone(), life.core.live(), Some(&life.views), &TABLES).now_or_never();
        let view = taken.ok_or("a view waits for something")?.map_err(|e| format!("no view: {e}"))?;
        Tables::read(&view, life.core.warm(), &*life.eyes.disk)
    }

    fn judge(&mut self, life: &Life) -> Result<(), String> {
        self.look(life)?;
        let tables = self.tables(life)?;
        tables.judge(&self.broker, self.sim.faults.all_on_time())?;
        if self.sim.faults.sinks {
            self.published.judge(&tables)?;
        }
        self.shown.look(life.process.number, &tables)?;
        self.shown.all_in(&tables)?;
        let lanes = life.core.live().lanes().now_or_never().ok_or("the lanes wait for something")?.map_err(|e| format!("no lanes: {e}"))?;
        if self.sim.faults.sinks {
            self.published.judge_moves(&lanes, &["readings", "per_window"])?;
        }
        let counted = |word: &str| lanes.iter().filter_map(|lane| lane.whole.counters.get(word)).sum::<u64>();
        tables.counted("readings", counted("table.readings.stored"))?;
        tables.counted("dead_letters", counted("table.dead_letters.stored"))
    }

    /// Once more, after everything: what was judged is on disk, and no file is missing or left over.
    fn after(&mut self) -> Result<(), String> {
        for (zombie, _) in std::mem::take(&mut self.zombies) {
            self.bury(&zombie);
        }
        self.medium.power_cut(&self.sim);
        self.started += 1;
        let life = self.start().map_err(|(_, error)| format!("it does not start again: {error}"))?;
        self.judge(&life)?;
        self.files(&life)?;
        life.stop.cancel();
        self.end(&life.process, &Over::Restart);
        self.scheduler.drop_tasks(self.outside.number, |_| true);
        Ok(())
    }

    fn files(&self, life: &Life) -> Result<(), String> {
        let epochs = LocalEpochs::on(life.eyes.disk.clone(), Path::new(DATA), NAME);
        let (mut named, mut needed) = (BTreeSet::new(), BTreeSet::new());
        let failed = |e| format!("reading records: {e}");
        for lane in epochs.lanes().map_err(failed)? {
            let numbers = epochs.numbers(&lane).map_err(failed)?;
            if let Some(gap) = numbers.windows(2).find(|w| w[1] != w[0] + 1) {
                return Err(format!("lane {lane} has records {} and {} and none between", gap[0], gap[1]));
            }
            for number in numbers {
                let record = epochs.read(&lane, number).map_err(failed)?.ok_or("a record went")?;
                named.extend(record.files());
                if let Body::Whole(whole) = &record.body {
                    named.extend(whole.files());
                }
            }
            needed.extend(epochs.newest(&lane).map_err(failed)?.ok_or("no newest record")?.whole.files());
        }
        let there: BTreeSet<String> = ["warm", "state", "outbox"]
            .iter()
            .flat_map(|folder| self.medium.names(&Path::new(DATA).join(folder)))
            .filter_map(|path| path.file_name().map(|n| n.to_string_lossy().into_owned()))
            .collect();
        if let Some(missing) = needed.difference(&there).next() {
            return Err(format!("file {missing} is named by a newest record and is not there"));
        }
        if let Some(left) = there.difference(&named).next() {
            return Err(format!("file {left} is there and no record names it"));
        }
        let journal = self.medium.names(&Path::new(DATA).join("journal"));
        let strange = journal.iter().find(|p| p.extension().is_none_or(|e| e != "log"));
        strange.map_or(Ok(()), |path| Err(format!("{} is left over", path.display())))
    }

    /// Ends a process: killed, or with the power.
    fn end(&mut self, process: &Arc<Process>, over: &Over) {
        process.kill();
        for number in 0..self.sim.faults.connections as usize {
            self.broker.disconnect(number);
        }
        self.scheduler.drop_tasks(process.number, |_| true);
        self.medium.unlock(process.number);
        let power = {
            let mut state = self.sim.state();
            !state.healed && state.chance.happens(self.sim.faults.power_cut)
        };
        let power = power && !matches!(over, Over::Drained);
        if power {
            for (zombie, _) in std::mem::take(&mut self.zombies) {
                self.bury(&zombie);
            }
            self.medium.power_cut(&self.sim);
        }
        self.sim.event(if power { "power cut" } else { "kill" });
        if matches!(over, Over::Failed(_)) {
            self.sim.event("restart after an error");
        }
    }

    /// The process seems dead and is not: its lanes and its mover go on while another starts.
    fn leave_zombie(&mut self, life: Life) {
        self.sim.event("zombie");
        for number in 0..self.sim.faults.connections as usize {
            self.broker.disconnect(number);
        }
        self.scheduler.drop_tasks(life.process.number, |name| ["journal", "worker", "acks", "client"].contains(&name));
        self.medium.unlock(life.process.number);
        life.process.left.store(-1, Ordering::Relaxed);
        let until = self.sim.now() + Duration::from_millis(self.sim.below(8_000));
        self.zombies.push((life.process.clone(), until));
    }

    fn bury_zombies(&mut self) {
        let now = if self.sim.state().healed { Duration::MAX } else { self.sim.now() };
        let dead: Vec<_> = self.zombies.extract_if(.., |(_, until)| *until <= now).collect();
        dead.iter().for_each(|(zombie, _)| self.bury(zombie));
    }

    fn bury(&mut self, zombie: &Arc<Process>) {
        zombie.kill();
        self.scheduler.drop_tasks(zombie.number, |_| true);
    }
}

/// The wall clock is set, forward and back.
async fn steps(sim: Arc<Sim>) -> Result<()> {
    loop {
        sim.sleep(Duration::from_secs(1)).await;
        if sim.fault(sim.faults.clock_step) {
            let step = sim.below(7_200_000_000) as i64 - 3_600_000_000;
            sim.state().wall_step += step;
            sim.event("clock step");
        }
    }
}

fn plan(faults: &Faults) -> Result<Plan, String> {
    let Faults { lanes, connections, receive_maximum, epoch_ms, idle_ms, out_of_orderness_ms, fan_in, warm_s, partition_s, hot_s, .. } =
        faults;
    let sink = |(name, window, key): (&str, &str, &str)| {
        let key = if key.is_empty() { String::new() } else { format!("\"{key}\"") };
        format!(
            "[sinks.{name}]\ntype = \"kafka\"\ninputs = [\"{window}\"]\nbrokers = [\"127.0.0.1:9092\"]\ntopic = \"{name}\"\nkey = [{key}]\n"
        )
    };
    let all = SINKS.into_iter().chain([(MOVES, "tidegate.moves", "table")]);
    let sinks: String = if faults.sinks { all.map(sink).collect() } else { String::new() };
    let share = if *connections > 1 { "share = \"fleet\"\nredelivery = \"dup\"" } else { "" };
    let text = format!(
        r#"
[pipeline]
name = "{NAME}"
data_dir = "{DATA}"
lanes = {lanes}
epoch = "{epoch_ms}ms"

[sources.floor]
type = "mqtt"
url = "mqtt://127.0.0.1:1883"
topics = ["d/{{device}}"]
decode = {{ format = "json", event_time = {{ path = "$.ts", format = "unix_ms" }} }}
columns = {{ n = {{ path = "$.n", type = "int64" }}, v = {{ path = "$.v", type = "int64" }} }}
key = ["device"]
connections = {connections}
{share}
receive_maximum = {receive_maximum}
watermark = {{ out_of_orderness = "{out_of_orderness_ms}ms", idle_timeout = "{idle_ms}ms", max_future = "1m" }}

[processors.per_window]
type = "window"
inputs = ["floor"]
key = ["device"]
window = {{ type = "tumbling", size = "5s" }}
select = {{ count = "count(*)", total = "sum(v)" }}

# Over all devices: partial aggregates go to a second stage.
[processors.total]
type = "window"
inputs = ["floor"]
key = []
window = {{ type = "tumbling", size = "10s" }}
select = {{ count = "count(*)", total = "sum(v)" }}

# By something else than the device, and taken late: rows go to a second stage.
[processors.per_value]
type = "window"
inputs = ["floor"]
key = ["v"]
window = {{ type = "tumbling", size = "5s" }}
allowed_lateness = "500ms"
select = {{ count = "count(*)", total = "sum(v)" }}

[tables.readings]
inputs = ["floor"]
hot = {{ age = "{hot_s}s", memory = "64MiB" }}
warm = {{ age = "{warm_s}s", partition = "{partition_s}s", fan_in = {fan_in} }}
cold = {{ url = "{COLD}", commit_every = "2s", keep_removed = "5s" }}

[tables.per_window]
inputs = ["per_window"]
hot = {{ age = "{hot_s}s", memory = "64MiB" }}
warm = {{ age = "{warm_s}s", partition = "{partition_s}s", fan_in = {fan_in} }}
cold = {{ url = "{COLD}", commit_every = "2s", keep_removed = "5s" }}

[tables.total]
inputs = ["total"]
hot = {{ age = "{hot_s}s", memory = "64MiB" }}
warm = {{ fan_in = {fan_in} }}

[tables.per_value]
inputs = ["per_value"]
hot = {{ age = "{hot_s}s", memory = "64MiB" }}
warm = {{ fan_in = {fan_in} }}

{sinks}
[limits]
query_time = "2s"
"#
    );
    let mut plan = Plan::read("sim.toml", &text).map_err(|problems| problems.render(false))?;
    plan.journal.segment_bytes = faults.segment_bytes;
    Ok(plan)
}
