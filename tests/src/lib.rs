//! What the tests share: the `tidegate` binary as a process, a real Mosquitto, a real Apache Kafka and a real S3 server, a broker that misbehaves on request, a publisher,
//! Python, and the comparison of two tables.
//!
//! These helpers serve tests alone, so they panic with a message instead of returning errors. A server that is missing is an error
//! of the set-up (`tests/setup/install.sh`), not a reason to skip. Nothing outside 127.0.0.1 is contacted.

mod broker;
mod certificates;
mod compare;
mod environment;
pub mod http;
mod kafka;
mod mosquitto;
mod publisher;
mod python;
mod s3;
mod tidegate;
mod wait;

pub use broker::{Manners, Record, TestBroker};
pub use certificates::certificates;
pub use compare::{assert_same, rows};
pub use environment::from_environment;
pub use kafka::Kafka;
pub use mosquitto::Mosquitto;
pub use publisher::Publisher;
pub use python::{python, python_in, repository, shared_data};
pub use s3::S3;
pub use tidegate::{Running, Tidegate};
pub use wait::{free_port, until};
