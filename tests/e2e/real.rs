//! Real data that lies beside the repository on some machines (`../shared/data`, see `README.md` there): weather of three stations
//! with sentinels, words and repeated times, and air quality of two. Where it is absent these tests say so and end.

use tests::{Tidegate, assert_same, python, shared_data};

/// The stations of both files come one after the other, so the watermark waits for the whole span.
const SOURCE: &str = r#"
[limits]
query_rows = 1000000

[sources.stations]
type = "file"
path = "PATH"
mode = "once"
csv = { header = true, null = "" }
decode = { format = "csv", event_time = { path = "ts_ms", format = "unix_ms" } }
key = ["device_id"]
watermark = { out_of_orderness = "4000d" }

[sources.stations.columns]
device_id = { type = "utf8" }
seq = { type = "uint64" }
"#;

/// Windows to be compared with a file of the truth.
struct Windows {
    /// The file's name, and that of the table.
    name: &'static str,
    /// `window = { … }`.
    shape: &'static str,
    metrics: &'static [&'static str],
    /// The truth is of this device alone, if it is not of all.
    of: Option<&'static str>,
}

impl Windows {
    /// A session is one of readings of a metric, so each metric has a window of its own there.
    fn tables(&self) -> Vec<(String, &[&'static str])> {
        match self.shape.contains("session") {
            true => self.metrics.chunks(1).map(|metric| (format!("{}_{}", self.name, metric[0]), metric)).collect(),
            false => vec![(self.name.to_owned(), self.metrics)],
        }
    }
}

/// A pipeline over `path`: the metrics are text, and only numbers above -900 count.
fn pipeline(path: &str, metrics: &[&str], windows: &[Windows]) -> Tidegate {
    let mut toml = SOURCE.replace("PATH", path);
    for metric in metrics {
        toml += &format!("{metric} = {{ type = \"utf8\" }}\n");
    }
    toml += "\n[processors.clean]\ntype = \"map\"\ninputs = [\"stations\"]\n[processors.clean.select]\ndevice_id = \"device_id\"\n";
    for metric in metrics {
        toml += &format!("{metric} = \"CASE WHEN TRY_CAST({metric} AS DOUBLE) > -900 THEN TRY_CAST({metric} AS DOUBLE) END\"\n");
    }
    for window in windows {
        for (table, metrics) in window.tables() {
            toml += &part(&table, window.shape, metrics);
        }
    }
    Tidegate::new(&format!("{toml}\n[tables.readings]\ninputs = [\"stations\"]\n"))
}

/// A window, over the readings that have one of its metrics, and its table.
fn part(table: &str, shape: &str, metrics: &[&str]) -> String {
    let there: Vec<String> = metrics.iter().map(|metric| format!("{metric} IS NOT NULL")).collect();
    let mut toml = format!(
        "\n[processors.of_{table}]\ntype = \"filter\"\ninputs = [\"clean\"]\nwhen = \"{}\"\n\
         \n[processors.{table}]\ntype = \"window\"\ninputs = [\"of_{table}\"]\nkey = [\"device_id\"]\nwindow = {shape}\n[processors.{table}.select]\n",
        there.join(" OR ")
    );
    for metric in metrics {
        for (word, aggregate) in AGGREGATES {
            toml += &format!("{metric}_{word} = \"{aggregate}({metric})\"\n");
        }
    }
    toml + &format!("\n[tables.{table}]\ninputs = [\"{table}\"]\n")
}

const AGGREGATES: [(&str, &str); 6] =
    [("n", "count"), ("low", "min"), ("high", "max"), ("mean", "avg"), ("sample", "stddev_samp"), ("whole", "stddev_pop")];

/// The wide tables in the long form of the truth: a row for each metric that has readings in the window.
fn long(windows: &Windows) -> String {
    let only = windows.of.map_or(String::new(), |device| format!(" AND device_id = '{device}'"));
    let part = |table: &str, metric: &str| {
        let columns: Vec<String> = AGGREGATES.iter().map(|(word, _)| format!("{metric}_{word}")).collect();
        format!(
            "SELECT device_id, '{metric}' AS metric, CAST(window_start AS BIGINT) AS start, CAST(window_end AS BIGINT) AS \"end\", {} \
             FROM {table} WHERE {metric}_n > 0{only}",
            columns.join(", ")
        )
    };
    let tables = windows.tables();
    let parts = tables.iter().flat_map(|(table, metrics)| metrics.iter().map(move |metric| part(table, metric)));
    parts.collect::<Vec<_>>().join(" UNION ALL ")
}

/// Runs a data set and compares windows and counts with the truth beside it.
fn check(set: &str, metrics: &[&str], windows: &[Windows]) {
    let Some(shared) = shared_data() else {
        skipped(set);
        return;
    };
    let path = |name: String| shared.join(name).canonicalize().expect("the file is in the shared data").display().to_string();
    let tidegate = pipeline(&path(format!("real/{set}.csv.gz")), metrics, windows);
    tidegate.run(&[]);
    for window in windows {
        let truth = path(format!("real/truth/{set}/raw/{}.csv.gz", window.name));
        let expected = python(&[&["real", &truth], window.metrics].concat());
        assert_same(&format!("{set} {}", window.name), &tidegate.sql(&long(window)), &expected, 7);
    }
    let counts = "SELECT device_id, count(*) AS messages, count(DISTINCT event_time) AS distinct_ts, count(*) - count(DISTINCT event_time) AS duplicates \
                  FROM readings GROUP BY device_id";
    let expected = python(&["csv", &path(format!("real/truth/{set}/dedup_counts.csv.gz"))]);
    assert_same(&format!("{set} counts"), &tidegate.sql(counts), &expected, 4);
    assert_eq!(tidegate.count("SELECT count(*) FROM dead_letters"), 0);
}

/// Written to standard error itself, so that it is seen also when the test passes.
fn skipped(set: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "NOT RUN: real data {set}: ../shared/data is not beside the repository");
}

#[test]
fn metar_weather_equals_its_truth() {
    let metrics: &'static [&'static str] = &["temperature_c", "humidity_pct", "pressure_hpa"];
    let windows = [
        Windows { name: "tumbling_1h", shape: r#"{ type = "tumbling", size = "1h" }"#, metrics, of: None },
        Windows { name: "tumbling_1m", shape: r#"{ type = "tumbling", size = "1m" }"#, metrics: &metrics[..1], of: None },
        Windows {
            name: "hopping_1h_10m",
            shape: r#"{ type = "hopping", size = "1h", hop = "10m" }"#,
            metrics: &metrics[..1],
            of: Some("wx-01"),
        },
        Windows { name: "session_97m30s", shape: r#"{ type = "session", gap = "97m30s" }"#, metrics: &metrics[..1], of: None },
    ];
    check("metar_weather", metrics, &windows);
}

#[test]
fn beijing_air_equals_its_truth() {
    let metrics: &'static [&'static str] = &["pm2_5", "co", "temp_c", "pres_hpa"];
    let windows = [
        Windows { name: "tumbling_1d_utc", shape: r#"{ type = "tumbling", size = "1d" }"#, metrics, of: None },
        Windows {
            name: "hopping_24h_6h_utc",
            shape: r#"{ type = "hopping", size = "24h", hop = "6h" }"#,
            metrics: &metrics[..1],
            of: None,
        },
        Windows { name: "session_150m", shape: r#"{ type = "session", gap = "150m" }"#, metrics, of: None },
    ];
    check("prsa_beijing_air", metrics, &windows);
}
