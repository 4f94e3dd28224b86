//! The connection to the broker, around `wire`: one event loop a connection, so that nothing of an ended one reaches the next.
//!
//! Promises: publishes are handed on in order of receipt, between the `Connected` and the `Disconnected` of their connection; nothing is
//! acknowledged here by itself; an absent broker is tried again for ever. Absent: what a message means, and whether we have it.

use super::acks::Acker;
use super::options::MqttOptions;
use super::wire::{Broken, Heard, Requests, Settings, Wire};
use crate::decode::{OptionError, TopicPattern};
use crate::status::SourceStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Largest packet we take, announced to the broker, which drops larger ones by itself.
pub(super) const MOST_PACKET_BYTES: u32 = 16 << 20;

/// Bytes of messages that may wait for the worker, unless one alone has more: what a flood of large messages can hold of our memory.
/// While they wait the connection is not read, so the broker is held back too.
const WAITING_BYTES: usize = 32 << 20;

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
pub(super) struct Connection(Requests);

impl Acker for Connection {
    async fn ack(&self, packet: u16) -> bool {
        self.0.ack(packet).await
    }
}

/// The client of one connection of a source.
pub(super) struct Client {
    settings: Settings,
    filters: Vec<String>,
    qos: u8,
    room: Arc<Semaphore>,
    name: String,
    /// The broker's session is known to hold our subscriptions.
    subscribed: bool,
}

/// How a connection ended.
enum End {
    Lost(Broken),
    Stopped(Requests, Wire),
}

impl Client {
    /// Reads the password and the certificates; touches nothing else.
    pub(super) fn new(options: &MqttOptions, patterns: &[TopicPattern], client_id: &str) -> Result<Self, OptionError> {
        Ok(Self {
            settings: Settings::new(options, client_id)?,
            filters: options.filters(patterns),
            qos: options.qos,
            room: Arc::new(Semaphore::new(WAITING_BYTES)),
            name: client_id.to_owned(),
            subscribed: false,
        })
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
            let Broken { reason, takeover } = match end {
                End::Lost(broken) => broken,
                End::Stopped(requests, wire) => {
                    drop(events);
                    if connected {
                        leave(&requests, wire, &settled).await;
                    }
                    return;
                }
            };
            status.takeovers.fetch_add(u64::from(takeover), Relaxed);
            // Two that take one id from each other would do so for ever at the pace of the shorter pause: ours keeps growing.
            if connected && !takeover && began.elapsed() >= STEADY {
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
        let (requests, mut wire) = self.settings.open();
        let mut connected = false;
        loop {
            let heard = tokio::select! {
                biased;
                () = stop.cancelled() => return (End::Stopped(requests, wire), connected),
                heard = wire.poll() => heard,
            };
            let event = match heard {
                Ok(Heard::Connected { session_present }) => {
                    connected = true;
                    status.connected.fetch_add(1, Relaxed);
                    status.reconnects.fetch_add(u64::from(!first), Relaxed);
                    self.subscribed &= session_present;
                    // The request queue of a new connection is empty.
                    if !self.subscribed && !requests.subscribe(&self.filters, self.qos) {
                        return (End::Lost(lost(format!("filters that MQTT does not know: {:?}", self.filters))), connected);
                    }
                    tracing::info!(client = %self.name, session_present, "connected to the broker");
                    Event::Connected { session_present, acker: Connection(requests.clone()) }
                }
                Ok(Heard::Publish(mut message)) => {
                    status.unacked.fetch_add(u64::from(message.packet.is_some()), Relaxed);
                    message.room = tokio::select! {
                        room = self.room.clone().acquire_many_owned(message.bytes().min(WAITING_BYTES) as u32) => room.ok().map(Arc::new),
                        () = stop.cancelled() => None,
                    };
                    Event::Received(message)
                }
                Ok(Heard::Subscribed(Ok(()))) => {
                    self.subscribed = true;
                    continue;
                }
                Ok(Heard::Subscribed(Err(refused))) => {
                    return (End::Lost(lost(format!("the broker refuses one of {:?}: {refused}", self.filters))), connected);
                }
                Ok(Heard::Other) => continue,
                Err(broken) => return (End::Lost(broken), connected),
            };
            tokio::select! {
                sent = events.send(event) => if sent.is_err() { stop.cancel() },
                () = stop.cancelled() => {}
            }
        }
    }
}

fn lost(reason: String) -> Broken {
    Broken { reason, takeover: false }
}

/// Lets the acks out that are still to come, then ends the connection in order. What arrives meanwhile stays with the broker.
async fn leave(requests: &Requests, mut wire: Wire, settled: &CancellationToken) {
    loop {
        tokio::select! {
            () = settled.cancelled() => break,
            heard = wire.poll() => if heard.is_err() { return },
        }
    }
    let goodbye = async {
        // The request stands behind the last ack. The broker closes the connection when it has read up to there: a session that we take
        // up again before that would miss those acks.
        let asked = requests.disconnect();
        let read = async { while wire.poll().await.is_ok() {} };
        let _ = tokio::join!(asked, read);
    };
    if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
        tracing::warn!("the broker took no goodbye");
    }
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
