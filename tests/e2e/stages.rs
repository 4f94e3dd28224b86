//! Windows whose groups reach over lanes: what four lanes and a second stage put out is what one lane puts out, also when the process is
//! killed again and again on the way.

use std::fs;
use std::time::Duration;
use tests::{Mosquitto, Publisher, Tidegate, rows, until};

const LIMIT: Duration = Duration::from_secs(60);

/// Partial aggregates go over from `everywhere` and `sites`, rows from `sessions`; `again` is a window of the second stage over another one.
const WINDOWS: &str = r#"
[processors.everywhere]
type = "window"
inputs = ["floor"]
key = []
window = { type = "tumbling", size = "10s" }
select = { n = "count(*)", total = "sum(v)", last = "last_value(v)", middle = "median(v)" }

[processors.sites]
type = "window"
inputs = ["floor"]
key = ["site"]
window = { type = "hopping", size = "30s", hop = "10s" }
select = { n = "count(*)", mean = "avg(v)", devices = "count(distinct device)" }

[processors.rare]
type = "filter"
inputs = ["floor"]
when = "v % 40 = 0"

[processors.sessions]
type = "window"
inputs = ["rare"]
key = ["site"]
window = { type = "session", gap = "2s" }
select = { n = "count(*)", total = "sum(v)" }

[processors.again]
type = "window"
inputs = ["sites"]
key = []
window = { type = "tumbling", size = "10s" }
select = { n = "sum(n)", sites = "count(*)" }

[tables.everywhere]
inputs = ["everywhere"]

[tables.sites]
inputs = ["sites"]

[tables.sessions]
inputs = ["sessions"]

[tables.again]
inputs = ["again"]
"#;

/// Statements whose answers must be equal.
const ANSWERS: [&str; 4] = [
    "SELECT window_start, n, total, last, middle FROM everywhere ORDER BY 1",
    "SELECT site, window_start, n, round(mean, 9), devices FROM sites ORDER BY 1, 2",
    "SELECT site, window_start, window_end, n, total FROM sessions ORDER BY 1, 2",
    "SELECT window_start, n, sites FROM again ORDER BY 1",
];

const READINGS: u64 = 40_000;

/// A reading: by 50 ms later than the one before, and up to 1.5 s out of order.
fn payload(seq: u64) -> String {
    let disorder = seq * 7_919 % 1_500;
    let (device, site, v) = (seq * 31 % 97, seq * 17 % 5, seq * 13 % 101);
    format!(r#"{{"ts":{},"device":"d{device}","site":"s{site}","v":{v}}}"#, 1_767_225_600_000 + seq * 50 - disorder)
}

fn of_files(lanes: u32) -> Tidegate {
    let source = r#"
[sources.floor]
type = "file"
path = "in.ndjson"
decode = { format = "json", event_time = { path = "$.ts", format = "unix_ms" } }
columns = { device = { type = "utf8" }, site = { type = "utf8" }, v = { type = "int64" } }
key = ["device"]
watermark = { out_of_orderness = "2s" }
"#;
    let tidegate = Tidegate::new(&format!("{source}{WINDOWS}"));
    let file = tidegate.folder.path().join("pipeline.toml");
    let text = fs::read_to_string(&file).expect("the pipeline");
    fs::write(&file, text.replace("lanes = 4", &format!("lanes = {lanes}")).replace("500ms", "50ms")).expect("the pipeline is written");
    let lines: String = (0..READINGS).map(|seq| payload(seq) + "\n").collect();
    fs::write(tidegate.folder.path().join("in.ndjson"), lines).expect("the input is written");
    tidegate
}

fn answers(tidegate: &Tidegate) -> Vec<Vec<Vec<String>>> {
    ANSWERS.iter().map(|sql| rows(&tidegate.sql(sql))).collect()
}

#[test]
fn four_lanes_and_a_second_stage_put_out_what_one_lane_does_whenever_they_are_killed() {
    let one = of_files(1);
    one.run(&[]);
    let expected = answers(&one);
    assert_eq!(one.count("SELECT sum(n) FROM everywhere"), READINGS);
    assert!(expected.iter().all(|rows| rows.len() > 50), "{:?}", expected.iter().map(Vec::len).collect::<Vec<_>>());

    let four = of_files(4);
    for kill in 1..8 {
        let mut running = four.start(&[]);
        running.wait_until_ready();
        std::thread::sleep(Duration::from_millis(kill * 40));
        running.kill();
    }
    four.run(&[]);
    for (found, expected) in answers(&four).iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(four.count("SELECT count(*) FROM late_everywhere"), 0);
}

#[test]
fn a_lane_without_devices_and_one_that_fell_silent_hold_nothing_up() {
    let broker = Mosquitto::start();
    let source = format!(
        r#"
[sources.floor]
type = "mqtt"
url = "{}"
topics = ["plant/{{device}}"]
decode = {{ format = "json", event_time = {{ path = "$.ts", format = "unix_ms" }} }}
columns = {{ site = {{ type = "utf8" }}, v = {{ type = "int64" }} }}
key = ["device"]
watermark = {{ out_of_orderness = "2s", idle_timeout = "1s" }}
"#,
        broker.url()
    );
    let tidegate = Tidegate::new(&format!("{source}{WINDOWS}"));
    let running = tidegate.start(&[]);
    broker.wait_for_subscriber();
    let mut publisher = Publisher::new(broker.port);
    let send = |device: u64, seq: u64| {
        let ts = 1_767_225_600_000 + seq * 50;
        (format!("plant/d{device}"), format!(r#"{{"ts":{ts},"site":"s{}","v":1}}"#, seq % 5).into_bytes())
    };
    // Two devices are in two lanes at most; the second one sends nothing after the first ten seconds, 2 s short of the first window's close.
    let early: Vec<_> = (0..195).map(|seq| send(seq % 2, seq)).collect();
    let later: Vec<_> = (195..2_000).map(|seq| send(0, seq)).collect();
    publisher.publish(&early);
    publisher.publish(&later);
    let windows = || {
        let answer = tidegate.try_sql("SELECT count(*) FROM everywhere");
        answer.status.success().then(|| tidegate.count("SELECT count(*) FROM everywhere"))
    };
    // Closed by the silence of the one lane and the readings of the other.
    until("the first window of all lanes", LIMIT, || windows().is_some_and(|n| n > 0));
    running.stop();
    assert_eq!(tidegate.count("SELECT n FROM everywhere ORDER BY window_start LIMIT 1"), 200);
}
