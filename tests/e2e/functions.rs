//! The aggregates over time on hourly weather, in windows and in ad-hoc queries alike, against what DuckDB makes of it step by step.

use tests::{Tidegate, assert_same, python};

const PIPELINE: &str = r#"
[sources.weather]
type = "file"
path = "weather.csv"
mode = "once"
csv = { header = true, null = "NA" }
decode = { format = "csv", event_time = { path = "time_hour", format = "rfc3339" } }
key = ["origin"]
watermark = { out_of_orderness = "1h" }

[sources.weather.columns]
origin    = { type = "utf8" }
temp      = { type = "float64" }
wind_gust = { type = "float64" }

[processors.daily]
type = "window"
inputs = ["weather"]
key = ["origin"]
window = { type = "tumbling", size = "1d" }

[processors.daily.select]
gusty = "state_duration(wind_gust > 25, event_time, true)"
held  = "time_weighted_avg(temp, event_time)"
climb = "counter_increase(temp, event_time)"
rate  = "counter_rate(temp, event_time)"

[tables.daily]
inputs = ["daily"]

[tables.readings]
inputs = ["weather"]
"#;

#[test]
fn windows_and_queries_say_what_duckdb_says() {
    let tidegate = Tidegate::new(PIPELINE);
    python(&["weather", &tidegate.path("")]);
    let expected = python(&["over_time", &tidegate.path("weather.csv")]);
    tidegate.run(&[]);
    let daily = "SELECT origin, CAST(window_start AS BIGINT) AS start, gusty, held, climb, rate FROM daily WHERE held IS NOT NULL";
    assert_same("windows", &tidegate.sql(daily), &expected, 3);
    let asked = "SELECT origin, CAST(date_trunc('day', event_time) AS BIGINT) AS start, \
        state_duration(wind_gust > 25, event_time, true), time_weighted_avg(temp, event_time) AS held, \
        counter_increase(temp, event_time), counter_rate(temp, event_time) FROM readings GROUP BY 1, 2 HAVING held IS NOT NULL";
    assert_same("a query", &tidegate.sql(asked), &expected, 3);
    let station = r#"{"type":"Polygon","coordinates":[[[-74,40],[-73,40],[-73,41],[-74,41],[-74,40]]]}"#;
    let places = format!(
        "SELECT count(DISTINCT origin) FROM readings WHERE geo_within(40.6, CASE origin WHEN 'JFK' THEN -73.8 ELSE -74.2 END, '{station}')"
    );
    assert_eq!(tidegate.count(&places), 1);
}
