//! What a user says about a Kafka source: brokers, topics, where to begin, what to do about gaps, who we are.

use crate::credentials::{Secret, TlsOptions, mistake};
use crate::decode::OptionError;
use indexmap::IndexMap;
use rdkafka::ClientConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Properties of the client that a source decides itself.
const OURS: [&str; 10] = [
    "bootstrap.servers",
    "group.id",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.partition.eof",
    "isolation.level",
    "statistics.interval.ms",
    "security.protocol",
];
/// The longest name of a topic.
const TOPIC_LENGTH: usize = 249;

/// Options of a Kafka source, without those that all sources share (`decode`, `columns`, `key`, `watermark`).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaOptions {
    /// Some of the cluster's brokers: `host:port`.
    pub brokers: Vec<String>,
    /// Topics. Each partition is a lane, so the records of a device stand in one partition: the usual producer sees to it where the
    /// record's key names the device.
    pub topics: Vec<String>,
    /// Name of the consumer group under which progress is shown to lag tools; by default `tidegate-<pipeline>-<source>`. Where reading goes on
    /// is not decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// Where the pipeline's first start begins. Partitions that are found later are read from their beginning.
    #[serde(default)]
    pub start: Start,
    /// What to do where records are gone that were not read.
    #[serde(default)]
    pub on_gap: OnGap,
    /// Columns of what stands beside a record's value.
    #[serde(default)]
    pub metadata: MetadataColumns,
    /// Name and password (SASL).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
    /// Certificates; `tls = {}` asks for TLS with the authorities that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsOptions>,
    /// Further properties of the client by their names in librdkafka's CONFIGURATION.md.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub options: IndexMap<String, String>,
}

/// Where the pipeline's first start begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the first record that is there.
    #[default]
    Earliest,
    /// Behind the last record that is there.
    Latest,
}

/// What to do where records are gone that were not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnGap {
    /// Stop, and say what is missing.
    #[default]
    Stop,
    /// Go on at the first record that is there. What is missing is counted.
    Earliest,
    /// Go on behind the last record that is there. What is missing is counted.
    Latest,
}

/// Text columns of what stands beside a record's value. A record without one of them is a dead letter (`key_missing`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetadataColumns {
    /// Name of the column that holds the record's key, UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Name of the column that holds the topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Columns of headers: `headers = { column = "header" }`. Of a header that stands there twice the last counts.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub headers: IndexMap<String, String>,
}

/// Name and password.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// How the password is shown to the broker.
    pub mechanism: Mechanism,
    /// User name.
    pub username: String,
    /// Password, by name.
    pub password: Secret,
}

/// How the password is shown to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Mechanism {
    /// As it is: only with TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// RFC 5802 with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// RFC 5802 with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl KafkaOptions {
    /// Looks for mistakes that need no broker; an error names the key.
    pub fn check(&self) -> Result<(), OptionError> {
        if self.brokers.is_empty() {
            return Err(mistake("brokers", "names no broker", Some("brokers = [\"127.0.0.1:9092\"]")));
        }
        if let Some(broker) = self.brokers.iter().find(|b| !is_address(b)) {
            return Err(mistake("brokers", format!("`{broker}` is not host:port"), Some("brokers = [\"127.0.0.1:9092\"]")));
        }
        if self.topics.is_empty() {
            return Err(mistake("topics", "names no topic", None));
        }
        for (number, topic) in self.topics.iter().enumerate() {
            if !is_topic(topic) {
                let hint = "letters, digits, `.`, `_` and `-`, at most 249 of them; no patterns";
                return Err(mistake("topics", format!("`{topic}` is no name of a topic"), Some(hint)));
            }
            if self.topics[..number].contains(topic) {
                return Err(mistake("topics", format!("`{topic}` stands there twice"), None));
            }
        }
        let captures = self.captures();
        if let Some(twice) = captures.iter().enumerate().find(|(n, c)| captures[..*n].contains(c)) {
            return Err(mistake("metadata", format!("two columns are called `{}`", twice.1), None));
        }
        self.check_client()
    }

    fn check_client(&self) -> Result<(), OptionError> {
        if let Some(name) = self.options.keys().find(|name| OURS.contains(&name.as_str())) {
            return Err(mistake("options", format!("`{name}` is decided by the source"), None));
        }
        if let Some(tls) = &self.tls {
            tls.check()?;
        }
        if let Some(sasl) = &self.sasl {
            sasl.password.check().map_err(|e| OptionError { path: format!("sasl.{}", e.path), ..e })?;
            if sasl.mechanism == Mechanism::Plain && self.tls.is_none() {
                return Err(mistake("sasl.mechanism", "PLAIN without `tls` sends the password as it is", Some("tls = {}")));
            }
        }
        let mut config = ClientConfig::new();
        self.options.iter().for_each(|(name, value)| {
            config.set(name, value);
        });
        // The client knows its properties; it says which of them is wrong.
        config.create_native_config().map(|_| ()).map_err(|e| mistake("options", e.to_string(), None))
    }

    /// The columns of `metadata`: key, topic, headers in their order.
    #[must_use]
    pub fn captures(&self) -> Vec<String> {
        let of = &self.metadata;
        of.key.iter().chain(&of.topic).chain(of.headers.keys()).cloned().collect()
    }

    /// The name of the consumer group.
    #[must_use]
    pub fn group(&self, pipeline: &str, source: &str) -> String {
        self.group_id.clone().unwrap_or_else(|| format!("tidegate-{pipeline}-{source}"))
    }
}

impl Mechanism {
    /// The name that brokers know.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && !host.contains([' ', ',', '/']) && port.parse::<u16>().is_ok())
}

fn is_topic(name: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= TOPIC_LENGTH && name.chars().all(known) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(more: &str) -> KafkaOptions {
        toml::from_str(&format!("brokers = [\"127.0.0.1:9092\"]\ntopics = [\"readings\"]\n{more}")).unwrap()
    }

    fn wrong(more: &str) -> String {
        options(more).check().unwrap_err().path
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let plain = options("");
        plain.check().unwrap();
        assert_eq!((plain.start, plain.on_gap), (Start::Earliest, OnGap::Stop));
        assert_eq!(plain.group("line", "floor"), "tidegate-line-floor");
        assert!(plain.captures().is_empty());
    }

    #[test]
    fn columns_come_in_the_order_key_topic_headers() {
        let of = options("metadata = { headers = { site = \"x-site\", line = \"x-line\" }, topic = \"topic\", key = \"device_id\" }");
        of.check().unwrap();
        assert_eq!(of.captures(), ["device_id", "topic", "site", "line"]);
    }

    #[test]
    fn a_mistake_names_its_key() {
        assert_eq!(wrong("metadata = { key = \"a\", topic = \"a\" }"), "metadata");
        assert_eq!(wrong("options = { \"group.id\" = \"x\" }"), "options");
        assert_eq!(wrong("options = { \"fetch.mim.bytes\" = \"1\" }"), "options");
        assert_eq!(wrong("options = { \"fetch.min.bytes\" = \"many\" }"), "options");
        assert_eq!(wrong("sasl = { mechanism = \"PLAIN\", username = \"u\", password = { env = \"P\" } }"), "sasl.mechanism");
        assert_eq!(wrong("tls = {}\nsasl = { mechanism = \"PLAIN\", username = \"u\", password = {} }"), "sasl.password");
        assert_eq!(wrong("tls = { key = \"k.pem\" }"), "tls.key");
        for (brokers, topics, key) in [("[]", "[\"a\"]", "brokers"), ("[\"b\"]", "[\"a\"]", "brokers"), ("[\"b:1\"]", "[]", "topics")] {
            let of: KafkaOptions = toml::from_str(&format!("brokers = {brokers}\ntopics = {topics}")).unwrap();
            assert_eq!(of.check().unwrap_err().path, key);
        }
        for topics in ["[\"a/b\"]", "[\"a\", \"a\"]", "[\"..\"]", "[\"^plant.*\"]"] {
            let of: KafkaOptions = toml::from_str(&format!("brokers = [\"b:1\"]\ntopics = {topics}")).unwrap();
            assert_eq!(of.check().unwrap_err().path, "topics", "{topics}");
        }
    }
}
