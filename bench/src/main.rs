//! The command `bench`: `bench w1` measures the binary, `bench simulate` publishes a fleet. Figures go to standard output.

use std::io::Write;
use std::process::ExitCode;

use bench::{SimulateOptions, SpeedOptions, measure, simulate};
use clap::Parser;

/// Load for Tidegate and measurements of it.
#[derive(Parser)]
enum Command {
    /// Measures file → decode → window → table over generated NDJSON.
    W1(SpeedOptions),
    /// Publishes a simulated fleet to an MQTT broker at QoS 1.
    Simulate(SimulateOptions),
}

#[tokio::main]
async fn main() -> ExitCode {
    let answer = match Command::parse() {
        Command::W1(options) => measure(&options).map(|report| report.to_string()),
        Command::Simulate(options) => simulate(&options, std::future::pending()).await.map(|truth| format!("{truth:?}")),
    };
    match answer {
        Ok(text) => written(writeln!(std::io::stdout(), "{text}"), ExitCode::SUCCESS),
        Err(error) => written(writeln!(std::io::stderr(), "bench: {error}"), ExitCode::FAILURE),
    }
}

/// The command's exit code, or failure where its text could not be written.
fn written(result: std::io::Result<()>, code: ExitCode) -> ExitCode {
    result.map_or(ExitCode::FAILURE, |()| code)
}
