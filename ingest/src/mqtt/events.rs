//! What a connection tells the worker, whoever speaks to the broker: rumqttc, or a broker of a simulation.

use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// What happens on a connection, in order. `A` is the way back for its acks.
pub enum Event<A> {
    /// The broker has taken us.
    Connected {
        /// Whether the broker has kept our session: then it may deliver again.
        session_present: bool,
        /// The way for the acks of this connection.
        acker: A,
    },
    /// A message came.
    Received(Received),
    /// The connection has ended.
    Disconnected,
}

/// A message of the current connection.
#[derive(Clone, Debug)]
pub struct Received {
    /// The topic's bytes.
    pub topic: Bytes,
    /// The message.
    pub payload: Bytes,
    /// The broker says that it may have delivered it before.
    pub dup: bool,
    /// Packet id to acknowledge; none for QoS 0.
    pub packet: Option<u16>,
    /// The W3C `traceparent` that came with it.
    pub trace: Option<Box<str>>,
    /// Its share of the bytes that may wait for the worker, given back when it is dropped.
    pub(super) room: Option<Arc<OwnedSemaphorePermit>>,
}

impl Received {
    /// A message without a share of the bytes that may wait.
    #[must_use]
    pub fn new(topic: Bytes, payload: Bytes, dup: bool, packet: Option<u16>, trace: Option<Box<str>>) -> Self {
        Self { topic, payload, dup, packet, trace, room: None }
    }

    /// Bytes of topic and payload.
    pub(super) fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}
