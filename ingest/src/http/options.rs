//! `type = "http"` of a source.

use crate::decode::{OptionError, TopicPattern};
use crate::journal::Size;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of a source that is sent to by HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSourceOptions {
    /// Which topics are taken, that is what follows the source's name in the path of a request: `plant/{site}/{device_id}` makes columns of
    /// its levels. `+` is any level, `#` any rest.
    pub topics: Vec<String>,
    /// The most bytes of a request.
    pub max_body: Size,
}

impl Default for HttpSourceOptions {
    /// Any topic, also none. 16 MiB: a device's week of readings.
    fn default() -> Self {
        Self { topics: vec!["#".into()], max_body: Size(16 << 20) }
    }
}

impl HttpSourceOptions {
    /// The patterns of `topics`, in their order.
    pub fn patterns(&self) -> Result<Vec<TopicPattern>, OptionError> {
        TopicPattern::parse_all(&self.topics)
    }
}
