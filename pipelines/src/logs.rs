//! Logs on stderr: text on a terminal, a JSON object a line otherwise.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// The environment variable that goes before what the file says.
const VARIABLE: &str = "TIDEGATE_LOG";

/// Libraries that tell at `info` what is of use to their authors alone. What is chosen goes before it.
const QUIET: &str = "buoyant_kernel=warn,deltalake_core=warn";

/// Starts logging; once a process, a second call changes nothing. `directives` are a level, or `info,ingest=debug`. The error says what is
/// wrong with them.
pub fn install(directives: &str) -> Result<(), String> {
    let chosen = std::env::var(VARIABLE).ok().filter(|v| !v.is_empty()).unwrap_or_else(|| directives.to_owned());
    let filter = EnvFilter::try_new(format!("{QUIET},{chosen}")).map_err(|e| format!("log directives `{chosen}`: {e}"))?;
    let terminal = std::io::stderr().is_terminal();
    // A full disk behind stderr must not stop the pipeline, so errors of writing a log are not printed either.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let installed = if terminal { builder.with_ansi(true).try_init() } else { builder.json().flatten_event(true).try_init() };
    drop(installed);
    Ok(())
}
