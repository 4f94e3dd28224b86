//! What durability costs: the same backlog of a real Mosquitto, read once with an fsync before each acknowledgement and epochs of 1 s, and once
//! with `sync = "never"` and epochs of 10 s; in turn, several rounds. Then how long an acknowledgement takes at given rates: devices that send a
//! message with the readings of the last second, at times fixed in advance.
//!
//! ```text
//! subscribe ─► fill the broker: messages of 50 readings ─► run until idle ─► count the rows by SQL     for each setting, each round
//! run ─► publish at a rate ─► the histogram of receipt to fsync                                        for each rate
//! ```
//! Readings a second are those between the first and the last change of `tidegate_received_readings_total`, which the process brings up to date
//! once a second: a run should last 10 s or more. CPU is of the whole process, from start to end, per million readings.
//! Latencies are upper bounds of buckets.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use crate::Result;
use crate::mosquitto::{Mosquitto, Pace};
use crate::setup::{Fleet, Setup, folder};

/// Readings of a message of the backlog.
const READINGS: u64 = 50;
/// Devices of the backlog, which take turns with messages.
const DEVICES: u64 = 1_000;
const BACKLOG: Fleet = Fleet { devices: DEVICES, readings: READINGS, step_ms: 1_000 };
const TO_DURABLE: &str = "tidegate_ingest_to_durable_seconds";
const FSYNCS: &str = "tidegate_journal_fsync_seconds_count";

/// What is measured, and where its files lie.
#[derive(Clone, Debug, clap::Args)]
pub struct DurabilityOptions {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/tidegate")]
    pub tidegate: PathBuf,
    /// Folder for data: some GB for the default number of messages, on the disk whose fsync is meant.
    #[arg(long, default_value = "target/bench-durability")]
    pub folder: PathBuf,
    /// Messages of 50 readings a run. They wait in the broker's memory, 3 KB each.
    #[arg(long, default_value_t = 400_000)]
    pub messages: u64,
    /// How often each setting is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Readings a second at which acknowledgements are looked at.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,50000", value_parser = clap::value_parser!(u32).range(1..))]
    pub rates: Vec<u32>,
    /// Readings of a message then.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub readings_a_message: u32,
    /// How long each rate lasts, in seconds.
    #[arg(long, default_value_t = 15)]
    pub seconds: u32,
}

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct DurabilityReport {
    /// Readings of each run.
    pub readings: u64,
    /// Runs in their order, the settings in turn.
    pub runs: Vec<Run>,
    /// Readings a second with fsync and short epochs, as a share of those without; means of all rounds.
    pub speed_ratio: f64,
    /// The same of CPU seconds.
    pub cpu_ratio: f64,
    /// Acknowledgements, by rate.
    pub acks: Vec<Acks>,
}

/// One reading of the backlog.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Run {
    /// Whether the journal was forced to disk before each acknowledgement.
    pub fsync: bool,
    /// How long readings came in.
    pub seconds: f64,
    /// Readings a second.
    pub readings_per_second: f64,
    /// CPU seconds per million readings.
    pub cpu_seconds_per_million: f64,
    /// Peak memory.
    pub peak_bytes: u64,
}

/// Acknowledgements at a rate.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Acks {
    /// Readings a second that were sent.
    pub readings_per_second: f64,
    /// Half of the messages were durable within this many milliseconds of their receipt.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// Fsyncs of the journal a second.
    pub fsyncs_per_second: f64,
}

impl fmt::Display for DurabilityReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "setting                 seconds  readings/s  CPU s/million  peak MiB")?;
        for run in &self.runs {
            let name = if run.fsync { "fsync, 1 s epochs" } else { "never, 10 s epochs" };
            let Run { seconds, readings_per_second: speed, cpu_seconds_per_million: cpu, peak_bytes, .. } = run;
            writeln!(out, "{name:<22} {seconds:>8.1} {speed:>11.0} {cpu:>14.3} {:>9}", peak_bytes >> 20)?;
        }
        writeln!(out, "fsync to never: {:.1} % of the speed, {:.1} % of the CPU\n", 100.0 * self.speed_ratio, 100.0 * self.cpu_ratio)?;
        write!(out, "readings/s  ack p50 ms  ack p99 ms  fsyncs/s")?;
        for Acks { readings_per_second, p50_ms, p99_ms, fsyncs_per_second } in &self.acks {
            write!(out, "\n{readings_per_second:>10.0} {p50_ms:>11.1} {p99_ms:>11.1} {fsyncs_per_second:>9.0}")?;
        }
        Ok(())
    }
}

/// Measures both. Every reading of the backlog is counted by SQL before a figure is believed.
pub fn measure_durability(options: &DurabilityOptions) -> Result<DurabilityReport> {
    let folder = folder(&options.folder)?;
    let broker = Mosquitto::start(&folder)?;
    let mut runs = vec![];
    for _ in 0..options.rounds {
        for fsync in [true, false] {
            runs.push(backlog(options, &folder, &broker, fsync)?);
        }
    }
    let ratio = |of: fn(&Run) -> f64| {
        let sum = |fsync: bool| runs.iter().filter(|run| run.fsync == fsync).map(of).sum::<f64>();
        sum(true) / sum(false)
    };
    let (speed_ratio, cpu_ratio) = (ratio(|run| run.readings_per_second), ratio(|run| run.cpu_seconds_per_million));
    let acks = options.rates.iter().map(|rate| acks(options, &folder, &broker, *rate)).collect::<Result<_>>()?;
    Ok(DurabilityReport { readings: options.messages * READINGS, runs, speed_ratio, cpu_ratio, acks })
}

/// Fills the broker and lets a process read all of it.
fn backlog(options: &DurabilityOptions, folder: &Path, broker: &Mosquitto, fsync: bool) -> Result<Run> {
    let name = if fsync { "always" } else { "never" };
    let setup = Setup::new(folder, broker, name, fsync)?;
    // A subscription that stays: the broker keeps what comes for it.
    setup.run(&options.tidegate, "1s")?;
    broker.publish(BACKLOG.messages(name, options.messages), None)?;
    let (usage, (seconds, counted)) = setup.drain(&options.tidegate)?;
    let readings = options.messages * READINGS;
    setup.stored(&options.tidegate, readings)?;
    let cpu = usage.user_seconds + usage.system_seconds;
    Ok(Run {
        fsync,
        seconds,
        readings_per_second: counted / seconds,
        cpu_seconds_per_million: cpu / (readings as f64 / 1e6),
        peak_bytes: usage.peak_bytes,
    })
}

/// Lets a fleet send at a rate, and looks at what the process says of its acknowledgements.
fn acks(options: &DurabilityOptions, folder: &Path, broker: &Mosquitto, rate: u32) -> Result<Acks> {
    let setup = Setup::new(folder, broker, "acks", true)?;
    let each = u64::from(options.readings_a_message);
    // Each device sends once a second what it measured in it.
    let devices = u64::from(rate).div_ceil(each);
    let (fleet, messages) = (Fleet { devices, readings: each, step_ms: 1_000 / each }, devices * u64::from(options.seconds));
    setup.run(&options.tidegate, "1s")?;
    let acks = std::thread::scope(|scope| {
        let running = scope.spawn(|| setup.run(&options.tidegate, "10s"));
        let measured = setup.ready().and_then(|before| {
            let since = Instant::now();
            broker.publish(fleet.messages(setup.name, messages), Some(Pace::from_now(devices as f64)))?;
            let (seconds, after) = (since.elapsed().as_secs_f64(), setup.ready()?);
            let share = |q| after.quantile(&before, TO_DURABLE, q).ok_or_else(|| setup.failed("it took nothing".to_owned()));
            Ok(Acks {
                readings_per_second: (messages * each) as f64 / seconds,
                p50_ms: 1e3 * share(0.5)?,
                p99_ms: 1e3 * share(0.99)?,
                fsyncs_per_second: (after.sum(FSYNCS) - before.sum(FSYNCS)) / seconds,
            })
        });
        running.join().unwrap_or_else(|_| Err(setup.failed("the thread that waited for it panicked".to_owned())))?;
        measured
    })?;
    setup.stored(&options.tidegate, messages * each).map(|()| acks)
}
