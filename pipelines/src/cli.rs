//! The command line: words in, one of a few commands out.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// From a device's packet to one SQL table over memory, disk and cold storage.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a pipeline until its sources end or a signal comes.
    Run(RunArguments),
    /// Shows Tidegate at work: a broker, 200 simulated devices and a pipeline, all on this machine.
    Demo(DemoArguments),
    /// Looks for mistakes in a pipeline's file without opening anything else.
    Check {
        /// The pipeline's file.
        file: PathBuf,
        /// Print the parts of the plan as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Runs the `[[tests]]` of a pipeline's file: given messages, expected rows. Opens nothing else.
    Test {
        /// The pipeline's file.
        file: PathBuf,
    },
    /// Asks a running pipeline, or its data directory when none runs.
    Sql(SqlArguments),
    /// Shows the lanes of a pipeline: which process has each, how far it is, and how far behind its topic.
    Lanes(LanesArguments),
    /// Sends the readings of a simulated fleet of devices to an MQTT broker or into a file, and keeps the truth about them.
    Simulate(Box<bench::simulate::SimulateOptions>),
    /// Holds the tables of a pipeline against the truth of a simulation; exit code 1 when a row differs.
    Verify(VerifyArguments),
    /// Takes the readings that a pipeline has kept again with another file of it, in a folder beside, and shows how the tables would differ; exit code 1 when they do.
    Replay(ReplayArguments),
    /// Looks after the files of a pipeline's tables.
    Tiers {
        /// What to do with them.
        #[command(subcommand)]
        what: TiersCommand,
    },
    /// Prints the JSON Schema of a pipeline's file.
    Schema,
    /// Prints the version.
    Version,
}

/// How a pipeline is run.
#[derive(Args, Clone, Debug)]
pub struct RunArguments {
    /// The pipeline's file.
    pub file: PathBuf,
    /// Ends the pipeline after this much silence on every source, as `10s`; windows close as at the end of a file.
    #[arg(long, value_name = "TIME", value_parser = crate::units::time)]
    pub until_idle: Option<Duration>,
    /// What this process is called among those that share the pipeline; by default its number and its machine's name.
    #[arg(long, value_name = "NAME", value_parser = crate::cli::instance)]
    pub instance: Option<String>,
}

/// The name of an instance: a folder is called like it.
fn instance(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let good = (1..=64).contains(&text.len()) && text.chars().all(fits) && !text.starts_with('.');
    if good { Ok(text.to_owned()) } else { Err("letters, digits, `_`, `-` and `.`, at most 64 of them".to_owned()) }
}

/// What the demo does.
#[derive(Args, Clone, Debug)]
pub struct DemoArguments {
    /// How long the devices send.
    #[arg(long = "for", value_name = "TIME", value_parser = crate::units::time, default_value = "30s")]
    pub lasting: Duration,
    /// Goes on after that, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// A new or empty folder for everything; a fresh temporary one if left out. It stays.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// What is asked, and whom.
#[derive(Args, Clone, Debug)]
pub struct SqlArguments {
    /// The pipeline's file; its data directory is asked.
    #[arg(long, value_name = "FILE", group = "whom")]
    pub config: Option<PathBuf>,
    /// The data directory of a pipeline.
    #[arg(long, value_name = "DIR", group = "whom")]
    pub data_dir: Option<PathBuf>,
    /// The address of a running pipeline.
    #[arg(long, value_name = "URL", group = "whom")]
    pub url: Option<Url>,
    /// The form of the answer; a table on a terminal, else CSV.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// The question.
    pub sql: String,
}

/// Whose lanes are shown.
#[derive(Args, Clone, Debug)]
pub struct LanesArguments {
    /// The pipeline's file; its data directory is asked.
    #[arg(long, value_name = "FILE", group = "of")]
    pub config: Option<PathBuf>,
    /// The data directory of a pipeline.
    #[arg(long, value_name = "DIR", group = "of")]
    pub data_dir: Option<PathBuf>,
    /// The address of a running pipeline.
    #[arg(long, value_name = "URL", group = "of")]
    pub url: Option<Url>,
    /// The form of the answer; a table on a terminal, else CSV.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
}

/// What is held against what.
#[derive(Args, Clone, Debug)]
pub struct VerifyArguments {
    /// The folder that `tidegate simulate --truth` left; its scenario's `[verify]` names the tables.
    #[arg(long, value_name = "DIR")]
    pub truth: PathBuf,
    /// The pipeline's file; its data directory is asked, or the instance that owns it.
    #[arg(long, value_name = "FILE", group = "which")]
    pub pipeline: Option<PathBuf>,
    /// The data directory of a pipeline.
    #[arg(long, value_name = "DIR", group = "which")]
    pub data_dir: Option<PathBuf>,
    /// The address of a running pipeline.
    #[arg(long, value_name = "URL", group = "which")]
    pub sql: Option<Url>,
    /// The folder of the pipeline's cold tables, as in `cold = { url = … }`: their Parquet files are read too.
    #[arg(long, value_name = "DIR")]
    pub cold: Option<PathBuf>,
    /// Print the verdict as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What is taken again, and by which pipeline.
#[derive(Args, Clone, Debug)]
pub struct ReplayArguments {
    /// Whose readings. The pipeline may run.
    #[command(flatten)]
    pub whose: WhoseArguments,
    /// The file of the new pipeline.
    #[arg(long, value_name = "FILE")]
    pub pipeline: PathBuf,
    /// Kafka sources read their topics again, from the first record that is there to the last of now, and not the tables of their readings: messages are
    /// decoded anew.
    #[arg(long)]
    pub topics: bool,
    /// Only readings from this event time on, as `2026-01-31T00:00:00Z`.
    #[arg(long, value_name = "TIME", value_parser = crate::cli::instant)]
    pub from: Option<i64>,
    /// A new or empty folder for the readings and the new tables. It stays: `tidegate sql --data-dir DIR/data` asks it.
    #[arg(long, value_name = "DIR", default_value = "replay")]
    pub to: PathBuf,
    /// Print the difference as JSON.
    #[arg(long)]
    pub json: bool,
}

/// An instant of RFC 3339, in microseconds.
fn instant(text: &str) -> Result<i64, String> {
    let parsed = chrono::DateTime::parse_from_rfc3339(text);
    parsed.map(|at| at.timestamp_micros()).map_err(|e| format!("{e}; an instant is written as 2026-01-31T00:00:00Z"))
}

/// What is done with the files of a pipeline's tables.
#[derive(Clone, Debug, Subcommand)]
pub enum TiersCommand {
    /// Reads every file that the records and the cold tables name, and counts that each row is in one tier; exit code 1 on damage.
    /// It changes nothing and runs beside a running pipeline too.
    Verify(TiersVerifyArguments),
    /// Writes all sealed rows of a table as a fresh table of their own.
    Export(TiersExportArguments),
    /// Gives damaged segments up, on a stopped pipeline: their files go to `<data_dir>/quarantine`, their rows are counted, and what else is
    /// marked moves on.
    Quarantine(TiersQuarantineArguments),
}

/// Whose files they are.
#[derive(Args, Clone, Debug)]
pub struct WhoseArguments {
    /// The pipeline's file.
    #[arg(long, value_name = "FILE", group = "whose")]
    pub config: Option<PathBuf>,
    /// The data directory of a pipeline; `data` if both are left out.
    #[arg(long, value_name = "DIR", group = "whose")]
    pub data_dir: Option<PathBuf>,
}

/// What is verified.
#[derive(Args, Clone, Debug)]
pub struct TiersVerifyArguments {
    /// Whose files.
    #[command(flatten)]
    pub whose: WhoseArguments,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What is exported, and where to.
#[derive(Args, Clone, Debug)]
pub struct TiersExportArguments {
    /// Whose files.
    #[command(flatten)]
    pub whose: WhoseArguments,
    /// The table.
    #[arg(long, value_name = "NAME")]
    pub table: String,
    /// A new or empty folder: a path, a `file:` URL or `s3://bucket/prefix`. A bucket is reached by the table's `cold.s3` and the environment's
    /// `AWS_…` variables.
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// What is made there.
    #[arg(long, value_enum, default_value_t = ExportFormat::Parquet)]
    pub format: ExportFormat,
    /// Rows for which this SQL condition is true; all if left out.
    #[arg(long = "where", value_name = "SQL")]
    pub condition: Option<String>,
}

/// What is given up.
#[derive(Args, Clone, Debug)]
pub struct TiersQuarantineArguments {
    /// Whose files.
    #[command(flatten)]
    pub whose: WhoseArguments,
    /// The table.
    #[arg(long, value_name = "NAME")]
    pub table: String,
    /// A damaged segment, as `tidegate tiers verify` names it; may be given again.
    #[arg(long, value_name = "FILE", required = true)]
    pub file: Vec<PathBuf>,
}

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Parquet files in one folder.
    Parquet,
    /// A Delta table.
    Delta,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// CSV with a header.
    Csv,
    /// A JSON object a line.
    Json,
    /// An Arrow IPC stream.
    Arrow,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["tidegate", "run", "p.toml", "--until-idle", "10s"]).unwrap();
        assert!(matches!(cli.command, Command::Run(RunArguments { until_idle: Some(t), .. }) if t == Duration::from_secs(10)));
        let two = Cli::try_parse_from(["tidegate", "sql", "--config", "a", "--data-dir", "b", "SELECT 1"]);
        assert_eq!(two.unwrap_err().exit_code(), 2);
    }
}
