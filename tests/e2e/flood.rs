//! Ten times what the pipeline takes: its memory stays bounded, the broker keeps what is not taken, and nothing acknowledged is lost.
//!
//! `FLOOD_SECONDS=60` lasts a minute instead of 15 s; `FLOOD_DEVICES` is the number of devices, ten readings a second each: with a release
//! build (`TIDEGATE_BIN`) take more, so that the pipeline is behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::simulate::{MQTT, REST, VERIFY, check, verify};
use tests::{Manners, Mosquitto, Record, Running, TestBroker, Tidegate, assert_same, from_environment, until};

const LIMIT: Duration = Duration::from_secs(60);
/// The pipeline runs for a part of each such period while the flood lasts.
const PERIOD: Duration = Duration::from_secs(1);
/// What a pipeline under a flood may hold beyond what it holds with nothing to do.
const ROOM: u64 = 300 << 20;

/// Lets the process run for `turn` of each period in which it `may`, until `is_over`. It is stopped then.
fn slow_down(running: &Running, turn: Duration, may: impl Fn() -> bool, mut is_over: impl FnMut() -> bool) {
    while !is_over() {
        if may() {
            running.signal("CONT");
            std::thread::sleep(turn);
            running.signal("STOP");
        }
        std::thread::sleep(PERIOD - turn);
    }
}

/// Written itself, so that it is seen also when the test passes.
fn say(text: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{text}\n"));
}

fn megabytes(bytes: u64) -> u64 {
    bytes >> 20
}

#[test]
fn a_flood_of_ten_times_what_a_pipeline_takes_waits_in_the_broker_and_loses_nothing() {
    let (seconds, devices) = (from_environment("FLOOD_SECONDS", 15), from_environment("FLOOD_DEVICES", 450));
    let broker = Mosquitto::start();
    let tidegate = Tidegate::new(&(MQTT.replace("URL", &broker.url()) + &REST.replace("INPUT", "once")));
    let mut running = tidegate.start(&[]);
    broker.wait_for_subscriber();
    running.wait_until_ready();
    let idle = running.peak_memory_bytes();
    let scenario = format!(
        "devices = {devices}\nlasting = \"{seconds}s\"\n[rate]\neach = 10.0\n[signals.temperature]\nfield = \"t\"\n[signals.humidity]\nbase = 50.0\n\
         [wire]\nurl = \"{}\"\nconnections = 4\n{VERIFY}",
        broker.url()
    );
    std::fs::write(tidegate.path("scenario.toml"), scenario).expect("a file");
    let mut sending = tidegate.spawn(&["simulate", "--scenario", "scenario.toml", "--truth", "truth"]);
    let (taken, sent) = (|| broker.logged("Received PUBACK from tidegate-floor"), || broker.logged("Received PUBLISH from"));
    // However fast the machine: it can take thousands in one turn, and then has to wait for its next one.
    slow_down(
        &running,
        Duration::from_millis(1),
        || 20 * taken() <= sent(),
        || sending.try_wait().expect("a child of ours can be asked").is_some(),
    );
    assert!(sending.wait().expect("a child of ours can be waited for").success(), "the fleet could not send");

    // Mosquitto 2.0 gives out more than the Receive Maximum once acks come, so what it has sent says nothing: what is not acknowledged waits
    // in it, in the socket, or in the bounded memory that is looked at below.
    let (taken, sent) = (taken(), sent());
    running.signal("CONT");
    say(&format!(
        "{sent} sent in {seconds} s, {taken} of them acknowledged by then: {:.1} times what was taken",
        sent as f64 / taken as f64
    ));
    assert!(sent > 5 * taken, "no flood: {sent} sent, {taken} taken");

    let since = Instant::now();
    until("the backlog is taken", 20 * LIMIT, || broker.logged("Received PUBACK from tidegate-floor") >= sent);
    let peak = running.peak_memory_bytes();
    say(&format!(
        "drained in {:.1} s; memory {} MiB idle, {} MiB at most",
        since.elapsed().as_secs_f64(),
        megabytes(idle),
        megabytes(peak)
    ));
    assert!(peak < idle + ROOM, "{} MiB idle, {} MiB in the flood", megabytes(idle), megabytes(peak));
    running.stop();
    tidegate.run(&["--until-idle", "3s"]);
    let (code, verdict) = verify(&tidegate, "truth");
    assert_eq!(code, Some(0), "{verdict:#}");
    assert_eq!(check(&verdict, "readings")["found"].as_u64(), Some(sent as u64), "{verdict:#}");
}

/// A fleet of one topic each, behind a client that knows no Receive Maximum.
const OLD: &str = r#"
[journal]
reserve = "1MiB"

[sources.floor]
type = "mqtt"
version = "3.1.1"
url = "URL"
topics = ["plant/{device_id}"]
client_id = "tidegate-floor"
decode = { format = "json", event_time = { path = "$.ts", format = "unix_ms" } }
columns = { seq = { type = "uint64" } }
key = ["device_id"]

[tables.readings]
inputs = ["floor"]
"#;

#[test]
fn a_broker_that_sends_all_it_has_meets_a_socket_that_is_not_read() {
    // 60,000 open messages of 8 KiB: 490 MB, if the client took them.
    const OPEN: usize = 60_000;
    let pad = "x".repeat(8_192);
    let broker = TestBroker::start();
    broker.behave(|manners| *manners = Manners { window: OPEN, ..Manners::default() });
    let tidegate = Tidegate::new(&OLD.replace("URL", &broker.url()));
    let mut running = tidegate.start(&[]);
    broker.wait_for_subscriber(LIMIT);
    running.wait_until_ready();
    let idle = running.peak_memory_bytes();
    let flooding = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            slow_down(&running, Duration::from_millis(20), || true, || !flooding.load(Ordering::Relaxed));
            running.signal("CONT");
        });
        for seq in 0..OPEN {
            let payload = format!(r#"{{"ts":{},"seq":{seq},"pad":"{pad}"}}"#, 1_767_225_600_000 + seq);
            broker.publish(&format!("plant/d{}", seq % 50), payload.as_bytes());
        }
        std::thread::sleep(Duration::from_secs(from_environment("FLOOD_SECONDS", 15) / 3));
        flooding.store(false, Ordering::Relaxed);
    });
    broker.wait_until_drained(10 * LIMIT);
    let (open, peak) = (most_open(&broker.records()), running.peak_memory_bytes());
    say(&format!("at most {open} of {OPEN} on their way; memory {} MiB idle, {} MiB at most", megabytes(idle), megabytes(peak)));
    assert!(open < OPEN / 2, "the client took {open} messages that it had not acknowledged");
    assert!(peak < idle + ROOM, "{} MiB idle, {} MiB in the flood", megabytes(idle), megabytes(peak));
    running.stop();
    let rows = tidegate.sql("SELECT count(*), count(DISTINCT seq) FROM readings");
    assert_same("readings", &rows, &format!("rows,distinct\n{OPEN},{OPEN}\n"), 2);
}

/// The most publishes that were sent and not acknowledged.
fn most_open(records: &[Record]) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for record in records {
        match record {
            Record::Sent { .. } => open += 1,
            Record::Acked { .. } => open -= 1,
            _ => {}
        }
        most = most.max(open);
    }
    most
}
