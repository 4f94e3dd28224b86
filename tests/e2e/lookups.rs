//! A lookup table that changes while readings come: each reading has the version that was there when it came, also when it is read again
//! after kill -9, and when the table's file is broken or gone.

use std::fs;
use std::path::Path;
use std::time::Duration;
use tests::{Mosquitto, Publisher, Running, Tidegate, rows, until};

const LIMIT: Duration = Duration::from_secs(60);

const ENRICHED: &str = r#"
[lookups.sites]
path = "sites.csv"
key = ["site"]
columns = { site = { type = "utf8" }, owner = { type = "utf8" } }

[processors.owned]
type = "enrich"
inputs = ["floor"]
lookup = "sites"
columns = ["owner"]

[tables.readings]
inputs = ["owned"]
"#;

fn from_mqtt(broker: &Mosquitto) -> Tidegate {
    let source = format!(
        r#"
[sources.floor]
type = "mqtt"
url = "{}"
topics = ["plant/{{site}}"]
client_id = "tidegate-floor"
decode = {{ format = "json", event_time = {{ path = "$.ts", format = "unix_s" }} }}
columns = {{ seq = {{ type = "uint64" }} }}
key = ["site"]
"#,
        broker.url()
    );
    Tidegate::new(&format!("{source}{ENRICHED}"))
}

fn from_files() -> Tidegate {
    let source = r#"
[sources.floor]
type = "file"
path = "in/*.ndjson"
mode = "watch"
decode = { format = "json", event_time = { path = "$.ts", format = "unix_s" } }
columns = { site = { type = "utf8" }, seq = { type = "uint64" } }
key = ["site"]
"#;
    Tidegate::new(&format!("{source}{ENRICHED}"))
}

/// The table names this owner for every site from now on.
fn own(folder: &Path, owner: &str) {
    let rows: String = (0..8).map(|site| format!("s{site},{owner}\n")).collect();
    let part = folder.join("sites.part");
    fs::write(&part, format!("site,owner\n{rows}")).expect("a table is written");
    fs::rename(part, folder.join("sites.csv")).expect("a table is put in its place");
}

fn payload(seq: u64) -> String {
    format!(r#"{{"ts":{},"site":"s{}","seq":{seq}}}"#, 1_767_225_600 + seq, seq % 8)
}

fn messages(numbers: std::ops::Range<u64>) -> Vec<(String, Vec<u8>)> {
    numbers.map(|seq| (format!("plant/s{}", seq % 8), payload(seq).into_bytes())).collect()
}

fn drop_file(folder: &Path, name: &str, numbers: std::ops::Range<u64>) {
    let lines: String = numbers.map(|seq| payload(seq) + "\n").collect();
    fs::create_dir_all(folder.join("in")).expect("a folder");
    fs::write(folder.join("part"), lines).expect("a file is written");
    fs::rename(folder.join("part"), folder.join("in").join(name)).expect("a file is put in its place");
}

/// How often the metric of this name was counted up.
fn metric(running: &Running, name: &str) -> u64 {
    let page = running.metrics();
    let values = page.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}

fn stored(tidegate: &Tidegate, readings: u64) {
    let count = || {
        let answer = tidegate.try_sql("SELECT count(*) FROM readings");
        answer.status.success().then(|| tidegate.count("SELECT count(*) FROM readings"))
    };
    until("all readings in the table", LIMIT, || count() == Some(readings));
}

/// owner, least and greatest number of its readings, how many.
fn owners(tidegate: &Tidegate) -> Vec<String> {
    let answer = tidegate.sql("SELECT owner, min(seq), max(seq), count(*) FROM readings GROUP BY owner ORDER BY min(seq)");
    rows(&answer).into_iter().map(|row| row.join(" ")).collect()
}

#[test]
fn what_is_read_again_after_a_kill_meets_the_versions_of_the_first_time() {
    let broker = Mosquitto::start();
    let tidegate = from_mqtt(&broker);
    // Nothing is sealed before the kill: all of it is read again from the journal.
    let file = tidegate.folder.path().join("pipeline.toml");
    let text = fs::read_to_string(&file).expect("the pipeline").replace("epoch = \"500ms\"", "epoch = \"1h\"");
    fs::write(&file, text).expect("the pipeline is written");
    own(tidegate.folder.path(), "ada");
    let running = tidegate.start(&[]);
    broker.wait_for_subscriber();
    let mut publisher = Publisher::new(broker.port);
    publisher.publish(&messages(0..100));
    stored(&tidegate, 100);
    own(tidegate.folder.path(), "ben");
    until("the new table", LIMIT, || metric(&running, "tidegate_lookup_versions_total") == 1);
    publisher.publish(&messages(100..200));
    stored(&tidegate, 200);
    let before = owners(&tidegate);
    assert_eq!(before, ["ada 0 99 100", "ben 100 199 100"]);
    running.kill();

    own(tidegate.folder.path(), "cem");
    let running = tidegate.start(&[]);
    until("the subscription of the second run", LIMIT, || running.log().contains("ready"));
    stored(&tidegate, 200);
    assert_eq!(owners(&tidegate), before, "the log says which version each reading met");
    publisher.publish(&messages(200..300));
    stored(&tidegate, 300);
    assert_eq!(owners(&tidegate)[2], "cem 200 299 100");
    running.stop();
    assert_eq!(tidegate.count("SELECT count(*) FROM readings WHERE owner IS NULL"), 0);
}

#[test]
fn a_broken_table_changes_nothing_and_one_that_is_gone_is_still_known_after_a_kill() {
    let tidegate = from_files();
    let folder = tidegate.folder.path();
    own(folder, "ada");
    drop_file(folder, "a.ndjson", 0..100);
    let running = tidegate.start(&[]);
    stored_by(&running, &tidegate, 100);
    own(folder, "ben");
    until("the new table", LIMIT, || metric(&running, "tidegate_lookup_versions_total") == 1);
    drop_file(folder, "b.ndjson", 100..200);
    stored_by(&running, &tidegate, 200);
    fs::write(folder.join("sites.csv"), "site,owner\ns0,ada\ns0,ben\n").expect("a broken table is written");
    until("the broken table is told", LIMIT, || metric(&running, "tidegate_lookup_failures_total") == 1);
    assert!(running.log().contains("sites.csv:3: line 3 has the same `site` as line 2"), "{}", running.log());
    drop_file(folder, "c.ndjson", 200..300);
    stored_by(&running, &tidegate, 300);
    running.kill();

    fs::remove_file(folder.join("sites.csv")).expect("the table is there");
    let running = tidegate.start(&[]);
    drop_file(folder, "d.ndjson", 300..400);
    stored_by(&running, &tidegate, 400);
    running.stop();
    assert_eq!(owners(&tidegate), ["ada 0 99 100", "ben 100 399 300"]);
}

fn stored_by(running: &Running, tidegate: &Tidegate, readings: u64) {
    until(&format!("{readings} readings of files"), LIMIT, || running.log().contains("ready"));
    stored(tidegate, readings);
}

#[test]
fn without_a_table_there_is_no_first_start() {
    let tidegate = from_files();
    let mut running = tidegate.start(&[]);
    assert_eq!(running.wait(LIMIT).code(), Some(1));
    assert!(running.log().contains("lookup sites cannot be read, and no earlier run has kept a version"), "{}", running.log());
}
