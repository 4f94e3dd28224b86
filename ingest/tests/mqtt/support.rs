//! What these tests share: a journal with lanes that keep what they are given, a decoder of numbers, a running source, and mosquitto.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use flow::{Offset, Reason, Result, Span, WallTime, event_time_field, trail};
use ingest::Rejected;
use ingest::SourceStatus;
use ingest::decode::{Decoded, Decoder, Message, Reject};
use ingest::journal::{Body, Delivery, Journal, JournalHandle, JournalOptions, Size};
use ingest::mqtt::{MqttOptions, MqttSource, run};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const LANES: u32 = 2;
pub(crate) const MAX_MESSAGE: usize = 1_024;
pub(crate) const TOPIC: &str = "plant/north/press-7";
pub(crate) const SESSION: &str = "tidegate-test-floor-0";

/// A broker that ends with the test.
pub(crate) struct Broker {
    folder: TempDir,
    pub(crate) port: u16,
    settings: String,
    process: Option<Child>,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::with("", |_| {})
    }

    /// A broker whose listener has these further settings (`FOLDER` is its folder), once `prepare` has put files there.
    pub(crate) fn with(settings: &str, prepare: impl FnOnce(&Path)) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let settings = settings.replace("FOLDER", folder.path().to_str().unwrap());
        let mut broker = Self { folder, port, settings, process: None };
        broker.go_on();
        broker
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn go_on(&mut self) {
        let folder = self.folder.path().display();
        // Without `user` a broker started by root could not write to the folder.
        let config = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {folder}/\n\
             max_inflight_messages 0\nmax_queued_messages 0\n{}\n",
            self.port, self.settings
        );
        let path = self.folder.path().join("mosquitto.conf");
        std::fs::write(&path, config).unwrap();
        let process = Command::new("/usr/sbin/mosquitto").arg("-c").arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.process = Some(process.expect("mosquitto is installed"));
    }

    /// Lets it write its sessions down and end.
    pub(crate) fn end(&mut self) {
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
pub(crate) struct Log {
    journal: Journal,
    taken: Arc<Mutex<Taken>>,
    _folder: TempDir,
}

#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) numbers: Vec<i64>,
    pub(crate) traces: Vec<(i64, String)>,
    pub(crate) raw: Vec<(i64, Vec<u8>)>,
    pub(crate) rejects: Vec<Rejected>,
    pub(crate) connections: Vec<bool>,
}

impl Log {
    pub(crate) fn open() -> Self {
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

    pub(crate) fn handle(&self) -> JournalHandle {
        self.journal.handle()
    }

    /// What the lanes were given, once these are `rows`.
    pub(crate) async fn rows(&self, rows: usize) -> MutexGuard<'_, Taken> {
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
                if let Some(traces) = batch.trail_column(trail::TRACE) {
                    let came = numbers.iter().zip(traces.as_string_view().iter());
                    self.traces.extend(came.filter_map(|(n, trace)| Some((*n, trace?.to_owned()))));
                }
                self.numbers.extend(numbers);
            }
            Body::Rejects(rejects) => self.rejects.extend(rejects),
            Body::Connection { connected, .. } if lane == 0 => self.connections.push(connected),
            Body::Connection { .. } | Body::Tick { .. } | Body::Lookup(_) => {}
        }
    }
}

/// A running source.
pub(crate) struct Running {
    pub(crate) status: Arc<SourceStatus>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<()>>,
}

impl Running {
    pub(crate) fn start(port: u16, journal: JournalHandle) -> Self {
        Self::with(&format!("url = \"mqtt://127.0.0.1:{port}\""), journal)
    }

    /// A source with these options, in TOML.
    pub(crate) fn with(options: &str, journal: JournalHandle) -> Self {
        Self::connection(options, 0, journal)
    }

    /// One connection of such a source.
    pub(crate) fn connection(options: &str, number: u32, journal: JournalHandle) -> Self {
        let options: MqttOptions = toml::from_str(&format!("topics = [\"plant/{{site}}/{{device}}\"]\n{options}")).unwrap();
        options.check().unwrap();
        let source = MqttSource {
            name: "floor".into(),
            producer: number,
            client_id: options.client_id("test", "floor", number),
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

    pub(crate) async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.expect("the source ends").unwrap().unwrap();
    }
}

pub(crate) async fn until(what: &str, mut true_now: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if true_now() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: not within 20 s");
}

pub(crate) async fn reaches(what: &str, counter: &AtomicU64, value: u64) {
    for _ in 0..1_000 {
        if counter.load(Relaxed) == value {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} is {} and not {value} after 20 s", counter.load(Relaxed));
}
