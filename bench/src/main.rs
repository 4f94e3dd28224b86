//! The command `bench`: each of its commands measures the binary from outside. Figures go to standard output.

use std::io::Write;
use std::process::ExitCode;

use bench::{DurabilityOptions, MqttOptions, SpeedOptions, StartOptions, measure, measure_durability, measure_mqtt, measure_start};
use clap::Parser;
use serde::Serialize;

/// Measurements of Tidegate.
#[derive(Parser)]
enum Command {
    /// Measures file → decode → windows or enrichment → table over generated NDJSON.
    File(SpeedOptions),
    /// Measures what fsync and epochs of 1 s cost, over a real Mosquitto, and how long acknowledgements take; a table, then a line of JSON.
    Durability(DurabilityOptions),
    /// Measures how fast readings are taken from a real Mosquitto beside a client that only acknowledges, and how soon SQL shows them.
    Mqtt(MqttOptions),
    /// Measures how long a start takes, with nothing and with the open windows of many devices.
    Start(StartOptions),
}

fn main() -> ExitCode {
    let report = match Command::parse() {
        Command::File(options) => measure(&options).map(|report| if options.json { json(&report) } else { report.to_string() }),
        Command::Durability(options) => measure_durability(&options).map(|report| format!("{report}\n{}", json(&report))),
        Command::Start(options) => measure_start(&options).map(|report| if options.json { json(&report) } else { report.to_string() }),
        Command::Mqtt(options) => measure_mqtt(&options).map(|report| if options.json { json(&report) } else { report.to_string() }),
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

/// A report as one line.
fn json(report: &impl Serialize) -> String {
    serde_json::to_string(report).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}
