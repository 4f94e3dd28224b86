//! Readings by HTTP: taken once, durable when they are answered, over kill -9 too; what cannot be used is told and kept.

use std::path::Path;
use std::time::Duration;

use tests::http::{address, post};
use tests::{Tidegate, rows, until};

const PIPELINE: &str = r#"
[sources.gate]
type = "http"
topics = ["plant/{site}/{device_id}", "depot/{device_id}/{site}"]
max_body = "4KiB"
decode = { format = "json", event_time = { path = "$.ts", format = "unix_ms" } }
columns = { n = { type = "int64" } }
key = ["device_id"]

[processors.by_minute]
type = "window"
inputs = ["gate"]
key = ["site"]
window = { type = "tumbling", size = "1m" }
select = { readings = "count(*)", total = "sum(n)" }

[tables.readings]
inputs = ["gate"]

[tables.by_minute]
inputs = ["by_minute"]
"#;

/// 2026-01-01T00:00:00Z, in milliseconds.
const START: u64 = 1_767_225_600_000;

fn reading(n: u64) -> String {
    format!(r#"{{"ts":{},"n":{n}}}"#, START + n * 1_000)
}

/// Sends until there is an answer, however often the instance dies meanwhile; gives its body.
fn insist(folder: &Path, path: &str, key: &str, body: &str) -> String {
    let mut answer = None;
    until("an answer", Duration::from_secs(120), || {
        let at = address(&folder.join("data"));
        answer = at.and_then(|at| post(&at, path, &[("Idempotency-Key", key)], body)).filter(|(status, _)| *status != 503);
        answer.is_some()
    });
    let (status, body) = answer.expect("waited for");
    assert_eq!(status, 202, "{body}");
    body
}

#[test]
fn a_request_is_answered_when_it_is_durable_and_counts_once() {
    let tidegate = Tidegate::new(PIPELINE);
    let mut running = tidegate.start(&[]);
    running.wait_until_ready();
    let at = address(&tidegate.folder.path().join("data")).expect("it listens");
    let send = |path: &str, headers: &[(&str, &str)], body: &str| post(&at, path, headers, body).expect("an answer");

    let body = format!("{}\n\nnot JSON\n{}\n", reading(0), reading(1));
    let (status, answer) = send("/api/v1/ingest/gate/plant/north/press-1", &[], &body);
    assert_eq!(status, 202, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!((&answer["accepted"], &answer["rejected"], &answer["duplicate"]), (&2.into(), &1.into(), &false.into()), "{answer}");
    assert_eq!((&answer["rejects"][0]["message"], &answer["rejects"][0]["reason"]), (&2.into(), &"malformed".into()), "{answer}");
    running.kill();

    // It was answered, so it is there.
    let mut running = tidegate.start(&[]);
    running.wait_until_ready();
    let at = address(&tidegate.folder.path().join("data")).expect("it listens");
    let send = |path: &str, headers: &[(&str, &str)], body: &str| post(&at, path, headers, body).expect("an answer");
    until("the readings", Duration::from_secs(60), || tidegate.count("SELECT count(*) FROM readings") == 2);
    let expected = vec![vec!["press-1".to_owned(), "north".to_owned(), "0".to_owned()], vec!["press-1".into(), "north".into(), "1".into()]];
    assert_eq!(rows(&tidegate.sql("SELECT device_id, site, n FROM readings ORDER BY n")), expected);
    let dead = "SELECT reason, topic, CAST(payload AS TEXT) FROM dead_letters";
    assert_eq!(rows(&tidegate.sql(dead)), [["malformed", "plant/north/press-1", "not JSON"].map(str::to_owned)]);

    let (status, answer) = send("/api/v1/ingest/gate/depot/saw/south", &[("Content-Type", "application/json")], &reading(2));
    assert_eq!((status, answer.contains("\"accepted\":1")), (202, true), "{answer}");
    let (_, answer) = send("/api/v1/ingest/gate/attic/saw", &[], &reading(3));
    assert!(answer.contains("unknown_topic"), "{answer}");
    assert_eq!(send("/api/v1/ingest/other", &[], &reading(3)).0, 404);
    assert_eq!(send("/api/v1/ingest/gate/plant/a/b", &[], &"x".repeat(5_000)).0, 413);
    running.stop();
}

#[test]
fn requests_that_are_sent_again_after_kills_count_once() {
    let tidegate = Tidegate::new(PIPELINE);
    let start = || {
        let mut running = tidegate.start(&[]);
        running.wait_until_ready();
        running
    };
    let mut running = Some(start());
    let requests = 300;
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let folder = tidegate.folder.path();
                scope.spawn(move || {
                    let of = |n: u64| n % 4 == sender;
                    for n in (0..requests).filter(|n| of(*n)) {
                        let (first, second) = (reading(2 * n), reading(2 * n + 1));
                        let path = format!("/api/v1/ingest/gate/plant/north/d{}", n % 7);
                        insist(folder, &path, &format!("request-{n}"), &format!("{first}\n{second}"));
                        // Whoever is not sure sends it once more.
                        if n % 5 == 0 {
                            let again = insist(folder, &path, &format!("request-{n}"), &format!("{first}\n{second}"));
                            assert!(again.contains("\"duplicate\":true"), "{again}");
                        }
                    }
                })
            })
            .collect();
        let mut kills = 0;
        while senders.iter().any(|sender| !sender.is_finished()) {
            if kills < 4 {
                std::thread::sleep(Duration::from_millis(300 + 170 * kills));
                running.take().expect("it runs").kill();
                running = Some(start());
                kills += 1;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    until("all readings", Duration::from_secs(60), || tidegate.count("SELECT count(*) FROM readings") >= 2 * requests);
    running.expect("it runs").stop();
    let total = (0..2 * requests).sum::<u64>();
    let found = rows(&tidegate.sql("SELECT count(*), count(DISTINCT n), sum(n) FROM readings"));
    assert_eq!(found, [[2 * requests, 2 * requests, total].map(|n| n.to_string())]);
}

#[test]
fn tokens_let_in_from_outside() {
    let toml = format!(
        "{PIPELINE}\n[http]\nlisten = \"0.0.0.0:0\"\ntoken = {{ env = \"PLANT_TOKEN\" }}\ningest_token = {{ file = \"ingest.token\" }}\n"
    );
    let tidegate = Tidegate::new(&toml).with_environment("PLANT_TOKEN", "everything");
    std::fs::write(tidegate.folder.path().join("ingest.token"), "readings\n").expect("the token is written");
    let mut running = tidegate.start(&[]);
    running.wait_until_ready();
    let at = address(&tidegate.folder.path().join("data")).expect("it listens");
    let send =
        |words: &str| post(&at, "/api/v1/ingest/gate/plant/north/press-1", &[("Authorization", words)], &reading(0)).expect("an answer").0;
    assert_eq!(["Bearer readings", "Bearer nothing", "Basic readings"].map(send), [202, 401, 401]);
    // Asked by those who know the pipeline, by its file or by its data directory.
    until("the reading", Duration::from_secs(60), || tidegate.count("SELECT count(*) FROM readings") == 1);
    let of_folder = tidegate.call(&["sql", "--data-dir", "data", "SELECT count(*) AS n FROM readings"]);
    assert_eq!(String::from_utf8_lossy(&of_folder.stdout), "n\n1\n", "{}", String::from_utf8_lossy(&of_folder.stderr));
    // And by others with the address, if they have the token.
    let stranger = tidegate.call(&["sql", "--url", &format!("http://{at}"), "SELECT 1"]);
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("a token is asked for"));
    let tidegate = tidegate.with_environment("TIDEGATE_TOKEN", "everything");
    assert!(tidegate.call(&["sql", "--url", &format!("http://{at}"), "SELECT 1"]).status.success());
    let page = running.metrics() + &running.log();
    assert!(!page.contains("everything"), "no token is shown");
    running.stop();
}
