//! How messages travel: over MQTT, Kafka or HTTP, each when it is due, or into a file, as fast as it can be written.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Span, positive, share};
use crate::fleet::Class;

/// The way of messages to a pipeline.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WireOptions {
    /// Over what.
    pub transport: Transport,
    /// How a reading is written. CSV for files only.
    pub format: Format,
    /// mqtt: the broker, `mqtt://host:port`, or `mqtts://host:port` for TLS. http: the source, `http://host:port/api/v1/ingest/name`.
    pub url: String,
    /// mqtt: the version of the protocol.
    pub version: Version,
    /// mqtt: 1, or 0, of which no broker says what it got.
    pub qos: u8,
    /// mqtt, http: connections, among which devices are divided; each device stays with one.
    pub connections: u32,
    /// mqtt, http: topic of a reading, which HTTP has in the path; `{site}` and `{device}` stand for their names.
    pub topic: String,
    /// mqtt: file with the certificates of authorities to trust; the broker's own where it signs itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// kafka: some of the cluster's brokers, `host:port`, with commas between several.
    pub brokers: String,
    /// kafka: the topic. Records have the device as key.
    pub kafka_topic: String,
    /// mqtt, kafka, http: how far behind schedule the simulator itself may fall before it gives up.
    pub max_lag: Span,
    /// mqtt: connections that break all at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storm: Option<Storm>,
    /// file: where to. What is there is replaced.
    pub file: PathBuf,
    /// Name of the event time (Unix milliseconds) in the payload.
    pub time: String,
    /// Name of the sequence in the payload: from 0, per device.
    pub sequence: String,
    /// Name of the device in the payload; on MQTT and HTTP it stands in the topic alone.
    pub device: String,
}

/// What carries messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A broker.
    #[default]
    Mqtt,
    /// A file with a reading a line.
    File,
    /// Brokers of Kafka.
    Kafka,
    /// A source that is posted to.
    Http,
}

/// How a reading is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON object.
    #[default]
    Json,
    /// Values in the order of the header: device, time, sequence, signals.
    Csv,
}

/// A version of MQTT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
pub enum Version {
    /// MQTT 5.0.
    #[default]
    #[serde(rename = "5")]
    #[value(name = "5")]
    V5,
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    #[value(name = "3.1.1")]
    V311,
}

/// Connections that break all at once.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// From one to the next.
    pub every: Span,
    /// Share of the connections, others each time.
    pub share: f64,
}

impl Default for WireOptions {
    fn default() -> WireOptions {
        WireOptions {
            transport: Transport::Mqtt,
            format: Format::Json,
            url: "mqtt://127.0.0.1:1883".to_owned(),
            version: Version::V5,
            qos: 1,
            connections: 1,
            topic: "plant/{site}/{device}/telemetry".to_owned(),
            ca: None,
            brokers: "127.0.0.1:9092".to_owned(),
            kafka_topic: "readings".to_owned(),
            max_lag: Span::from_secs(30),
            storm: None,
            file: PathBuf::from("readings.ndjson"),
            time: "ts".to_owned(),
            sequence: "seq".to_owned(),
            device: "device_id".to_owned(),
        }
    }
}

impl WireOptions {
    pub(super) fn check(&self, ends: bool) -> Result<(), String> {
        if self.transport == Transport::File {
            return if ends { Ok(()) } else { Err("wire.transport = \"file\" needs `lasting`: a file ends".to_owned()) };
        }
        if self.format == Format::Csv {
            return Err("wire.format = \"csv\" is for files; over MQTT, Kafka and HTTP readings are JSON".to_owned());
        }
        positive("wire.max_lag", self.max_lag)?;
        if self.transport == Transport::Kafka {
            return if self.storm.is_none() {
                Ok(())
            } else {
                Err("wire.storm is for MQTT: a producer of Kafka has its own connections".to_owned())
            };
        }
        if self.transport == Transport::Http && self.storm.is_some() {
            return Err("wire.storm is for MQTT: HTTP has no sessions".to_owned());
        }
        if self.qos > 1 {
            return Err(format!("wire.qos = {}: there are 0 and 1", self.qos));
        }
        if self.connections == 0 {
            return Err("wire.connections = 0: at least one".to_owned());
        }
        if !self.topic.contains("{device}") {
            return Err(format!("wire.topic = {:?}: {{device}} is missing", self.topic));
        }
        if let Some(storm) = self.storm {
            positive("wire.storm.every", storm.every)?;
            share("wire.storm.share", storm.share)?;
        }
        Ok(())
    }

    /// In which ways a reading can be broken on this wire.
    pub fn classes(&self) -> &'static [Class] {
        match (self.transport, self.format) {
            (Transport::Mqtt | Transport::Http, _) => &Class::OF_MQTT,
            (Transport::File | Transport::Kafka, Format::Json) => &Class::OF_NDJSON,
            (Transport::File | Transport::Kafka, Format::Csv) => &Class::OF_CSV,
        }
    }
}
