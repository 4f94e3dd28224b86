//! The fleet on the wire: publishes its messages over MQTT v5 at QoS 1, each when it is due, and ends once the broker has
//! acknowledged all of them.
//!
//! Open loop: a slow broker does not slow the devices; what is behind schedule is sent as fast as the broker takes it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions};
use tokio::time::Instant;
use url::Url;

use crate::{Error, Fleet, FleetOptions, Result, Truth};

/// Requests that may wait for the network: one second of the default fleet.
const WAITING_REQUESTS: usize = 1_000;
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

/// Where the fleet publishes and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct SimulateOptions {
    /// The broker, `mqtt://host:port`.
    #[arg(long, default_value = "mqtt://127.0.0.1:1883")]
    pub url: String,
    /// Seconds of simulated time; endless if left out.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// The fleet itself.
    #[command(flatten)]
    pub fleet: FleetOptions,
}

/// Publishes until the time is over or `stop` resolves, waits for the last PUBACK, and says what was sent.
pub async fn simulate(options: &SimulateOptions, stop: impl Future<Output = ()>) -> Result<Truth> {
    let (client, events) = AsyncClient::builder(connection(&options.url)?).capacity(WAITING_REQUESTS).build();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let network = tokio::spawn(run_network(events, Arc::clone(&acknowledged)));
    let truth = publish(options, &client, stop).await?;
    let all = wait_for_acks(truth.messages, &acknowledged).await;
    // A broker that is gone needs no farewell.
    let _ = client.disconnect().await;
    network.abort();
    all.map(|()| truth)
}

fn connection(url: &str) -> Result<MqttOptions> {
    let wrong = |reason: &str| Error::Address { url: url.to_owned(), reason: reason.to_owned() };
    let parsed = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
    if parsed.scheme() != "mqtt" {
        return Err(wrong("the scheme is not mqtt"));
    }
    let host = parsed.host_str().ok_or_else(|| wrong("no host"))?;
    let mut options = MqttOptions::new(format!("tidegate-fleet-{}", std::process::id()), (host, parsed.port().unwrap_or(1883)));
    options.set_keep_alive(10).set_clean_start(true);
    Ok(options)
}

async fn publish(options: &SimulateOptions, client: &AsyncClient, stop: impl Future<Output = ()>) -> Result<Truth> {
    let start = Instant::now();
    let start_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let end = options.seconds.map(Duration::from_secs);
    let mut stop = pin!(stop);
    let mut truth = Truth::default();
    for message in Fleet::new(options.fleet.clone(), start_ms) {
        if end.is_some_and(|end| message.due >= end) {
            break;
        }
        tokio::select! {
            () = &mut stop => break,
            sent = send(client, start, &message) => sent?,
        }
        truth.add(message.kind);
    }
    Ok(truth)
}

async fn send(client: &AsyncClient, start: Instant, message: &crate::Message) -> Result<()> {
    tokio::time::sleep_until(start + message.due).await;
    let sent = client.publish(message.topic.as_str(), message.payload.clone(), PublishOptions::at_least_once()).await;
    sent.map_err(|error| Error::Broker(error.to_string()))
}

/// Keeps the connection going; what was not acknowledged is sent again after a reconnect.
async fn run_network(mut events: EventLoop, acknowledged: Arc<AtomicU64>) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::PubAck(_))) => {
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the fleet lost its broker and tries again");
                tokio::time::sleep(RECONNECT_AFTER).await;
            }
        }
    }
}

async fn wait_for_acks(published: u64, acknowledged: &AtomicU64) -> Result<()> {
    let deadline = Instant::now() + ACKNOWLEDGED_WITHIN;
    while acknowledged.load(Ordering::Relaxed) < published {
        if Instant::now() >= deadline {
            let acknowledged = acknowledged.load(Ordering::Relaxed);
            return Err(Error::Unacknowledged { published, acknowledged, waited_seconds: ACKNOWLEDGED_WITHIN.as_secs() });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Broker;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_message_is_acknowledged_by_the_embedded_broker() {
        let broker = Broker::start().await.unwrap();
        let fleet = FleetOptions { devices: 50, rate: 20.0, ..FleetOptions::default() };
        let options = SimulateOptions { url: broker.url(), seconds: Some(1), fleet };
        let truth = simulate(&options, std::future::pending()).await.unwrap();
        assert!(truth.messages >= 1_000, "{truth:?}");
        broker.stop().await.unwrap();
    }

    #[test]
    fn an_address_that_is_not_mqtt_is_refused() {
        assert!(connection("http://127.0.0.1:1883").is_err());
        assert!(connection("127.0.0.1").is_err());
    }
}
