//! A pipeline at work: lanes as pure state machines, the shells that perform what they ask for, and what ties them to one process.
//!
//! `lane`, `graph`, `marks`, `tally`, `columns`, `exits`, `flood`, `water`, `breaker`, `tend`, `upkeep` are pure; `driver` is a lane's shell, `close` its durable steps, `recall` brings its hot rows back; `feed`, `files` and `kafka`
//! bring its log, `stage` that of a second stage, by what stands in `outlets`; `handles` leads to all lanes;
//! `build` claims and wires lanes; `goals` is where a replay of topics ends; `moves` drives the mover and the upkeep of cold tables; `observe` makes metrics; `core` is the durable part, in a world that is
//! given; `instance` puts it on threads; `ask` is `tidegate sql`, `lanes` is `tidegate lanes`, `trial` is `tidegate test`.

pub(crate) mod ask;
mod breaker;
pub(crate) mod build;
mod clock;
mod close;
mod columns;
mod compact;
pub mod core;
mod driver;
mod exits;
mod feed;
mod files;
mod flood;
pub(crate) mod goals;
mod graph;
mod handles;
mod http;
pub(crate) mod instance;
mod kafka;
mod lane;
mod lanes;
mod liaison;
mod lookups;
mod marks;
mod memory;
mod moved;
mod moves;
mod observe;
mod outlets;
mod recall;
mod scale;
pub(crate) mod shared;
mod stage;
mod status;
mod tally;
mod tend;
pub mod trial;
mod upkeep;
mod water;

use crate::cli::{LanesArguments, RunArguments, SqlArguments};
use crate::plan::Plan;
use flow::{Error, Result};

/// Runs a pipeline until it is drained or a signal comes. What is sealed stays whatever happens; the rest is read again.
pub fn run(plan: Plan, arguments: &RunArguments) -> Result<()> {
    run_to_end(plan, arguments, goals::Goals::default()).map(|_| ())
}

/// The same, of topics only to their goals; says whether everything was read, and no signal came before.
pub(crate) fn run_to_end(plan: Plan, arguments: &RunArguments, goals: goals::Goals) -> Result<bool> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(instance::run(plan, arguments, goals));
    // A client that still waits for an absent broker keeps nobody: what it was about to publish is in the outbox.
    runtime.shutdown_background();
    outcome
}

/// Answers one statement on stdout, from the running instance or from the data directory.
pub fn sql(plan: Option<Plan>, arguments: &SqlArguments) -> Result<()> {
    runtime()?.block_on(ask::sql(plan, arguments))
}

/// Shows the lanes on stdout, as `sql` answers, and how far they are behind their topics.
pub fn lanes(plan: Option<Plan>, arguments: &LanesArguments) -> Result<()> {
    runtime()?.block_on(lanes::lanes(plan, arguments))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("io").build().map_err(|e| Error::stop("starting threads", e))
}
