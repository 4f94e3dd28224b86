//! What another pipeline would have made of the readings that were taken, beside the one that runs.

use serde_json::Value;
use std::time::Duration;
use tests::{Mosquitto, Publisher, Tidegate, until};

const LIMIT: Duration = Duration::from_secs(60);
const START: i64 = 1_767_225_600_000;
const READINGS: i64 = 3_000;
const DEVICES: i64 = 7;

const PIPELINE: &str = r#"
[sources.floor]
type = "mqtt"
url = "URL"
topics = ["plant/{device_id}"]
client_id = "tidegate-floor"
decode = { format = "json", event_time = { path = "$.at", format = "unix_ms" } }
columns = { n = { path = "$.values.n", type = "int64" }, t = { type = "float64", unit = "celsius" }, price = { type = "decimal(9,2)" } }
key = ["device_id"]
watermark = { out_of_orderness = "1s", idle_timeout = "1h" }

[processors.good]
type = "filter"
inputs = ["floor"]
when = "WHEN"

[processors.per_device]
type = "window"
inputs = ["good"]
key = ["device_id"]
window = { type = "tumbling", size = "10s" }
select = { n = "count(*)", mean = "avg(t)", cost = "sum(price)" }

[processors.everywhere]
type = "window"
inputs = ["good"]
key = []
window = { type = "tumbling", size = "1m" }
select = { n = "count(*)" }

[tables.readings]
inputs = ["floor"]
hot = { age = "500ms" }
warm = { age = "2s", partition = "1d", fan_in = 2 }
cold = { url = "cold", commit_every = "1s" }

[dead_letters]
cold = { url = "cold", commit_every = "1s" }

[tables.per_device]
inputs = ["per_device"]

[tables.everywhere]
inputs = ["everywhere"]
"#;

/// A sink that nobody answers, and a column that the messages never had.
const MORE: &str = r#"
[tables.good]
inputs = ["good"]

[sinks.out]
type = "kafka"
inputs = ["per_device"]
brokers = ["127.0.0.1:1"]
topic = "out"
"#;

fn message(n: i64) -> (String, Vec<u8>) {
    let payload = format!(r#"{{"at":{},"values":{{"n":{n}}},"t":{}.3,"price":{}.25}}"#, START + n * 100, n * 31 % 90, n % 400);
    (format!("plant/d{}", n % DEVICES), payload.into_bytes())
}

fn replayed(tidegate: &Tidegate, more: &[&str]) -> (Option<i32>, Value) {
    let all = [&["replay", "--config", "pipeline.toml", "--pipeline", "new.toml", "--json"], more].concat();
    let done = tidegate.call(&all);
    let text = String::from_utf8_lossy(&done.stdout);
    let found = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&done.stderr)));
    (done.status.code(), found)
}

/// Equal, changed, only in the old, only in the new.
fn rows_of(found: &Value, table: &str) -> [u64; 4] {
    let tables = found["tables"].as_array().expect("tables");
    let of = tables.iter().find(|of| of["table"] == table).unwrap_or_else(|| panic!("no table {table}: {found:#}"));
    ["equal", "changed", "only_old", "only_new"].map(|kind| of[kind].as_u64().expect("a number"))
}

#[test]
fn a_replay_shows_what_another_pipeline_would_have_made_and_touches_nothing() {
    let broker = Mosquitto::start();
    let of = |when: &str, more: &str| PIPELINE.replace("URL", &broker.url()).replace("WHEN", when) + more;
    let tidegate = Tidegate::new(&of("t < 200", ""));
    let running = tidegate.start(&[]);
    broker.wait_for_subscriber();
    let mut publisher = Publisher::new(broker.port);
    publisher.publish(&(0..READINGS).map(message).collect::<Vec<_>>());
    // The last readings of the devices are within 0.7 s of one another, so the watermark stands 1 s before them: 29 whole windows are closed.
    let closed = 29 * DEVICES as u64;
    until("all windows but the last", LIMIT, || tidegate.count("SELECT count(*) FROM per_device") == closed);
    let moved = "SELECT count(DISTINCT _tier) FROM tiers.readings";
    until("readings in warm and cold", LIMIT, || {
        tidegate.count(moved) >= 1 && tidegate.count("SELECT count(*) FROM readings") == READINGS as u64
    });
    // Windows over all lanes wait for two seals.
    until("windows over all", LIMIT, || tidegate.count("SELECT count(*) FROM everywhere") == 4);
    let head = std::fs::read_to_string(tidegate.path("pipeline.toml")).unwrap();
    let head = head[..head.find("[sources.floor]").unwrap()].to_owned();
    let write = |text: String| std::fs::write(tidegate.path("new.toml"), head.clone() + &text).unwrap();

    write(of("t < 200", ""));
    let (mut tried, mut found) = (0, (None, Value::Null));
    // What is shown may be sealed a little later, and a replay goes by what is sealed.
    until("the last whole windows are sealed", LIMIT, || {
        tried += 1;
        found = replayed(&tidegate, &["--to", &format!("same{tried}")]);
        found.1["until"].as_str() >= Some("2026-01-01T00:04:50")
    });
    let (code, found) = found;
    let again = std::fs::read_to_string(tidegate.path(&format!("same{tried}/replay.toml"))).unwrap();
    assert!(!again.contains("cold"), "nothing reaches the cold tables of the pipeline that runs:\n{again}");
    assert_eq!((code, found["readings"].as_i64(), found["refused"].as_i64()), (Some(0), Some(READINGS), Some(0)), "{found:#}");
    assert_eq!((rows_of(&found, "per_device"), rows_of(&found, "everywhere")), ([closed, 0, 0, 0], [4, 0, 0, 0]));

    // Hot readings are left out, and a column is wanted that was not kept.
    write(of("t < 80", MORE).replace("price = {", "humidity = { type = \"float64\" }, price = {"));
    let (code, found) = replayed(&tidegate, &["--to", "cooler"]);
    let with_hot = "SELECT count(*) FROM (SELECT DISTINCT device_id, date_bin(interval '10 seconds', event_time) FROM readings \
                    WHERE t >= 80 AND event_time < TIMESTAMP '2026-01-01T00:04:50Z')";
    let changed = tidegate.count(with_hot);
    assert!(changed > 0 && changed < closed, "{changed} of {closed}");
    assert_eq!((code, rows_of(&found, "per_device")), (Some(1), [closed - changed, changed, 0, 0]), "{found:#}");
    assert_eq!(rows_of(&found, "everywhere"), [0, 4, 0, 0]);
    assert_eq!((found["only_new"].to_string(), found["nulls"].to_string()), (r#"["good"]"#.into(), r#"["floor.humidity"]"#.into()));
    let cooler = ["sql", "--data-dir", "cooler/data", "SELECT count(*), count(humidity) FROM good"];
    let asked = String::from_utf8_lossy(&tidegate.call(&cooler).stdout).into_owned();
    let cool = tidegate.count("SELECT count(*) FROM readings WHERE t < 80");
    assert_eq!(asked.lines().nth(1), Some(format!("{cool},0").as_str()), "the folder stays and can be asked");

    let (_, found) = replayed(&tidegate, &["--to", "later", "--from", "2026-01-01T00:02:03Z"]);
    assert_eq!(rows_of(&found, "per_device")[..2].iter().sum::<u64>(), 16 * DEVICES as u64, "whole windows from then on");
    let again = tidegate.call(&["replay", "--config", "pipeline.toml", "--pipeline", "new.toml", "--to", "later"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("not empty"));
    write(
        of("t < 80", "")
            .replace("[tables.readings]\ninputs = [\"floor\"]", "[tables.x]\ninputs = [\"floor\"]")
            .replace("[sources.floor]", "[sources.roof]")
            .replace("[\"floor\"]", "[\"roof\"]"),
    );
    let unknown = tidegate.call(&["replay", "--config", "pipeline.toml", "--pipeline", "new.toml", "--to", "never"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("source `roof` in no table"), "{}", String::from_utf8_lossy(&unknown.stderr));

    assert_eq!(tidegate.count("SELECT count(*) FROM per_device"), closed, "the pipeline runs on");
    running.stop();
}
