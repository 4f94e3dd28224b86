//! HTTP: requests with messages, answered when their rows are durable.
//!
//! Promises: a request is answered with success after the fsync of all its rows, so a crash loses none of them; one that carries an
//! `Idempotency-Key` and is sent again is taken once, over a crash too. A message that cannot be used is a dead letter, and the answer says so.
//! The rest of a request's path is its topic, as MQTT has them. Who listens is the gateway's business: no sockets here.

mod keys;
mod options;
mod request;
mod source;

pub use options::HttpSourceOptions;
pub use request::{Receipt, Refusal, Refused, Request, messages};
pub use source::{HttpSource, Intake, open};
