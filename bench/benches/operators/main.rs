//! What the operators cost on Arrow input, without decoding, lanes and disks: rows a second of one core, CPU seconds a million rows.
//!
//! ```text
//! main.rs      which cases there are, and the table of their figures
//! input.rs     readings of devices in random order
//! run.rs       a lane's calls to one operator, and what they cost
//! save.rs      a save of a window of which little has changed
//! sketch.rs    the bare partial aggregates of windows: what the window operator is measured against, in the same run
//! ```
//!
//! Time is the CPU time of the one thread that works, so that a busy machine disturbs less; caches and clock rates it does disturb.
//! The input is made before the clock starts. `make bench-operators ARGS="--only tumbling --rows 8000000"`.

mod input;
mod run;
mod save;
mod sketch;

use clap::Parser;
use flow::Operator;
use input::Input;
use processors::window::ByDevice;
use run::{Cost, Way};
use serde_json::{Value, json};
use std::error::Error;
use std::io::{Write, stdout};

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the operators on Arrow input.
#[derive(Parser)]
struct Options {
    /// Rows of each case, and of each input of a join. A window holds a million.
    #[arg(long, default_value_t = 4_000_000)]
    rows: usize,
    /// How many devices there are.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
    devices: Vec<usize>,
    /// Rows between two saves; 0 for none.
    #[arg(long, default_value_t = 500_000)]
    save_every: usize,
    /// Only the cases whose name has this in it.
    #[arg(long)]
    only: Option<String>,
    /// What `cargo bench` says to each bench.
    #[arg(long, hide = true)]
    bench: bool,
}

type Built = Result<Box<dyn Operator>, Box<dyn Error>>;

/// One operator over one kind of input.
struct Case {
    name: &'static str,
    build: fn() -> Built,
    /// One row in a hundred is up to 4 s behind.
    overtaken: bool,
    way: Way,
    /// It makes what the bare partial aggregates make.
    has_bare: bool,
}

const CASES: [Case; 16] = [
    Case { name: "tumbling 10 s, 5 aggregates", build: || window(&usual()), overtaken: false, way: Way::Ends, has_bare: true },
    Case { name: "the same, 1 % out of order", build: || window(&usual()), overtaken: true, way: Way::Ends, has_bare: true },
    Case { name: "hopping 60 s by 10 s", build: hopping, overtaken: true, way: Way::Ends, has_bare: false },
    Case { name: "session with a gap of 5 s", build: session, overtaken: true, way: Way::Ends, has_bare: false },
    Case { name: "tumbling 10 s, watermarks by device", build: by_device, overtaken: true, way: Way::Ends, has_bare: false },
    Case {
        name: "tumbling 10 s, time_weighted_avg",
        build: || window(&json!({ "mean": "time_weighted_avg(value, event_time)" })),
        overtaken: true,
        way: Way::Ends,
        has_bare: false,
    },
    Case { name: "dedupe by (device, sequence)", build: dedupe, overtaken: true, way: Way::Passes, has_bare: false },
    Case { name: "enrich by device, 2 columns", build: enrich, overtaken: false, way: Way::Passes, has_bare: false },
    Case { name: "join of two streams by device", build: join, overtaken: false, way: Way::Pairs, has_bare: false },
    Case { name: "deadband 5 of a value of 0 to 100", build: deadband, overtaken: false, way: Way::Passes, has_bare: false },
    Case { name: "rate of a gauge", build: rate, overtaken: false, way: Way::Passes, has_bare: false },
    Case { name: "alert when value > 90 for 10 s", build: alert, overtaken: false, way: Way::Ends, has_bare: false },
    Case { name: "presence, offline after 1 m", build: presence, overtaken: false, way: Way::Ends, has_bare: false },
    Case { name: "anomaly by z-score", build: anomaly, overtaken: false, way: Way::Ends, has_bare: false },
    Case { name: "filter value > 50", build: filter, overtaken: false, way: Way::Passes, has_bare: false },
    Case { name: "map to Fahrenheit", build: map, overtaken: false, way: Way::Passes, has_bare: false },
];

/// Rows of the lookup table of `enrich`.
const LOOKUP_ROWS: usize = 1_000_000;

const SKETCH: &str = "bare partial aggregates";

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let is_wanted = |name: &str| options.only.as_ref().is_none_or(|only| name.contains(only));
    line("case", "devices", "M rows/s/core", "CPU s/M rows", "of the bare")?;
    for devices in &options.devices {
        let [in_order, overtaken] = [false, true].map(|behind| Input::make(options.rows, *devices, behind));
        let (in_order, overtaken) = (in_order?, overtaken?);
        // Without it there is no ratio, so it runs with each window that has one.
        let bare = if CASES.iter().any(|c| c.has_bare && is_wanted(c.name)) || is_wanted(SKETCH) {
            let bare = run::sketch(&in_order, options.save_every)?;
            report(SKETCH, *devices, &bare, None)?;
            Some(bare)
        } else {
            None
        };
        for case in CASES.iter().filter(|case| is_wanted(case.name)) {
            let input = if case.overtaken { &overtaken } else { &in_order };
            let cost = run::operator((case.build)()?, input, options.save_every, case.way)?;
            report(case.name, *devices, &cost, bare.as_ref().filter(|_| case.has_bare))?;
        }
    }
    if is_wanted("save") {
        let groups = options.devices.iter().copied().max().unwrap_or(0);
        write!(stdout().lock(), "{}", save::measure(window(&usual())?, groups)?)?;
    }
    Ok(())
}

fn report(name: &str, devices: usize, cost: &Cost, bare: Option<&Cost>) -> std::io::Result<()> {
    let ratio = bare.map_or(String::new(), |bare| format!("{:.0} %", 100.0 * bare.seconds_a_million() / cost.seconds_a_million()));
    let (speed, seconds) = (format!("{:.1}", 1.0 / cost.seconds_a_million()), format!("{:.4}", cost.seconds_a_million()));
    line(name, &devices.to_string(), &speed, &seconds, &ratio)
}

fn line(name: &str, devices: &str, speed: &str, seconds: &str, ratio: &str) -> std::io::Result<()> {
    writeln!(stdout().lock(), "{name:34} {devices:>9} {speed:>14} {seconds:>13} {ratio:>12}")
}

fn usual() -> Value {
    json!({ "n": "count(*)", "total": "sum(value)", "low": "min(value)", "high": "max(value)", "mean": "avg(value)" })
}

fn window(select: &Value) -> Built {
    shaped(&json!({ "type": "tumbling", "size": "10s" }), select, None)
}

fn hopping() -> Built {
    shaped(&json!({ "type": "hopping", "size": "60s", "hop": "10s" }), &usual(), None)
}

fn session() -> Built {
    shaped(&json!({ "type": "session", "gap": "5s" }), &usual(), None)
}

fn by_device() -> Built {
    let by = ByDevice { delay: 5_000_000, idle: 60_000_000, retention: 3_600_000_000 };
    shaped(&json!({ "type": "tumbling", "size": "10s" }), &usual(), Some(by))
}

fn shaped(window: &Value, select: &Value, by: Option<ByDevice>) -> Built {
    // A window of a million devices and the one before it are open at once.
    let options = json!({ "key": ["device"], "window": window, "select": select, "max_keys": 100_000_000, "max_state": "64GiB" });
    Ok(processors::window::maker(&serde_json::from_value(options)?, by, &input::schema())?()?)
}

fn dedupe() -> Built {
    Ok(processors::dedupe::build(&serde_json::from_value(by_key(json!({ "sequence": "sequence" })))?, &input::schema())?)
}

/// The table knows every device of the largest usual case, so that each reading finds its row among a million.
fn enrich() -> Built {
    let lookup = input::lookup(LOOKUP_ROWS)?;
    let options = json!({ "lookup": "devices", "columns": ["site", "limit"] });
    let mut operator = processors::enrich::build(&serde_json::from_value(options)?, &input::schema(), &lookup.0)?;
    operator.on_lookup(&lookup.1)?;
    Ok(operator)
}

/// Each row finds the one of the other stream with its device and time, among the device's rows of about six seconds.
fn join() -> Built {
    let options = json!({ "key": ["device"], "max_rows": 100_000_000, "max_state": "64GiB" });
    Ok(processors::join::build(&serde_json::from_value(options)?, &input::schema(), &input::schema())?)
}

/// Options with the device as key, and more keys than there are devices.
fn by_key(mut options: Value) -> Value {
    options["key"] = json!(["device"]);
    options["max_keys"] = json!(100_000_000);
    options
}

fn deadband() -> Built {
    let options = by_key(json!({ "absolute": { "value": 5.0 } }));
    Ok(processors::deadband::build(&serde_json::from_value(options)?, &input::schema())?)
}

fn rate() -> Built {
    let options = by_key(json!({ "columns": { "speed": "value" }, "kind": "gauge" }));
    Ok(processors::rate::build(&serde_json::from_value(options)?, &input::schema())?)
}

fn alert() -> Built {
    let options = by_key(json!({ "when": "value > 90", "for": "10s" }));
    Ok(processors::alert::build("hot", &serde_json::from_value(options)?, &input::schema())?)
}

fn presence() -> Built {
    Ok(processors::presence::build(&serde_json::from_value(by_key(json!({ "offline_after": "1m" })))?, &input::schema())?)
}

fn anomaly() -> Built {
    let options = by_key(json!({ "column": "value", "zscore": {} }));
    Ok(processors::anomaly::build(&serde_json::from_value(options)?, &input::schema())?)
}

fn filter() -> Built {
    Ok(processors::filter::build(&serde_json::from_value(json!({ "when": "value > 50" }))?, &input::schema())?)
}

fn map() -> Built {
    let select = json!({ "select": { "device": "device", "fahrenheit": "value * 1.8 + 32" } });
    Ok(processors::map::build(&serde_json::from_value(select)?, &input::schema())?)
}
