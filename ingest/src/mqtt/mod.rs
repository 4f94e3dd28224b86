//! MQTT: messages from a broker, acknowledged when they are durable.
//!
//! Promises: a QoS 1 message is acknowledged after the fsync of all its rows, in order of receipt, so a crash loses none; what the
//! broker then sends again is recognised and dropped. A message that cannot be used is a dead letter and is acknowledged too.
//! Versions 5 and 3.1.1, over TCP, TLS and websockets. A W3C `traceparent` among the user properties travels beside the rows. Absent: QoS 2.

mod acks;
mod address;
mod client;
mod cork;
mod events;
mod options;
mod redelivery;
mod session;
mod source;
mod tls;
mod wire;

pub use acks::Acker;
pub use events::{Event, Received};
pub use options::{MOST_CONNECTIONS, MqttOptions, Redelivery, Version};
pub use redelivery::publish_hash;
pub use source::{MqttSource, Session, run};
