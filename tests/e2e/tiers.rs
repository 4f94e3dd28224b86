//! `tidegate tiers`: beside a running pipeline whose rows are on their way to cold, and over the stopped one, unharmed and harmed.

use crate::simulate::{MQTT, REST, verify};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::{Mosquitto, Tidegate, until};

const FLEET: &str = r#"
devices = 40
lasting = "8s"

[rate]
each = 5.0

[signals.temperature]
field = "t"

[signals.humidity]
base = 50.0

[verify.raw.readings]
values = { temperature = "temperature", humidity = "humidity" }
"#;

/// The exit code and the report.
#[track_caller]
fn verify_tiers(tidegate: &Tidegate) -> (Option<i32>, Value) {
    let output = tidegate.call(&["tiers", "verify", "--config", "pipeline.toml", "--json"]);
    let report = serde_json::from_slice(&output.stdout);
    (output.status.code(), report.unwrap_or_else(|e| panic!("no report: {e}\n{}", String::from_utf8_lossy(&output.stderr))))
}

fn count<'r>(report: &'r Value, table: &str) -> &'r Value {
    let tables = report["tables"].as_array().expect("tables");
    tables.iter().find(|count| count["table"] == table).unwrap_or_else(|| panic!("no table {table}: {report:#}"))
}

/// What an export says: how many rows.
fn export(tidegate: &Tidegate, to: &str, more: &[&str]) -> u64 {
    let all = [&["tiers", "export", "--config", "pipeline.toml", "--table", "readings", "--to", to], more].concat();
    let output = tidegate.call(&all);
    assert!(output.status.success(), "export: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split(' ').next().and_then(|rows| rows.parse().ok()).unwrap_or_else(|| panic!("no number of rows: {text}"))
}

fn files(tidegate: &Tidegate, folder: &str, end: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![PathBuf::from(tidegate.path(folder))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("readable").path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.to_string_lossy().ends_with(end) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|n| n.to_str()).expect("file names are UTF-8")
}

#[test]
fn the_tiers_are_sound_at_every_look_while_rows_move_and_damage_is_found_afterwards() {
    let broker = Mosquitto::start();
    // Rows that are hot do not move.
    let tables = REST.replace("INPUT", "once").replace("warm = {", "hot = { age = \"500ms\" }\nwarm = {");
    let tidegate = Tidegate::new(&(MQTT.replace("URL", &broker.url()) + &tables));
    let running = tidegate.start(&[]);
    broker.wait_for_subscriber();
    std::fs::write(tidegate.path("scenario.toml"), format!("{FLEET}\n[wire]\nurl = \"{}\"\n", broker.url())).expect("a file");
    let mut sending = tidegate.spawn(&["simulate", "--scenario", "scenario.toml", "--truth", "truth"]);
    let (mut looks, mut cold) = (0, 0);
    while sending.try_wait().expect("a child of ours can be asked").is_none() {
        let (code, report) = verify_tiers(&tidegate);
        assert_eq!(code, Some(0), "look {looks}: {report:#}");
        looks += 1;
        cold = report["tables"].as_array().map_or(0, |_| count(&report, "readings")["cold"].as_u64().expect("a number"));
    }
    assert!(sending.wait().expect("a child of ours can be waited for").success());
    assert!(looks > 3 && cold > 0, "{looks} looks, {cold} rows cold at the last one");

    // Beside the instance an export holds what is sealed: in the end everything.
    until("all readings are stored", Duration::from_secs(60), || verify(&tidegate, "truth").0 == Some(0));
    let rows = tidegate.count("SELECT count(*) FROM readings");
    let mut n = 0;
    until("an export has all rows", Duration::from_secs(30), || {
        n += 1;
        export(&tidegate, &format!("export-{n}"), &[]) == rows
    });
    assert!(
        !PathBuf::from(tidegate.path("data"))
            .read_dir()
            .expect("readable")
            .any(|entry| { entry.expect("readable").file_name().to_string_lossy().starts_with("export") })
    );
    running.stop();

    let (code, report) = verify_tiers(&tidegate);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(count(&report, "readings")["stored"], rows, "{report:#}");
    let part = tidegate.count("SELECT count(*) FROM readings WHERE seq >= 10");
    assert_eq!(export(&tidegate, "part", &["--format", "delta", "--where", "seq >= 10"]), part);
    assert!(part > 0 && part < rows);
    let again = tidegate.call(&["tiers", "export", "--config", "pipeline.toml", "--table", "readings", "--to", "part"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("part is not empty"));

    let unnamed = report["unnamed"].as_array().expect("a list");
    for (folder, end, part) in [("cold", ".parquet", "cold"), ("data/state", ".state", "state")] {
        let is_named = |path: &PathBuf| !unnamed.iter().any(|told| told["file"].as_str().is_some_and(|f| f.ends_with(name(path))));
        let path = files(&tidegate, folder, end).into_iter().find(is_named).expect("there is such a file");
        let whole = std::fs::read(&path).expect("readable");
        std::fs::write(&path, &whole[..whole.len() - 9]).expect("writable");
        let (code, report) = verify_tiers(&tidegate);
        let damage = report["damage"].as_array().expect("a list");
        assert!(code == Some(1) && damage.len() == 1 && damage[0]["part"] == part, "{report:#}");
        assert!(damage[0]["file"].as_str().is_some_and(|file| file.ends_with(name(&path))), "{report:#}");
        std::fs::write(&path, whole).expect("writable");
    }
    assert_eq!(verify_tiers(&tidegate).0, Some(0));
    a_damaged_segment_is_given_up(&tidegate, unnamed, rows);
}

/// Its file is kept aside, its rows are counted as removed, and the pipeline goes on.
fn a_damaged_segment_is_given_up(tidegate: &Tidegate, unnamed: &[Value], rows: u64) {
    let is_named = |path: &PathBuf| !unnamed.iter().any(|told| told["file"].as_str().is_some_and(|f| f.ends_with(name(path))));
    let path = files(tidegate, "data/warm/readings", ".parquet").into_iter().find(is_named).expect("there is a segment");
    let give_up = || tidegate.call(&["tiers", "quarantine", "--config", "pipeline.toml", "--table", "readings", "--file", name(&path)]);
    assert_eq!(give_up().status.code(), Some(1), "a whole segment is not given up");
    let mut bytes = std::fs::read(&path).expect("readable");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("writable");
    let failed = tidegate.try_sql("SELECT sum(temperature) FROM readings");
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && told.contains("tidegate tiers verify"), "{told}");
    let half = bytes.len() / 2;
    bytes[half] ^= 1;
    std::fs::write(&path, bytes).expect("writable");
    let (code, report) = verify_tiers(tidegate);
    assert!(code == Some(1) && report["damage"][0]["part"] == "warm", "{report:#}");

    let running = tidegate.start(&[]);
    until("the data directory has an owner", Duration::from_secs(60), || running.log().contains("ready"));
    let refused = give_up();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("lock"), "{}", String::from_utf8_lossy(&refused.stderr));
    until("the damage is told", Duration::from_secs(60), || running.log().contains("a segment is damaged"));
    until("the damage is counted", Duration::from_secs(30), || {
        running
            .metrics()
            .lines()
            .any(|line| line.starts_with("tidegate_damaged_segments") && line.contains("readings") && line.ends_with(" 1"))
    });
    running.stop();

    assert!(give_up().status.success());
    let (code, report) = verify_tiers(tidegate);
    let removed = count(&report, "readings")["removed"].as_u64().expect("a number");
    assert!(code == Some(0) && removed > 0, "{report:#}");
    assert!(PathBuf::from(tidegate.path("data/quarantine/readings")).join(name(&path)).exists());
    tidegate.run(&["--until-idle", "2s"]);
    assert_eq!(tidegate.count("SELECT count(*) FROM readings"), rows - removed);
    let (code, report) = verify_tiers(tidegate);
    assert!(code == Some(0) && count(&report, "readings")["warm"] == 0, "{report:#}");
}
