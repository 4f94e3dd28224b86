//! The command `bench`: `bench w1` measures the binary. Figures go to standard output.

use std::io::Write;
use std::process::ExitCode;

use bench::{SpeedOptions, measure};
use clap::Parser;

/// Measurements of Tidegate.
#[derive(Parser)]
enum Command {
    /// Measures file → decode → window → table over generated NDJSON.
    W1(SpeedOptions),
}

fn main() -> ExitCode {
    let Command::W1(options) = Command::parse();
    match measure(&options) {
        Ok(report) => written(writeln!(std::io::stdout(), "{report}"), ExitCode::SUCCESS),
        Err(error) => written(writeln!(std::io::stderr(), "bench: {error}"), ExitCode::FAILURE),
    }
}

/// The command's exit code, or failure where its text could not be written.
fn written(result: std::io::Result<()>, code: ExitCode) -> ExitCode {
    result.map_or(ExitCode::FAILURE, |()| code)
}
