//! A start after kill -9, with the state of many devices and a long journal: soon ready, in bounded memory, with nothing lost.
//!
//! `RECOVERY_DEVICES=1000000 RECOVERY_MB=1000 RECOVERY_SECONDS=5`, with a release build in `TIDEGATE_BIN`, is the full size, and a bound for the
//! time until it is ready; other machines and builds are slower, so that there is no such bound otherwise.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng, distr::Alphanumeric, rngs::StdRng};
use tests::{Running, TestBroker, Tidegate, assert_same, from_environment, until};

const LIMIT: Duration = Duration::from_secs(600);

const PIPELINE: &str = r#"
[journal]
reserve = "1MiB"
keep = "1h"

[sources.floor]
type = "mqtt"
url = "URL"
topics = ["plant/{device_id}"]
client_id = "tidegate-floor"
decode = { format = "json", event_time = { path = "$.ts", format = "unix_ms" } }
columns = { seq = { type = "uint64" }, pad = { type = "utf8" } }
key = ["device_id"]
watermark = { out_of_orderness = "30m", idle_timeout = "1h" }

[processors.once]
type = "dedupe"
inputs = ["floor"]
key = ["device_id"]
sequence = "seq"

[processors.by_hour]
type = "window"
inputs = ["once"]
key = ["device_id"]
window = { type = "tumbling", size = "1h" }
select = { n = "count(*)", last = "last_value(seq)" }

[tables.by_hour]
inputs = ["by_hour"]
"#;

/// A reading of each device, of so many bytes that all of them make a journal of `megabytes`. All of them are in one window.
fn publish(broker: &TestBroker, devices: u64, megabytes: u64) {
    let random = StdRng::seed_from_u64(1);
    // It must not shrink in the journal: each device has another piece of a long text.
    let text: String = random.sample_iter(Alphanumeric).take(1 << 20).map(char::from).collect();
    let size = (megabytes * 1_000_000 / devices) as usize;
    for device in 0..devices {
        let from = (device as usize * 4_099) % (text.len() - size);
        let payload = format!(r#"{{"ts":{},"seq":{device},"pad":"{}"}}"#, 1_767_225_600_000 + device, &text[from..from + size]);
        broker.publish(&format!("plant/d{device}"), payload.as_bytes());
    }
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("an entry"));
    entries.map(|entry| if entry.path().is_dir() { folder_bytes(&entry.path()) } else { entry.metadata().map_or(0, |m| m.len()) }).sum()
}

/// How many keys and groups its operators hold.
fn held(running: &Running) -> u64 {
    let page = running.metrics();
    let values =
        page.lines().filter(|line| line.starts_with("tidegate_state_keys")).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}

/// Fills a journal, kills the process, and starts it again. `epoch`: how often it seals.
fn killed_with_a_long_journal(epoch: &str) {
    let (devices, megabytes) = (from_environment("RECOVERY_DEVICES", 10_000), from_environment("RECOVERY_MB", 20));
    let broker = TestBroker::start();
    let tidegate = Tidegate::new(&PIPELINE.replace("URL", &broker.url()));
    let file = tidegate.path("pipeline.toml");
    let text = std::fs::read_to_string(&file).expect("the pipeline").replace("epoch = \"500ms\"", &format!("epoch = \"{epoch}\""));
    std::fs::write(&file, text).expect("the pipeline is written");
    let running = tidegate.start(&[]);
    broker.wait_for_subscriber(LIMIT);
    publish(&broker, devices, megabytes);
    let since = Instant::now();
    broker.wait_until_drained(LIMIT);
    let (filled, before) = (since.elapsed(), running.peak_memory_bytes());
    running.kill();
    let journal = folder_bytes(&tidegate.folder.path().join("data/journal"));
    let total = folder_bytes(&tidegate.folder.path().join("data"));
    assert!(journal >= megabytes * 900_000, "a journal of {journal} bytes");

    let since = Instant::now();
    let mut running = tidegate.start(&[]);
    running.wait_until_ready();
    let (ready, at_ready) = (since.elapsed(), running.peak_memory_bytes());
    // A key of `once` and a group of `by_hour` for each device.
    until("all is taken again", LIMIT, || held(&running) == 2 * devices);
    let (again, peak) = (since.elapsed(), running.peak_memory_bytes());
    let figures = format!(
        "epochs of {epoch}, {devices} devices, journal {} MB of {} MB: filled in {filled:.1?} with {} MiB; ready in {ready:.2?} with {} MiB, all taken in \
         {again:.2?} with {} MiB",
        journal / 1_000_000,
        total / 1_000_000,
        before >> 20,
        at_ready >> 20,
        peak >> 20
    );
    // Written itself, so that it is seen also when the test passes.
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{figures}\n"));
    assert!(ready < Duration::from_secs(from_environment("RECOVERY_SECONDS", 600)), "{figures}");
    // Nothing of the journal's length may be held: what replays is the state that was there before, and queues.
    assert!(peak < before + (200 << 20), "{figures}");
    running.stop();
    tidegate.run(&["--until-idle", "1s"]);
    let windows = tidegate.sql("SELECT count(*), sum(n), count(DISTINCT last) FROM by_hour");
    assert_same("windows", &windows, &format!("windows,readings,distinct\n{devices},{devices},{devices}\n"), 3);
}

#[test]
fn a_start_passes_over_the_journal_that_is_sealed() {
    killed_with_a_long_journal("500ms");
}

#[test]
fn a_start_reads_a_journal_again_of_which_nothing_is_sealed() {
    killed_with_a_long_journal("1h");
}
