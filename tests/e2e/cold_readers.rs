//! The cold table in the hands of others: DuckDB, Polars, pyarrow and DataFusion read the rows that our SQL sees, by what
//! `storage/README.md` says: its Python is run as it stands there.

use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use serde_json::Value;
use tests::{Tidegate, assert_same, python, python_in, repository};

const PIPELINE: &str = r#"
[sources.floor]
type = "file"
path = "readings.ndjson"
mode = "once"
decode = { format = "json", event_time = { path = "$.ts", format = "unix_ms" } }
columns = { device_id = { type = "utf8" }, temperature = { path = "$.t", type = "float64" }, exact = { path = "$.t", type = "decimal(9, 2)" }, seq = { type = "uint32" } }
key = ["device_id"]
watermark = { out_of_orderness = "1s" }

[tables.readings]
inputs = ["floor"]
warm = { age = "1s", partition = "1m" }
cold = { url = "cold", commit_every = "1s" }
"#;

const DEVICES: &str = "SELECT device_id, count(*) AS n, sum(temperature) AS total, min(temperature) AS least, max(temperature) AS greatest FROM readings GROUP BY device_id";

const ALL: &str = "SELECT count(*) AS n, sum(seq) AS seqs, count(DISTINCT device_id) AS devices, CAST(min(event_time) AS BIGINT) AS first, CAST(max(event_time) AS BIGINT) AS last, CAST(sum(exact) AS DOUBLE) AS exact, sum(temperature) AS total FROM readings";

/// A pipeline whose readings of two days are all cold, in several commits.
fn all_cold() -> Tidegate {
    let tidegate = Tidegate::new(PIPELINE);
    let send = |start: &str, file: &str| {
        let scenario = format!(
            "start = \"{start}\"\ndevices = 50\nlasting = \"1m\"\n\n[rate]\neach = 2.0\n\n[signals.temperature]\nfield = \"t\"\n\n\
             [wire]\ntransport = \"file\"\nformat = \"json\"\nfile = \"{file}\"\n"
        );
        std::fs::write(tidegate.path("scenario.toml"), scenario).expect("a file");
        let output = tidegate.call(&["simulate", "--scenario", "scenario.toml", "--json"]);
        assert!(output.status.success(), "simulate: {}", String::from_utf8_lossy(&output.stderr));
    };
    // Around midnight, so that there are two folders.
    send("2026-01-01T23:59:30Z", "readings.ndjson");
    let is_cold = || {
        tidegate.run(&[]);
        tidegate.count("SELECT count(*) FROM tiers.readings WHERE _tier <> 'cold'") == 0
    };
    assert!((0..20).any(|_| is_cold()), "all rows are cold after 20 runs");
    assert_eq!(tidegate.count("SELECT count(*) FROM readings"), 6_000);
    tidegate
}

/// The Python of the page, in its order, each with the heading above it.
fn snippets(page: &str) -> Vec<(String, String)> {
    let (mut found, mut heading, mut code): (Vec<_>, String, Option<String>) = (vec![], String::new(), None);
    for line in page.lines() {
        match (&mut code, line) {
            (None, "```python") => code = Some(String::new()),
            (Some(text), "```") => {
                found.push((heading.clone(), std::mem::take(text)));
                code = None;
            }
            (Some(text), line) => *text += &format!("{line}\n"),
            (None, line) if line.starts_with('#') => heading = line.trim_start_matches('#').trim().to_owned(),
            (None, _) => {}
        }
    }
    found
}

/// The files that count, as the log says: this table is young enough to have all of its commits.
fn live(tidegate: &Tidegate) -> Vec<String> {
    let log = tidegate.path("cold/readings/_delta_log");
    let mut commits: Vec<_> = std::fs::read_dir(log).expect("a log").map(|entry| entry.expect("readable").path()).collect();
    commits.retain(|path| path.extension().is_some_and(|end| end == "json"));
    commits.sort();
    let mut files = BTreeSet::new();
    for commit in commits {
        for line in std::fs::read_to_string(commit).expect("a commit").lines() {
            let action: Value = serde_json::from_str(line).expect("an action is JSON");
            let path = |of: &str| action[of]["path"].as_str().map(|path| tidegate.path(&format!("cold/readings/{path}")));
            files.extend(path("add"));
            path("remove").map(|path| files.remove(&path));
        }
    }
    files.into_iter().collect()
}

/// The same two questions to DataFusion with a Parquet reader of its own, and nothing of ours.
async fn by_datafusion(files: Vec<String>) -> (String, String) {
    let context = SessionContext::new();
    let rows = context.read_parquet(files, ParquetReadOptions::default()).await.expect("Parquet");
    context.register_table("readings", rows.into_view()).expect("a table");
    let ask = async |sql: &str| {
        let batches = context.sql(sql).await.expect("a plan").collect().await.expect("rows");
        let mut text = String::from("header\n");
        for batch in batches {
            for row in 0..batch.num_rows() {
                let value = |column: &arrow::array::ArrayRef| match column.data_type() {
                    arrow::datatypes::DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
                    arrow::datatypes::DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string(),
                    _ => arrow::util::display::array_value_to_string(column, row).expect("text"),
                };
                text += &(batch.columns().iter().map(value).collect::<Vec<_>>().join(",") + "\n");
            }
        }
        text
    };
    (ask(DEVICES).await, ask(ALL).await)
}

#[test]
fn every_reader_sees_the_rows_that_our_sql_sees() {
    let tidegate = all_cold();
    let (devices, all) = (tidegate.sql(DEVICES), tidegate.sql(ALL));

    let page = std::fs::read_to_string(repository().join("storage/README.md")).expect("the page is there");
    let snippets = snippets(&page);
    for reader in ["DuckDB", "Polars", "pyarrow and pandas", "DataFusion"] {
        assert!(snippets.iter().any(|(heading, _)| heading == reader), "the page has Python for {reader}");
    }
    for (heading, code) in &snippets {
        assert_same(&format!("{heading}, as the page says"), &python_in(tidegate.folder.path(), code), &devices, 2);
    }

    let (theirs, their_all) = tokio::runtime::Runtime::new().expect("threads").block_on(by_datafusion(live(&tidegate)));
    assert_same("DataFusion's Parquet reader", &theirs, &devices, 2);
    assert_same("DataFusion's Parquet reader, the whole", &their_all, &all, 6);

    let readers = python(&["readers", &tidegate.path("cold/readings")]);
    let readers: Vec<(&str, &str)> = readers.lines().map(|line| line.split_once(',').expect("a reader and its numbers")).collect();
    assert_eq!(readers.iter().map(|(reader, _)| *reader).collect::<Vec<_>>(), ["duckdb", "polars", "pyarrow", "deltalake", "datafusion"]);
    for (reader, numbers) in readers {
        assert_same(&format!("the whole, by {reader}"), &format!("header\n{numbers}\n"), &all, 6);
    }
}
