//! A window that takes readings after its close: one row in its table, provisional and revised until it is final, over a kill too.

use std::time::Duration;

use tests::{Mosquitto, Publisher, Tidegate, rows, until};

const PIPELINE: &str = r#"
[sources.floor]
type = "mqtt"
url = "URL"
topics = ["plant/{device_id}"]
client_id = "tidegate-floor"
decode = { format = "json", event_time = { path = "$.ts", format = "unix_ms" } }
columns = { t = { type = "float64" } }
key = ["device_id"]

[processors.by_minute]
type = "window"
inputs = ["floor"]
key = ["device_id"]
window = { type = "tumbling", size = "1m" }
allowed_lateness = "1h"
select = { n = "count(*)", hottest = "max(t)" }

[tables.by_minute]
inputs = ["by_minute"]
"#;

/// 2026-01-01T00:00:00Z
const START: i64 = 1_767_225_600;

#[test]
fn a_table_holds_one_row_a_window_and_revises_it_until_it_is_final() {
    let broker = Mosquitto::start();
    let tidegate = Tidegate::new(&PIPELINE.replace("URL", &broker.url()));
    let running = tidegate.start(&[]);
    broker.wait_for_subscriber();
    let mut publisher = Publisher::new(broker.port);
    let mut send = |readings: &[(i64, f64)]| {
        let message = |(at, t): &(i64, f64)| ("plant/d1".to_owned(), format!(r#"{{"ts":{}000,"t":{t}}}"#, START + at).into_bytes());
        publisher.publish(&readings.iter().map(message).collect::<Vec<_>>());
    };
    let shows = |expected: &[&str]| {
        let sql = "SELECT n, hottest, pane, _tier = 'provisional' FROM tiers.by_minute";
        let answers = || tidegate.try_sql(sql).status.success().then(|| rows(&tidegate.sql(sql)));
        let expected: Vec<Vec<String>> = expected.iter().map(|row| row.split(' ').map(str::to_owned).collect()).collect();
        until(&format!("the rows {expected:?}"), Duration::from_secs(60), || answers().as_ref() == Some(&expected));
    };

    send(&[(5, 20.0), (10, 21.0), (90, 19.0)]);
    shows(&["2 21.0 0 true"]);
    send(&[(30, 25.0)]);
    shows(&["3 25.0 1 true"]);
    running.kill();
    let running = tidegate.start(&[]);
    shows(&["3 25.0 1 true"]);
    send(&[(40, 18.0)]);
    shows(&["4 25.0 2 true"]);
    assert_eq!(tidegate.count("SELECT count(*) FROM by_minute WHERE n = 4"), 1, "a filter sees the newest alone");
    assert_eq!(tidegate.count("SELECT count(*) FROM by_minute WHERE n < 4"), 0);

    // The first window is final, the second closed, and what comes for the first is late.
    send(&[(3_665, 22.0), (50, 30.0)]);
    shows(&["1 19.0 0 true", "4 25.0 2 false"]);
    until("the late reading in its table", Duration::from_secs(60), || tidegate.count("SELECT count(*) FROM late_by_minute") == 1);
    running.stop();
    assert_eq!(tidegate.sql("SELECT n, hottest, pane FROM by_minute"), "n,hottest,pane\n4,25.0,2\n", "only final rows are on disk");
}
