//! The way over Kafka: a record for each message when it is due, keyed by the device, so that its readings stay in one partition and in order.
//! The producer is idempotent: it tries again by itself, and nothing is there twice that was sent once. The site stands in the header `site`.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::{DeliveryFuture, FutureRecord};
use rdkafka::producer::{FutureProducer, Producer};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::pace::Pace;
use super::{Progress, sent};
use crate::fleet::Fleet;
use crate::scenario::Scenario;
use crate::truth::{Sent, TruthSender, TruthWriter};
use crate::{Error, Result};

/// How long a first answer may take.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
/// Records whose fate is not known yet.
const OUTSTANDING: usize = 100_000;
/// How long to wait while the client has no room.
const ROOM: Duration = Duration::from_millis(1);

/// A record whose fate is not known yet.
struct Outstanding {
    sent: Sent,
    due: Instant,
    delivery: DeliveryFuture,
}

pub(super) async fn send(
    scenario: &Scenario,
    fleet: &mut Fleet,
    writer: &mut Option<TruthWriter>,
    truth: TruthSender,
    progress: &Arc<Progress>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let producer = connect(scenario)?;
    let (outstanding, settled) = mpsc::channel(OUTSTANDING);
    let settling = tokio::spawn(settle(settled, truth.clone(), progress.clone()));
    progress.begin();
    let sender = Sender { producer: producer.clone(), outstanding, truth };
    let published = publish(scenario, fleet, writer, &sender, progress, stop).await;
    // The queue ends with its sender; each record is delivered or given up by the client within its `message.timeout.ms`. The producer
    // stays until then: the last one to go takes what is on its way with it.
    drop(sender);
    let ended = settling.await.map_err(|e| Error::Broker(e.to_string()));
    progress.end();
    drop(producer);
    published.and(ended)
}

/// A producer that has found the topic.
fn connect(scenario: &Scenario) -> Result<FutureProducer> {
    let wire = &scenario.wire;
    let failed = |e: rdkafka::error::KafkaError| Error::Broker(format!("Kafka at {}: {e}", wire.brokers));
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &wire.brokers).set("enable.idempotence", "true").set("partitioner", "murmur2_random");
    config.set("message.timeout.ms", "30000").set("linger.ms", "5");
    let producer: FutureProducer = config.create().map_err(failed)?;
    tokio::task::block_in_place(|| producer.client().fetch_metadata(Some(&wire.kafka_topic), CONNECTED_WITHIN)).map_err(failed)?;
    Ok(producer)
}

/// The way of a record to the brokers and into the truth.
struct Sender {
    producer: FutureProducer,
    outstanding: mpsc::Sender<Outstanding>,
    truth: TruthSender,
}

/// Sends each message when it is due.
async fn publish(
    scenario: &Scenario,
    fleet: &mut Fleet,
    writer: &mut Option<TruthWriter>,
    sender: &Sender,
    progress: &Progress,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let pace = Pace::begin(scenario);
    let mut stop = pin!(stop);
    for message in fleet {
        let Some(lag) = pace.wait(message.due, &mut stop).await? else { return Ok(()) };
        if let Some(writer) = writer {
            writer.hash(&message);
        }
        progress.sent(&message.reading, lag);
        let due = pace.start + message.due;
        let (due_us, sent_us) = (pace.at_us(message.due), pace.at_us(message.due + lag));
        let (sent, payload) = sent(message, &sender.truth, due_us, sent_us);
        sender.hand_over(&scenario.wire.kafka_topic, sent, due, &payload).await?;
    }
    Ok(())
}

impl Sender {
    async fn hand_over(&self, topic: &str, sent: Sent, due: Instant, payload: &[u8]) -> Result<()> {
        let headers = OwnedHeaders::new().insert(Header { key: "site", value: Some(&sent.reading.site) });
        let mut record = FutureRecord::to(topic).key(&sent.reading.device).payload(payload).headers(headers);
        let delivery = loop {
            match self.producer.send_result(record) {
                Ok(delivery) => break delivery,
                Err((error, refused)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    record = refused;
                    sleep(ROOM).await;
                }
                Err((error, _)) => return Err(Error::Broker(error.to_string())),
            }
        };
        let ended = |_| Error::Broker("nobody waits for acknowledgements any more".to_owned());
        self.outstanding.send(Outstanding { sent, due, delivery }).await.map_err(ended)
    }
}

/// Waits for each delivery, in the order of sending.
async fn settle(mut outstanding: mpsc::Receiver<Outstanding>, truth: TruthSender, progress: Arc<Progress>) {
    while let Some(Outstanding { mut sent, due, delivery }) = outstanding.recv().await {
        if matches!(delivery.await, Ok(Ok(_))) {
            let latency = Instant::now().saturating_duration_since(due);
            progress.acknowledged(latency);
            sent.acknowledged_us = Some(sent.due_us + latency.as_micros() as i64);
        }
        truth.put(sent).await;
    }
}
