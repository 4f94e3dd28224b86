//! What is wrong with an operator's options, precise enough to point at the place in the pipeline's TOML.

/// An option that cannot be obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct BuildError {
    /// The key within the processor's table: `when`, `select.temp_avg`, `window.size`.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// Where in the value, counted in characters from 1; present for SQL.
    pub column: Option<usize>,
    /// What would help.
    pub hint: Option<String>,
}

impl BuildError {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), column: None, hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The index of a column named in an option; the error lists what there is.
pub(crate) fn column(input: &arrow::datatypes::Schema, key: &str, name: &str) -> Result<usize, BuildError> {
    input.index_of(name).map_err(|_| {
        let names: Vec<_> = input.fields().iter().map(|f| f.name().as_str()).collect();
        BuildError::new(key, format!("there is no column `{name}`")).hint(format!("the input has: {}", names.join(", ")))
    })
}
