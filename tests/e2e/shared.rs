//! Processes that share one pipeline: the group gives each some partitions of a topic, and whatever happens to them, each reading is in the
//! tables once and each window is whole.

use crate::kafka::{Fleet, assert_published, text};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::time::Duration;
use tests::{Kafka, Running, Tidegate, from_environment, rows, until};

const LIMIT: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 12;
/// What a process may be silent for before the others have its lanes. Where the brokers decide, it is they who know
/// (`tests/setup/kafka/broker.sh`).
const CLASSIC: &str = r#""session.timeout.ms" = "6000", "heartbeat.interval.ms" = "500""#;

/// The brokers decide who has which partition (KIP-848).
const BROKERS: &str = r#""group.protocol" = "consumer""#;

/// Rows that age quickly into a cold table.
const TIERS: &str = r#"hot = { age = "500ms" }
warm = { age = "2s", partition = "1d", fan_in = 2 }
cold = { url = "cold", commit_every = "1s" }"#;

/// Of its second stage nobody knows in advance with which process it is.
fn pipeline(kafka: &Kafka, options: &str) -> Tidegate {
    Tidegate::shared(&text(kafka, &format!("options = {{ {options} }}"), TIERS, r#"["site"]"#))
}

fn start(pipeline: &Tidegate, name: &str) -> Running {
    let mut running = pipeline.start(&["--instance", name]);
    running.wait_until_ready();
    running
}

/// Waits until the tables have all that was sent, each reading once.
fn wait_for_all(pipeline: &Tidegate, fleet: &Fleet) {
    let all = fleet.sent;
    until("all readings", LIMIT, || {
        let answer = pipeline.sql("SELECT count(*), count(DISTINCT seq) FROM readings");
        let (rows, distinct) = answer.lines().nth(1).and_then(|line| line.split_once(',')).expect("two numbers");
        assert_eq!(rows, distinct, "a reading is there twice");
        rows.parse() == Ok(all)
    });
}

/// How many lanes the records say that an instance has.
fn lanes_of(pipeline: &Tidegate, name: &str) -> u64 {
    pipeline.count(&format!("SELECT count(*) FROM tidegate.lanes WHERE owner = '{name}' AND lane NOT LIKE '%/stage'"))
}

/// What the tables must hold once all windows are closed.
fn assert_whole(pipeline: &Tidegate, n: u64) {
    let total: u64 = (0..n).map(|seq| seq * 13 % 101).sum();
    let readings = pipeline.sql("SELECT count(*), count(DISTINCT seq), sum(v) FROM readings");
    assert_eq!(readings.lines().nth(1), Some(format!("{n},{n},{total}").as_str()), "each reading once");
    assert_eq!(pipeline.count("SELECT count(*) FROM late_per_device"), 0, "nothing is late");
    let naive =
        "SELECT device, date_bin(interval '10 seconds', event_time) AS w, count(*), sum(v) FROM readings GROUP BY 1, 2 ORDER BY 1, 2";
    let windows = "SELECT device, window_start, n, total FROM per_device ORDER BY 1, 2";
    assert_eq!(rows(&pipeline.sql(naive)), rows(&pipeline.sql(windows)));
    let naive = "SELECT site, date_bin(interval '10 seconds', event_time) AS w, count(*), sum(v) FROM readings GROUP BY 1, 2 ORDER BY 1, 2";
    let windows = "SELECT site, window_start, n, total FROM everywhere ORDER BY 1, 2";
    assert_eq!(pipeline.count("SELECT count(*) FROM late_everywhere"), 0, "nothing is late in the second stage");
    assert_eq!(rows(&pipeline.sql(naive)), rows(&pipeline.sql(windows)));
    let last = "SELECT device, max(event_time) FROM readings GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(&pipeline.sql(last)), rows(&pipeline.sql("SELECT device, event_time FROM readings_last ORDER BY 1")));
}

#[test]
fn a_lane_goes_to_another_process_when_its_own_is_killed_frozen_or_leaves() {
    go_through(CLASSIC);
}

#[test]
fn the_brokers_may_decide_who_has_which_partition() {
    go_through(BROKERS);
}

fn go_through(options: &str) {
    let kafka = Kafka::start();
    kafka.create("readings", PARTITIONS);
    kafka.create("per-device", 2);
    kafka.create("everywhere", 1);
    let pipeline = pipeline(&kafka, options);
    let mut fleet = Fleet::new(&kafka);
    let a = start(&pipeline, "a");
    fleet.send(3_000);
    wait_for_all(&pipeline, &fleet);
    assert_eq!(lanes_of(&pipeline, "a"), PARTITIONS as u64);

    // Others join in the middle of it.
    let b = start(&pipeline, "b");
    fleet.send(3_000);
    let c = start(&pipeline, "c");
    fleet.send(3_000);
    wait_for_all(&pipeline, &fleet);
    until("a share for everybody", LIMIT, || ["a", "b", "c"].iter().all(|name| lanes_of(&pipeline, name) == 4));

    b.kill();
    fleet.send(3_000);
    wait_for_all(&pipeline, &fleet);
    until("b's share goes to the others", LIMIT, || lanes_of(&pipeline, "a") + lanes_of(&pipeline, "c") == PARTITIONS as u64);

    // It wakes up after the others have taken what it had, and must change nothing.
    a.signal("STOP");
    fleet.send(3_000);
    until("a's share goes to c", LIMIT, || lanes_of(&pipeline, "c") == PARTITIONS as u64);
    wait_for_all(&pipeline, &fleet);
    a.signal("CONT");
    fleet.send(3_000);
    wait_for_all(&pipeline, &fleet);
    until("a has a share again", LIMIT, || lanes_of(&pipeline, "a") == 6);

    c.stop();
    let b = start(&pipeline, "b");
    fleet.send(3_000);
    wait_for_all(&pipeline, &fleet);
    until("a share for both", LIMIT, || ["a", "b"].iter().all(|name| lanes_of(&pipeline, name) == 6));
    assert_eq!(
        pipeline.count("SELECT count(*) FROM tidegate.lanes WHERE watermark IS NULL"),
        0,
        "what is elsewhere is known by its record"
    );
    a.stop();
    b.stop();

    fleet.send(1_000);
    pipeline.run(&["--instance", "alone", "--until-idle", "10s"]);
    assert_whole(&pipeline, fleet.sent);
    assert_published(&kafka, &pipeline, "per-device", "per_device", "device, window_start", "device");
    assert_published(&kafka, &pipeline, "everywhere", "everywhere", "site, window_start", "site");
}

/// Up to four processes come, leave, die and freeze by chance while readings come in; `SHARED_ROUNDS`, `SHARED_SEED`.
#[test]
fn whatever_happens_to_whom_each_reading_counts_once() {
    let kafka = Kafka::start();
    kafka.create("readings", PARTITIONS);
    kafka.create("per-device", 2);
    kafka.create("everywhere", 1);
    let seed = from_environment("SHARED_SEED", 1);
    let pipeline = pipeline(&kafka, if seed.is_multiple_of(2) { BROKERS } else { CLASSIC });
    let mut fleet = Fleet::new(&kafka);
    let mut chance = StdRng::seed_from_u64(seed);
    let mut running: Vec<Running> = vec![];
    for round in 0..from_environment("SHARED_ROUNDS", 5) {
        let lasting = Duration::from_millis(chance.random_range(0..4_000));
        let what = chance.random_range(0..4);
        let who = chance.random_range(0..running.len().max(1));
        match what {
            _ if running.is_empty() => running.push(pipeline.start(&["--instance", &format!("i{round}")])),
            0 if running.len() < 4 => running.push(pipeline.start(&["--instance", &format!("i{round}")])),
            0 | 1 => running.swap_remove(who).kill(),
            2 => running.swap_remove(who).stop(),
            _ => {
                running[who].signal("STOP");
                fleet.send(500);
                // Shorter than the others' patience, or longer.
                std::thread::sleep(lasting * 3);
                running[who].signal("CONT");
            }
        }
        fleet.send(1_000);
        std::thread::sleep(lasting);
        for process in &mut running {
            assert!(process.is_running(), "seed {seed}, round {round}: ended by itself\n{}", process.log());
        }
    }
    drop(running);
    fleet.send(1_000);
    pipeline.run(&["--instance", "last", "--until-idle", "10s"]);
    assert_whole(&pipeline, fleet.sent);
    assert_published(&kafka, &pipeline, "per-device", "per_device", "device, window_start", "device");
    assert_published(&kafka, &pipeline, "everywhere", "everywhere", "site, window_start", "site");
}

#[test]
fn a_name_is_given_once_and_the_directory_is_nobodys_alone() {
    let kafka = Kafka::start();
    kafka.create("readings", 1);
    kafka.create("per-device", 1);
    kafka.create("everywhere", 1);
    let pipeline = pipeline(&kafka, CLASSIC);
    let first = start(&pipeline, "a");
    let mut second = pipeline.start(&["--instance", "a"]);
    assert!(!second.wait(LIMIT).success());
    assert!(second.log().contains("in use by process"), "{}", second.log());
    let text = std::fs::read_to_string(pipeline.path("pipeline.toml")).unwrap();
    std::fs::write(pipeline.path("alone.toml"), text.replace("shared = true", "")).unwrap();
    let alone = pipeline.call(&["run", "alone.toml"]);
    let said = String::from_utf8_lossy(&alone.stderr);
    assert!(!alone.status.success() && said.contains("in use by instances that share it"), "{said}");
    first.stop();
}
