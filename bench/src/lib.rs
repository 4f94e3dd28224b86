//! The load on Tidegate: simulated fleets of devices with their truth, the referee that holds tables against it, an embedded MQTT broker
//! for the demo, and speed measurements.
//!
//! ```text
//! scenario → fleet → simulate → broker or file → Tidegate → tables
//!                       └─► truth ─────────────────► verify ◄─┘ SQL
//! ```
//! Everything here speaks to Tidegate as a stranger would: over MQTT, through files, by SQL, by starting the binary as a process. The
//! room never links `pipelines`, so a measurement contains nothing but what a user would run, and the referee repeats no mistake of ours.
//!
//! Two benches are the exception: `benches/operators` calls the operators as a lane does, to see what they cost without all around them, and
//! `benches/bytes` the writers of segments and cold files, to see what a reading takes on disk.
//!
//! Absent by intent: no knowledge of the journal, the records or the tiers, but for the cold table, which is a plain Delta table.

mod broker;
mod durability;
mod error;
pub mod fleet;
mod mosquitto;
mod mqtt;
mod page;
mod process;
pub mod scenario;
mod setup;
pub mod simulate;
mod speed;
mod start;
pub mod truth;
pub mod verify;
mod w1;

pub use broker::Broker;
pub use durability::{Acks, DurabilityOptions, DurabilityReport, Run, measure_durability};
pub use error::{Error, Result};
pub use mqtt::{MqttOptions, MqttReport, Visible, measure_mqtt};
pub use process::{Usage, run_and_measure};
pub use speed::{SpeedOptions, SpeedReport, Work, measure};
pub use start::{StartOptions, StartReport, measure_start};
pub use w1::{W1Options, W1Truth, write_w1};
