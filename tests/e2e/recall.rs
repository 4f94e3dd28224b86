//! After a restart, or a kill, hot has the rows again that it had; every look in between sees each row once.

use std::time::Duration;

use tests::http::{address, post};
use tests::{Running, Tidegate, until};

const PIPELINE: &str = r#"
[sources.gate]
type = "http"
watermark = { idle_timeout = "1s" }
topics = ["plant/{device_id}"]
decode = { format = "json", event_time = { path = "$.ts", format = "unix_ms" } }
columns = { n = { type = "int64" } }
key = ["device_id"]

[tables.readings]
inputs = ["gate"]

[tables.brief]
inputs = ["gate"]
hot = { age = "200ms" }
"#;

const START: u64 = 1_767_225_600_000;
const LIMIT: Duration = Duration::from_secs(60);

fn send(tidegate: &Tidegate, range: std::ops::Range<u64>) {
    let at = address(&tidegate.folder.path().join("data")).expect("it listens");
    for n in range {
        let body = format!(r#"{{"ts":{},"n":{n}}}"#, START + n * 1_000);
        let (status, answer) = post(&at, &format!("/api/v1/ingest/gate/plant/d{}", n % 7), &[], &body).expect("an answer");
        assert_eq!(status, 202, "{answer}");
    }
}

fn start(tidegate: &Tidegate) -> Running {
    let mut running = tidegate.start(&[]);
    running.wait_until_ready();
    running
}

fn hot(tidegate: &Tidegate, table: &str) -> u64 {
    tidegate.count(&format!("SELECT count(*) FROM tiers.{table} WHERE _tier = 'hot'"))
}

/// Waits until all rows of `readings` are hot and none of `brief`, and sees each row once meanwhile.
fn all_are_hot(tidegate: &Tidegate, rows: u64) {
    until("what was hot is hot", LIMIT, || {
        let (count, sum) = (tidegate.count("SELECT count(*) FROM readings"), tidegate.count("SELECT coalesce(sum(n), 0) FROM readings"));
        assert!(count <= rows && (count < rows || sum == rows * (rows - 1) / 2), "{count} of {rows} rows, sum {sum}");
        count == rows && hot(tidegate, "readings") == rows && hot(tidegate, "brief") == 0
    });
}

#[test]
fn what_was_hot_is_hot_again_after_a_restart_and_a_kill() {
    let tidegate = Tidegate::new(PIPELINE);
    let running = start(&tidegate);
    for part in 0..3 {
        send(&tidegate, part * 20..(part + 1) * 20);
        until("the epoch is sealed", LIMIT, || {
            tidegate.count("SELECT coalesce(sum(rows), 0) FROM tidegate.segments WHERE table_name = 'brief'") == (part + 1) * 20
        });
    }
    running.stop();
    let running = start(&tidegate);
    all_are_hot(&tidegate, 60);
    send(&tidegate, 60..70);
    all_are_hot(&tidegate, 70);
    running.kill();
    let running = start(&tidegate);
    all_are_hot(&tidegate, 70);
    running.stop();
    // Nobody has them in memory: the rows are in files alone.
    assert_eq!((tidegate.count("SELECT count(*) FROM readings"), hot(&tidegate, "readings")), (70, 0));
}
