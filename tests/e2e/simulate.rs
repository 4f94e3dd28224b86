//! Simulated fleets with many faults, through a real Mosquitto, a real Kafka and through files: `tidegate verify` finds nothing that differs, and finds
//! each single row by which the truth was changed.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Float64Type, Int64Type};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tests::{Kafka, Mosquitto, Tidegate, certificates, free_port, until};

/// From a source to a raw table and windows of five seconds.
pub(crate) const REST: &str = r#"
[processors.per_5s]
type = "window"
inputs = ["INPUT"]
key = ["device_id"]
window = { type = "tumbling", size = "5s" }
select = { n = "count(*)", total = "sum(temperature)", least = "min(temperature)", greatest = "max(temperature)", mean = "avg(temperature)" }

[tables.per_5s]
inputs = ["per_5s"]

[tables.readings]
inputs = ["INPUT"]
warm = { age = "1s", partition = "1s" }
cold = { url = "cold", commit_every = "1s" }
"#;

pub(crate) const MQTT: &str = r#"
[sources.floor]
type = "mqtt"
url = "URL"
topics = ["plant/{site}/{device_id}/telemetry"]
client_id = "tidegate-floor"
decode = { format = "json", event_time = { path = "$.ts", format = "unix_ms" } }
columns = { temperature = { path = "$.t", type = "float64" }, humidity = { type = "float64" }, seq = { type = "uint64" } }
key = ["device_id"]
watermark = { out_of_orderness = "1s" }

[processors.once]
type = "dedupe"
inputs = ["floor"]
key = ["device_id"]
sequence = "seq"
"#;

const FLEET: &str = r#"
devices = 60
lasting = "12s"

[rate]
each = 5.0
arrivals = "poisson"
burst = { every = "4s", lasting = "500ms", factor = 4.0 }
churn = "8s"

[signals.temperature]
field = "t"

[signals.humidity]
base = 50.0
spread = 10.0

[anomalies]
spike = { share = 0.002, size = 40.0 }
stuck = { share = 0.05, lasting = "2s" }

[faults]
out_of_order = { share = 0.05, by = "900ms" }
late = { share = 0.02, by = "9s" }
duplicate = { share = 0.03, by = "1s" }
offline = { share = 0.1, lasting = "3s" }
gap = { share = 0.05, lasting = "1s" }
malformed = { share = 0.02 }
unknown_device = { share = 0.01 }
schema_drift = { share = 0.2 }

[faults.clock]
offset = { share = 0.05, by = "5s" }
drift = { share = 0.05, by = "10m" }
jump = { share = 0.02, lasting = "500ms" }
"#;

pub(crate) const VERIFY: &str = r#"
[verify.raw.readings]
values = { temperature = "temperature", humidity = "humidity" }

[verify.windows.per_5s]
raw = "readings"
late = "late_per_5s"
size = "5s"
key = { device_id = "device" }
select = { n = "count(*)", total = "sum(temperature)", least = "min(temperature)", greatest = "max(temperature)", mean = "avg(temperature)" }
"#;

/// Sends what a scenario says, with its truth in the folder `truth`.
fn simulate(tidegate: &Tidegate, scenario: &str) -> Value {
    std::fs::write(tidegate.path("scenario.toml"), scenario).expect("a file");
    let output = tidegate.call(&["simulate", "--scenario", "scenario.toml", "--truth", "truth", "--json"]);
    assert!(output.status.success(), "simulate: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a report is JSON")
}

/// The exit code of `verify`, and its verdict.
pub(crate) fn verify(tidegate: &Tidegate, truth: &str) -> (Option<i32>, Value) {
    let output = tidegate.call(&["verify", "--truth", truth, "--pipeline", "pipeline.toml", "--cold", "cold", "--json"]);
    let verdict = serde_json::from_slice(&output.stdout);
    (output.status.code(), verdict.unwrap_or_else(|e| panic!("no verdict: {e}\n{}", String::from_utf8_lossy(&output.stderr))))
}

/// Nothing differs, and there was something that could have.
#[track_caller]
fn nothing_differs(tidegate: &Tidegate, report: &Value) {
    let (code, verdict) = verify(tidegate, "truth");
    assert_eq!(code, Some(0), "{verdict:#}");
    let found = |table: &str| check(&verdict, table)["found"].as_u64().expect("a number");
    let sent = |what: &str| report["counts"][what].as_u64().expect("a number");
    assert!(found("readings") >= sent("readings") && found("dead_letters") >= sent("broken"), "{verdict:#}\n{report:#}");
    for table in ["readings, cold files", "late_per_5s", "per_5s"] {
        assert!(found(table) > 0, "{table} is empty: {verdict:#}");
    }
    for what in ["duplicate", "out_of_order", "late", "offline", "unknown_device"] {
        assert!(sent(what) > 0, "no {what}: {report:#}");
    }
}

pub(crate) fn check<'v>(verdict: &'v Value, table: &str) -> &'v Value {
    let checks = verdict["checks"].as_array().expect("checks");
    checks.iter().find(|check| check["table"] == table).unwrap_or_else(|| panic!("no check of {table}: {verdict:#}"))
}

/// A verdict that tells one difference of that kind in a table, in a row that holds `row`.
#[track_caller]
fn tells(verdict: &Value, table: &str, kind: &str, row: &str) {
    let check = check(verdict, table);
    assert_eq!(check["differences"][kind], 1, "{table}: {check:#}");
    let rows = check["rows"].as_array().expect("rows");
    assert!(rows.iter().any(|shown| shown[0] == kind && shown[1].as_str().is_some_and(|text| text.contains(row))), "{row}: {check:#}");
}

/// The rows of a truth.
fn read(folder: &str) -> RecordBatch {
    let file = File::open(Path::new(folder).join("readings.parquet")).expect("the truth is there");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("Parquet");
    let batches: Vec<_> = reader.map(|batch| batch.expect("Parquet")).collect();
    concat_batches(&batches[0].schema(), &batches).expect("one schema")
}

/// Puts other rows into a truth, without the manifest that would tell.
fn change(tidegate: &Tidegate, rows: &RecordBatch) {
    let folder = tidegate.path("changed");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::copy(tidegate.path("truth/scenario.toml"), format!("{folder}/scenario.toml")).expect("a file");
    let file = File::create(format!("{folder}/readings.parquet")).expect("a file");
    let mut writer = ArrowWriter::try_new(file, rows.schema(), None).expect("Parquet");
    writer.write(rows).and_then(|()| writer.close()).expect("Parquet");
}

/// A row of which there is only one, that can be used, and that is not late for a window.
fn plain(rows: &RecordBatch, column: &str) -> usize {
    let words = |name: &str| rows.column_by_name(name).expect("a column").as_string::<i32>();
    let twice = rows.column_by_name("duplicate_of").expect("a column").as_primitive::<Int64Type>();
    let numbers = rows.column_by_name("number").expect("a column").as_primitive::<Int64Type>();
    let reasons = rows.column_by_name("reason").expect("a column");
    let wanted = |row: &usize| match column {
        "reason" => reasons.is_valid(*row) && words("reason").value(*row) == "wrong_type",
        _ => reasons.is_null(*row) && words("timing").value(*row) == "on_time" && words("clock").value(*row) == "right",
    };
    let once = |row: &usize| twice.is_null(*row) && !twice.iter().flatten().any(|number| number == numbers.value(*row));
    (0..rows.num_rows()).filter(wanted).find(once).expect("there is such a row")
}

fn without(rows: &RecordBatch, row: usize) -> RecordBatch {
    let kept: BooleanArray = (0..rows.num_rows()).map(|other| Some(other != row)).collect();
    filter_record_batch(rows, &kept).expect("as many as rows")
}

fn with_column(rows: &RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    let mut columns = rows.columns().to_vec();
    columns[rows.schema().index_of(name).expect("a column")] = column;
    RecordBatch::try_new(rows.schema(), columns).expect("the same types")
}

/// `device = "…", seq = …` of a row, as verdicts say it.
fn name(rows: &RecordBatch, row: usize) -> String {
    let device = rows.column_by_name("device").expect("a column").as_string::<i32>().value(row);
    let seq = rows.column_by_name("seq").expect("a column").as_primitive::<Int64Type>().value(row);
    format!("device = \"{device}\", seq = {seq}")
}

#[test]
fn a_fleet_through_mosquitto_equals_its_truth_and_a_truth_changed_by_one_row_is_found() {
    let broker = Mosquitto::start();
    let tidegate = Tidegate::new(&(MQTT.replace("URL", &broker.url()) + &REST.replace("INPUT", "once")));
    let running = tidegate.start(&[]);
    broker.wait_for_subscriber();
    let wire = format!("\n[wire]\nurl = \"{}\"\nconnections = 4\nstorm = {{ every = \"3s\", share = 0.5 }}\n", broker.url());
    let report = simulate(&tidegate, &format!("{FLEET}{wire}{VERIFY}"));
    assert_eq!(report["unacknowledged"], 0, "{report:#}");
    assert!(report["reconnects"].as_u64() > Some(0), "{report:#}");
    running.stop();
    tidegate.run(&["--until-idle", "3s"]);
    nothing_differs(&tidegate, &report);

    let truth = read(&tidegate.path("truth"));
    let row = plain(&truth, "device");
    let window = name(&truth, row).split(", ").next().expect("a device").replace("device =", "device_id =");

    // A reading that the truth does not know is extra, and its window wrong.
    change(&tidegate, &without(&truth, row));
    let (code, verdict) = verify(&tidegate, "changed");
    assert_eq!(code, Some(1));
    tells(&verdict, "readings", "extra", &name(&truth, row));

    // A reading of which the truth says another value is wrong, and its window too.
    let values = truth.column_by_name("temperature").expect("a column").as_primitive::<Float64Type>();
    let other: Float64Array =
        (0..truth.num_rows()).map(|at| values.iter().nth(at).flatten().map(|v| if at == row { v + 0.01 } else { v })).collect();
    change(&tidegate, &with_column(&truth, "temperature", Arc::new(other)));
    let (code, verdict) = verify(&tidegate, "changed");
    assert_eq!(code, Some(1));
    tells(&verdict, "readings", "wrong", &name(&truth, row));
    tells(&verdict, "per_5s", "wrong", &window);

    // A reading that only the truth has is missing.
    let one = truth.slice(row, 1);
    let one = with_column(&one, "seq", Arc::new(Int64Array::from(vec![999_999])));
    change(&tidegate, &concat_batches(&truth.schema(), [&truth, &one]).expect("one schema"));
    let (code, verdict) = verify(&tidegate, "changed");
    assert_eq!(code, Some(1));
    tells(&verdict, "readings", "missing", "seq = 999999");

    // A dead letter that the truth does not know is extra.
    change(&tidegate, &without(&truth, plain(&truth, "reason")));
    let (code, verdict) = verify(&tidegate, "changed");
    assert_eq!(code, Some(1));
    tells(&verdict, "dead_letters", "extra", "wrong_type");

    // A truth whose bytes are not those of its manifest says so.
    std::fs::copy(tidegate.path("truth/manifest.json"), tidegate.path("changed/manifest.json")).expect("a file");
    let (code, verdict) = verify(&tidegate, "changed");
    assert_eq!(code, Some(1));
    tells(&verdict, "readings.parquet", "wrong", "manifest.json");
}

#[test]
fn a_fleet_equals_its_truth_though_the_process_is_killed_while_it_sends() {
    let broker = Mosquitto::start();
    let tidegate = Tidegate::new(&(MQTT.replace("URL", &broker.url()) + &REST.replace("INPUT", "once")));
    let mut running = tidegate.start(&[]);
    broker.wait_for_subscriber();
    let scenario = format!("{FLEET}\n[wire]\nurl = \"{}\"\nconnections = 2\n{VERIFY}", broker.url());
    let path = tidegate.path("scenario.toml");
    std::fs::write(&path, scenario).expect("a file");
    let mut sending = tidegate.spawn(&["simulate", "--scenario", "scenario.toml", "--truth", "truth"]);
    let mut kills = 0;
    while sending.try_wait().expect("a child of ours can be asked").is_none() {
        running.wait_until_ready();
        let stored = || tidegate.try_sql("SELECT count(*) FROM readings").stdout;
        let before = stored();
        until("more readings are stored, or all are sent", Duration::from_secs(60), || {
            stored() != before || sending.try_wait().expect("a child of ours can be asked").is_some()
        });
        running.kill();
        kills += 1;
        running = tidegate.start(&[]);
    }
    assert!(sending.wait().expect("a child of ours can be waited for").success() && kills > 2, "{kills} kills");
    running.wait_until_ready();
    // A running instance is asked over HTTP; its last windows are not closed yet, so readings alone are looked at.
    let file = tidegate.path("truth/scenario.toml");
    let whole = std::fs::read_to_string(&file).expect("the truth has its scenario");
    std::fs::write(&file, &whole[..whole.find("[verify.windows").expect("windows are verified")]).expect("a file");
    until("all readings are stored", Duration::from_secs(60), || verify(&tidegate, "truth").0 == Some(0));
    std::fs::write(&file, &whole).expect("a file");
    running.stop();
    tidegate.run(&["--until-idle", "3s"]);
    let (code, verdict) = verify(&tidegate, "truth");
    assert_eq!(code, Some(0), "after {kills} kills: {verdict:#}");
    assert!(check(&verdict, "readings")["found"].as_u64() > Some(2_000), "{verdict:#}");
}

#[test]
fn a_fleet_speaks_tls_in_both_versions_and_trusts_no_stranger() {
    let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
    certificates(folder.path());
    let at = folder.path().display();
    let broker = Mosquitto::start_with(&format!("listener {port} 127.0.0.1\ncertfile {at}/broker.pem\nkeyfile {at}/broker.key"));
    let tidegate = Tidegate::new(&(MQTT.replace("URL", &broker.url()) + &REST.replace("INPUT", "once")));
    let url = format!("mqtts://localhost:{port}");
    let ca = folder.path().join("ca.pem").display().to_string();
    let small = ["--devices", "20", "--lasting", "1s", "--url", &url, "--json"];
    for version in ["5", "3.1.1"] {
        let output = tidegate.call(&[&["simulate", "--mqtt", version, "--ca", &ca], &small[..]].concat());
        assert!(output.status.success(), "{version}: {}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("a report is JSON");
        assert_eq!(report["unacknowledged"], 0, "{report:#}");
        assert!(report["counts"]["acknowledged"].as_u64() >= Some(100), "{report:#}");
    }
    let other = tempfile::tempdir().expect("a folder");
    certificates(other.path());
    let ca = other.path().join("ca.pem").display().to_string();
    let refused = tidegate.call(&[&["simulate", "--ca", &ca], &small[..]].concat());
    assert_eq!(refused.status.code(), Some(1), "the broker's certificate is of another authority");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("0 of 1 connections"));
}

/// A source of a file, as the simulator writes it.
fn file_source(format: &str, path: &str) -> String {
    let (time, csv) = if format == "csv" { ("ts", "csv = { header = true, null = \"\" }") } else { ("$.ts", "") };
    let temperature = if format == "csv" { "path = \"t\"" } else { "path = \"$.t\"" };
    format!(
        r#"
[sources.floor]
type = "file"
path = "{path}"
mode = "once"
{csv}
decode = {{ format = "{format}", event_time = {{ path = "{time}", format = "unix_ms" }} }}
columns = {{ device_id = {{ type = "utf8" }}, temperature = {{ {temperature}, type = "float64" }}, humidity = {{ type = "float64" }}, seq = {{ type = "uint64" }} }}
key = ["device_id"]
watermark = {{ out_of_orderness = "1s" }}
"#
    )
}

#[test]
fn a_fleet_through_kafka_equals_its_truth_though_the_process_is_killed() {
    let kafka = Kafka::start();
    kafka.create("readings", 3);
    let source = format!(
        r#"
[sources.floor]
type = "kafka"
brokers = ["{}"]
topics = ["readings"]
decode = {{ format = "json", event_time = {{ path = "$.ts", format = "unix_ms" }} }}
columns = {{ device_id = {{ type = "utf8" }}, temperature = {{ path = "$.t", type = "float64" }}, humidity = {{ type = "float64" }}, seq = {{ type = "uint64" }} }}
key = ["device_id"]
watermark = {{ out_of_orderness = "1s" }}
"#,
        kafka.address()
    );
    let tidegate = Tidegate::new(&(source + &REST.replace("INPUT", "floor")));
    let verify = VERIFY.replace("[verify.raw.readings]", "[verify.raw.readings]\nduplicates = \"kept\"");
    let wire = format!("\n[wire]\ntransport = \"kafka\"\nbrokers = \"{}\"\n", kafka.address());
    let mut running = tidegate.start(&[]);
    running.wait_until_ready();
    let report = simulate(&tidegate, &format!("{FLEET}{wire}{verify}"));
    assert_eq!(report["unacknowledged"], 0, "{report:#}");
    running.kill();
    tidegate.run(&["--until-idle", "3s"]);
    nothing_differs(&tidegate, &report);
}

#[test]
fn a_fleet_over_http_equals_its_truth_though_the_process_is_killed() {
    let port = free_port();
    let source =
        MQTT.replace("type = \"mqtt\"", "type = \"http\"").replace("url = \"URL\"\n", "").replace("client_id = \"tidegate-floor\"\n", "");
    let http = format!("[http]\nlisten = \"127.0.0.1:{port}\"\n");
    let tidegate = Tidegate::new(&(http + &source + &REST.replace("INPUT", "once")));
    let wire = format!("\n[wire]\ntransport = \"http\"\nconnections = 4\nurl = \"http://127.0.0.1:{port}/api/v1/ingest/floor\"\n");
    std::fs::write(tidegate.path("scenario.toml"), format!("{FLEET}{wire}{VERIFY}")).expect("a file");
    let mut running = tidegate.start(&[]);
    running.wait_until_ready();
    let fleet = tidegate.spawn_heard(&["simulate", "--scenario", "scenario.toml", "--truth", "truth", "--json"]);
    for readings in [300, 900, 1_800] {
        until("readings", Duration::from_secs(60), || tidegate.count("SELECT count(*) FROM readings") >= readings);
        running.kill();
        running = tidegate.start(&[]);
        running.wait_until_ready();
    }
    let output = fleet.wait_with_output().expect("a report");
    assert!(output.status.success(), "simulate: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report is JSON");
    assert_eq!(report["unacknowledged"], 0, "{report:#}");
    running.kill();
    tidegate.run(&["--until-idle", "3s"]);
    nothing_differs(&tidegate, &report);
}

/// Sends a fleet into a file and through a pipeline without a dedupe, so that each reading is there as often as it was sent.
fn through_a_file(format: &str) {
    let tidegate = Tidegate::new(&(file_source(format, "readings.txt") + &REST.replace("INPUT", "floor")));
    let wire = format!("\n[wire]\ntransport = \"file\"\nformat = \"{format}\"\nfile = \"readings.txt\"\n");
    let verify = VERIFY.replace("[verify.raw.readings]", "[verify.raw.readings]\nduplicates = \"kept\"");
    let report = simulate(&tidegate, &format!("start = \"2026-01-01T00:00:00Z\"{FLEET}{wire}{verify}"));
    tidegate.run(&[]);
    nothing_differs(&tidegate, &report);
    let twice = report["counts"]["readings"].as_u64().zip(report["counts"]["duplicate"].as_u64()).expect("numbers");
    assert_eq!(tidegate.count("SELECT count(*) FROM readings"), twice.0 + twice.1);
}

#[test]
fn a_fleet_through_an_ndjson_file_equals_its_truth() {
    through_a_file("json");
}

#[test]
fn a_fleet_through_a_csv_file_equals_its_truth() {
    through_a_file("csv");
}

#[test]
fn a_mistake_in_a_scenario_is_one_of_configuration_with_its_line() {
    let tidegate = Tidegate::new(&(file_source("json", "readings.txt") + &REST.replace("INPUT", "floor")));
    std::fs::write(tidegate.path("scenario.toml"), "devices = 5\n\n[faults]\nlaet = { share = 0.1, by = \"1s\" }\n").expect("a file");
    let output = tidegate.call(&["simulate", "--scenario", "scenario.toml"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("scenario.toml") && text.contains("line 4") && text.contains("`late`"), "{text}");
}
