//! `tidegate simulate`: a scenario on the wire, and the truth about it on the disk.
//!
//! ```text
//! mod.rs         one simulation from its first message to the last acknowledgement
//! options.rs     the command line
//! mqtt.rs        a broker: when messages go out, over which connection
//! connection.rs  one connection, and who serves it
//! wire.rs        the client library, MQTT 5 and 3.1.1
//! kafka.rs       brokers of Kafka
//! http.rs        a source that is posted to
//! pace.rs        when each message goes out
//! file.rs        a file
//! progress.rs    what happened so far: counts and percentiles
//! ```
//! Open loop: when a message is due is fixed in advance. A slow broker does not slow the devices; what is behind schedule is sent as fast
//! as the broker takes it, latency is counted from the moment it was due, and the simulator's own lag is reported and bounded.

mod connection;
mod file;
mod http;
mod kafka;
mod mqtt;
mod options;
mod pace;
mod progress;
mod wire;

pub use options::SimulateOptions;
pub use progress::{Progress, Report, Seconds};

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Result;
use crate::fleet::{Fleet, Message};
use crate::scenario::{Scenario, Transport};
use crate::truth::{PAYLOAD_BYTES, Sent, TruthSender, TruthWriter};

/// Sends what a scenario says until it ends or `stop` resolves, waits for the last acknowledgements, and says what was sent. With a
/// folder the truth is written there. `progress` can be looked at meanwhile.
pub async fn simulate(
    scenario: &Scenario,
    truth: Option<&Path>,
    progress: &Arc<Progress>,
    stop: impl Future<Output = ()>,
) -> Result<Report> {
    let began_us = now_us();
    let start_us = scenario.start_us(began_us);
    let mut fleet = Fleet::new(scenario, start_us);
    let mut writer = truth.map(|folder| TruthWriter::create(folder, scenario, start_us)).transpose()?;
    let sender = writer.as_ref().map(TruthWriter::sender).unwrap_or_default();
    let sent = match scenario.wire.transport {
        Transport::Mqtt => mqtt::send(scenario, &mut fleet, &mut writer, sender, progress, stop).await,
        Transport::Kafka => kafka::send(scenario, &mut fleet, &mut writer, sender, progress, stop).await,
        Transport::Http => http::send(scenario, &mut fleet, &mut writer, sender, progress, stop).await,
        Transport::File => tokio::task::block_in_place(|| file::send(scenario, &mut fleet, &mut writer, sender, progress, began_us)),
    };
    sent?;
    let report = progress.report(fleet.skipped());
    if let Some(writer) = writer {
        writer.finish(&report.counts).await?;
    }
    Ok(report)
}

/// What goes into the truth of a message whose fate is not known yet, and its bytes.
fn sent(message: Message, truth: &TruthSender, due_us: i64, sent_us: i64) -> (Sent, Vec<u8>) {
    let keeps = truth.keeps() && message.reading.reason.is_some();
    let length = message.payload.len();
    let payload = keeps.then(|| message.payload[..length.min(PAYLOAD_BYTES)].to_vec());
    let Message { reading, topic, payload: bytes, .. } = message;
    (Sent { reading, topic, payload, length, due_us, sent_us, acknowledged_us: None, attempts: 1 }, bytes)
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

#[cfg(test)]
mod tests;
