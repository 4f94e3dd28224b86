//! What a user says about an MQTT source, and what of it the client takes: `url`, `topics`, session, limits, name and password.
//!
//! Nothing is read from the environment or from files before `Secret::read` and `TlsOptions::read`; the options hold names of secrets,
//! never their values.

use super::address::Address;
use crate::credentials::{Secret, TlsOptions, mistake};
use crate::decode::{OptionError, TopicPattern};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The shortest keep-alive: below it a busy broker looks like an absent one.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The greatest Receive Maximum: as many publishes of a connection the journal remembers.
const MOST_UNACKED: u16 = 1_000;

/// The most connections of a source: so many numbers of producers each source has for itself.
pub const MOST_CONNECTIONS: u32 = 4_096;

/// Options of an MQTT source, without those that all sources share (`decode`, `columns`, `key`, `watermark`).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MqttOptions {
    /// The broker: `mqtt://host:port` (port 1883 where none is given), `mqtts://` with TLS (8883), or a websocket as
    /// `ws://host:port/path` (80) and `wss://` (443).
    pub url: String,
    /// The protocol: 5, or 3.1.1 for brokers that know no newer one. 3.1.1 has no Receive Maximum and no session expiry: the broker's
    /// own settings bound what is in flight and how long it keeps a session, and a lost client id shows only as a lost connection.
    #[serde(default)]
    pub version: Version,
    /// Certificates, for `mqtts` and `wss`; by default those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsOptions>,
    /// Topic filters with `+` and `#`; `{name}` stands for one level and makes it a column. Every filter names the same columns.
    pub topics: Vec<String>,
    /// Client id, by default `tidegate-<pipeline>-<source>-<n>`. It names the session at the broker: keep it stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// 1: the broker repeats a message until it is durable here; 0: a message on its way when the connection ends is lost.
    #[serde(default = "one")]
    pub qos: u8,
    /// Connections to the broker; more than one needs `share`.
    #[serde(default = "one_connection")]
    pub connections: u32,
    /// Name of the group in which the connections share the messages (`$share/<name>/…`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
    /// How long the broker keeps messages for us while we are away.
    #[serde(default = "one_day", with = "words")]
    #[schemars(with = "String")]
    pub session_expiry: Duration,
    /// Most unacknowledged messages of a connection that we ask the broker for.
    #[serde(default = "thousand")]
    pub receive_maximum: u16,
    /// Silence after which the connection is tested, at least 5 s.
    #[serde(default = "one_minute", with = "words")]
    #[schemars(with = "String")]
    pub keep_alive: Duration,
    /// User name at the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password at the broker, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Which messages may be redeliveries of ones we have.
    #[serde(default)]
    pub redelivery: Redelivery,
}

/// A version of MQTT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Version {
    /// MQTT 5.0.
    #[default]
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
}

/// Which messages may be redeliveries of ones we have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Redelivery {
    /// Those that the broker marks as such (DUP).
    #[default]
    Dup,
    /// Any of the first `receive_maximum` after a reconnect: for brokers that set no mark.
    Any,
}

impl MqttOptions {
    /// Looks for mistakes that need no broker; an error names the key.
    pub fn check(&self) -> Result<(), OptionError> {
        let address = self.address()?;
        self.patterns()?;
        if let Some(tls) = &self.tls {
            if !address.secure {
                return Err(mistake("tls", format!("stands beside `{}`", self.url), Some("mqtts:// or wss:// ask for TLS")));
            }
            tls.check()?;
        }
        if self.qos > 1 {
            return Err(mistake("qos", format!("{} is not offered", self.qos), Some("1 stores every message, with redeliveries undone")));
        }
        if self.connections == 0 || (self.connections > 1 && self.share.is_none()) {
            let hint = "one connection, or a name in `share`: without it each connection gets every message";
            return Err(mistake("connections", format!("{} connections without `share`", self.connections), Some(hint)));
        }
        if self.connections > MOST_CONNECTIONS {
            return Err(mistake("connections", format!("{} are more than {MOST_CONNECTIONS}", self.connections), None));
        }
        if self.share.as_deref().is_some_and(|s| s.is_empty() || s.contains(['/', '+', '#'])) {
            return Err(mistake("share", "is empty or has one of / + #", None));
        }
        if !(1..=MOST_UNACKED).contains(&self.receive_maximum) {
            return Err(mistake("receive_maximum", format!("{} lies outside 1 to {MOST_UNACKED}", self.receive_maximum), None));
        }
        if self.keep_alive < SHORTEST_KEEP_ALIVE || self.keep_alive.as_secs() > u64::from(u16::MAX) {
            return Err(mistake("keep_alive", "lies outside 5s to 65535s", None));
        }
        if u32::try_from(self.session_expiry.as_secs()).is_err() {
            return Err(mistake("session_expiry", "is longer than MQTT can say (136 years)", None));
        }
        if self.password.is_some() && self.username.is_none() {
            return Err(mistake("password", "stands without `username`", None));
        }
        self.password.as_ref().map_or(Ok(()), |secret| secret.check("password"))
    }

    /// The patterns of `topics`, in their order. Each has the captures of the first; in which order is each one's own.
    pub fn patterns(&self) -> Result<Vec<TopicPattern>, OptionError> {
        TopicPattern::parse_all(&self.topics)
    }

    /// The client id of connection `number` (from 0).
    #[must_use]
    pub fn client_id(&self, pipeline: &str, source: &str, number: u32) -> String {
        match &self.client_id {
            Some(id) if self.connections == 1 => id.clone(),
            Some(id) => format!("{id}-{number}"),
            None => format!("tidegate-{pipeline}-{source}-{number}"),
        }
    }

    /// Where the broker is.
    pub(super) fn address(&self) -> Result<Address, OptionError> {
        Address::parse(&self.url)
    }

    /// The filters to subscribe to.
    pub(super) fn filters(&self, patterns: &[TopicPattern]) -> Vec<String> {
        let prefix = self.share.as_ref().map_or_else(String::new, |s| format!("$share/{s}/"));
        patterns.iter().map(|p| format!("{prefix}{}", p.filter())).collect()
    }
}

const fn one() -> u8 {
    1
}

const fn one_connection() -> u32 {
    1
}

const fn one_day() -> Duration {
    Duration::from_secs(24 * 60 * 60)
}

const fn one_minute() -> Duration {
    Duration::from_secs(60)
}

const fn thousand() -> u16 {
    MOST_UNACKED
}

/// Lengths of time in words: `24h`, `1m 30s`.
mod words {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map_err(|e| D::Error::custom(format!("`{text}`: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(more: &str) -> MqttOptions {
        toml::from_str(&format!("url = \"mqtt://127.0.0.1\"\ntopics = [\"plant/{{site}}/{{device}}\"]\n{more}")).unwrap()
    }

    fn wrong(more: &str) -> String {
        options(more).check().unwrap_err().path
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let plain = options("");
        plain.check().unwrap();
        assert_eq!((plain.version, plain.address().unwrap().port), (Version::V5, 1883));
        assert_eq!((plain.qos, plain.connections, plain.receive_maximum), (1, 1, 1_000));
        assert_eq!((plain.session_expiry, plain.keep_alive), (one_day(), one_minute()));
        assert_eq!(plain.client_id("line", "floor", 0), "tidegate-line-floor-0");
        assert_eq!(plain.filters(&plain.patterns().unwrap()), ["plant/+/+"]);
    }

    #[test]
    fn a_mistake_names_its_key() {
        assert_eq!(wrong("qos = 2"), "qos");
        assert_eq!(wrong("connections = 2"), "connections");
        assert_eq!(wrong("share = \"a/b\""), "share");
        assert_eq!(wrong("receive_maximum = 0"), "receive_maximum");
        assert_eq!(wrong("receive_maximum = 1001"), "receive_maximum");
        assert_eq!(wrong("keep_alive = \"1s\""), "keep_alive");
        assert_eq!(wrong("password = { env = \"X\" }"), "password");
        assert_eq!(wrong("username = \"u\"\npassword = {}"), "password");
        assert_eq!(wrong("tls = {}"), "tls", "without mqtts there is no TLS");
        assert!(toml::from_str::<MqttOptions>("url = \"mqtt://h\"\ntopics = [\"#\"]\nversion = \"3.1\"").is_err());
        assert!(toml::from_str::<MqttOptions>("url = \"mqtt://h\"\ntopics = [\"#\"]\nqoss = 1").is_err());
    }

    #[test]
    fn topics_of_a_source_name_the_same_columns() {
        let topics = |t: &[&str]| MqttOptions { topics: t.iter().map(|t| (*t).to_owned()).collect(), ..options("") }.patterns();
        assert!(topics(&["a/{x}/{y}", "b/{y}/c/{x}"]).is_ok());
        assert!(topics(&["a/{x}", "b/{y}"]).is_err());
        assert!(topics(&["a/{x}", "b/#"]).is_err());
        assert!(topics(&[]).is_err());
    }

    #[test]
    fn connections_of_a_group_have_ids_of_their_own() {
        let shared = options("connections = 2\nshare = \"g\"\nclient_id = \"me\"");
        shared.check().unwrap();
        assert_eq!(shared.client_id("p", "s", 1), "me-1");
        assert_eq!(shared.filters(&shared.patterns().unwrap()), ["$share/g/plant/+/+"]);
    }
}
