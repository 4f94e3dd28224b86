//! What the measurements over a real Mosquitto share: a pipeline with windows and a table, the devices that send to it, and its process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::mosquitto::{Mosquitto, free_port};
use crate::page::Page;
use crate::speed::{ask, ended_well};
use crate::{Error, Result, Usage, run_and_measure};

/// 2025-01-01T00:00:00Z.
const START_MS: u64 = 1_735_689_600_000;
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);
const READY_WITHIN: Duration = Duration::from_secs(60);
pub(crate) const RECEIVED: &str = "tidegate_received_readings_total";

/// The folder, which is made if it is not there, with its whole path.
pub(crate) fn folder(path: &Path) -> Result<PathBuf> {
    fs::create_dir_all(path).and_then(|()| fs::canonicalize(path)).map_err(Error::file(path))
}

/// Devices that take turns with messages of several readings.
pub(crate) struct Fleet {
    pub(crate) devices: u64,
    /// Of a message.
    pub(crate) readings: u64,
    /// From one reading of a device to its next.
    pub(crate) step_ms: u64,
}

impl Fleet {
    pub(crate) fn messages(&self, topic: &str, count: u64) -> impl Iterator<Item = (String, Vec<u8>)> {
        let Self { devices, readings, step_ms } = *self;
        (0..count).map(move |number| {
            let (device, turn) = (number % devices, number / devices);
            let reading = |n: u64| {
                let (seq, value) = (turn * readings + n, 20.0 + ((number * 7 + n * 13) % 1_000) as f64 / 100.0);
                format!(r#"{{"t":{},"v":{value:.2},"s":{seq}}}"#, START_MS + seq * step_ms)
            };
            let readings: Vec<String> = (0..readings).map(reading).collect();
            (format!("{topic}/device-{device:05}"), format!(r#"{{"r":[{}]}}"#, readings.join(",")).into_bytes())
        })
    }
}

/// A pipeline with a folder of its own, which is empty at first.
pub(crate) struct Setup {
    pub(crate) name: &'static str,
    pub(crate) folder: PathBuf,
    pub(crate) config: PathBuf,
    /// Of the metrics.
    pub(crate) port: u16,
    /// Of the queries.
    pub(crate) http: u16,
}

impl Setup {
    pub(crate) fn new(folder: &Path, broker: &Mosquitto, name: &'static str, fsync: bool) -> Result<Setup> {
        let (data, config, port, http) = (folder.join(name), folder.join(format!("{name}.toml")), free_port()?, free_port()?);
        if data.exists() {
            fs::remove_dir_all(&data).map_err(Error::file(&data))?;
        }
        let (sync, epoch) = if fsync { ("always", "1s") } else { ("never", "10s") };
        let (url, data) = (broker.url(), data.display());
        let text = format!(
            r#"[pipeline]
name = "{name}"
data_dir = "{data}"
lanes = 2
epoch = "{epoch}"

[journal]
sync = "{sync}"

[sources.floor]
type = "mqtt"
url = "{url}"
topics = ["{name}/{{device_id}}"]
decode = {{ format = "json", explode = "$.r", event_time = {{ path = "$.r.t", format = "unix_ms" }} }}
columns = {{ value = {{ path = "$.r.v", type = "float64" }}, seq = {{ path = "$.r.s", type = "uint64" }} }}
key = ["device_id"]
watermark = {{ out_of_orderness = "5s" }}

[processors.per_minute]
type = "window"
inputs = ["floor"]
key = ["device_id"]
window = {{ type = "tumbling", size = "1m" }}
select = {{ n = "count(*)", mean = "avg(value)", greatest = "max(value)" }}

[tables.readings]
inputs = ["floor"]

[tables.per_minute]
inputs = ["per_minute"]

[http]
listen = "127.0.0.1:{http}"

[observability]
metrics = "127.0.0.1:{port}"
"#
        );
        fs::write(&config, text).map_err(Error::file(&config))?;
        Ok(Setup { name, folder: folder.to_owned(), config, port, http })
    }

    /// Runs the pipeline until nothing came for a while.
    pub(crate) fn run(&self, tidegate: &Path, idle: &str) -> Result<Usage> {
        let log = self.folder.join(format!("{}.log", self.name));
        let file = fs::File::create(&log).map_err(Error::file(&log))?;
        let mut command = Command::new(tidegate);
        command.arg("run").arg(&self.config).args(["--until-idle", idle]);
        let (status, usage) = run_and_measure(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file))?;
        ended_well(tidegate, status, &log).map(|()| usage)
    }

    /// Lets it read all that waits for it: what it used, how long readings came in, and how many in that time.
    pub(crate) fn drain(&self, tidegate: &Path) -> Result<(Usage, (f64, f64))> {
        let (usage, inflow) = std::thread::scope(|scope| {
            let running = scope.spawn(|| self.run(tidegate, "3s"));
            let (mut first, mut last) = (None, (Instant::now(), 0.0));
            while !running.is_finished() {
                let received = Page::of(self.port).map_or(0.0, |page| page.sum(RECEIVED));
                if received > last.1 {
                    last = (Instant::now(), received);
                    first.get_or_insert(last);
                }
                std::thread::sleep(LOOK_EVERY);
            }
            let usage = running.join().unwrap_or_else(|_| Err(self.failed("the thread that waited for it panicked".to_owned())))?;
            let (since, before) = first.unwrap_or(last);
            Ok::<_, Error>((usage, ((last.0 - since).as_secs_f64(), last.1 - before)))
        })?;
        match inflow.0 {
            0.0 => Err(self.failed("all readings came between two looks at its metrics: take more messages".to_owned())),
            _ => Ok((usage, inflow)),
        }
    }

    /// The page of metrics, as soon as there is one.
    pub(crate) fn ready(&self) -> Result<Page> {
        let since = Instant::now();
        loop {
            match Page::of(self.port) {
                Some(page) => return Ok(page),
                None if since.elapsed() > READY_WITHIN => return Err(self.failed("it gives out no metrics".to_owned())),
                None => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Fails unless so many readings lie in the table.
    pub(crate) fn stored(&self, tidegate: &Path, readings: u64) -> Result<()> {
        let stored = ask(tidegate, &self.config, "SELECT count(*) FROM readings")?;
        if stored == readings { Ok(()) } else { Err(self.failed(format!("{readings} readings in, {stored} stored"))) }
    }

    pub(crate) fn failed(&self, reason: String) -> Error {
        Error::Program { program: format!("tidegate run {}", self.config.display()), reason }
    }
}
