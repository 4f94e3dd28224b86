//! How long a start takes until the process says that it is ready: with nothing, and with the open windows of many devices.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::mosquitto::Mosquitto;
use crate::page::Page;
use crate::setup::{Fleet, RECEIVED, Setup, folder};
use crate::{Error, Result};

const LOOK_EVERY: Duration = Duration::from_millis(2);
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Longer than an epoch: what came is sealed.
const SEALED_AFTER: Duration = Duration::from_secs(3);

/// What is measured, and where its files lie.
#[derive(Clone, Debug, clap::Args)]
pub struct StartOptions {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/tidegate")]
    pub tidegate: PathBuf,
    /// Folder for data.
    #[arg(long, default_value = "target/bench-start")]
    pub folder: PathBuf,
    /// Devices with an open window each.
    #[arg(long, default_value_t = 1_000_000)]
    pub devices: u64,
    /// The figures as a line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// The figures.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StartReport {
    /// Without data.
    pub empty_seconds: f64,
    /// With the state of the devices, after it was stopped.
    pub stopped_seconds: f64,
    /// The same after it was killed.
    pub killed_seconds: f64,
}

impl fmt::Display for StartReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "empty                         {:.3} s", self.empty_seconds)?;
        writeln!(out, "with state, stopped before    {:.3} s", self.stopped_seconds)?;
        write!(out, "with state, killed before     {:.3} s", self.killed_seconds)
    }
}

/// Measures all three.
pub fn measure_start(options: &StartOptions) -> Result<StartReport> {
    let folder = folder(&options.folder)?;
    let broker = Mosquitto::start(&folder)?;
    let setup = Setup::new(&folder, &broker, "start", true)?;
    let (mut running, empty_seconds) = Running::start(options, &setup)?;
    // One reading each, at nearly one time: all windows stay open.
    let fleet = Fleet { devices: options.devices, readings: 1, step_ms: 1_000 };
    broker.publish(fleet.messages(setup.name, options.devices), None)?;
    running.until_received(&setup, options.devices)?;
    std::thread::sleep(SEALED_AFTER);
    running.stop(&setup)?;
    let (mut running, stopped_seconds) = Running::start(options, &setup)?;
    running.kill();
    let (mut running, killed_seconds) = Running::start(options, &setup)?;
    running.stop(&setup)?;
    setup.stored(&options.tidegate, options.devices)?;
    Ok(StartReport { empty_seconds, stopped_seconds, killed_seconds })
}

/// A running process; it ends when this is dropped.
struct Running(Child);

impl Running {
    /// Starts it, and says after how many seconds it was ready.
    fn start(options: &StartOptions, setup: &Setup) -> Result<(Self, f64)> {
        let log = setup.folder.join("start.log");
        let file = fs::File::create(&log).map_err(Error::file(&log))?;
        let mut command = Command::new(&options.tidegate);
        command.arg("run").arg(&setup.config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let since = Instant::now();
        let mut running = Self(command.spawn().map_err(|error| setup.failed(error.to_string()))?);
        loop {
            let text = fs::read_to_string(&log).map_err(Error::file(&log))?;
            if text.contains("ready") {
                return Ok((running, since.elapsed().as_secs_f64()));
            }
            if running.has_ended() || since.elapsed() > READY_WITHIN {
                return Err(setup.failed(format!("it does not become ready:\n{text}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    fn until_received(&mut self, setup: &Setup, readings: u64) -> Result<()> {
        let since = Instant::now();
        while Page::of(setup.port).map_or(0.0, |page| page.sum(RECEIVED)) < readings as f64 {
            if self.has_ended() || since.elapsed() > READY_WITHIN {
                return Err(setup.failed(format!("{readings} readings do not come in")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Asks it to end, and waits for that.
    fn stop(&mut self, setup: &Setup) -> Result<()> {
        let asked = Command::new("kill").arg(self.0.id().to_string()).status();
        asked.and_then(|_| self.0.wait()).map(|_| ()).map_err(|error| setup.failed(error.to_string()))
    }

    fn kill(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
