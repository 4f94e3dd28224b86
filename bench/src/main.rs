//! The command `bench`: `bench w1` measures the binary, `bench durability` what fsync and short epochs cost it. Figures go to standard output.

use std::io::Write;
use std::process::ExitCode;

use bench::{DurabilityOptions, SpeedOptions, measure, measure_durability};
use clap::Parser;

/// Measurements of Tidegate.
#[derive(Parser)]
enum Command {
    /// Measures file → decode → window → table over generated NDJSON.
    W1(SpeedOptions),
    /// Measures what fsync and epochs of 1 s cost, over a real Mosquitto, and how long acknowledgements take; a table, then a line of JSON.
    Durability(DurabilityOptions),
}

fn main() -> ExitCode {
    let report = match Command::parse() {
        Command::W1(options) => measure(&options).map(|report| report.to_string()),
        Command::Durability(options) => measure_durability(&options).map(|report| format!("{report}\n{}", report.json())),
    };
    match report {
        Ok(report) => written(writeln!(std::io::stdout(), "{report}"), ExitCode::SUCCESS),
        Err(error) => written(writeln!(std::io::stderr(), "bench: {error}"), ExitCode::FAILURE),
    }
}

/// The command's exit code, or failure where its text could not be written.
fn written(result: std::io::Result<()>, code: ExitCode) -> ExitCode {
    result.map_or(ExitCode::FAILURE, |()| code)
}
