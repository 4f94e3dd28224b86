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

/// A pipeline over `path`: the metrics are text, and only numbers above -900 count.
fn pipeline(path: &str, metrics: &[&str], windows: &[(&str, &str)]) -> Tidegate {
    let mut toml = SOURCE.replace("PATH", path);
    for metric in metrics {
        toml += &format!("{metric} = {{ type = \"utf8\" }}\n");
    }
    toml += "\n[processors.clean]\ntype = \"map\"\ninputs = [\"stations\"]\n[processors.clean.select]\ndevice_id = \"device_id\"\n";
    for metric in metrics {
        toml += &format!("{metric} = \"CASE WHEN TRY_CAST({metric} AS DOUBLE) > -900 THEN TRY_CAST({metric} AS DOUBLE) END\"\n");
    }
    for (name, size) in windows {
        toml += &format!("\n[processors.{name}]\ntype = \"window\"\ninputs = [\"clean\"]\nkey = [\"device_id\"]\n");
        toml += &format!("window = {{ type = \"tumbling\", size = \"{size}\" }}\n[processors.{name}.select]\n");
        for metric in metrics {
            for (word, aggregate) in AGGREGATES {
                toml += &format!("{metric}_{word} = \"{aggregate}({metric})\"\n");
            }
        }
        toml += &format!("\n[tables.{name}]\ninputs = [\"{name}\"]\n");
    }
    Tidegate::new(&format!("{toml}\n[tables.readings]\ninputs = [\"stations\"]\n"))
}

const AGGREGATES: [(&str, &str); 6] =
    [("n", "count"), ("low", "min"), ("high", "max"), ("mean", "avg"), ("sample", "stddev_samp"), ("whole", "stddev_pop")];

/// The wide table in the long form of the truth: a row for each metric that has readings in the window.
fn long(table: &str, metrics: &[&str]) -> String {
    let part = |metric: &&str| {
        let columns: Vec<String> = AGGREGATES.iter().map(|(word, _)| format!("{metric}_{word}")).collect();
        format!(
            "SELECT device_id, '{metric}' AS metric, CAST(window_start AS BIGINT) AS start, {} FROM {table} WHERE {metric}_n > 0",
            columns.join(", ")
        )
    };
    metrics.iter().map(part).collect::<Vec<_>>().join(" UNION ALL ")
}

/// Runs a data set and compares windows and counts with the truth beside it.
fn check(set: &str, metrics: &[&str], windows: &[(&str, &str, &[&str])]) {
    let Some(shared) = shared_data() else {
        skipped(set);
        return;
    };
    let path = |name: String| shared.join(name).canonicalize().expect("the file is in the shared data").display().to_string();
    let sizes: Vec<_> = windows.iter().map(|(name, size, _)| (*name, *size)).collect();
    let tidegate = pipeline(&path(format!("real/{set}.csv.gz")), metrics, &sizes);
    tidegate.run(&[]);
    for (name, _, metrics) in windows {
        let truth = path(format!("real/truth/{set}/raw/{name}.csv.gz"));
        let expected = python(&[&["real", &truth], *metrics].concat());
        assert_same(&format!("{set} {name}"), &tidegate.sql(&long(name, metrics)), &expected, 6);
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
    let hourly = ["temperature_c", "humidity_pct", "pressure_hpa"];
    check("metar_weather", &hourly, &[("tumbling_1h", "1h", &hourly), ("tumbling_1m", "1m", &["temperature_c"])]);
}

#[test]
fn beijing_air_equals_its_truth() {
    let metrics = ["pm2_5", "co", "temp_c", "pres_hpa"];
    check("prsa_beijing_air", &metrics, &[("tumbling_1d_utc", "1d", &metrics)]);
}
