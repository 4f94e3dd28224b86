//! How brokers are reached: by sources and by whatever publishes.

use crate::credentials::{Secret, TlsOptions, mistake};
use crate::decode::OptionError;
use indexmap::IndexMap;
use rdkafka::ClientConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest name of a topic.
const TOPIC_LENGTH: usize = 249;

/// Properties that every client has from its options.
const OURS: [&str; 5] = ["bootstrap.servers", "security.protocol", "sasl.mechanism", "sasl.username", "sasl.password"];

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

/// Brokers, and who we are to them.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'o> {
    /// Some of the cluster's brokers: `host:port`.
    pub brokers: &'o [String],
    /// Name and password.
    pub sasl: Option<&'o Sasl>,
    /// Certificates.
    pub tls: Option<&'o TlsOptions>,
    /// Further properties of the client.
    pub options: &'o IndexMap<String, String>,
}

impl Connection<'_> {
    /// Looks for mistakes that need no broker. `ours` are properties that the caller decides.
    pub fn check(&self, ours: &[&str]) -> Result<(), OptionError> {
        if self.brokers.is_empty() {
            return Err(mistake("brokers", "names no broker", Some("brokers = [\"127.0.0.1:9092\"]")));
        }
        if let Some(broker) = self.brokers.iter().find(|b| !is_address(b)) {
            return Err(mistake("brokers", format!("`{broker}` is not host:port"), Some("brokers = [\"127.0.0.1:9092\"]")));
        }
        if let Some(name) = self.options.keys().find(|name| ours.contains(&name.as_str()) || OURS.contains(&name.as_str())) {
            return Err(mistake("options", format!("`{name}` is decided by other keys"), None));
        }
        if let Some(tls) = self.tls {
            tls.check()?;
        }
        if let Some(sasl) = self.sasl {
            sasl.password.check("sasl.password")?;
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

    /// The properties of a client. Reads the password.
    pub fn properties(&self) -> Result<ClientConfig, OptionError> {
        let mut config = ClientConfig::new();
        self.options.iter().for_each(|(name, value)| {
            config.set(name, value);
        });
        config.set("bootstrap.servers", self.brokers.join(","));
        let protocol = match (self.sasl, self.tls) {
            (None, None) => "plaintext",
            (None, Some(_)) => "ssl",
            (Some(_), None) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = self.tls {
            let files = [("ssl.ca.location", &tls.ca), ("ssl.certificate.location", &tls.certificate), ("ssl.key.location", &tls.key)];
            for (name, path) in files.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?))) {
                config.set(name, path.display().to_string());
            }
        }
        if let Some(sasl) = self.sasl {
            let password = sasl.password.read("sasl.password")?;
            config.set("sasl.mechanism", sasl.mechanism.name()).set("sasl.username", &sasl.username).set("sasl.password", password);
        }
        Ok(config)
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

/// An error where a text is no name of a topic; `key` is where it stands.
pub fn check_topic(key: &str, topic: &str) -> Result<(), OptionError> {
    if is_topic(topic) {
        return Ok(());
    }
    let hint = "letters, digits, `.`, `_` and `-`, at most 249 of them; no patterns";
    Err(mistake(key, format!("`{topic}` is no name of a topic"), Some(hint)))
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && !host.contains([' ', ',', '/']) && port.parse::<u16>().is_ok())
}

fn is_topic(name: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= TOPIC_LENGTH && name.chars().all(known) && name != "." && name != ".."
}
