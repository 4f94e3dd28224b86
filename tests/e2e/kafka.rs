//! Kafka as a source, with a real broker: what the partitions hold is in the tables once, whoever dies on the way.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::time::Duration;
use tests::{Kafka, Mosquitto, Publisher, Running, Tidegate, free_port, from_environment, rows, until};

const LIMIT: Duration = Duration::from_secs(60);
const START: u64 = 1_767_225_600_000;

/// Reads `readings`, and puts out windows by device and windows over all devices of a key, to tables and to topics; with more options of the source
/// and of the table of readings.
pub(crate) fn text(kafka: &Kafka, source: &str, readings: &str, key: &str) -> String {
    let broker = kafka.address();
    format!(
        r#"
[sources.floor]
type = "kafka"
brokers = ["{broker}"]
topics = ["readings"]
metadata = {{ key = "device", headers = {{ site = "x-site" }} }}
decode = {{ format = "json", event_time = {{ path = "$.ts", format = "unix_ms" }} }}
columns = {{ seq = {{ type = "int64" }}, v = {{ type = "int64" }} }}
key = ["device"]
watermark = {{ out_of_orderness = "2s", idle_timeout = "1h" }}
{source}

[processors.per_device]
type = "window"
inputs = ["floor"]
key = ["device"]
window = {{ type = "tumbling", size = "10s" }}
select = {{ n = "count(*)", total = "sum(v)" }}

# Over all lanes: a second stage.
[processors.everywhere]
type = "window"
inputs = ["floor"]
key = {key}
window = {{ type = "tumbling", size = "10s" }}
select = {{ n = "count(*)", total = "sum(v)" }}

[tables.readings]
inputs = ["floor"]
{readings}

[tables.per_device]
inputs = ["per_device"]

[tables.everywhere]
inputs = ["everywhere"]

[sinks.to_devices]
type = "kafka"
inputs = ["per_device"]
brokers = ["{broker}"]
topic = "per-device"

[sinks.to_all]
type = "kafka"
inputs = ["everywhere"]
brokers = ["{broker}"]
topic = "everywhere"
key = {key}
"#
    )
}

/// A table of which rows go to the cold tier soon.
const COLD: &str = r#"hot = { age = "1s" }
warm = { age = "1s", partition = "1m" }
cold = { url = "cold", commit_every = "1s" }"#;

pub(crate) fn pipeline(kafka: &Kafka, source: &str) -> Tidegate {
    Tidegate::new(&text(kafka, source, "", "[]"))
}

/// A producer of readings: of a device all go to one partition, by its key, if not said otherwise.
pub(crate) struct Fleet {
    producer: BaseProducer,
    pub(crate) sent: u64,
    /// Over so many partitions, whatever the key says.
    scattered: Option<u64>,
}

impl Fleet {
    pub(crate) fn new(kafka: &Kafka) -> Fleet {
        let producer = kafka.client().set("linger.ms", "5").set("enable.idempotence", "true").create().expect("a producer");
        Fleet { producer, sent: 0, scattered: None }
    }

    /// Of a device each reading goes to any of so many partitions.
    fn scattered(kafka: &Kafka, partitions: u64) -> Fleet {
        Fleet { scattered: Some(partitions), ..Fleet::new(kafka) }
    }

    /// So many further readings, 50 ms apart and up to 1.5 s out of order.
    pub(crate) fn send(&mut self, readings: u64) {
        for seq in self.sent..self.sent + readings {
            let payload = format!(r#"{{"ts":{},"seq":{seq},"v":{}}}"#, START + seq * 50 - seq * 7_919 % 1_500, seq * 13 % 101);
            let partition = self.scattered.map(|of| (seq * 2_654_435_761 / 7 % of) as i32);
            self.put("readings", partition, &device(seq), Some(&payload), &format!("s{}", seq % 3));
        }
        self.sent += readings;
        self.producer.flush(LIMIT).expect("the broker takes all");
    }

    fn put(&self, topic: &str, partition: Option<i32>, key: &str, payload: Option<&str>, site: &str) {
        let headers = OwnedHeaders::new().insert(Header { key: "x-site", value: Some(site) });
        let mut record = BaseRecord::to(topic).key(key).headers(headers);
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        record.partition = partition;
        let mut waiting = self.producer.send(record).err();
        while let Some((error, record)) = waiting {
            assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull), "{error}");
            self.producer.poll(Duration::from_millis(10));
            waiting = self.producer.send(record).err();
        }
    }
}

/// The sum of a metric's values.
fn metric(running: &Running, name: &str) -> u64 {
    let page = running.metrics();
    let lines = page.lines().filter(|line| line.starts_with(name));
    lines.map(|line| line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()).expect("a value") as u64).sum()
}

/// What readers of committed records see of a topic: each row of the table once, by its columns as JSON, with the key in front.
pub(crate) fn assert_published(kafka: &Kafka, pipeline: &Tidegate, topic: &str, table: &str, columns: &str, key: &str) {
    let mut seen: Vec<String> = kafka.committed(topic);
    seen.sort_unstable();
    let sql = format!("SELECT {columns}, n, total FROM {table}");
    let mut expected: Vec<String> = vec![];
    for line in pipeline.sql(&sql).lines().skip(1) {
        expected.push(line.to_owned());
    }
    let of = |line: &String| {
        let (found, value) = line.split_once('\t').expect("key, tab, value");
        let row: serde_json::Value = serde_json::from_str(value).expect("a value is JSON");
        let text = |name: &str| row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned);
        assert_eq!(found, if key.is_empty() { "null".to_owned() } else { text(key) }, "the key of {value}");
        let names = columns.split(", ").chain(["n", "total"]);
        names.map(text).collect::<Vec<_>>().join(",")
    };
    let mut published: Vec<String> = seen.iter().map(of).collect();
    published.sort_unstable();
    expected.sort_unstable();
    assert_eq!(published.len(), expected.len(), "{topic}: rows published, and in the table");
    assert_eq!(published, expected, "{topic}");
}

/// Readers of committed records are told of each reading's way to the cold tier once.
fn assert_moves_told(kafka: &Kafka, pipeline: &Tidegate, readings: u64) {
    assert_eq!(pipeline.count("SELECT count(*) FROM tiers.readings WHERE _tier = 'cold'"), readings);
    let (mut rows, mut seen) = (0, std::collections::BTreeSet::new());
    for line in kafka.committed("moves") {
        let (key, value) = line.split_once('\t').expect("key, tab, value");
        let told: serde_json::Value = serde_json::from_str(value).expect("a value is JSON");
        assert_eq!((key, told["event"].as_str()), ("readings", Some("PartitionMoved")), "{value}");
        assert!(seen.insert([&told["lane"], &told["move"], &told["event_time"]].map(ToString::to_string)), "told twice: {value}");
        rows += told["rows"].as_u64().expect("a number");
    }
    assert_eq!(rows, readings, "rows that were told to be cold");
}

fn device(seq: u64) -> String {
    format!("d{}", seq * 31 % 97)
}

/// What the tables must hold of readings `0..n`, once all windows are closed.
pub(crate) fn assert_whole(pipeline: &Tidegate, n: u64) {
    let readings = pipeline.sql("SELECT count(*), count(DISTINCT seq), sum(v) FROM readings");
    let total: u64 = (0..n).map(|seq| seq * 13 % 101).sum();
    assert_eq!(readings.lines().nth(1), Some(format!("{n},{n},{total}").as_str()), "each reading once");
    let wrong = "SELECT count(*) FROM readings WHERE device <> 'd' || (seq * 31 % 97) OR site <> 's' || (seq % 3)";
    assert_eq!(pipeline.count(wrong), 0, "columns of key and header");
    for table in ["per_device", "everywhere"] {
        assert_eq!(pipeline.count(&format!("SELECT count(*) FROM late_{table}")), 0, "nothing is late");
        let sums = pipeline.sql(&format!("SELECT sum(n), sum(total) FROM {table}"));
        assert_eq!(sums.lines().nth(1), Some(format!("{n},{total}").as_str()), "{table}: each reading in one window");
    }
    let naive = "SELECT date_bin(interval '10 seconds', event_time) AS w, count(*), sum(v) FROM readings GROUP BY 1 ORDER BY 1";
    let (naive, windows) = (pipeline.sql(naive), pipeline.sql("SELECT window_start, n, total FROM everywhere ORDER BY 1"));
    assert_eq!(rows(&naive), rows(&windows));
}

#[test]
fn partitions_are_read_once_over_kills_of_both_sides() {
    let mut kafka = Kafka::start();
    kafka.create("readings", 3);
    kafka.create("per-device", 2);
    kafka.create("everywhere", 1);
    kafka.create("moves", 1);
    let moves = "[sinks.moves]\ntype = \"kafka\"\ninputs = [\"tidegate.moves\"]\ntopic = \"moves\"\n";
    let pipeline = Tidegate::new(&format!("{}\n{moves}brokers = [\"{}\"]", text(&kafka, "", COLD, "[]"), kafka.address()));
    let mut fleet = Fleet::new(&kafka);
    let kills = from_environment("KAFKA_KILLS", 6);
    for round in 0..kills {
        let mut running = pipeline.start(&[]);
        running.wait_until_ready();
        fleet.send(5_000);
        match round % 3 {
            // At whatever it is doing, with most of it unread.
            0 => running.kill(),
            // The broker goes away for a while, and the process with it later.
            1 => {
                kafka.stop();
                kafka.start_again();
                until("all of it", LIMIT, || pipeline.count("SELECT count(*) FROM readings") == fleet.sent);
                running.kill();
            }
            _ => {
                until("half of it", LIMIT, || pipeline.count("SELECT count(*) FROM readings") > fleet.sent / 2);
                running.stop();
            }
        }
    }
    fleet.send(2_000);
    pipeline.run(&["--until-idle", "3s"]);
    assert_whole(&pipeline, fleet.sent);
    assert_published(&kafka, &pipeline, "per-device", "per_device", "device, window_start", "device");
    assert_published(&kafka, &pipeline, "everywhere", "everywhere", "window_start", "");
    assert_moves_told(&kafka, &pipeline, fleet.sent);
    let shown = |partition| kafka.group_offset("tidegate-test-floor", "readings", partition);
    assert!((0..3).all(|partition| shown(partition).is_some_and(|offset| offset > 0)), "the group shows how far it is");
}

/// From a broker at the edge to the centre, which is away for a while: each reading is in the topic once, those of a device in their order, whoever
/// dies meanwhile.
#[test]
fn a_bridge_keeps_what_the_centre_cannot_take() {
    const EACH: u64 = 4_000;
    let mut kafka = Kafka::start();
    kafka.create("readings", 3);
    let edge = Mosquitto::start_with("max_queued_messages 0\nmax_inflight_messages 0");
    let example = std::fs::read_to_string(tests::repository().join("config/pipelines/bridge.toml")).unwrap();
    let sources = &example[example.find("[sources.devices]").unwrap()..example.find("[[tests]]").unwrap()];
    let here = sources.replace("${BROKER:-mqtt://127.0.0.1:1883}", &edge.url()).replace("${KAFKA:-127.0.0.1:9092}", &kafka.address());
    let bridge = Tidegate::new(&here);
    let mut publisher = Publisher::new(edge.port);
    let mut send = |from: u64| {
        let message = |seq: u64| {
            let payload = format!(r#"{{"ts":{},"seq":{seq},"temperature":20.5}}"#, START + seq * 10);
            (format!("plant/north/d{}", seq % 17), payload.into_bytes())
        };
        publisher.publish(&(from..from + EACH).map(message).collect::<Vec<_>>());
    };
    let pending = |running: &Running| metric(running, "tidegate_outbox_pending");

    let mut running = bridge.start(&[]);
    running.wait_until_ready();
    edge.wait_for_subscriber();
    send(0);
    until("the centre has the first", LIMIT, || metric(&running, "tidegate_outbox_published_total") == EACH);
    kafka.stop();
    send(EACH);
    until("readings wait for the centre", LIMIT, || pending(&running) == EACH);
    // The kill takes nothing of what waits, and the broker at the edge needs no centre either.
    running.kill();
    let mut running = bridge.start(&[]);
    running.wait_until_ready();
    send(2 * EACH);
    until("all of them wait", LIMIT, || pending(&running) == 2 * EACH);
    kafka.start_again();
    until("nothing waits any more", LIMIT, || pending(&running) == 0);
    running.stop();

    let mut by_device: std::collections::BTreeMap<String, Vec<u64>> = Default::default();
    for line in kafka.committed("readings") {
        let (key, value) = line.split_once('\t').expect("key, tab, value");
        let row: serde_json::Value = serde_json::from_str(value).expect("a value is JSON");
        by_device.entry(key.to_owned()).or_default().push(row["seq"].as_u64().expect("a number"));
    }
    assert_eq!(by_device.len(), 17);
    for (device, numbers) in by_device {
        let of: u64 = device[1..].parse().unwrap();
        assert_eq!(numbers, (0..3 * EACH).filter(|seq| seq % 17 == of).collect::<Vec<_>>(), "{device}");
    }
}

/// TLS with a certificate of either side and SCRAM, for a source and a sink; and what a wrong password comes to.
#[test]
fn a_broker_that_asks_who_we_are_is_told() {
    let secure = free_port();
    let kafka = Kafka::start_secure(secure);
    kafka.create("readings", 3);
    kafka.create("per-device", 2);
    kafka.create("everywhere", 1);
    kafka.create_user("plant", "river");
    let path = |name: &str| kafka.path(name);
    let tls = format!(r#"tls = {{ ca = "{}", certificate = "{}", key = "{}" }}"#, path("ca.pem"), path("client.pem"), path("client.key"));
    let with = |mechanism: &str, password: &str| {
        let sasl = format!(r#"sasl = {{ mechanism = "{mechanism}", username = "plant", password = {{ env = "{password}" }} }}"#);
        let brokers = format!(r#"brokers = ["{}"]"#, kafka.address());
        let text = std::fs::read_to_string(pipeline(&kafka, "").path("pipeline.toml")).unwrap();
        let text = text.replace(&brokers, &format!("brokers = [\"localhost:{secure}\"]\n{tls}\n{sasl}"));
        let body = text[text.find("[sources.floor]").unwrap()..].to_owned();
        Tidegate::new(&body).with_environment("RIGHT", "river").with_environment("WRONG", "lake")
    };
    let mut fleet = Fleet::new(&kafka);
    fleet.send(3_000);

    let refused = with("SCRAM-SHA-512", "WRONG");
    let mut running = refused.start(&[]);
    running.wait_until_ready();
    until("the refusal is told", LIMIT, || running.log().contains("SASL") && running.log().contains("uthentication failed"));
    assert_eq!(refused.count("SELECT count(*) FROM readings"), 0);
    running.stop();

    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let told = with(mechanism, "RIGHT");
        told.run(&["--until-idle", "5s"]);
        assert_whole(&told, fleet.sent);
        let published = |topic: &str| kafka.committed(topic).len();
        assert!(published("per-device") > 0 && published("everywhere") > 0, "nothing is published with {mechanism}");
    }
}

/// A device's records stand in any partition: its windows are whole nevertheless. What comes out goes to a topic of its site, where there is one.
#[test]
fn records_in_any_partition_make_whole_windows_and_rows_go_to_topics_of_their_own() {
    let kafka = Kafka::start();
    kafka.create("readings", 3);
    kafka.create("per-device", 2);
    for topic in ["site-s0", "site-s1", "site-other"] {
        kafka.create(topic, 1);
    }
    let own = "topic = \"site-{site}\"\notherwise = \"site-other\"\nheaders = { x-site = \"site\" }";
    let pipeline = Tidegate::new(&text(&kafka, "rekey = true", "", r#"["site"]"#).replace(r#"topic = "everywhere""#, own));
    let mut fleet = Fleet::scattered(&kafka, 3);
    for _ in 0..2 {
        let mut running = pipeline.start(&[]);
        running.wait_until_ready();
        fleet.send(4_000);
        until("half of it", LIMIT, || pipeline.count("SELECT count(*) FROM readings") > fleet.sent / 2);
        running.kill();
    }
    fleet.send(2_000);
    pipeline.run(&["--until-idle", "3s"]);

    let naive =
        "SELECT device, date_bin(interval '10 seconds', event_time) AS w, count(*), sum(v) FROM readings GROUP BY 1, 2 ORDER BY 1, 2";
    let windows = "SELECT device, window_start, n, total FROM per_device ORDER BY 1, 2";
    assert_eq!(pipeline.count("SELECT count(*) FROM readings"), fleet.sent);
    assert_eq!(rows(&pipeline.sql(windows)), rows(&pipeline.sql(naive)), "one row a device and window");
    assert_published(&kafka, &pipeline, "per-device", "per_device", "device, window_start", "device");
    for (topic, site) in [("site-s0", "s0"), ("site-s1", "s1"), ("site-other", "s2")] {
        let published = kafka.committed_with_headers(topic);
        let header = format!(",x-site:{site}\t");
        assert!(published.iter().all(|record| record.contains(&header)), "{topic}: {published:?}");
        let count = pipeline.count(&format!("SELECT count(*) FROM everywhere WHERE site = '{site}'"));
        assert!(count > 0 && published.len() as u64 == count, "{topic}: {} records of {count} rows", published.len());
    }

    let lag = || {
        let shown = pipeline.call(&["lanes", "--config", "pipeline.toml", "--format", "csv"]);
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        let at = text.lines().next().and_then(|head| head.split(',').position(|name| name == "lag")).expect("a column of its own");
        text.lines().skip(1).filter_map(|line| line.split(',').nth(at)?.parse::<u64>().ok()).collect::<Vec<_>>()
    };
    assert_eq!(lag(), [0, 0, 0], "all is read");

    // Another decoding of the same bytes.
    let text = std::fs::read_to_string(pipeline.path("pipeline.toml")).unwrap();
    let anew = text.replace("columns = { seq", r#"columns = { w = { path = "$.v", type = "float64" }, seq"#);
    std::fs::write(pipeline.path("new.toml"), anew).unwrap();
    let replay = ["replay", "--config", "pipeline.toml", "--pipeline", "new.toml", "--topics", "--to", "again", "--json"];
    let done = pipeline.call(&replay);
    let found: serde_json::Value =
        serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&done.stderr)));
    assert_eq!(
        (done.status.code(), found["readings"].as_u64(), found["refused"].as_u64()),
        (Some(0), Some(fleet.sent), Some(0)),
        "{found:#}"
    );
    let equal: Vec<_> = found["tables"].as_array().unwrap().iter().map(|table| table["equal"].as_u64().unwrap()).collect();
    // The first reading is within a window, which was not whole.
    let of =
        |table: &str| pipeline.count(&format!("SELECT count(*) FROM {table} WHERE window_start >= (SELECT min(event_time) FROM readings)"));
    assert_eq!(equal, [of("per_device"), of("everywhere")], "{found:#}");
    let sums = pipeline.call(&["sql", "--data-dir", "again/data", "SELECT count(w), sum(w) = sum(v) FROM readings"]);
    assert_eq!(String::from_utf8_lossy(&sums.stdout).lines().nth(1), Some(format!("{},true", fleet.sent).as_str()));

    fleet.send(300);
    assert_eq!((lag().len(), lag().iter().sum::<u64>()), (3, 300), "nobody has read these");
}

#[test]
fn what_a_topic_has_besides_good_records_and_what_it_loses() {
    let mut kafka = Kafka::start();
    let pipeline = pipeline(&kafka, "");
    // The process is up before the broker's topic is.
    let mut running = pipeline.start(&[]);
    running.wait_until_ready();
    kafka.create("readings", 2);
    let mut fleet = Fleet::new(&kafka);
    fleet.send(1_000);
    fleet.put("readings", None, "d0", None, "s0");
    fleet.put("readings", None, "d0", Some("{"), "s0");
    fleet.put("readings", None, "d1", Some(r#"{"ts":1767225600000,"seq":"x","v":1}"#), "s0");
    let all = |n: u64| move |p: &Tidegate| p.count("SELECT count(*) FROM readings") == n;
    until("the readings", LIMIT, || all(1_000)(&pipeline));
    until("the dead letters", LIMIT, || pipeline.count("SELECT count(*) FROM dead_letters") == 2);
    let dead = pipeline.sql("SELECT topic, \"offset\" IS NOT NULL AS placed, reason FROM dead_letters ORDER BY reason");
    let places: Vec<&str> = dead.lines().skip(1).collect();
    assert!(places.iter().all(|line| line.starts_with("readings[") && line.contains("],true,")), "{dead}");
    until("the tombstone is counted", LIMIT, || metric(&running, "tidegate_kafka_tombstones_total") == 1);
    until("nothing is behind", LIMIT, || metric(&running, "tidegate_kafka_lag_records") == 0);

    // Records of an aborted transaction are nobody's.
    let producer: BaseProducer = kafka.client().set("transactional.id", "t").create().expect("a producer");
    producer.init_transactions(LIMIT).expect("transactions");
    for (commit, seq) in [(false, 900_001), (true, 900_002)] {
        producer.begin_transaction().expect("a transaction");
        let payload = format!(r#"{{"ts":{START},"seq":{seq},"v":0}}"#);
        let headers = OwnedHeaders::new().insert(Header { key: "x-site", value: Some("s") });
        assert!(producer.send(BaseRecord::to("readings").key("d0").payload(&payload).headers(headers)).is_ok());
        producer.flush(LIMIT).expect("the broker takes it");
        if commit { producer.commit_transaction(LIMIT) } else { producer.abort_transaction(LIMIT) }.expect("its end");
    }
    until("the committed one", LIMIT, || pipeline.count("SELECT count(*) FROM readings WHERE seq = 900002") == 1);
    assert_eq!(pipeline.count("SELECT count(*) FROM readings WHERE seq = 900001"), 0, "an aborted record was read");

    // Partitions are added while it runs; keys go elsewhere from then on.
    kafka.grow("readings", 4);
    until("two further lanes", LIMIT, || running.log().matches("new partitions").count() == 2);
    let of_new = || pipeline.count("SELECT count(*) FROM readings WHERE seq = -1");
    for number in 0..40 {
        fleet.put("readings", None, &format!("later{number}"), Some(&format!(r#"{{"ts":{START},"seq":-1,"v":0}}"#)), "s");
    }
    fleet.producer.flush(LIMIT).expect("the broker takes them");
    until("records of all four partitions", LIMIT, || of_new() == 40);
    running.stop();

    // While it is away, retention takes records that it has not read: it stops, and says which.
    fleet.send(400);
    (0..4).for_each(|partition| kafka.truncate("readings", partition));
    let mut running = pipeline.start(&[]);
    assert!(!running.wait(LIMIT).success(), "it went on over a gap");
    let log = running.log();
    assert!(log.contains("are gone: retention was faster") && log.contains("on_gap"), "{log}");
    let had = pipeline.count("SELECT count(*) FROM readings");
    let text = std::fs::read_to_string(pipeline.path("pipeline.toml")).unwrap();
    std::fs::write(
        pipeline.path("pipeline.toml"),
        text.replace("[processors.per_device]", "on_gap = \"earliest\"\n\n[processors.per_device]"),
    )
    .unwrap();
    let mut running = pipeline.start(&[]);
    running.wait_until_ready();
    fleet.send(100);
    until("what came after the gap", LIMIT, || pipeline.count("SELECT count(*) FROM readings") == had + 100);
    until("what is missing is counted", LIMIT, || metric(&running, "tidegate_kafka_missing_records_total") == 400);
    running.stop();

    // A topic that was made anew has other records under the same offsets.
    kafka.delete("readings");
    until("the new topic", LIMIT, || {
        std::thread::sleep(Duration::from_millis(200));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| kafka.create("readings", 4))).is_ok()
    });
    let mut running = pipeline.start(&[]);
    assert!(!running.wait(LIMIT).success(), "it read another topic on");
    assert!(running.log().contains("made anew"), "{}", running.log());
    kafka.stop();
    assert_eq!(pipeline.count("SELECT count(*) FROM readings"), had + 100, "without a broker the tables are there");
    let mut running = pipeline.start(&[]);
    running.wait_until_ready();
    assert_eq!(pipeline.count("SELECT count(*) FROM readings"), had + 100);
    running.stop();
}
