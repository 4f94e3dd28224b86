//! The binary `tidegate`. Exit codes: 0 done, 1 failure, 2 usage, 78 a mistake in the configuration (as in sysexits.h).

use clap::Parser;
use pipelines::cli::{
    Cli, Command, DemoArguments, LanesArguments, ReplayArguments, RunArguments, SqlArguments, TiersCommand, VerifyArguments, WhoseArguments,
};
use pipelines::diagnose::Problems;
use pipelines::plan::{Plan, TableKind};
use pipelines::{demo, frugal, logs, replay, run, schema, simulate, tiers, verify};
use serde_json::json;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a mistake in the configuration gives back.
const CONFIGURATION: u8 = 78;

/// Why a command did not do its work.
enum Failure {
    /// The configuration is wrong; the text is ready for a person.
    Configuration(String),
    /// Something else happened.
    Other(String),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(arguments) => run_pipeline(&arguments),
        Command::Demo(arguments) => run_demo(&arguments),
        Command::Check { file, json } => check(&file, json),
        Command::Test { file } => test(&file),
        Command::Sql(arguments) => sql(&arguments),
        Command::Lanes(arguments) => lanes(&arguments),
        Command::Simulate(options) => run_simulation(&options),
        Command::Verify(arguments) => run_verification(&arguments),
        Command::Replay(arguments) => replay(&arguments),
        Command::Tiers { what } => run_tiers(&what),
        Command::Schema => print(&format!("{:#}\n", schema::schema())),
        Command::Version => print(concat!("tidegate ", env!("CARGO_PKG_VERSION"), "\n")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(text)) => told(&text, CONFIGURATION),
        Err(Failure::Other(text)) => told(&format!("tidegate: {text}\n"), 1),
    }
}

fn run_pipeline(arguments: &RunArguments) -> Result<(), Failure> {
    let plan = plan(&arguments.file)?;
    // A pipe cannot be read a second time.
    if arguments.file.is_file() {
        frugal::begin_again(&plan.limits);
    }
    logs::install(&plan.observability.log).map_err(|e| Failure::Configuration(format!("{}: {e}\n", arguments.file.display())))?;
    run::run(plan, arguments).map_err(|e| Failure::Other(e.to_string()))
}

fn run_demo(arguments: &DemoArguments) -> Result<(), Failure> {
    // The pipeline logs to a file of its own; here only what goes wrong around it is worth a line between the figures.
    logs::install("error").map_err(Failure::Other)?;
    demo::run(arguments).map_err(|e| Failure::Other(e.to_string()))
}

fn run_simulation(options: &bench::simulate::SimulateOptions) -> Result<(), Failure> {
    logs::install("warn").map_err(Failure::Other)?;
    let scenario = options.scenario().map_err(|e| Failure::Configuration(format!("{e}\n")))?;
    let report = simulate::simulate(&scenario, options).map_err(|e| Failure::Other(e.to_string()))?;
    print(&if options.json { format!("{:#}\n", json!(report)) } else { simulate::words(&report) })
}

fn run_verification(arguments: &VerifyArguments) -> Result<(), Failure> {
    logs::install("error").map_err(Failure::Other)?;
    let plan = arguments.pipeline.as_deref().map(plan).transpose()?;
    let verdict = verify::verify(plan, arguments).map_err(|e| Failure::Other(e.to_string()))?;
    print(&if arguments.json { format!("{:#}\n", json!(verdict)) } else { format!("{verdict}\n") })?;
    if verdict.is_right() { Ok(()) } else { Err(Failure::Other("the tables are not what the truth says".to_owned())) }
}

fn replay(arguments: &ReplayArguments) -> Result<(), Failure> {
    logs::install("error").map_err(Failure::Other)?;
    let (old, data_dir) = whose(&arguments.whose)?;
    let new = plan(&arguments.pipeline)?;
    let text = std::fs::read_to_string(&arguments.pipeline);
    let text = text.map_err(|e| Failure::Configuration(format!("{}: {e}\n", arguments.pipeline.display())))?;
    let difference = replay::replay(old, &data_dir, &new, &text, arguments).map_err(|e| Failure::Other(e.to_string()))?;
    print(&if arguments.json { format!("{:#}\n", json!(difference)) } else { difference.to_string() })?;
    if difference.is_none() { Ok(()) } else { Err(Failure::Other("the tables differ".to_owned())) }
}

fn run_tiers(what: &TiersCommand) -> Result<(), Failure> {
    logs::install("error").map_err(Failure::Other)?;
    let failed = |e: flow::Error| Failure::Other(e.to_string());
    match what {
        TiersCommand::Verify(arguments) => {
            let (plan, data_dir) = whose(&arguments.whose)?;
            let report = tiers::verify(plan, &data_dir).map_err(failed)?;
            print(&if arguments.json { format!("{:#}\n", json!(report)) } else { format!("{report}\n") })?;
            if report.is_sound() { Ok(()) } else { Err(Failure::Other(format!("{} is damaged", data_dir.display()))) }
        }
        TiersCommand::Export(arguments) => {
            let (plan, data_dir) = whose(&arguments.whose)?;
            print(&tiers::export(plan, &data_dir, arguments).map_err(failed)?)
        }
        TiersCommand::Quarantine(arguments) => {
            let (plan, data_dir) = whose(&arguments.whose)?;
            print(&tiers::quarantine(plan, &data_dir, arguments).map_err(failed)?)
        }
    }
}

/// The plan where its file is given, and the data directory.
fn whose(arguments: &WhoseArguments) -> Result<(Option<Plan>, PathBuf), Failure> {
    let plan = arguments.config.as_deref().map(plan).transpose()?;
    let data_dir = plan.as_ref().map(|plan| plan.data_dir.clone()).or_else(|| arguments.data_dir.clone());
    Ok((plan, data_dir.unwrap_or_else(|| PathBuf::from("data"))))
}

fn sql(arguments: &SqlArguments) -> Result<(), Failure> {
    let plan = arguments.config.as_deref().map(plan).transpose()?;
    run::sql(plan, arguments).map_err(|e| Failure::Other(e.to_string()))
}

fn lanes(arguments: &LanesArguments) -> Result<(), Failure> {
    let plan = arguments.config.as_deref().map(plan).transpose()?;
    run::lanes(plan, arguments).map_err(|e| Failure::Other(e.to_string()))
}

fn check(file: &Path, as_json: bool) -> Result<(), Failure> {
    let plan = plan_by(file, Plan::check)?;
    // Where stderr cannot be written there is nobody to warn.
    let _ = io::stderr().lock().write_all(plan.warnings.render_warnings(io::stderr().is_terminal()).as_bytes());
    let declared = plan.tables.iter().filter(|t| t.kind == TableKind::Declared);
    if !as_json {
        let (sources, operators, tables) = (plan.sources.len(), plan.operators.len(), declared.count());
        let counts = format!("{sources} sources, {operators} processors, {tables} tables, {} lanes", plan.lanes);
        return print(&format!("{}: pipeline {} is right: {counts}\n", file.display(), plan.name));
    }
    let columns = |schema: &arrow::datatypes::SchemaRef| -> serde_json::Map<String, serde_json::Value> {
        schema.fields().iter().map(|f| (f.name().clone(), json!(f.data_type().to_string()))).collect()
    };
    let shown = json!({
        "pipeline": plan.name,
        "lanes": plan.lanes,
        "sources": plan.sources.iter().map(|s| json!({ "name": s.name, "key": s.key, "columns": columns(&s.schema) })).collect::<Vec<_>>(),
        "processors": plan.operators.iter().map(|o| json!({ "name": o.name, "columns": columns(&o.schema) })).collect::<Vec<_>>(),
        "tables": plan.tables.iter().map(|t| json!({ "name": t.name, "key": t.key, "columns": columns(&t.schema) })).collect::<Vec<_>>(),
    });
    print(&format!("{shown:#}\n"))
}

/// Runs the tests of a file; a failure names each difference.
fn test(file: &Path) -> Result<(), Failure> {
    let plan = plan(file)?;
    if plan.tests.is_empty() {
        return Err(Failure::Other(format!("{} has no [[tests]]", file.display())));
    }
    let outcomes = run::trial::run(&plan).map_err(|e| Failure::Other(e.to_string()))?;
    for outcome in &outcomes {
        let word = if outcome.difference.is_empty() { "ok" } else { "FAILED" };
        let lines: String = outcome.difference.iter().map(|line| format!("    {line}\n")).collect();
        print(&format!("{word:6} {}\n{lines}", outcome.name))?;
    }
    match outcomes.iter().filter(|o| !o.difference.is_empty()).count() {
        0 => Ok(()),
        failed => Err(Failure::Other(format!("{failed} of {} tests of {} failed", outcomes.len(), file.display()))),
    }
}

/// The plan of a file; all its mistakes otherwise.
fn plan(file: &Path) -> Result<Plan, Failure> {
    plan_by(file, Plan::read)
}

fn plan_by(file: &Path, by: fn(&str, &str) -> Result<Plan, Problems>) -> Result<Plan, Failure> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|e| Failure::Configuration(format!("{name}: {e}\n")))?;
    by(&name, &text).map_err(|problems| Failure::Configuration(problems.render(io::stderr().is_terminal())))
}

fn print(text: &str) -> Result<(), Failure> {
    let written = io::stdout().lock().write_all(text.as_bytes());
    match written {
        // Who reads has seen enough: `tidegate schema | head`.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Failure::Other(format!("writing to stdout: {e}"))),
    }
}

fn told(text: &str, code: u8) -> ExitCode {
    // Where stderr cannot be written there is nobody to tell; the code says it too.
    let _ = io::stderr().lock().write_all(text.as_bytes());
    ExitCode::from(code)
}
