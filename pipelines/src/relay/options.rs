//! What a user says about a Kafka sink.

use super::publisher::ID;
use super::topic::Template;
use indexmap::IndexMap;
use ingest::TlsOptions;
use ingest::decode::OptionError;
use ingest::kafka::{Connection, Sasl, check_topic};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Properties of the client that a sink decides itself.
pub(super) const OURS: [&str; 5] = ["client.id", "transactional.id", "enable.idempotence", "partitioner", "acks"];

/// Options of a Kafka sink, without `inputs`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSinkOptions {
    /// Some of the cluster's brokers: `host:port`.
    pub brokers: Vec<String>,
    /// The topic. It must be there. `{column}` in it is the value of a column, so that rows go to topics of their own: `plant-{site}`.
    pub topic: String,
    /// Where rows go whose own topic is not there, or cannot have such a name. Needed with columns in `topic`: none of them makes a topic, so that no device can
    /// hold up others. Topics of the cluster itself (`__…`) are nobody's own. Progress stands under this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<String>,
    /// Columns that make the record's key, and so its partition as Java's producers choose it (murmur2). One column stands as its text, several as a
    /// JSON array. By default the key of what is read; `[]` makes records without a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<String>>,
    /// Headers with values of columns: `headers = { "x-site" = "site" }`. A null makes no header.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub headers: IndexMap<String, String>,
    /// What a crash may do.
    #[serde(default)]
    pub delivery: Delivery,
    /// Name and password (SASL).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
    /// Certificates; `tls = {}` asks for TLS with the authorities that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsOptions>,
    /// Further properties of the client by their names in librdkafka's CONFIGURATION.md, such as `compression.type`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub options: IndexMap<String, String>,
}

/// What a crash may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Nothing: records and progress are one transaction. Readers with `isolation.level = read_committed` see each row once.
    #[default]
    ExactlyOnce,
    /// Rows of the last epochs may come again. No transactions: readers see records at once.
    AtLeastOnce,
}

fn mistake(path: &str, message: impl Into<String>, hint: Option<&str>) -> OptionError {
    OptionError { path: path.into(), message: message.into(), hint: hint.map(Into::into) }
}

impl KafkaSinkOptions {
    /// Looks for mistakes that need no broker; an error names the key.
    pub fn check(&self) -> Result<(), OptionError> {
        self.check_topics()?;
        if self.headers.contains_key(ID) {
            return Err(mistake("headers", format!("`{ID}` is the header with a row's name"), None));
        }
        if self.headers.keys().any(|name| name.is_empty() || name.contains('\0')) {
            return Err(mistake("headers", "a header has a name without a zero byte", None));
        }
        self.connection().check(&OURS)
    }

    fn check_topics(&self) -> Result<(), OptionError> {
        let template = Template::parse(&self.topic).map_err(|what| mistake("topic", what, Some("topic = \"plant-{site}\"")))?;
        check_topic("topic", &template.with("x"))?;
        match (&self.otherwise, template.columns().next()) {
            (Some(otherwise), Some(_)) => check_topic("otherwise", otherwise),
            (None, Some(_)) => {
                let hint = "otherwise = \"plant-other\", for rows whose own topic is not there";
                Err(mistake("topic", "has columns, and nothing says where rows go whose topic is not there", Some(hint)))
            }
            (Some(_), None) => Err(mistake("otherwise", "is for a `topic` with columns in it", None)),
            (None, None) => Ok(()),
        }
    }

    /// The topic as it names itself for each row. `check` has been there before.
    pub(crate) fn template(&self) -> Template {
        Template::parse(&self.topic).unwrap_or_else(|_| unreachable!("checked with the plan"))
    }

    /// How its brokers are reached.
    #[must_use]
    pub fn connection(&self) -> Connection<'_> {
        Connection { brokers: &self.brokers, sasl: self.sasl.as_ref(), tls: self.tls.as_ref(), options: &self.options }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_names_its_key() {
        let wrong = |more: &str| {
            let text = format!("brokers = [\"127.0.0.1:9092\"]\n{more}");
            toml::from_str::<KafkaSinkOptions>(&text).unwrap().check().err().map(|e| e.path)
        };
        assert_eq!(wrong("topic = \"a\""), None);
        assert_eq!(wrong("topic = \"a/b\"").as_deref(), Some("topic"));
        assert_eq!(wrong("topic = \"a-{b}\"\notherwise = \"c\"\nheaders = { x = \"b\" }"), None);
        for (mistaken, key) in [
            ("topic = \"a-{b\"", "topic"),
            ("topic = \"a/{b}\"\notherwise = \"c\"", "topic"),
            ("topic = \"a-{b}\"", "topic"),
            ("topic = \"a-{b}\"\notherwise = \"c/d\"", "otherwise"),
            ("topic = \"a\"\notherwise = \"c\"", "otherwise"),
            ("topic = \"a\"\nheaders = { tidegate-id = \"b\" }", "headers"),
            ("topic = \"a\"\nheaders = { \"x\\u0000\" = \"b\" }", "headers"),
        ] {
            assert_eq!(wrong(mistaken).as_deref(), Some(key), "{mistaken}");
        }
        assert_eq!(wrong("topic = \"a\"\noptions = { acks = \"1\" }").as_deref(), Some("options"));
        assert_eq!(wrong("topic = \"a\"\noptions = { \"compression.type\" = \"zip\" }").as_deref(), Some("options"));
    }
}
