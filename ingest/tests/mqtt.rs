//! An MQTT source against a real broker: mosquitto, started here on a free port with a folder of its own.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use flow::{Offset, Reason, Result, Span, WallTime, event_time_field, trail};
use ingest::Rejected;
use ingest::decode::{Decoded, Decoder, Message, Reject};
use ingest::journal::{Body, Delivery, Group, Journal, JournalHandle, JournalOptions, Publish, Size};
use ingest::mqtt::{MqttOptions, MqttSource, SourceStatus, publish_hash, run};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LANES: u32 = 2;
const MAX_MESSAGE: usize = 1_024;
const TOPIC: &str = "plant/north/press-7";
const SESSION: &str = "tidegate-test-floor-0";

/// A broker that ends with the test.
struct Broker {
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl Broker {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut broker = Self { folder: tempfile::tempdir().unwrap(), port, process: None };
        broker.go_on();
        broker
    }

    fn go_on(&mut self) {
        let folder = self.folder.path().display();
        // Without `user` a broker started by root could not write to the folder.
        let config = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {folder}/\n\
             max_inflight_messages 0\nmax_queued_messages 0\n",
            self.port
        );
        let path = self.folder.path().join("mosquitto.conf");
        std::fs::write(&path, config).unwrap();
        let process = Command::new("/usr/sbin/mosquitto").arg("-c").arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.process = Some(process.expect("mosquitto is installed"));
    }

    /// Lets it write its sessions down and end.
    fn end(&mut self) {
        let mut process = self.process.take().unwrap();
        Command::new("kill").arg("-TERM").arg(process.id().to_string()).status().unwrap();
        process.wait().unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

/// Messages that are a number each; an `f` before it means that the reading is an hour ahead.
struct Numbers(SchemaRef);

impl Numbers {
    fn new() -> Self {
        let text = |name| Field::new(name, DataType::Utf8View, false);
        Self(Arc::new(Schema::new(vec![text("site"), text("device"), Field::new("n", DataType::Int64, false), event_time_field()])))
    }
}

impl Decoder for Numbers {
    fn schema(&self) -> &SchemaRef {
        &self.0
    }

    fn decode(&mut self, messages: &[Message<'_>], arrival: WallTime) -> Decoded {
        let (mut site, mut device, mut n, mut time, mut of, mut rejects) = (vec![], vec![], vec![], vec![], vec![], vec![]);
        for (message, index) in messages.iter().zip(0..) {
            let text = std::str::from_utf8(message.payload).unwrap();
            let Ok(number) = text.trim_start_matches('f').parse::<i64>() else {
                rejects.push(Reject { message: index, reason: Reason::Malformed, detail: "not a number".into() });
                continue;
            };
            site.push(message.captures[0]);
            device.push(message.captures[1]);
            n.push(number);
            time.push(if text.starts_with('f') { arrival.0 + 3_600_000_000 } else { arrival.0 });
            of.push(index);
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from(site)),
            Arc::new(StringViewArray::from(device)),
            Arc::new(Int64Array::from(n)),
            Arc::new(TimestampMicrosecondArray::from(time).with_timezone("UTC")),
        ];
        Decoded { rows: RecordBatch::try_new(self.0.clone(), columns).unwrap(), messages: of, rejects }
    }
}

/// A journal and what its lanes were given.
struct Log {
    journal: Journal,
    taken: Arc<Mutex<Taken>>,
    _folder: TempDir,
}

#[derive(Default)]
struct Taken {
    numbers: Vec<i64>,
    raw: Vec<(i64, Vec<u8>)>,
    rejects: Vec<Rejected>,
    connections: Vec<bool>,
}

impl Log {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = JournalOptions { reserve: Size(0), ..JournalOptions::default() };
        let taken = Arc::new(Mutex::new(Taken::default()));
        let mut senders = Vec::new();
        for lane in 0..LANES {
            let (sender, mut frames) = mpsc::channel::<Delivery>(16);
            senders.push(sender);
            let taken = taken.clone();
            tokio::spawn(async move {
                while let Some(delivery) = frames.recv().await {
                    delivery.lane_frames.into_iter().for_each(|(_, body)| taken.lock().unwrap().add(lane, body));
                }
            });
        }
        let journal = Journal::open(folder.path(), &options, LANES, &[Offset(0); LANES as usize], senders).unwrap();
        Self { journal, taken, _folder: folder }
    }

    fn handle(&self) -> JournalHandle {
        self.journal.handle()
    }

    /// What the lanes were given, once these are `rows`.
    async fn rows(&self, rows: usize) -> MutexGuard<'_, Taken> {
        until("every row at its lane", || self.taken.lock().unwrap().numbers.len() >= rows).await;
        let mut taken = self.taken.lock().unwrap();
        taken.numbers.sort_unstable();
        taken
    }
}

impl Taken {
    fn add(&mut self, lane: u32, body: Body) {
        match body {
            Body::Rows(batch) => {
                let numbers = batch.rows().column_by_name("n").unwrap().as_primitive::<Int64Type>().values().to_vec();
                assert!(batch.rows().column_by_name("device").unwrap().as_string_view().iter().all(|d| d == Some("press-7")));
                assert!(batch.origin().topic.as_deref() == Some(TOPIC) || batch.trail_column(trail::TOPIC).is_some());
                if let Some(raw) = batch.trail_column(trail::RAW) {
                    let kept = numbers.iter().zip(raw.as_binary_view().iter());
                    self.raw.extend(kept.filter_map(|(n, raw)| Some((*n, raw?.to_vec()))));
                }
                self.numbers.extend(numbers);
            }
            Body::Rejects(rejects) => self.rejects.extend(rejects),
            Body::Connection { connected, .. } if lane == 0 => self.connections.push(connected),
            Body::Connection { .. } | Body::Tick { .. } => {}
        }
    }
}

/// A running source.
struct Running {
    status: Arc<SourceStatus>,
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Running {
    fn start(port: u16, journal: JournalHandle) -> Self {
        let options: MqttOptions =
            serde_json::from_str(&format!(r#"{{"url": "mqtt://127.0.0.1:{port}", "topics": ["plant/{{site}}/{{device}}"]}}"#)).unwrap();
        let source = MqttSource {
            name: "floor".into(),
            producer: 0,
            client_id: options.client_id("test", "floor", 0),
            options,
            decoder: Box::new(Numbers::new()),
            key: vec![1],
            lanes: LANES,
            max_message: MAX_MESSAGE,
            max_future: Span::from_secs(60),
        };
        let (status, stop) = (Arc::new(SourceStatus::default()), CancellationToken::new());
        let task = tokio::spawn(run(source, journal, status.clone(), stop.clone()));
        Self { status, stop, task }
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.expect("the source ends").unwrap().unwrap();
    }
}

async fn until(what: &str, mut true_now: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if true_now() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: not within 20 s");
}

async fn reaches(what: &str, counter: &AtomicU64, value: u64) {
    for _ in 0..1_000 {
        if counter.load(Relaxed) == value {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} is {} and not {value} after 20 s", counter.load(Relaxed));
}

/// Publishes with QoS 1, and waits until the broker has all of it.
async fn publish(port: u16, payloads: Vec<Vec<u8>>) {
    let mut options = rumqttc::v5::MqttOptions::new("publisher", "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(60));
    let (client, mut wire) = AsyncClient::new(options, payloads.len().max(1));
    let mut open = payloads.len();
    for payload in payloads {
        client.try_publish(TOPIC, QoS::AtLeastOnce, false, payload).unwrap();
    }
    while open > 0 {
        match wire.poll().await {
            Ok(Event::Incoming(Packet::PubAck(_))) => open -= 1,
            Ok(_) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn numbers(range: std::ops::Range<i64>) -> Vec<Vec<u8>> {
    range.map(|n| n.to_string().into_bytes()).collect()
}

/// The source's session, in the hands of another client.
fn session(port: u16) -> rumqttc::v5::MqttOptions {
    let mut options = rumqttc::v5::MqttOptions::new(SESSION, "127.0.0.1", port);
    options.set_clean_start(false).set_manual_acks(true).set_session_expiry_interval(Some(600)).set_keep_alive(Duration::from_secs(60));
    options
}

/// Takes `count` messages in the source's session without an ack, as a process that dies before it can send one.
async fn take_without_ack(port: u16, count: usize) {
    let (client, mut wire) = AsyncClient::new(session(port), 10);
    client.try_subscribe("plant/+/+", QoS::AtLeastOnce).unwrap();
    let (mut left, mut publisher) = (count, None);
    while left > 0 {
        match wire.poll().await {
            Ok(Event::Incoming(Packet::SubAck(_))) => publisher = Some(tokio::spawn(publish(port, numbers(0..count as i64)))),
            Ok(Event::Incoming(Packet::Publish(_))) => left -= 1,
            Ok(_) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    publisher.expect("subscribed before the first message").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_arrive_once_and_the_source_outlives_its_broker() {
    let mut broker = Broker::start();
    let log = Log::open();
    let source = Running::start(broker.port, log.handle());
    reaches("connected", &source.status.connected, 1).await;
    // The subscription follows the connection.
    tokio::time::sleep(Duration::from_millis(200)).await;

    let mut messages = numbers(0..500);
    messages.extend([b"broken".to_vec(), vec![b'7'; 70_000], b"f500".to_vec()]);
    publish(broker.port, messages).await;
    reaches("logged", &source.status.logged, 501).await;
    reaches("rejected", &source.status.rejected, 2).await;
    reaches("unacked", &source.status.unacked, 0).await;

    broker.end();
    reaches("connected", &source.status.connected, 0).await;
    broker.go_on();
    reaches("connected", &source.status.connected, 1).await;
    publish(broker.port, numbers(501..5_000)).await;
    reaches("logged", &source.status.logged, 5_000).await;
    assert_eq!(source.status.received.load(Relaxed), 5_002);
    assert_eq!(source.status.reconnects.load(Relaxed), 1);
    source.end().await;

    let taken = log.rows(5_000).await;
    assert_eq!(taken.numbers, (0..5_000).collect::<Vec<_>>());
    assert_eq!(taken.raw, [(500, b"f500".to_vec())], "a reading an hour ahead keeps its bytes");
    let mut rejects: Vec<_> = taken.rejects.iter().map(|r| (r.reason, r.length, r.payload.len())).collect();
    rejects.sort_unstable();
    assert_eq!(rejects, [(Reason::Malformed, 6, 6), (Reason::TooLarge, 70_000, Rejected::PAYLOAD_LIMIT)]);
    assert!(taken.connections.starts_with(&[false, true, false, true]), "{:?}", taken.connections);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_logged_before_a_crash_is_not_taken_twice() {
    let broker = Broker::start();
    let log = Log::open();
    take_without_ack(broker.port, 30).await;
    let publishes =
        (0..10).map(|n: i64| Publish { connection: 0, hash: publish_hash(TOPIC.as_bytes(), n.to_string().as_bytes()) }).collect();
    log.handle().append(Group { frames: Vec::new(), publishes }).await.unwrap().await.unwrap();

    let source = Running::start(broker.port, log.handle());
    reaches("redelivered", &source.status.redelivered, 10).await;
    reaches("logged", &source.status.logged, 20).await;
    reaches("unacked", &source.status.unacked, 0).await;
    source.end().await;
    let again = Running::start(broker.port, log.handle());
    reaches("connected", &again.status.connected, 1).await;
    publish(broker.port, numbers(30..31)).await;
    reaches("logged", &again.status.logged, 1).await;
    assert_eq!(again.status.redelivered.load(Relaxed), 0, "all 30 were acknowledged");
    again.end().await;
    let taken = log.rows(21).await;
    assert_eq!(taken.numbers, (10..31).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_in_the_middle_doubles_nothing() {
    const MESSAGES: i64 = 10_000;
    let broker = Broker::start();
    let log = Log::open();
    let source = Running::start(broker.port, log.handle());
    reaches("connected", &source.status.connected, 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let publisher = tokio::spawn(publish(broker.port, numbers(0..MESSAGES)));
    until("some are taken", || source.status.logged.load(Relaxed) > 1_000).await;
    // Another client under our name, for a moment.
    let (_client, mut wire) = AsyncClient::new(session(broker.port), 10);
    let mut polls = 0;
    while polls < 100 && wire.poll().await.is_ok() {
        polls += 1;
    }
    drop(wire);
    publisher.await.unwrap();
    reaches("logged", &source.status.logged, MESSAGES as u64).await;
    reaches("unacked", &source.status.unacked, 0).await;
    assert!(source.status.reconnects.load(Relaxed) > 0);
    source.end().await;
    assert_eq!(log.rows(MESSAGES as usize).await.numbers, (0..MESSAGES).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_broker_is_waited_for() {
    let log = Log::open();
    let mut broker = Broker::start();
    broker.end();
    let source = Running::start(broker.port, log.handle());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!source.task.is_finished());
    broker.go_on();
    reaches("connected", &source.status.connected, 1).await;
    source.end().await;
}
