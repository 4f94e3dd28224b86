//! Bad messages between good ones: the good arrive, the bad stand in `dead_letters` with reason and bytes, the connection stays.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tests::{Mosquitto, Publisher, Tidegate, rows, until};

const PIPELINE: &str = r#"
[sources.floor]
type = "mqtt"
url = "URL"
topics = ["plant/{device_id}"]
client_id = "tidegate-floor"
decode = { format = "json", event_time = { path = "$.ts", format = "unix_ms" } }
columns = { t = { type = "float64" }, seq = { type = "uint64" } }
key = ["device_id"]
max_message = "128KiB"

[tables.readings]
inputs = ["floor"]
"#;

const GOOD: u64 = 100;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis() as i64
}

fn good(seq: u64) -> (String, Vec<u8>) {
    (format!("plant/d{}", seq % 5), format!(r#"{{"ts":{},"t":20.5,"seq":{seq}}}"#, now_ms()).into_bytes())
}

fn bad() -> Vec<(&'static str, String)> {
    let now = now_ms();
    let in_ten_years = now + 10 * 365 * 86_400_000;
    vec![
        ("malformed", format!(r#"{{"ts":{now},"t":2"#)),
        ("time_in_future", format!(r#"{{"ts":{in_ten_years},"t":20.5,"seq":1}}"#)),
        ("too_large", format!(r#"{{"ts":{now},"t":20.5,"seq":1,"text":"{}"}}"#, "x".repeat(200_000))),
        ("wrong_type", format!(r#"{{"ts":{now},"t":"hot","seq":1}}"#)),
    ]
}

#[test]
fn bad_messages_cost_only_themselves() {
    let broker = Mosquitto::start();
    let tidegate = Tidegate::new(&PIPELINE.replace("URL", &broker.url()));
    let running = tidegate.start(&[]);
    broker.wait_for_subscriber();
    let bad = bad();
    let mut messages: Vec<_> = (0..GOOD).map(good).collect();
    for (place, (_, payload)) in bad.iter().enumerate() {
        messages.insert(20 * (place + 1), ("plant/bad".to_owned(), payload.clone().into_bytes()));
    }
    Publisher::new(broker.port).publish(&messages);
    let sealed = |sql: &str| tidegate.try_sql(sql).status.success().then(|| tidegate.count(sql));
    until("all good readings in the table", Duration::from_secs(60), || sealed("SELECT count(*) FROM readings") == Some(GOOD));
    until("all bad ones in dead_letters", Duration::from_secs(60), || {
        sealed("SELECT count(*) FROM dead_letters") == Some(bad.len() as u64)
    });

    let letters = rows(&tidegate.sql("SELECT reason, length, octet_length(CAST(payload AS VARCHAR)), source, topic FROM dead_letters"));
    let expected: Vec<Vec<String>> = bad
        .iter()
        .map(|(reason, payload)| {
            vec![reason.to_string(), payload.len().to_string(), payload.len().min(65_536).to_string(), "floor".into(), "plant/bad".into()]
        })
        .collect();
    assert_eq!(letters, expected);
    assert_eq!(broker.logged("as tidegate-floor"), 1, "the connection stays");
    running.stop();
    assert_eq!(tidegate.count("SELECT count(*) FROM readings"), GOOD);
}
