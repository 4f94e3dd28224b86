//! A pipeline that grows while its data directory lives: rows of before have null in new columns, in every tier; nothing is lost or twice. What
//! cannot grow is refused.

use std::time::Duration;

use tests::http::{address, post};
use tests::{Running, Tidegate, python_in, rows, until};

/// `COLUMNS` and `MORE` grow. Whole rows go over to the session of a site.
const PIPELINE: &str = r#"
MORE

[sources.gate]
type = "http"
watermark = { idle_timeout = "1s" }
topics = ["plant/{site}/{device_id}"]
decode = { format = "json", event_time = { path = "$.ts", format = "unix_ms" } }
columns = { COLUMNS }
key = ["device_id"]

[processors.runs]
type = "window"
inputs = ["gate"]
key = ["site"]
window = { type = "session", gap = "30s" }
select = { readings = "count(*)", total = "sum(n)" }

[tables.readings]
inputs = ["gate"]
hot = { age = "500ms" }
warm = { age = "1s", partition = "2s", fan_in = 2 }
cold = { url = "cold", commit_every = "1s" }

[tables.runs]
inputs = ["runs"]
"#;

/// Before the sources, the processors and the tables that were there: no number may depend on what stands before it.
const MORE: &str = r#"
[sources.annex]
type = "http"
watermark = { idle_timeout = "1s" }
topics = ["annex/{device_id}"]
decode = { format = "json", event_time = { path = "$.ts", format = "unix_ms" } }
columns = { n = { type = "int64" } }
key = ["device_id"]

[processors.means]
type = "window"
inputs = ["gate"]
key = ["device_id"]
window = { type = "tumbling", size = "10s" }
select = { readings = "count(t)", mean = "avg(t)" }

[tables.annex]
inputs = ["annex"]

[tables.means]
inputs = ["means"]
"#;

const N: &str = "n = { type = \"int64\" }";
/// The new column comes before the one that is there.
const T_AND_N: &str = "t = { type = \"float64\" }, n = { type = \"int64\" }";

const START: u64 = 1_767_225_600_000;
const LIMIT: Duration = Duration::from_secs(60);

fn pipeline(more: &str, columns: &str) -> String {
    PIPELINE.replace("MORE", more).replace("COLUMNS", columns)
}

/// Sends readings `range` of two devices, a second apart. They had a temperature all the time; who did not ask for it did not get it.
fn send(tidegate: &Tidegate, range: std::ops::Range<u64>) {
    let at = address(&tidegate.folder.path().join("data")).expect("it listens");
    for n in range {
        let body = format!(r#"{{"ts":{},"n":{n},"t":{}}}"#, START + n * 1_000, n as f64 / 2.0);
        let (status, answer) = post(&at, &format!("/api/v1/ingest/gate/plant/north/d{}", n % 2), &[], &body).expect("an answer");
        assert_eq!(status, 202, "{answer}");
    }
}

fn start(tidegate: &Tidegate) -> Running {
    let mut running = tidegate.start(&[]);
    running.wait_until_ready();
    running
}

fn one(tidegate: &Tidegate, sql: &str) -> Vec<String> {
    rows(&tidegate.sql(sql)).remove(0)
}

#[test]
fn a_pipeline_grows_over_rows_in_every_tier() {
    let tidegate = Tidegate::new(&pipeline("", N));
    let running = start(&tidegate);
    send(&tidegate, 0..60);
    until("rows are cold", LIMIT, || tidegate.count("SELECT count(*) FROM tiers.readings WHERE _tier = 'cold'") > 20);
    // Killed with rows in the journal that no record knows.
    send(&tidegate, 60..100);
    running.kill();

    tidegate.rewrite(&pipeline(MORE, T_AND_N));
    let running = start(&tidegate);
    let all = "SELECT count(*), sum(n), count(t), sum(t) FROM readings";
    let expected = |from: u64, to: u64| {
        let sum: u64 = (0..to).sum();
        let temperatures: f64 = (from..to).map(|n| n as f64 / 2.0).sum();
        vec![to.to_string(), sum.to_string(), (to - from).to_string(), format!("{temperatures:.1}")]
    };
    until("the rows of before", LIMIT, || tidegate.count("SELECT count(*) FROM readings") == 100);
    assert_eq!(one(&tidegate, all)[..3], ["100", "4950", "0"]);
    send(&tidegate, 100..160);
    until("the rows of both", LIMIT, || one(&tidegate, all) == expected(100, 160));
    assert_eq!(tidegate.count("SELECT count(*) FROM readings WHERE t >= 55"), 50);
    assert_eq!(tidegate.count("SELECT count(*) FROM readings WHERE t IS NULL"), 100);
    // Readings go on, until the new source that says nothing counts as silent.
    let mut to = 160;
    until("new rows are cold", LIMIT, || {
        send(&tidegate, to..to + 1);
        to += 1;
        tidegate.count("SELECT count(t) FROM tiers.readings WHERE _tier = 'cold'") > 20
    });
    assert_eq!(one(&tidegate, all), expected(100, to));
    let last = [format!("d{}", (to - 1) % 2), (to - 1).to_string(), format!("{:.1}", (to - 1) as f64 / 2.0)];
    assert_eq!(one(&tidegate, "SELECT device_id, n, t FROM readings_last ORDER BY n DESC LIMIT 1"), last);

    // The session of the site went on over the change; the new window has the rows of after.
    send(&tidegate, to + 100..to + 102);
    until("the session", LIMIT, || tidegate.count("SELECT count(*) FROM runs") == 1);
    assert_eq!(one(&tidegate, "SELECT readings, total FROM runs"), expected(100, to)[..2]);
    let means = "SELECT sum(readings), sum(readings * mean) FROM means WHERE window_start >= '2026-01-01T00:01:40Z'";
    until("the means", LIMIT, || one(&tidegate, means) == expected(100, to)[2..]);
    running.stop();

    let verified = tidegate.call(&["tiers", "verify", "--config", "pipeline.toml"]);
    assert!(verified.status.success(), "{}{}", String::from_utf8_lossy(&verified.stdout), String::from_utf8_lossy(&verified.stderr));
    let cold = one(&tidegate, "SELECT count(*), count(t) FROM tiers.readings WHERE _tier = 'cold'");
    let code = "import polars\nrows = polars.scan_delta('cold/readings').select(polars.len(), polars.col('t').count().alias('t')).collect()\nprint(*rows.row(0))";
    assert_eq!(python_in(tidegate.folder.path(), code).trim(), cold.join(" "), "Polars sees the cold rows");
}

#[test]
fn what_cannot_grow_is_refused_with_a_way_out() {
    let tidegate = Tidegate::new(&pipeline("", N));
    let running = start(&tidegate);
    send(&tidegate, 0..4);
    until("the rows", LIMIT, || tidegate.count("SELECT count(*) FROM readings") == 4);
    running.stop();
    let refused = [
        ("n = { type = \"float64\" }", "sources.gate.columns.n was Int64 and is Float64"),
        ("t = { type = \"float64\" }, m = { type = \"int64\", path = \"$.n\" }", "sources.gate.columns.n is gone"),
    ];
    for (columns, why) in refused {
        tidegate.rewrite(&pipeline("", columns).replace("sum(n)", "count(*)"));
        let mut ended = tidegate.start(&[]);
        assert!(!ended.wait(LIMIT).success());
        let log = ended.log();
        assert!(log.contains(why) && log.contains("a new name beside them"), "{log}");
    }
    tidegate.rewrite(&pipeline("", N));
    let running = start(&tidegate);
    assert_eq!(tidegate.count("SELECT count(*) FROM readings"), 4);
    running.stop();
}
