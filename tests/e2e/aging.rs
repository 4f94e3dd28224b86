//! Rows age from memory to small files, to compacted ones, to the cold table and its rewritten files, while somebody asks for the same closed range of time again
//! and again: every answer is the same, over kill -9 too.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tests::{Mosquitto, Publisher, Running, S3, Tidegate, python_in, rows, until};

const PIPELINE: &str = r#"
[sources.floor]
type = "mqtt"
url = "URL"
topics = ["plant/{device_id}"]
client_id = "tidegate-floor"
decode = { format = "json", event_time = { path = "$.ts", format = "unix_ms" } }
columns = { n = { type = "int64" } }
key = ["device_id"]

[tables.readings]
inputs = ["floor"]
hot = { age = "500ms" }
warm = { age = "4s", partition = "2s", fan_in = 2 }
cold = { COLD, commit_every = "1s" }

# Kept in warm for good: compaction alone.
[tables.kept]
inputs = ["floor"]
hot = { age = "500ms" }
warm = { partition = "2s", fan_in = 2 }
"#;

/// 24 seconds before 2026-01-01T00:00:00Z, in milliseconds: the closed range is of a day that many moves bring to cold, and whose small files are
/// rewritten when it is over.
const START: i64 = 1_767_225_576_000;
const DEVICES: i64 = 8;
/// Readings before this one are in the closed range.
const CLOSED: i64 = 400;

/// Reading `n`: every 20 ms of event time one of a device, every tenth 3 s late.
fn message(n: i64) -> (String, Vec<u8>) {
    let late = if n % 10 == 9 { 3_000 } else { 0 };
    (format!("plant/d{}", n % DEVICES), format!(r#"{{"ts":{},"n":{n}}}"#, START + n * 20 - late).into_bytes())
}

/// What all answers about the readings of the closed range must be.
fn constant() -> Vec<String> {
    let hash: i64 = (0..CLOSED).map(|n| n * n % 1_009 * (n % DEVICES + 1)).sum();
    vec![CLOSED.to_string(), hash.to_string(), (CLOSED - 1).to_string()]
}

fn question(table: &str) -> String {
    let of = "n * n % 1009 * (CAST(substr(device_id, 2) AS BIGINT) + 1)";
    format!("SELECT count(*), sum({of}), max(n) FROM {table} WHERE n < {CLOSED}")
}

/// A metric of the process, by its name and the value of a label.
fn metric(running: &Running, name: &str, label: &str) -> u64 {
    let page = running.metrics();
    let line = page.lines().find(|line| line.starts_with(&format!("tidegate_{name}{{")) && line.contains(&format!("\"{label}\"")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name} of {label} in\n{page}"))
}

#[test]
fn a_closed_range_of_time_is_the_same_in_every_answer_while_its_rows_age() {
    age("url = \"cold\"", None, &mut || {});
}

/// The server is killed with the process; what neither has is nowhere.
#[test]
fn the_same_while_they_age_into_a_bucket() {
    let mut s3 = S3::start();
    let objects = s3.objects("plant");
    let tidegate = age(&s3.cold("plant"), Some(objects), &mut || {
        s3.kill();
        s3.start_again();
    });
    let options: Vec<_> = s3.options().iter().map(|(key, value)| format!("'aws_{key}': '{value}'")).collect();
    let code = format!(
        "import polars\nrows = polars.scan_delta('{}/readings', storage_options={{{}, 'aws_allow_http': 'true'}})\n\
         print(rows.select(polars.len()).collect().item())",
        s3.url("plant"),
        options.join(", ")
    );
    let cold = tidegate.count("SELECT count(*) FROM tiers.readings WHERE _tier = 'cold'");
    assert_eq!(python_in(tidegate.folder.path(), &code).trim(), cold.to_string(), "Polars sees the cold rows");
    let to = s3.url("exports/readings");
    let export = ["tiers", "export", "--config", "pipeline.toml", "--table", "readings", "--format", "delta", "--to", to.as_str()];
    let exported = tidegate.call(&export);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let all = python_in(tidegate.folder.path(), &code.replace(&s3.url("plant"), &s3.url("exports")));
    assert_eq!(all.trim(), tidegate.count("SELECT count(*) FROM readings").to_string(), "Polars sees the exported rows");
    assert!(String::from_utf8_lossy(&tidegate.call(&export).stderr).contains("not empty"));
}

/// How many files of a cold table were let go of by its log: those that were rewritten.
fn rewritten(table: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(table.join("_delta_log")) else { return 0 };
    let commits = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    commits.map(|commit| commit.lines().filter(|line| line.starts_with("{\"remove\"")).count()).sum()
}

/// How many days of a cold table have files.
fn days(table: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(table) else { return 0 };
    entries.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name() != "_delta_log")).count()
}

/// Lets rows age into a cold table of these options, whose tables lie in the folder `tables`, with `kill -9` of the process and what `meanwhile`
/// does to others.
fn age(cold: &str, tables: Option<PathBuf>, meanwhile: &mut dyn FnMut()) -> Tidegate {
    let broker = Mosquitto::start();
    let tidegate = Tidegate::new(&PIPELINE.replace("URL", &broker.url()).replace("COLD", cold));
    let mut running = tidegate.start(&[]);
    broker.wait_for_subscriber();
    let mut publisher = Publisher::new(broker.port);
    let mut sent = 0;
    let mut send = |to: i64| {
        publisher.publish(&(sent..to).map(message).collect::<Vec<_>>());
        sent = to;
    };
    // In pieces, so that there are many epochs.
    for to in (40..=CLOSED).step_by(40) {
        send(to);
        until("the readings so far", Duration::from_secs(60), || tidegate.count("SELECT count(*) FROM kept") == to as u64);
    }
    let hot = "SELECT count(*) FROM tiers.kept WHERE _tier = 'hot'";
    until("everything is in files", Duration::from_secs(60), || tidegate.count(hot) == 0);

    let table = tables.unwrap_or_else(|| tidegate.path("cold").into()).join("readings");
    // Compactions of the lives that are over, and of this one.
    let (mut answers, mut compacted, mut merges, mut kills) = (0, 0, 0, 0);
    let is_cold = format!("SELECT count(*) FROM tiers.readings WHERE _tier = 'cold' AND n < {CLOSED}");
    let (mut to, deadline) = (CLOSED, Instant::now() + Duration::from_secs(600));
    while tidegate.count(&is_cold) < CLOSED as u64 || compacted + merges < 6 || rewritten(&table) < 2 || days(&table) < 2 || kills < 3 {
        assert!(
            Instant::now() < deadline,
            "rows are not cold after {to} readings: {} compactions, {} files rewritten, {} days, {kills} kills\n{}",
            compacted + merges,
            rewritten(&table),
            days(&table),
            running.log()
        );
        to += 100;
        send(to);
        for table in ["readings", "kept"] {
            let answer = tidegate.try_sql(&question(table));
            // An instance that is just ending may not answer; a wrong answer is none of its rights.
            if answer.status.success() {
                assert_eq!(rows(&String::from_utf8_lossy(&answer.stdout)), [constant()], "{table}, after {answers} right answers");
                answers += 1;
            }
        }
        merges = metric(&running, "compactions_total", "done");
        // A life that has got something done ends; the fourth may go on until all is done.
        if merges > 0 && kills < 3 {
            compacted += std::mem::take(&mut merges);
            running.kill();
            meanwhile();
            assert_eq!(rows(&tidegate.sql(&question("readings"))), [constant()], "asked of the files alone");
            kills += 1;
            running = tidegate.start(&[]);
            running.wait_until_ready();
        }
    }
    running.stop();
    let verified = tidegate.call(&["tiers", "verify", "--config", "pipeline.toml"]);
    assert!(verified.status.success(), "{}{}", String::from_utf8_lossy(&verified.stdout), String::from_utf8_lossy(&verified.stderr));
    for table in ["readings", "kept"] {
        assert_eq!(rows(&tidegate.sql(&question(table))), [constant()]);
        assert_eq!(tidegate.count(&format!("SELECT count(*) FROM {table}")), to as u64);
    }
    tidegate
}
