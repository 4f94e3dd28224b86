//! The way over HTTP: a request for each message when it is due, its topic in the path, over several connections. Each device stays with one,
//! so that its readings stay in order. A request without an answer is sent again with the same `Idempotency-Key`.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use url::Url;

use super::pace::Pace;
use super::{Progress, now_us, sent};
use crate::fleet::{Fleet, Message};
use crate::scenario::Scenario;
use crate::truth::{TruthSender, TruthWriter};
use crate::{Error, Result};

/// Messages that wait for a connection.
const WAITING: usize = 10_000;
/// How long a request is tried.
const TRIED: Duration = Duration::from_secs(30);
/// From one try to the next.
const AGAIN: Duration = Duration::from_millis(100);
/// How long one answer may take.
const ANSWERED: Duration = Duration::from_secs(10);

pub(super) async fn send(
    scenario: &Scenario,
    fleet: &mut Fleet,
    writer: &mut Option<TruthWriter>,
    truth: TruthSender,
    progress: &Arc<Progress>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let url = Url::parse(&scenario.wire.url).map_err(|e| Error::Broker(format!("{}: {e}", scenario.wire.url)))?;
    let run = format!("{}-{}", std::process::id(), now_us());
    let pace = Pace::begin(scenario);
    progress.begin();
    let (mut queues, mut connections) = (vec![], JoinSet::new());
    for _ in 0..scenario.wire.connections {
        let (queue, messages) = mpsc::channel(WAITING);
        queues.push(queue);
        connections.spawn(Connection::new(&url, &run, pace, &truth, progress)?.work(messages));
    }
    let published = publish(fleet, writer, &queues, pace, stop).await;
    drop(queues);
    while let Some(ended) = connections.join_next().await {
        ended.map_err(|e| Error::Broker(e.to_string()))?;
    }
    progress.end();
    published
}

/// Gives each message to its connection when it is due.
async fn publish(
    fleet: &mut Fleet,
    writer: &mut Option<TruthWriter>,
    queues: &[mpsc::Sender<Message>],
    pace: Pace,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let mut stop = pin!(stop);
    for message in fleet {
        if pace.wait(message.due, &mut stop).await?.is_none() {
            return Ok(());
        }
        if let Some(writer) = writer {
            writer.hash(&message);
        }
        let queue = &queues[message.slot as usize % queues.len()];
        tokio::select! {
            () = &mut stop => return Ok(()),
            // One that ended for good says why at the end.
            given = queue.send(message) => if given.is_err() { return Ok(()) },
        }
    }
    Ok(())
}

/// One connection: a request at a time.
struct Connection {
    client: Client,
    url: Url,
    run: String,
    pace: Pace,
    truth: TruthSender,
    progress: Arc<Progress>,
}

impl Connection {
    fn new(url: &Url, run: &str, pace: Pace, truth: &TruthSender, progress: &Arc<Progress>) -> Result<Connection> {
        // Straight to the address: a proxy of the environment has no business here.
        let client = Client::builder().no_proxy().timeout(ANSWERED).pool_max_idle_per_host(1).build();
        let client = client.map_err(|e| Error::Broker(e.to_string()))?;
        Ok(Connection { client, url: url.clone(), run: run.to_owned(), pace, truth: truth.clone(), progress: progress.clone() })
    }

    async fn work(self, mut messages: mpsc::Receiver<Message>) {
        while let Some(message) = messages.recv().await {
            let (due, number) = (message.due, (message.reading.number, message.reading.duplicate_of.is_some()));
            let lag = Instant::now().saturating_duration_since(self.pace.start + due);
            self.progress.sent(&message.reading, lag);
            let (mut sent, payload) = sent(message, &self.truth, self.pace.at_us(due), self.pace.at_us(due + lag));
            let key = format!("{}-{}-{}", self.run, number.0, number.1);
            let (attempts, taken) = self.insist(&sent.topic, &key, payload).await;
            sent.attempts = attempts;
            if taken {
                let latency = Instant::now().saturating_duration_since(self.pace.start + due);
                self.progress.acknowledged(latency);
                sent.acknowledged_us = Some(sent.due_us + latency.as_micros() as i64);
            }
            self.truth.put(sent).await;
        }
    }

    /// Sends a message until it is taken; how often, and whether it was.
    async fn insist(&self, topic: &str, key: &str, payload: Vec<u8>) -> (u32, bool) {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(topic.split('/'));
        }
        let (deadline, mut attempts) = (Instant::now() + TRIED, 0);
        while Instant::now() < deadline {
            attempts += 1;
            let request = self.client.post(url.clone()).header("content-type", "application/octet-stream").header("idempotency-key", key);
            if request.body(payload.clone()).send().await.is_ok_and(|answer| answer.status() == StatusCode::ACCEPTED) {
                return (attempts, true);
            }
            self.progress.reconnected();
            sleep(AGAIN).await;
        }
        (attempts, false)
    }
}
