//! One table of the file into one options struct: the first mistake of it, at its bytes, with a hint.
//!
//! serde stops at the first mistake, so each table is read by itself. A `type` key chooses the struct, hence it is taken out before:
//! serde's tagged enums lose the places of keys.

use crate::diagnose::Problem;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error, ValueDeserializer};

/// A table of the file with its place.
#[derive(Clone, Debug)]
pub(crate) struct Table<'i> {
    /// Where the table stands: its header, or the whole of an inline table.
    pub(crate) span: Range<usize>,
    /// Its keys and values.
    pub(crate) entries: DeTable<'i>,
}

impl<'i> Table<'i> {
    /// The value as a table, or the problem that it is none.
    pub(crate) fn of(name: &str, value: Spanned<DeValue<'i>>) -> Result<Self, Problem> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(entries) => Ok(Self { span, entries }),
            other => Err(Problem::new(span, format!("`{name}` should be a table, is {}", other.type_str()))),
        }
    }

    /// Takes `keys` out of this table into one of their own.
    pub(crate) fn take(&mut self, keys: &[&str]) -> Self {
        let mut taken = DeTable::new();
        for key in keys {
            if let Some((key, value)) = self.entries.remove_entry(*key) {
                taken.insert(key, value);
            }
        }
        Self { span: self.span.clone(), entries: taken }
    }

    /// Takes a text out of this table; none when the key is not there.
    pub(crate) fn take_text(&mut self, key: &str) -> Result<Option<Spanned<String>>, Problem> {
        let Some(value) = self.entries.remove(key) else { return Ok(None) };
        let span = value.span();
        match value.into_inner() {
            DeValue::String(text) => Ok(Some(Spanned::new(span, text.into_owned()))),
            other => Err(Problem::new(span, format!("`{key}` should be a string, is {}", other.type_str()))),
        }
    }

    /// The whole table as a `T`. `elsewhere` are the keys that were taken out before, for the hint.
    pub(crate) fn read<T: DeserializeOwned>(self, elsewhere: &[&str]) -> Result<T, Problem> {
        let span = self.span.clone();
        let value = Spanned::new(self.span, DeValue::Table(self.entries));
        T::deserialize(ValueDeserializer::from(value)).map_err(|e| problem(&e, &span, elsewhere))
    }
}

/// A parser's or serde's error as a problem with a hint.
pub(crate) fn problem(error: &Error, otherwise: &Range<usize>, elsewhere: &[&str]) -> Problem {
    let span = error.span().unwrap_or_else(|| otherwise.clone());
    let message = error.message().trim_end();
    for (what, ours) in [("unknown field ", "unknown key"), ("unknown variant ", "unknown word")] {
        let Some((written, expected)) = message.strip_prefix(what).and_then(|m| m.split_once(',')) else { continue };
        let written = written.trim_matches('`');
        let known: Vec<&str> = quoted(expected).chain(elsewhere.iter().copied().filter(|_| ours == "unknown key")).collect();
        let all = known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
        return Problem::new(span, format!("{ours} `{written}`")).hint(format!("known are {all}")).did_you_mean(written, known);
    }
    Problem::new(span, Cow::from(message).replace("missing field", "missing key"))
}

/// The words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}
