//! The benchmark W1: file → decode → tumbling 10 s count/sum/min/max/avg by device → table, measured from outside.
//!
//! Makes the input, writes the pipeline's TOML, starts the binary with `run`, and checks by `sql` that every reading was counted
//! once, in a window or among the late ones, before it reports a figure.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

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
    /// Lanes of the pipeline.
    #[arg(long, default_value_t = 2)]
    pub lanes: u32,
    /// The input.
    #[command(flatten)]
    pub input: W1Options,
}

/// The figures of one run.
#[derive(Clone, Copy, Debug)]
pub struct SpeedReport {
    /// Readings taken in.
    pub readings: u64,
    /// Rows of the window table.
    pub windows: u64,
    /// Readings that came after their window had closed.
    pub late: u64,
    /// What the process used.
    pub usage: Usage,
}

impl fmt::Display for SpeedReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage { user_seconds, system_seconds, wall_seconds, peak_bytes } = self.usage;
        let millions = self.readings as f64 / 1e6;
        let cpu = (user_seconds + system_seconds) / millions;
        writeln!(out, "readings                      {}", self.readings)?;
        writeln!(out, "window rows                   {}", self.windows)?;
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

/// Runs W1 once. An input of the same options that is there already is used again.
pub fn measure(options: &SpeedOptions) -> Result<SpeedReport> {
    let folder =
        fs::create_dir_all(&options.folder).and_then(|()| fs::canonicalize(&options.folder)).map_err(Error::file(&options.folder))?;
    let input = input(&options.input, &folder)?;
    let data = folder.join("data");
    if data.exists() {
        fs::remove_dir_all(&data).map_err(Error::file(&data))?;
    }
    let config = folder.join("w1.toml");
    fs::write(&config, pipeline(&input, &data, options.lanes)).map_err(Error::file(&config))?;
    let usage = run(&options.tidegate, &config, &folder.join("w1.log"))?;
    let ask = |sql: &str| ask(&options.tidegate, &config, sql);
    let (windows, taken) = (ask("SELECT count(*) FROM per_device")?, ask("SELECT coalesce(sum(n), 0) FROM per_device")?);
    let late = ask("SELECT count(*) FROM late_per_10s")?;
    if taken + late != options.input.readings {
        let reason = format!("{} readings in, {taken} in windows and {late} late", options.input.readings);
        return Err(Error::Program { program: options.tidegate.display().to_string(), reason });
    }
    Ok(SpeedReport { readings: options.input.readings, windows, late, usage })
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

fn pipeline(input: &Path, data: &Path, lanes: u32) -> String {
    let (input, data) = (input.display(), data.display());
    format!(
        r#"[pipeline]
name = "w1"
data_dir = "{data}"
lanes = {lanes}

[sources.readings]
type = "file"
path = "{input}"
mode = "once"
decode = {{ format = "json", event_time = {{ path = "$.ts", format = "unix_ms" }} }}
columns = {{ device_id = {{ type = "utf8" }}, metric = {{ type = "utf8" }}, value = {{ type = "float64" }}, seq = {{ type = "uint64" }} }}
key = ["device_id"]
watermark = {{ out_of_orderness = "5s" }}

[processors.per_10s]
type = "window"
inputs = ["readings"]
key = ["device_id"]
window = {{ type = "tumbling", size = "10s" }}
select = {{ n = "count(*)", total = "sum(value)", least = "min(value)", greatest = "max(value)", mean = "avg(value)" }}

[tables.per_device]
inputs = ["per_10s"]

[observability]
metrics = "127.0.0.1:0"
"#
    )
}

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
