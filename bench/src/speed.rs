//! What the binary costs over a file of readings, measured from outside.
//!
//! Makes the input, writes the pipeline's TOML, starts the binary with `run`, and checks by `sql` that every reading has gone its way once (into
//! a window, among the late ones, or into the table) before it reports a figure.
//!
//! ```text
//! tumbling   file → decode → count, sum, min, max, avg by device and 10 s → table                          W1
//! hopping    the same over 60 s, every 10 s                                                                W2
//! enrich     file → decode → dedupe → site of the device → °F → cold Parquet, sorted, by day               W3
//! ```

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde::Serialize;

use crate::{Error, Result, Usage, W1Options, run_and_measure, write_w1};

/// What is measured and where its files lie.
#[derive(Clone, Debug, clap::Args)]
pub struct SpeedOptions {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/tidegate")]
    pub tidegate: PathBuf,
    /// Folder for input and data, about 1 GB for 10 M readings. The input is kept and used again.
    #[arg(long, default_value = "target/bench-w1")]
    pub folder: PathBuf,
    /// What is done with the readings.
    #[arg(long, value_enum, default_value_t = Work::Tumbling)]
    pub work: Work,
    /// Lanes of the pipeline.
    #[arg(long, default_value_t = 2)]
    pub lanes: u32,
    /// Length of an epoch. One that is longer than the run is as good as none.
    #[arg(long, default_value = "1s")]
    pub epoch: String,
    /// The figures as a line of JSON.
    #[arg(long)]
    pub json: bool,
    /// The input.
    #[command(flatten)]
    pub input: W1Options,
}

/// What is done with the readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// Windows of 10 s.
    Tumbling,
    /// Windows of 60 s, every 10 s.
    Hopping,
    /// Without windows: each reading once, with the site of its device, to cold Parquet.
    Enrich,
}

/// The figures of one run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SpeedReport {
    /// Readings taken in.
    pub readings: u64,
    /// Rows of the table of results.
    pub rows: u64,
    /// Readings that came after a window of theirs had closed.
    pub late: u64,
    /// What the process used.
    #[serde(flatten)]
    pub usage: Usage,
}

impl fmt::Display for SpeedReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage { user_seconds, system_seconds, wall_seconds, peak_bytes } = self.usage;
        let millions = self.readings as f64 / 1e6;
        let cpu = (user_seconds + system_seconds) / millions;
        writeln!(out, "readings                      {}", self.readings)?;
        writeln!(out, "rows of results               {}", self.rows)?;
        writeln!(out, "late readings                 {}", self.late)?;
        writeln!(
            out,
            "CPU seconds per million       {cpu:.3} (user {:.3}, system {:.3})",
            user_seconds / millions,
            system_seconds / millions
        )?;
        writeln!(out, "readings a second             {:.0} in {wall_seconds:.2} s", self.readings as f64 / wall_seconds)?;
        write!(out, "peak memory                   {:.0} MiB", peak_bytes as f64 / f64::from(1 << 20))
    }
}

/// Measures one run. An input of the same options that is there already is used again.
pub fn measure(options: &SpeedOptions) -> Result<SpeedReport> {
    let folder =
        fs::create_dir_all(&options.folder).and_then(|()| fs::canonicalize(&options.folder)).map_err(Error::file(&options.folder))?;
    let input = input(&options.input, &folder)?;
    for data in ["data", "cold"].map(|name| folder.join(name)) {
        if data.exists() {
            fs::remove_dir_all(&data).map_err(Error::file(&data))?;
        }
    }
    let config = folder.join("pipeline.toml");
    fs::write(&config, pipeline(options, &folder, &input)?).map_err(Error::file(&config))?;
    let usage = run(&options.tidegate, &config, &folder.join("tidegate.log"))?;
    let ask = |sql: &str| ask(&options.tidegate, &config, sql);
    let readings = options.input.readings;
    let (rows, late, wrong) = match options.work {
        Work::Enrich => {
            let rows = ask("SELECT count(*) FROM tiers.results WHERE _tier = 'cold' AND site IS NOT NULL")?;
            (rows, 0, (rows != readings).then(|| format!("{readings} readings in, {rows} cold, with their site")))
        }
        work => {
            // A reading is in as many windows as cover it. Two in a thousand may come too late for some of theirs.
            let each = if work == Work::Hopping { 6 } else { 1 };
            let (taken, late) = (ask("SELECT coalesce(sum(n), 0) FROM results")?, ask("SELECT count(*) FROM late_windows")?);
            let fits = if each == 1 { taken + late == readings } else { (readings * each / 500 * 499..=readings * each).contains(&taken) };
            (
                ask("SELECT count(*) FROM results")?,
                late,
                (!fits).then(|| format!("{readings} readings in, {taken} in windows, {late} late")),
            )
        }
    };
    match wrong {
        None => Ok(SpeedReport { readings, rows, late, usage }),
        Some(reason) => Err(Error::Program { program: options.tidegate.display().to_string(), reason }),
    }
}

/// The input's path; its name tells its options, and it appears whole or not at all.
fn input(options: &W1Options, folder: &Path) -> Result<PathBuf> {
    let path = folder.join(format!("w1-{}-{}-{}.ndjson", options.readings, options.devices, options.seed));
    if !path.exists() {
        let unfinished = path.with_extension("part");
        write_w1(options, &unfinished)?;
        fs::rename(&unfinished, &path).map_err(Error::file(&path))?;
    }
    Ok(path)
}

fn pipeline(options: &SpeedOptions, folder: &Path, input: &Path) -> Result<String> {
    let SpeedOptions { lanes, epoch, .. } = options;
    let (file, data) = (input.display(), folder.join("data"));
    let work = match options.work {
        Work::Tumbling => windows(r#"type = "tumbling", size = "10s""#),
        Work::Hopping => windows(r#"type = "hopping", size = "60s", hop = "10s""#),
        Work::Enrich => {
            let (sites, devices) = (folder.join("sites.csv"), options.input.devices);
            let lines: String = (0..devices).map(|d| format!("device-{d:05},site-{}\n", d % 100)).collect();
            fs::write(&sites, format!("device_id,site\n{lines}")).map_err(Error::file(&sites))?;
            ENRICH.replace("SITES", &sites.display().to_string()).replace("COLD", &folder.join("cold").display().to_string())
        }
    };
    Ok(format!(
        r#"[pipeline]
name = "bench"
data_dir = "{data}"
lanes = {lanes}
epoch = "{epoch}"

[sources.readings]
type = "file"
path = "{file}"
mode = "once"
decode = {{ format = "json", event_time = {{ path = "$.ts", format = "unix_ms" }} }}
columns = {{ device_id = {{ type = "utf8" }}, metric = {{ type = "utf8" }}, value = {{ type = "float64" }}, seq = {{ type = "uint64" }} }}
key = ["device_id"]
watermark = {{ out_of_orderness = "5s" }}
{work}
[observability]
metrics = "127.0.0.1:0"
"#,
        data = data.display()
    ))
}

fn windows(window: &str) -> String {
    format!(
        r#"
[processors.windows]
type = "window"
inputs = ["readings"]
key = ["device_id"]
window = {{ {window} }}
select = {{ n = "count(*)", total = "sum(value)", least = "min(value)", greatest = "max(value)", mean = "avg(value)" }}

[tables.results]
inputs = ["windows"]
"#
    )
}

const ENRICH: &str = r#"
[lookups.sites]
path = "SITES"
key = ["device_id"]
columns = { device_id = { type = "utf8" }, site = { type = "utf8" } }

[processors.once]
type = "dedupe"
inputs = ["readings"]
key = ["device_id"]
sequence = "seq"

[processors.located]
type = "enrich"
inputs = ["once"]
lookup = "sites"
columns = { site = "site" }

[processors.converted]
type = "map"
inputs = ["located"]
select = { device_id = "device_id", metric = "metric", seq = "seq", site = "site", fahrenheit = "value * 1.8 + 32" }

[tables.results]
inputs = ["converted"]
hot = { age = "1s" }
warm = { age = "1s" }
cold = { url = "COLD", commit_every = "1s" }
"#;

fn run(tidegate: &Path, config: &Path, log: &Path) -> Result<Usage> {
    let file = fs::File::create(log).map_err(Error::file(log))?;
    let (status, usage) =
        run_and_measure(Command::new(tidegate).arg("run").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file))?;
    ended_well(tidegate, status, log).map(|()| usage)
}

/// An error with the end of the log where a program failed.
pub(crate) fn ended_well(program: &Path, status: ExitStatus, log: &Path) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(log).unwrap_or_default();
    let from = text.char_indices().rev().nth(2_000).map_or(0, |(at, _)| at);
    Err(Error::Program { program: program.display().to_string(), reason: format!("{status}\n{}", &text[from..]) })
}

/// The one number that `sql` answers.
pub(crate) fn ask(tidegate: &Path, config: &Path, sql: &str) -> Result<u64> {
    let failed = |reason: String| Error::Program { program: format!("{} sql {sql:?}", tidegate.display()), reason };
    let output = Command::new(tidegate).args(["sql", "--format", "csv", "--config"]).arg(config).arg(sql).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text.lines().nth(1).and_then(|line| line.trim().parse().ok());
    number.ok_or_else(|| failed(format!("{} {text}{}", output.status, String::from_utf8_lossy(&output.stderr))))
}
