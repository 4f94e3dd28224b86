//! An MQTT source from outside, against brokers that are started here on free ports.
//!
//! ```text
//! support.rs    a journal with lanes, a decoder of numbers, a running source, mosquitto
//! mosquitto.rs  restarts, an absent broker, a taken id, what a crash leaves
//! secure.rs     TLS, mTLS, MQTT 3.1.1, websockets, a shared subscription
//! faults.rs     a broker that misbehaves: lost acks, redelivery, cuts, a forgotten session, takeover
//! ```
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod faults;
mod mosquitto;
mod secure;
mod support;
