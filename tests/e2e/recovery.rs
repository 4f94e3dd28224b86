//! A start after kill -9 with much state and a long journal: soon ready, in bounded memory, and then with every reading in its window.
//!
//! `RECOVERY_DEVICES=1000000 RECOVERY_MB=1000 TIDEGATE_BIN=target/release/tidegate` in front makes it large.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};
use tests::{Running, TestBroker, Tidegate, until};

const LIMIT: Duration = Duration::from_secs(900);
/// Readings in a message.
const READINGS: u64 = 500;
/// Bytes of a reading in the journal, about.
const BYTES: u64 = 25;

const PIPELINE: &str = r#"
topics = ["fleet"]
decode = { format = "json", explode = "$.r", event_time = { path = "$.r.t", format = "unix_ms" } }
columns = { device = { path = "$.r.d", type = "utf8" }, seq = { path = "$.r.n", type = "int64" }, value = { path = "$.r.v", type = "float64" } }
key = ["device"]
watermark = { out_of_orderness = "1s" }

[processors.per_day]
type = "window"
inputs = ["floor"]
key = ["device"]
window = { type = "tumbling", size = "1d" }
select = { n = "count(*)", last = "last_value(seq)" }
max_keys = 4_000_000
max_state = "4GiB"

[tables.per_day]
inputs = ["per_day"]
"#;

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |n| n.parse().expect("a number"))
}

/// The event time of a reading in milliseconds.
fn instant(seq: u64) -> u64 {
    1_767_225_600_000 + seq / 1_000
}

/// A message with the readings of these numbers, dealt out to so many devices.
fn message(first: u64, devices: u64) -> Vec<u8> {
    let reading = |seq: u64| format!(r#"{{"t":{},"d":"device-{}","n":{seq},"v":{}.5}}"#, instant(seq), seq % devices, seq % 97);
    format!(r#"{{"r":[{}]}}"#, (first..first + READINGS).map(reading).collect::<Vec<_>>().join(",")).into_bytes()
}

/// Publishes so many readings from a number on, and waits until all are acknowledged.
fn publish(broker: &TestBroker, first: u64, readings: u64, devices: u64) {
    for message_number in 0..readings.div_ceil(READINGS) {
        broker.publish("fleet", &message(first + message_number * READINGS, devices));
        until("the broker's queue", LIMIT, || broker.missing() < 2_000);
    }
    until("every message is acknowledged", LIMIT, || broker.missing() == 0);
}

/// Starts, and says how long it takes until it is ready.
fn start(tidegate: &Tidegate) -> (Running, Duration) {
    let since = Instant::now();
    let mut running = tidegate.start(&[]);
    running.wait_until_ready();
    (running, since.elapsed())
}

#[test]
fn a_long_journal_and_much_state_are_taken_up_again_in_bounded_memory() {
    let devices = setting("RECOVERY_DEVICES", 20_000);
    let journaled = setting("RECOVERY_MB", 25) * 1_000_000 / BYTES;
    let broker = TestBroker::start();
    let tidegate = Tidegate::new(&format!("[sources.floor]\ntype = \"mqtt\"\nurl = \"{}\"{PIPELINE}", broker.url()));
    let (running, _) = start(&tidegate);
    publish(&broker, 0, devices, devices);
    running.stop();

    // From here on nothing is sealed.
    let file = tidegate.folder.path().join("pipeline.toml");
    let text = fs::read_to_string(&file).expect("the pipeline").replace("epoch = \"500ms\"", "epoch = \"1h\"");
    fs::write(&file, text).expect("the pipeline is written");
    let (running, _) = start(&tidegate);
    publish(&broker, devices.div_ceil(READINGS) * READINGS, journaled, devices);
    running.kill();
    let journal: u64 =
        fs::read_dir(tidegate.folder.path().join("data/journal")).expect("a journal").map(|e| e.unwrap().metadata().unwrap().len()).sum();

    let since = Instant::now();
    let (mut running, ready) = start(&tidegate);
    let all = devices.div_ceil(READINGS) * READINGS + journaled.div_ceil(READINGS) * READINGS;
    // Each lane has readings of the last hundred milliseconds.
    let newest = instant(all - 1) as f64 / 1e3 - 1.1;
    until("the replay of the journal", LIMIT, || watermark(&running) >= newest);
    let (replayed, peak) = (since.elapsed(), running.peak_memory().expect("it runs"));
    let text = format!(
        "{devices} devices, {} MB of journal: ready after {ready:?}, replayed after {replayed:?}, {} MB at most",
        journal >> 20,
        peak >> 20
    );
    let _ = writeln!(std::io::stderr(), "{text}");
    assert!(peak < (600 << 20) + devices * 1_500, "{text}");
    running.signal("TERM");
    assert!(running.wait(LIMIT).success(), "{}", running.log());
    // The windows are still open: a start that finds the broker silent closes them.
    let mut last = tidegate.start(&["--until-idle", "1s"]);
    assert!(last.wait(LIMIT).success(), "{}", last.log());
    assert_eq!(
        tidegate.sql("SELECT count(*), sum(n), max(last) FROM per_day").lines().nth(1),
        Some(format!("{devices},{all},{}", all - 1).as_str())
    );
}

/// The least watermark of the lanes, in seconds, as the metrics say.
fn watermark(running: &Running) -> f64 {
    let page = running.metrics();
    let line = page.lines().find(|line| line.starts_with("tidegate_watermark_timestamp_seconds"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}
