//! MQTT: messages from a broker, acknowledged when they are durable.
//!
//! Promises: a QoS 1 message is acknowledged after the fsync of all its rows, in order of receipt, so a crash loses none; what the
//! broker then sends again is recognised and dropped. A message that cannot be used is a dead letter and is acknowledged too.
//! Version 5, over TCP. Absent: TLS, websockets, QoS 2, MQTT 3.1.1.

mod acks;
mod batch;
mod client;
mod events;
mod options;
mod redelivery;
mod source;
mod status;

pub use acks::Acker;
pub use events::{Event, Received};
pub use options::{MqttOptions, Redelivery, Secret};
pub use redelivery::publish_hash;
pub use source::{MqttSource, Session, run};
pub use status::SourceStatus;
