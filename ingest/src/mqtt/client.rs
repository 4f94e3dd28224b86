//! The connection to the broker, around rumqttc: one event loop a connection, so that nothing of an ended one reaches the next.
//!
//! Promises: publishes are handed on in order of receipt, between the `Connected` and the `Disconnected` of their connection; nothing is
//! acknowledged here by itself; an absent broker is tried again for ever. Absent: what a message means, and whether we have it.

use super::acks::Acker;
use super::events::Received;
use super::options::MqttOptions;
use super::status::SourceStatus;
use crate::decode::{OptionError, TopicPattern};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{DisconnectReasonCode, Filter, Packet, Publish, RetainForwardRule, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event as Happened, EventLoop, StateError};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Largest packet we take, announced to the broker, which drops larger ones by itself.
pub(super) const MOST_PACKET_BYTES: u32 = 16 << 20;

/// Acks that may wait for the event loop: one for each packet id. So the ack task never waits for the loop while the loop, with a full
/// queue of events, waits for the worker and so for the ack task. (Not every broker keeps to the Receive Maximum.)
const REQUESTS: usize = u16::MAX as usize;

/// Packet ids of our own: we only subscribe. rumqttc keeps a slot for each.
const OWN_PACKETS: u16 = 8;

/// Upper edge of the first pause between two tries, and of the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// A connection that lived as long as this was a good one: the next pause is short again.
const STEADY: Duration = Duration::from_secs(10);

/// How long a goodbye may take once every ack is on its way.
const GOODBYE: Duration = Duration::from_secs(2);

/// What happens on the connection, in order.
pub(super) type Event = super::events::Event<Connection>;

/// The way for acks of one connection.
#[derive(Clone)]
pub(super) struct Connection(AsyncClient);

impl Acker for Connection {
    async fn ack(&self, packet: u16) -> bool {
        let publish = Publish { qos: QoS::AtLeastOnce, pkid: packet, ..Publish::default() };
        self.0.ack(&publish).await.is_ok()
    }
}

/// The client of one connection of a source.
pub(super) struct Client {
    options: rumqttc::v5::MqttOptions,
    filters: Vec<Filter>,
    name: String,
    /// The broker's session is known to hold our subscriptions.
    subscribed: bool,
}

/// How a connection ended.
enum End {
    Lost(String),
    Stopped(Box<(AsyncClient, EventLoop)>),
}

impl Client {
    /// Reads the password; touches nothing else.
    pub(super) fn new(options: &MqttOptions, patterns: &[TopicPattern], client_id: &str) -> Result<Self, OptionError> {
        let (host, port) = options.address()?;
        let mut broker = rumqttc::v5::MqttOptions::new(client_id, host, port);
        broker.set_keep_alive(options.keep_alive).set_clean_start(false).set_manual_acks(true);
        broker.set_session_expiry_interval(Some(u32::try_from(options.session_expiry.as_secs()).unwrap_or(u32::MAX)));
        broker.set_receive_maximum(Some(options.receive_maximum)).set_max_packet_size(Some(MOST_PACKET_BYTES));
        broker.set_outgoing_inflight_upper_limit(OWN_PACKETS);
        if let Some(username) = &options.username {
            let password = options.password.as_ref().map_or(Ok(String::new()), |p| p.read())?;
            broker.set_credentials(username, password);
        }
        let qos = if options.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let filter = |path| Filter { path, qos, retain_forward_rule: RetainForwardRule::OnNewSubscribe, ..Filter::default() };
        let filters = options.filters(patterns).into_iter().map(filter).collect();
        Ok(Self { options: broker, filters, name: client_id.to_owned(), subscribed: false })
    }

    /// Stays connected until `stop`. Then takes nothing more, sends acks until `settled`, and says goodbye; the session stays.
    pub(super) async fn run(
        mut self,
        events: mpsc::Sender<Event>,
        status: &SourceStatus,
        stop: CancellationToken,
        settled: CancellationToken,
    ) {
        let mut tries = 0;
        let mut first = true;
        while !stop.is_cancelled() {
            let began = Instant::now();
            let (end, connected) = self.connection(&events, status, &stop, first).await;
            if connected {
                first = false;
                status.connected.fetch_sub(1, Relaxed);
                // A closed queue means that the source stops; `stop` says so to the loop.
                let _ = events.send(Event::Disconnected).await;
            }
            let reason = match end {
                End::Lost(reason) => reason,
                End::Stopped(open) => {
                    drop(events);
                    if connected {
                        leave(*open, &settled).await;
                    }
                    return;
                }
            };
            if connected && began.elapsed() >= STEADY {
                tries = 0;
            }
            let wait = pause(tries, rand::random());
            tries += 1;
            tracing::warn!(client = %self.name, %reason, wait_ms = wait.as_millis(), "not connected to the broker");
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One connection from its beginning to its end, and whether the broker took us.
    async fn connection(
        &mut self,
        events: &mpsc::Sender<Event>,
        status: &SourceStatus,
        stop: &CancellationToken,
        first: bool,
    ) -> (End, bool) {
        let (client, mut wire) = AsyncClient::new(self.options.clone(), REQUESTS);
        let mut connected = false;
        loop {
            let happened = tokio::select! {
                biased;
                () = stop.cancelled() => return (End::Stopped(Box::new((client, wire))), connected),
                happened = wire.poll() => happened,
            };
            let event = match happened {
                Ok(Happened::Incoming(Packet::ConnAck(ack))) => {
                    connected = true;
                    status.connected.fetch_add(1, Relaxed);
                    status.reconnects.fetch_add(u64::from(!first), Relaxed);
                    self.subscribed &= ack.session_present;
                    // The request queue of a new event loop is empty.
                    if !self.subscribed && client.try_subscribe_many(self.filters.clone()).is_err() {
                        return (End::Lost(format!("filters that MQTT does not know: {:?}", self.paths())), connected);
                    }
                    tracing::info!(client = %self.name, session_present = ack.session_present, "connected to the broker");
                    Event::Connected { session_present: ack.session_present, acker: Connection(client.clone()) }
                }
                Ok(Happened::Incoming(Packet::Publish(publish))) => {
                    status.unacked.fetch_add(u64::from(publish.qos == QoS::AtLeastOnce), Relaxed);
                    Event::Received(received(publish))
                }
                Ok(Happened::Incoming(Packet::SubAck(ack))) => {
                    if let Some(refused) = ack.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_))) {
                        return (End::Lost(format!("the broker refuses one of {:?}: {refused:?}", self.paths())), connected);
                    }
                    self.subscribed = true;
                    continue;
                }
                Ok(_) => continue,
                Err(error) => {
                    status.takeovers.fetch_add(u64::from(is_takeover(&error)), Relaxed);
                    return (End::Lost(error.to_string()), connected);
                }
            };
            tokio::select! {
                sent = events.send(event) => if sent.is_err() { stop.cancel() },
                () = stop.cancelled() => {}
            }
        }
    }

    fn paths(&self) -> Vec<&str> {
        self.filters.iter().map(|f| f.path.as_str()).collect()
    }
}

/// Lets the acks out that are still to come, then ends the connection in order. What arrives meanwhile stays with the broker.
async fn leave((client, mut wire): (AsyncClient, EventLoop), settled: &CancellationToken) {
    loop {
        tokio::select! {
            () = settled.cancelled() => break,
            happened = wire.poll() => if happened.is_err() { return },
        }
    }
    let goodbye = async {
        // The request stands behind the last ack. The broker closes the connection when it has read up to there: a session that we take
        // up again before that would miss those acks.
        let asked = client.disconnect();
        let read = async { while wire.poll().await.is_ok() {} };
        let _ = tokio::join!(asked, read);
    };
    if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
        tracing::warn!("the broker took no goodbye");
    }
}

fn received(publish: Publish) -> Received {
    let packet = (publish.qos != QoS::AtMostOnce).then_some(publish.pkid);
    Received { topic: publish.topic, payload: publish.payload, dup: publish.dup, packet }
}

fn is_takeover(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::MqttState(StateError::ServerDisconnect { reason_code: DisconnectReasonCode::SessionTakenOver, .. }))
}

/// Full jitter: anywhere between nothing and an edge that doubles with each try. `chance` lies in 0..1.
/// Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
fn pause(tries: u32, chance: f64) -> Duration {
    let edge = PAUSES.0.saturating_mul(1 << tries.min(16)).min(PAUSES.1);
    edge.mul_f64(chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_their_longest() {
        let edges: Vec<u128> = (0..9).map(|tries| pause(tries, 1.0).as_millis()).collect();
        assert_eq!(edges, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(pause(u32::MAX, 0.5), Duration::from_secs(15));
        assert_eq!(pause(3, 0.0), Duration::ZERO);
    }
}
