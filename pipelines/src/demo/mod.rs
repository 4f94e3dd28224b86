//! `tidegate demo`: a broker, a fleet of devices and a pipeline on this machine alone, shown while they work.
//!
//! The broker and the devices live in this process, the pipeline is a process of its own (`tidegate run`), so the demo shows nothing
//! that a user would not have. At the end it holds what the devices sent against what the pipeline has: the demo fails when a reading
//! is missing, doubled or unaccounted for.
//!
//! `folder` is where everything lies, `instance` the pipeline's process, `figures` what that says of itself, `screen` what is shown,
//! `words` what is said.

mod figures;
mod folder;
mod instance;
mod screen;
mod words;

use crate::cli::DemoArguments;
use bench::Broker;
use bench::scenario::Scenario;
use bench::simulate::{Progress, Report};
use bench::truth::Counts;
use figures::Figures;
use flow::{Error, Remedy, Result};
use folder::Folder;
use gateway::format::Format;
use instance::Instance;
use screen::Screen;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

/// The name of the pipeline in `config/pipelines/demo.toml`.
const PIPELINE: &str = "demo";
/// How often the pipeline is looked at: it renews its metrics once a second.
const EVERY: Duration = Duration::from_secs(1);
/// How long after the last message everything may take to be stored.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// Runs the demo until its time is over, or until Ctrl-C with `--keep`. An error when a reading was lost or doubled.
pub fn run(arguments: &DemoArguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|e| Error::stop("starting threads", e))?.block_on(demo(arguments))
}

async fn demo(arguments: &DemoArguments) -> Result<()> {
    let asked = on_signal()?;
    let folder = Folder::make(arguments.data_dir.as_deref())?;
    let mut screen = Screen::new();
    screen.say(&words::beginning(arguments, &Scenario::demo(), &folder))?;
    let broken = |e| Error::stop("the demo's broker", e);
    let broker = Broker::start().await.map_err(broken)?;
    let metrics = free_address()?;
    folder.write_pipeline(&broker.url(), metrics)?;
    let mut instance = Instance::start(&folder, metrics)?;
    let shown = show(arguments, &broker.url(), &folder, &mut instance, &mut screen, &asked).await;
    let stopped = instance.stop().await;
    let closed = broker.stop().await.map_err(broken);
    shown.and(stopped).and(closed)?;
    screen.say(&words::end(&folder))
}

/// Everything between the start and the stop of the pipeline.
async fn show(
    arguments: &DemoArguments,
    broker: &str,
    folder: &Folder,
    instance: &mut Instance,
    screen: &mut Screen,
    asked: &CancellationToken,
) -> Result<()> {
    tokio::select! {
        ready = instance.ready() => ready?,
        () = asked.cancelled() => return Ok(()),
    }
    let mut fleet = Devices::start(broker);
    let time = async {
        tokio::select! {
            () = sleep(arguments.lasting) => {}
            () = asked.cancelled() => {}
        }
    };
    watch(instance, screen, &mut fleet, time).await?;
    if arguments.keep && !asked.is_cancelled() {
        answers(instance, screen).await?;
        screen.say(&words::kept(folder))?;
        watch(instance, screen, &mut fleet, asked.cancelled()).await?;
        let sent = fleet.stop().await?;
        return account(&sent, &settled(instance, &sent).await?, screen);
    }
    let sent = fleet.stop().await?;
    let figures = settled(instance, &sent).await?;
    screen.show_last(&figures)?;
    answers(instance, screen).await?;
    account(&sent, &figures, screen)
}

/// The simulated devices.
struct Devices {
    publishing: JoinHandle<bench::Result<Report>>,
    stop: CancellationToken,
}

impl Devices {
    fn start(broker: &str) -> Self {
        let mut scenario = Scenario::demo();
        scenario.wire.url = broker.to_owned();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let publishing = async move { bench::simulate::simulate(&scenario, None, &Arc::<Progress>::default(), stopped).await };
        Self { publishing: tokio::spawn(publishing), stop }
    }

    /// Ends them once the broker has what they sent.
    async fn stop(self) -> Result<Counts> {
        self.stop.cancel();
        let sent = self.publishing.await.map_err(|e| Error::stop("the devices broke off", e))?;
        sent.map(|report| report.counts).map_err(|e| Error::stop("the devices", e))
    }
}

/// Shows the pipeline until `until`. An error when the pipeline or the devices end by themselves.
async fn watch(instance: &mut Instance, screen: &mut Screen, fleet: &mut Devices, until: impl Future<Output = ()>) -> Result<()> {
    let mut until = pin!(until);
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut until => return Ok(()),
            _ = every.tick() => {}
        }
        instance.check()?;
        // Devices that end by themselves say why when they are stopped.
        if fleet.publishing.is_finished() {
            return Ok(());
        }
        screen.show(&instance.figures().await?)?;
    }
}

/// Waits until the pipeline knows what became of every message; what it has then, in any case.
async fn settled(instance: &mut Instance, sent: &Counts) -> Result<Figures> {
    let began = Instant::now();
    loop {
        instance.check()?;
        let figures = instance.figures().await?;
        let is_settled = figures.settled() >= sent.messages && figures.unaccounted == 0;
        if is_settled || began.elapsed() >= SETTLED_WITHIN {
            return Ok(figures);
        }
        sleep(EVERY / 4).await;
    }
}

async fn answers(instance: &Instance, screen: &mut Screen) -> Result<()> {
    for (about, sql) in words::QUESTIONS {
        let answer = instance.ask(sql, Format::Table).await?;
        screen.say(&format!("\n{about}\n  {sql}\n{}", answer.trim_end()))?;
    }
    Ok(())
}

/// Holds what was sent against what is there.
fn account(sent: &Counts, found: &Figures, screen: &mut Screen) -> Result<()> {
    screen.say(&words::account(sent, found))?;
    let is_right =
        found.stored == sent.readings && found.duplicates == sent.duplicate && found.dead_letters == sent.broken && found.unaccounted == 0;
    if is_right { Ok(()) } else { Err(Error::new(Remedy::Stop, "what the devices sent is not what the pipeline has")) }
}

/// Cancelled by SIGINT or SIGTERM.
pub(crate) fn on_signal() -> Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e| Error::stop("listening for signals", e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let asked = CancellationToken::new();
    let cancel = asked.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancel.cancel();
    });
    Ok(asked)
}

/// A loopback address whose port was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    free.map_err(|e| Error::stop("looking for a free port", e))
}
