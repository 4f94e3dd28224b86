//! What a user says about files: `[sources.X] type = "file"`.

use crate::decode::CsvOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which files are read, and how.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileOptions {
    /// One path or several; `*`, `?`, `[a-z]` and `**` stand for parts of it.
    pub path: Paths,
    /// Whether new files are looked for after the last.
    #[serde(default)]
    pub mode: Mode,
    /// What happens to open windows when the last file is read, with `mode = "once"`.
    #[serde(default)]
    pub on_end: OnEnd,
    /// How the files are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// How CSV is written.
    #[serde(default)]
    pub csv: CsvOptions,
}

/// One path or several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Paths {
    /// One pattern.
    One(String),
    /// Several patterns; a file that fits more than one is read once.
    Many(Vec<String>),
}

/// Whether new files are looked for after the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Read what is there and end.
    #[default]
    Once,
    /// Go on looking. Files must be complete when they appear: write them elsewhere and rename them into place.
    Watch,
}

/// What happens to open windows at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnEnd {
    /// They are closed and give their results: who reads files once wants to see all of them.
    #[default]
    Flush,
    /// They stay open: more files will follow in a later run.
    Keep,
}

/// How files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// As the first bytes of each file say.
    #[default]
    Auto,
    /// Not at all.
    None,
    /// gzip, also of several members.
    Gzip,
}

impl Paths {
    /// The patterns.
    #[must_use]
    pub fn patterns(&self) -> &[String] {
        match self {
            Self::One(pattern) => std::slice::from_ref(pattern),
            Self::Many(patterns) => patterns,
        }
    }
}
