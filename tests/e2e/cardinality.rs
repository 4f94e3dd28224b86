//! Two million ids that nobody knows: the devices that were there before are untouched, the rest are dead letters with a reason, and the memory
//! of the process stays within its limit.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Duration;

use tests::{Tidegate, from_environment};

/// The operators hold `KEYS` keys a lane; a thousand devices are known before the strangers come.
const PIPELINE: &str = r#"
[limits]
memory = "96MiB"

[sources.floor]
type = "file"
path = "in.ndjson"
mode = "once"
decode = { format = "json", event_time = { path = "$.ts", format = "unix_ms" } }
columns = { device = { type = "utf8" }, seq = { type = "uint64" } }
key = ["device"]

[processors.once]
type = "dedupe"
inputs = ["floor"]
key = ["device"]
sequence = "seq"
max_keys = KEYS

[processors.minute]
type = "window"
inputs = ["once"]
key = ["device"]
window = { type = "tumbling", size = "1h" }
select = { n = "count(*)", total = "sum(seq)" }
max_keys = KEYS
max_state = "64MiB"

[tables.minute]
inputs = ["minute"]
"#;

const KEYS: u64 = 100_000;
const LANES: u64 = 4;
const KNOWN: u64 = 1_000;
/// Readings of each known device.
const ROUNDS: u64 = 100;
/// The process, its code included.
const LIMIT: u64 = 512 << 20;

/// Known devices first, then a round of them after each so many strangers, all within one hour of event time.
fn write(path: &str, strangers: u64) {
    let mut file = BufWriter::new(File::create(path).expect("a file"));
    let mut line = |device: char, number: u64, seq: u64| {
        writeln!(file, r#"{{"ts":{},"device":"{device}{number}","seq":{seq}}}"#, 1_767_225_600_000 + seq * 1_000).expect("written");
    };
    for seq in 0..ROUNDS {
        (0..KNOWN).for_each(|device| line('d', device, seq));
        (strangers * seq / ROUNDS..strangers * (seq + 1) / ROUNDS).for_each(|number| line('x', number, seq));
    }
}

#[test]
fn two_million_ids_leave_known_devices_alone_and_stay_in_bounded_memory() {
    let strangers = from_environment("STRANGERS", 2_000_000);
    // A small budget: what is freed goes back at once instead of after a second (README, "Memory").
    let tidegate = Tidegate::new(&PIPELINE.replace("KEYS", &KEYS.to_string()));
    write(&tidegate.path("in.ndjson"), strangers);
    let mut running = tidegate.start(&["--until-idle", "2s"]);
    let mut peak = 0;
    tests::until("all lines are read", Duration::from_secs(900), || {
        peak = running.peak_memory_bytes_if_running().unwrap_or(0).max(peak);
        !running.is_running()
    });
    let status = running.wait(Duration::from_secs(1));
    assert!(status.success(), "{status}\n{}", running.log());

    let known =
        format!("SELECT count(*) FROM minute WHERE starts_with(device, 'd') AND n = {ROUNDS} AND total = {}", ROUNDS * (ROUNDS - 1) / 2);
    assert_eq!(tidegate.count(&known), KNOWN, "a known device lost readings");
    let kept = tidegate.count("SELECT count(*) FROM minute WHERE starts_with(device, 'x')");
    let refused = tidegate.count("SELECT count(*) FROM dead_letters WHERE reason = 'state_limit'");
    let _ = writeln!(std::io::stderr(), "{kept} strangers kept, {refused} refused, {} MiB at most", peak >> 20);
    assert_eq!(kept + refused, strangers, "each stranger has a window or a letter");
    assert!(kept + KNOWN <= LANES * KEYS, "{kept} strangers are more than the operators may hold");
    assert_eq!(tidegate.count("SELECT count(*) FROM dead_letters"), refused, "no other letters");
    assert!(peak > 0 && peak < LIMIT, "{} MiB", peak >> 20);
}
