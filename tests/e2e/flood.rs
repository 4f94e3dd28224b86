//! A broker that sends as fast as the socket takes it, whatever the Receive Maximum: memory stays bounded, since what is not read waits in the
//! broker, and nothing is lost.
//!
//! `FLOOD_MESSAGES=n` in front makes it longer: 100 KB each.

use std::io::Write;
use std::time::Duration;
use tests::{TestBroker, Tidegate, until};

/// Bytes of a message.
const BYTES: usize = 100_000;
/// What the process may hold, in bytes: the queues of a source and the journal, an epoch that is open and one that is written, the program.
const MOST: u64 = 500 << 20;
const LIMIT: Duration = Duration::from_secs(600);

const PIPELINE: &str = r#"
topics = ["flood"]
decode = { format = "json", event_time = { path = "$.ts", format = "unix_ms" } }
columns = { device = { type = "utf8" }, seq = { type = "int64" }, pad = { type = "utf8" } }
key = ["device"]

[processors.per_second]
type = "window"
inputs = ["floor"]
key = ["device"]
window = { type = "tumbling", size = "1s" }
select = { n = "count(*)", longest = "max(length(pad))" }

[tables.per_second]
inputs = ["per_second"]
"#;

#[test]
fn a_flood_fills_no_memory_and_loses_nothing() {
    let messages: u64 = std::env::var("FLOOD_MESSAGES").map_or(8_000, |n| n.parse().expect("a number of messages"));
    let broker = TestBroker::start();
    broker.behave(|m| m.window = usize::MAX);
    let pad = "x".repeat(BYTES);
    for seq in 0..messages {
        let ts = 1_767_225_600_000 + seq;
        broker.publish("flood", format!(r#"{{"ts":{ts},"device":"d{}","seq":{seq},"pad":"{pad}"}}"#, seq % 50).as_bytes());
    }
    let tidegate = Tidegate::new(&format!("[sources.floor]\ntype = \"mqtt\"\nurl = \"{}\"{PIPELINE}", broker.url()));
    let mut running = tidegate.start(&["--until-idle", "3s"]);
    running.wait_until_ready();
    let mut peak = 0;
    until("every message is acknowledged", LIMIT, || {
        peak = running.peak_memory().unwrap_or(peak);
        assert!(peak < MOST, "{} MB are held, at most {} MB may be", peak >> 20, MOST >> 20);
        broker.missing() == 0
    });
    assert!(running.wait(LIMIT).success(), "{}", running.log());
    let _ = writeln!(std::io::stderr(), "{messages} messages of {} KB: {} MB at most", BYTES / 1_000, peak >> 20);
    assert_eq!(tidegate.count("SELECT sum(n) FROM per_second"), messages, "each is in one window, once");
}
