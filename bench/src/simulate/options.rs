//! The command line of `tidegate simulate`: a scenario's file, and what differs from it.

use std::path::{Path, PathBuf};

use crate::scenario::{Format, Scenario, Span, Transport, Version};
use crate::{Error, Result};

/// What is simulated. Options that are given replace what the scenario says.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SimulateOptions {
    /// The scenario's file, as in `bench/scenarios`; the fleet of the demo if left out.
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// Folder for the truth: what was sent, and what became of it.
    #[arg(long, value_name = "DIR")]
    pub truth: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// The same seed and start give the same messages.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Time of the first reading, as `2026-01-01T00:00:00Z`.
    #[arg(long, value_name = "TIME")]
    pub start: Option<String>,
    /// Devices at a time.
    #[arg(long)]
    pub devices: Option<u32>,
    /// Readings a second of each device.
    #[arg(long)]
    pub rate: Option<f64>,
    /// How long devices measure, as `30s`.
    #[arg(long, value_name = "SPAN")]
    pub lasting: Option<Span>,
    /// Over what messages travel.
    #[arg(long)]
    pub transport: Option<Transport>,
    /// The broker, `mqtt://host:port` or `mqtts://host:port`.
    #[arg(long)]
    pub url: Option<String>,
    /// Brokers of Kafka, `host:port`, with commas between several.
    #[arg(long, value_name = "ADDRESS")]
    pub brokers: Option<String>,
    /// The topic, for Kafka.
    #[arg(long)]
    pub kafka_topic: Option<String>,
    /// Certificates to trust, for `mqtts`.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The version of MQTT.
    #[arg(long)]
    pub mqtt: Option<Version>,
    /// 0 or 1.
    #[arg(long)]
    pub qos: Option<u8>,
    /// Connections to the broker.
    #[arg(long)]
    pub connections: Option<u32>,
    /// The file that is written.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// How a reading is written.
    #[arg(long)]
    pub format: Option<Format>,
}

impl SimulateOptions {
    /// The scenario that is meant.
    pub fn scenario(&self) -> Result<Scenario> {
        let mut scenario = self.scenario.as_deref().map_or_else(|| Ok(Scenario::demo()), Scenario::read)?;
        let options = self.clone();
        let wire = &mut scenario.wire;
        put(options.transport, &mut wire.transport);
        put(options.url, &mut wire.url);
        put(options.brokers, &mut wire.brokers);
        put(options.kafka_topic, &mut wire.kafka_topic);
        put(options.mqtt, &mut wire.version);
        put(options.qos, &mut wire.qos);
        put(options.connections, &mut wire.connections);
        put(options.file, &mut wire.file);
        put(options.format, &mut wire.format);
        wire.ca = options.ca.or(wire.ca.take());
        put(options.seed, &mut scenario.seed);
        put(options.devices, &mut scenario.devices);
        put(options.rate, &mut scenario.rate.each);
        scenario.start = options.start.or(scenario.start);
        scenario.lasting = options.lasting.or(scenario.lasting);
        let file = self.scenario.as_deref().unwrap_or(Path::new("command line")).display().to_string();
        scenario.check().map_err(|reason| Error::Scenario { file, reason })?;
        Ok(scenario)
    }
}

fn put<T>(given: Option<T>, to: &mut T) {
    if let Some(given) = given {
        *to = given;
    }
}
