//! What a user says about a Kafka source: brokers, topics, where to begin, what to do about gaps, who we are.

use super::connection::{Connection, Sasl, check_topic};
use crate::credentials::{TlsOptions, mistake};
use crate::decode::OptionError;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Properties of the client that a source decides itself.
const OURS: [&str; 9] = [
    "group.id",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.partition.eof",
    "isolation.level",
    "partition.assignment.strategy",
    "statistics.interval.ms",
];
/// Options of a Kafka source, without those that all sources share (`decode`, `columns`, `key`, `watermark`).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaOptions {
    /// Some of the cluster's brokers: `host:port`.
    pub brokers: Vec<String>,
    /// Topics. Each partition is a lane, so the records of a device stand in one partition: the usual producer sees to it where the
    /// record's key names the device. Where it does not, say `rekey`.
    pub topics: Vec<String>,
    /// The records of a device stand in any partition. What is kept by key is then kept over all of them, in a second stage.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rekey: bool,
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

impl KafkaOptions {
    /// Looks for mistakes that need no broker; an error names the key.
    pub fn check(&self) -> Result<(), OptionError> {
        if self.topics.is_empty() {
            return Err(mistake("topics", "names no topic", None));
        }
        for (number, topic) in self.topics.iter().enumerate() {
            check_topic("topics", topic)?;
            if self.topics[..number].contains(topic) {
                return Err(mistake("topics", format!("`{topic}` stands there twice"), None));
            }
        }
        let captures = self.captures();
        if let Some(twice) = captures.iter().enumerate().find(|(n, c)| captures[..*n].contains(c)) {
            return Err(mistake("metadata", format!("two columns are called `{}`", twice.1), None));
        }
        self.connection().check(&OURS)
    }

    /// How its brokers are reached.
    #[must_use]
    pub fn connection(&self) -> Connection<'_> {
        Connection { brokers: &self.brokers, sasl: self.sasl.as_ref(), tls: self.tls.as_ref(), options: &self.options }
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
        assert_eq!(wrong("options = { \"partition.assignment.strategy\" = \"range\" }"), "options");
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
