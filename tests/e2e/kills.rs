//! Kills, at any moment, behind a broker that loses acks, redelivers and cuts connections: nothing is lost, nothing is twice, no window is
//! wrong. `make kills KILLS=200 SEED=1` runs a long campaign; `make test` a short one.
//!
//! Some kills hit a start that still recovers from the kill before. In between a process is frozen for longer than the keep-alive while
//! another one tries to take its data directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::power::Disk;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tests::{Manners, Mosquitto, Publisher, Record, Running, TestBroker, Tidegate, assert_same, from_environment, python, until};

/// Windows of a minute close while the readings come: a reading is overtaken by as many as a broker redelivers, never by a minute's.
const PIPELINE: &str = r#"
[journal]
reserve = "1MiB"

[limits]
query_rows = 1000000

[sources.floor]
type = "mqtt"
url = "URL"
topics = ["plant/{device_id}"]
client_id = "tidegate-floor"
keep_alive = "5s"
decode = { format = "json", event_time = { path = "$.ts", format = "unix_ms" } }
columns = { seq = { type = "uint64" }, v = { type = "int64" } }
key = ["device_id"]
watermark = { out_of_orderness = "5m", idle_timeout = "1h" }
DEDUPE
[processors.by_minute]
type = "window"
inputs = ["INPUT"]
key = ["device_id"]
window = { type = "tumbling", size = "1m" }
select = { n = "count(*)", total = "sum(v)", first = "first_value(v)" }

[tables.by_minute]
inputs = ["by_minute"]

[tables.readings]
inputs = ["INPUT"]
warm = { age = "1s", partition = "1h", fan_in = 4 }
cold = { url = "cold", commit_every = "1s" }
"#;

const DEDUPE: &str = r#"
[processors.once]
type = "dedupe"
inputs = ["floor"]
key = ["device_id"]
sequence = "seq"
"#;

/// 2026-01-01T00:00:00Z
const START_MS: u64 = 1_767_225_600_000;
const STEP_MS: u64 = 250;
const DEVICES: u64 = 12;
/// Fewer than out_of_orderness / step.
const WINDOW: usize = 200;
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// The reading of this number, among all.
fn reading(number: u64) -> (String, Vec<u8>) {
    let (device, seq) = (number % DEVICES, number / DEVICES);
    let payload = format!(r#"{{"ts":{},"seq":{seq},"v":{}}}"#, START_MS + number * STEP_MS, value(number));
    (format!("plant/d{device:02}"), payload.into_bytes())
}

fn value(number: u64) -> u64 {
    number * 7_919 % 1_000
}

/// What the windows of so many readings hold, computed from the readings alone.
fn windows(readings: u64) -> String {
    let mut windows: BTreeMap<(u64, u64), (u64, u64, u64)> = BTreeMap::new();
    for number in 0..readings {
        let start = (START_MS + number * STEP_MS) / 60_000 * 60_000;
        let window = windows.entry((number % DEVICES, start)).or_insert((0, 0, value(number)));
        (window.0, window.1) = (window.0 + 1, window.1 + value(number));
    }
    let mut csv = "device_id,start,n,total,first\n".to_owned();
    for ((device, start), (n, total, first)) in windows {
        writeln!(csv, "d{device:02},{},{n},{total},{first}", start * 1_000).expect("a text takes all");
    }
    csv
}

/// The metric of that name, all lanes together; none before it is there.
fn unaccounted(running: &Running) -> Option<f64> {
    let page = running.metrics();
    let values = page
        .lines()
        .filter(|line| line.starts_with("tidegate_unaccounted_readings"))
        .map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.reduce(|a, b| Some(a? + b?)).flatten()
}

/// What a campaign did.
#[derive(Default, Debug)]
pub(crate) struct Done {
    readings: u64,
    pub(crate) kills: u64,
    /// Kills of a start that was not ready yet.
    in_recovery: u64,
    frozen: u64,
    power_cuts: u64,
}

pub(crate) struct Campaign {
    pub(crate) broker: TestBroker,
    pub(crate) tidegate: Tidegate,
    random: StdRng,
    /// Whether the broker forgets sessions and sends again as if for the first time.
    forgets: bool,
    pub(crate) done: Done,
}

impl Campaign {
    pub(crate) fn new(forgets: bool, seed: u64) -> Campaign {
        let broker = TestBroker::start();
        broker.behave(|manners| manners.window = WINDOW);
        let (dedupe, input) = if forgets { (DEDUPE, "once") } else { ("", "floor") };
        let toml = PIPELINE.replace("URL", &broker.url()).replace("DEDUPE", dedupe).replace("INPUT", input);
        Campaign { tidegate: Tidegate::new(&toml), broker, random: StdRng::seed_from_u64(seed), forgets, done: Done::default() }
    }

    fn run(mut self, kills: u64) {
        let mut running = self.tidegate.start(&[]);
        self.broker.wait_for_subscriber(MINUTE);
        while self.done.kills < kills {
            self.misbehave();
            let from = self.send();
            let some = self.random.random_range(from..=self.done.readings) as usize;
            until("some acknowledged", MINUTE, || self.broker.acknowledged().len() >= some);
            running = self.kill(running);
            while self.random.random_bool(0.3) {
                // A moment in the recovery, or shortly after.
                std::thread::sleep(Duration::from_millis(self.random.random_range(0..400)));
                self.done.in_recovery += u64::from(!running.log().contains("ready"));
                running = self.kill(running);
            }
            if self.random.random_bool(0.05) {
                self.freeze(&mut running);
            }
        }
        self.end(running);
    }

    /// Takes all, ends, and compares.
    pub(crate) fn end(&self, mut running: Running) {
        self.broker.behave(|manners| *manners = Manners { window: WINDOW, ..Manners::default() });
        // What waits for an ack that was lost comes again.
        self.broker.cut();
        running.wait_until_ready();
        self.wait_until_drained(&mut running);
        until("no reading unaccounted for", MINUTE, || unaccounted(&running) == Some(0.0));
        running.stop();
        self.broker.check_order_of_acks();
        self.tidegate.run(&["--until-idle", "3s"]);
        self.verify();
        // Written itself, so that it is seen also when the test passes.
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{:?}: nothing lost, nothing twice\n", self.done));
    }

    /// Waits until every publish is acknowledged. Panics with what both sides say when that takes too long.
    fn wait_until_drained(&self, running: &mut Running) {
        let deadline = Instant::now() + MINUTE;
        while self.broker.missing() > 0 {
            let has_ended = !running.is_running();
            if has_ended || Instant::now() >= deadline {
                let (missing, records) = (self.broker.missing(), self.broker.records());
                let last = &records[records.len().saturating_sub(40)..];
                panic!("{missing} not acknowledged, ended: {has_ended}; the broker's last records {last:?}\n{}", running.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self, running: Running) -> Running {
        running.kill();
        self.done.kills += 1;
        self.tidegate.start(&[])
    }

    /// Gives the broker a few hundred readings; the number of the first.
    pub(crate) fn send(&mut self) -> u64 {
        let from = self.done.readings;
        self.done.readings += self.random.random_range(100..600);
        for number in from..self.done.readings {
            let (topic, payload) = reading(number);
            self.broker.publish(&topic, &payload);
        }
        from
    }

    pub(crate) fn misbehave(&mut self) {
        let manners = Manners {
            window: WINDOW,
            marks_dup: !self.forgets || self.random.random_bool(0.7),
            reversed: self.random.random_bool(0.3),
            lose_acks: if self.random.random_bool(0.5) { self.random.random_range(0..50) } else { 0 },
            holds_acks: if self.random.random_bool(0.3) { self.random.random_range(1..30) } else { 0 },
            // Fewer than DEVICES: no device is overtaken by itself.
            turns_round: if self.random.random_bool(0.3) { self.random.random_range(2..10) } else { 0 },
            cut_after: self.random.random_bool(0.3).then(|| self.random.random_range(50..300)),
        };
        self.broker.behave(|of| *of = manners);
        match self.random.random_range(0..6) {
            0 => self.broker.cut(),
            1 => self.broker.take_over(),
            2 if self.forgets => self.broker.forget_session(),
            _ => {}
        }
    }

    /// Stops the process for longer than its keep-alive; another may not take its data directory meanwhile.
    fn freeze(&mut self, running: &mut Running) {
        running.wait_until_ready();
        running.signal("STOP");
        self.broker.cut();
        let refused = self.tidegate.start(&[]).wait(MINUTE);
        assert!(!refused.success(), "a second process took the data directory of one that is frozen");
        std::thread::sleep(Duration::from_secs(8));
        running.signal("CONT");
        self.done.frozen += 1;
    }

    fn verify(&self) {
        let (tidegate, readings) = (&self.tidegate, self.done.readings);
        let counts = "SELECT count(*), count(DISTINCT device_id || '/' || seq), sum(v) FROM readings";
        let total: u64 = (0..readings).map(value).sum();
        assert_same("readings", &tidegate.sql(counts), &format!("rows,distinct,total\n{readings},{readings},{total}\n"), 3);
        let shown = "SELECT device_id, CAST(window_start AS BIGINT) AS start, n, total, first FROM by_minute";
        assert_same("windows", &tidegate.sql(shown), &windows(readings), 5);
        for table in ["dead_letters", "late_by_minute"] {
            assert_eq!(tidegate.count(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
        }
        let cold = |what: &str| tidegate.count(&format!("SELECT {what} FROM tiers.readings WHERE _tier = 'cold'"));
        let (rows, total) = (cold("count(*)"), if cold("count(*)") > 0 { cold("sum(v)") } else { 0 });
        assert!(rows > 0, "nothing has moved to cold");
        let readers = python(&["delta", &tidegate.path("cold/readings"), "v"]);
        assert_same("the Delta table", &readers, &format!("reader,rows,total\ndeltalake,{rows},{total}\nduckdb,{rows},{total}\n"), 3);
    }
}

#[test]
fn killed_behind_a_broker_that_redelivers_nothing_is_lost_or_twice() {
    Campaign::new(false, from_environment("SEED", 1)).run(from_environment("KILLS", 10) / 2);
}

#[test]
fn killed_behind_a_broker_that_forgets_sessions_dedupe_leaves_each_reading_once() {
    Campaign::new(true, from_environment("SEED", 1)).run(from_environment("KILLS", 10) / 2);
}

#[test]
fn acks_obeyed_and_readings_delivered_in_another_order_lose_nothing() {
    let mut campaign = Campaign::new(false, 1);
    let running = campaign.tidegate.start(&[]);
    campaign.broker.wait_for_subscriber(MINUTE);
    campaign.broker.behave(|manners| *manners = Manners { window: WINDOW, holds_acks: 20, turns_round: 8, ..Manners::default() });
    (0..3).for_each(|_| _ = campaign.send());
    until("some acknowledged", MINUTE, || campaign.broker.acknowledged().len() >= 100);
    campaign.broker.cut();
    campaign.broker.wait_until_drained(MINUTE);
    let records = campaign.broker.records();
    let held: BTreeSet<_> = records.iter().filter_map(|r| if let Record::Held { number, .. } = r { Some(*number) } else { None }).collect();
    let sent = |again: bool| {
        records.iter().filter_map(move |r| if let Record::Sent { number, dup, .. } = r { (*dup == again).then_some(*number) } else { None })
    };
    assert!(!sent(false).is_sorted(), "every reading was delivered in its place");
    assert!(sent(true).any(|number| held.contains(&number)), "nothing came again that had been acknowledged");
    campaign.end(running);
}

#[test]
fn killed_as_it_enters_a_durable_system_call_nothing_is_lost_or_twice() {
    let calls = from_environment("CALLS", 6);
    let mut campaign = Campaign::new(false, from_environment("SEED", 1));
    campaign.tidegate.start(&[]).wait_until_ready();
    let mut hit = 0;
    for call in 1..=calls {
        // In the short form the calls are spread over the first of a run.
        let mut running = campaign.tidegate.start_killed_at(if calls < 50 { call * 7 } else { call });
        // A later call is reached by more readings.
        for _ in 0..200 {
            campaign.send();
            let deadline = Instant::now() + MINUTE;
            while running.is_running() && campaign.broker.missing() > 0 {
                let missing = campaign.broker.missing();
                assert!(Instant::now() < deadline, "call {call}: {missing} not acknowledged within a minute\n{}", running.log());
                std::thread::sleep(Duration::from_millis(20));
            }
            if !running.is_running() {
                break;
            }
        }
        hit += u64::from(running.was_killed());
        running.kill();
    }
    assert_eq!(hit, calls, "calls that were reached");
    campaign.done.kills = hit;
    let running = campaign.tidegate.start(&[]);
    campaign.end(running);
}

#[test]
fn over_power_cuts_nothing_is_lost_or_twice() {
    let mut campaign = Campaign::new(false, from_environment("SEED", 1));
    let Some(disk) = Disk::new(campaign.tidegate.folder.path()) else {
        assert!(std::env::var_os("CUTS").is_none(), "CUTS asks for power cuts that this machine does not allow");
        return;
    };
    for folder in ["data", "cold"] {
        std::fs::create_dir(disk.at.join(folder)).expect("a folder");
        std::os::unix::fs::symlink(disk.at.join(folder), campaign.tidegate.path(folder)).expect("a link");
    }
    let synced = Command::new("sync").arg("-f").arg(&disk.at).status().expect("sync runs");
    assert!(synced.success(), "sync: {synced}");
    let mut running = campaign.tidegate.start(&[]);
    campaign.broker.wait_for_subscriber(MINUTE);
    for _ in 0..from_environment("CUTS", 3) {
        campaign.misbehave();
        let from = campaign.send();
        let some = campaign.random.random_range(from..=campaign.done.readings) as usize;
        until("some acknowledged", MINUTE, || campaign.broker.acknowledged().len() >= some);
        // No ack may leave behind the cut, as none would: after ext4's shutdown an fsync that was under way may still say that it is done.
        running.signal("STOP");
        disk.cut();
        running.kill();
        disk.start();
        campaign.done.power_cuts += 1;
        running = campaign.tidegate.start(&[]);
    }
    campaign.end(running);
}

#[test]
fn a_full_disk_stops_nothing_for_good_and_loses_nothing() {
    let mut campaign = Campaign::new(false, 1);
    let disk = SmallDisk::mount(&campaign.tidegate.path("data"));
    let mut running = campaign.tidegate.start(&[]);
    campaign.broker.wait_for_subscriber(MINUTE);
    campaign.send();
    campaign.broker.wait_until_drained(MINUTE);
    disk.fill();
    campaign.send();
    until("the lane waits for room", MINUTE, || running.log().contains("the disk is full") || !running.is_running());
    assert!(running.is_running(), "a full disk ended the process\n{}", running.log());
    running = campaign.kill(running);
    until("the start waits for room", MINUTE, || running.log().contains("a start needs") || !running.is_running());
    assert!(running.is_running(), "a full disk ended the start\n{}", running.log());
    disk.free();
    campaign.send();
    campaign.broker.wait_until_drained(MINUTE);
    campaign.end(running);
}

/// A file system of 256 MB of its own: the journal takes 64 at once for each of its segments.
struct SmallDisk {
    at: String,
}

impl SmallDisk {
    fn mount(at: &str) -> SmallDisk {
        std::fs::create_dir_all(at).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256m", "tmpfs", at]).output().expect("mount is there");
        assert!(mounted.status.success(), "mounting a tmpfs needs root: {}", String::from_utf8_lossy(&mounted.stderr));
        SmallDisk { at: at.to_owned() }
    }

    /// To the last byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(format!("{}/filler", self.at)).expect("a file");
        for piece in [1 << 20, 4_096, 1] {
            let zeros = vec![0; piece];
            while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(format!("{}/filler", self.at)).expect("the file goes");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that failed the test may still hold it.
        let _ = Command::new("umount").args(["-l", &self.at]).status();
    }
}

#[test]
fn over_restarts_of_mosquitto_nothing_is_lost_or_twice() {
    let mut broker = Mosquitto::start();
    let toml = PIPELINE.replace("URL", &broker.url()).replace("DEDUPE", "").replace("INPUT", "floor");
    let tidegate = Tidegate::new(&toml);
    let running = tidegate.start(&[]);
    broker.wait_for_subscriber();
    let readings = 3_000;
    let messages: Vec<_> = (0..readings).map(reading).collect();
    for part in messages.chunks(1_000) {
        Publisher::new(broker.port).publish(part);
        broker.restart();
    }
    until("all readings are stored", MINUTE, || tidegate.count("SELECT count(*) FROM readings") == readings);
    running.stop();
    tidegate.run(&["--until-idle", "3s"]);
    let campaign = Campaign { tidegate, done: Done { readings, ..Done::default() }, ..Campaign::new(false, 0) };
    campaign.verify();
}
