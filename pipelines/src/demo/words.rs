//! What the demo says: at its beginning, while it is kept, and at its end.

use super::figures::Figures;
use super::folder::Folder;
use super::screen::number;
use crate::cli::DemoArguments;
use bench::scenario::Scenario;
use bench::truth::Counts;

/// What is asked at the end, and why. Each table is read over memory, local files and cold storage as one.
pub(super) const QUESTIONS: [(&str, &str); 3] = [
    (
        "Where the readings are: in memory, in local files, in cold storage.",
        "SELECT _tier, count(*) AS readings, min(event_time) AS first, max(event_time) AS last FROM tiers.readings GROUP BY 1 ORDER BY last DESC",
    ),
    (
        "The hottest devices, from windows of five seconds.",
        "SELECT site, device_id, sum(n) AS readings, max(temp_max) AS hottest FROM per_window GROUP BY 1, 2 ORDER BY hottest DESC LIMIT 5",
    ),
    ("What could not be used, and why.", "SELECT reason, count(*) AS messages FROM dead_letters GROUP BY 1 ORDER BY messages DESC"),
];

/// About how long start, queries and stop take, in seconds; an unoptimised build on two cores.
const AROUND_SECONDS: u64 = 10;

pub(super) fn beginning(arguments: &DemoArguments, fleet: &Scenario, folder: &Folder) -> String {
    let seconds = arguments.lasting.as_secs();
    let long = if arguments.keep { "until Ctrl-C".to_owned() } else { format!("about {} s", seconds + AROUND_SECONDS) };
    let (devices, rate) = (fleet.devices, fleet.rate.each);
    let root = folder.root().display();
    format!(
        "Tidegate demo, {long}: {devices} devices send {rate} readings a second each to a broker in this process;\n\
         some come out of order, late, twice or broken. Everything lies in {root}\n"
    )
}

pub(super) fn kept(folder: &Folder) -> String {
    let (me, data) = (program(), folder.data().display().to_string());
    format!(
        "\nIt goes on until Ctrl-C. Ask it from another terminal:\n  {me} sql --data-dir {data} \"SELECT * FROM readings ORDER BY event_time DESC LIMIT 5\"\n"
    )
}

pub(super) fn account(sent: &Counts, found: &Figures) -> String {
    let line = |what: &str, sent: u64, found: u64| format!("  {what:<28}{:>10}{:>10}\n", number(sent), number(found));
    let lines = [
        format!("\n  {:<28}{:>10}{:>10}\n", "", "sent", "found"),
        line("readings", sent.readings, found.stored),
        line("sent twice, kept once", sent.duplicate, found.duplicates),
        line("broken, in dead_letters", sent.broken, found.dead_letters),
        format!("  {:<38}{:>10}\n", "too late for their window", number(found.late)),
        format!("  {:<38}{:>10}", "unaccounted", number(found.unaccounted)),
    ];
    lines.concat()
}

pub(super) fn end(folder: &Folder) -> String {
    let (me, data, cold) = (program(), folder.data().display().to_string(), folder.cold().display().to_string());
    let (file, log, root) = (folder.pipeline().display().to_string(), folder.log().display().to_string(), folder.root().display());
    format!(
        "\nWhere it lies\n\
         \x20 {file}   the pipeline\n\
         \x20 {data}   journal, epoch records and local files\n\
         \x20 {cold}   Delta tables readings and per_window\n\
         \x20 {log}   the log\n\
         \nWhat to try next\n\
         \x20 ask on, without a running pipeline:\n\
         \x20   {me} sql --data-dir {data} \"SELECT * FROM late_per_window LIMIT 5\"\n\
         \x20 read the cold table with another program:\n\
         \x20   duckdb -c \"SELECT count(*) FROM delta_scan('{cold}/readings')\"\n\
         \x20 keep it running and look inside:\n\
         \x20   {me} demo --keep\n\
         \x20 begin a pipeline of your own from config/pipelines/plant.toml:\n\
         \x20   {me} check config/pipelines/plant.toml\n\
         \x20 throw this away:\n\
         \x20   rm -r {root}"
    )
}

/// How this program was called.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "tidegate".to_owned())
}
