//! Where each value stands in the file, by the names that lead to it.

use indexmap::IndexMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value's bytes in the file, with the values below it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// The bytes: of the header for a table that has one.
    pub(crate) span: Range<usize>,
    /// The text, for a string, with its variables put in.
    pub(crate) text: Option<String>,
    below: IndexMap<String, Place>,
}

impl Place {
    /// The places of everything in a file.
    pub(crate) fn of(root: &DeTable<'_>) -> Self {
        let below = root.iter().map(|(key, value)| (key.get_ref().to_string(), Self::of_value(value))).collect();
        Self { span: 0..0, text: None, below }
    }

    fn of_value(value: &Spanned<DeValue<'_>>) -> Self {
        let span = value.span();
        match value.get_ref() {
            DeValue::Table(table) => Self { span, ..Self::of(table) },
            DeValue::String(text) => Self { span, text: Some(text.to_string()), below: IndexMap::new() },
            DeValue::Array(items) => {
                let below = items.iter().enumerate().map(|(at, item)| (at.to_string(), Self::of_value(item))).collect();
                Self { span, text: None, below }
            }
            _ => Self { span, text: None, below: IndexMap::new() },
        }
    }

    /// The value at `path` (`select.temp_avg`, `topics.0`) below the tables named by `parts`; where something on the way is not in the
    /// file (a default), the nearest thing that is.
    pub(crate) fn locate(&self, parts: &[&str], path: &str) -> &Self {
        let mut place = self;
        for part in parts {
            place = place.below.get(*part).unwrap_or(place);
        }
        let mut rest = path;
        while !rest.is_empty() {
            // A key may itself hold dots, so the longest one that is there wins.
            let ends = std::iter::once(rest.len()).chain(rest.rmatch_indices('.').map(|(at, _)| at));
            let Some((end, next)) = ends.into_iter().find_map(|end| Some((end, place.below.get(&rest[..end])?))) else { break };
            place = next;
            rest = rest.get(end + 1..).unwrap_or("");
        }
        place
    }

    /// The bytes of column `column` (from 1, in characters) of this text in `file`. The whole value where the text was not written as it
    /// is meant (escapes, variables), since its columns are not the file's.
    pub(crate) fn inside(&self, file: &str, column: usize) -> Range<usize> {
        self.word(file, column).unwrap_or_else(|| self.span.clone())
    }

    fn word(&self, file: &str, column: usize) -> Option<Range<usize>> {
        let text = self.text.as_deref()?;
        let start = self.span.start + file.get(self.span.clone())?.find(text)?;
        let (offset, first) = text.char_indices().nth(column.checked_sub(1)?)?;
        let length = text[offset..].find(|c| !is_word(c)).unwrap_or(text.len() - offset);
        Some(start + offset..start + offset + length.max(first.len_utf8()))
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[processors.p]\nwhen = \"a > bb\"\nselect = { \"x.y\" = \"1\", z = '2' }\ninputs = [\"f\", \"g\"]\n";

    fn root() -> Place {
        Place::of(DeTable::parse(FILE).unwrap().get_ref())
    }

    #[test]
    fn values_are_found_by_their_names() {
        let root = root();
        let at = |path: &str| &FILE[root.locate(&["processors", "p"], path).span.clone()];
        assert_eq!(at("when"), "\"a > bb\"");
        assert_eq!(at("select.x.y"), "\"1\"");
        assert_eq!(at("select.z"), "'2'");
        assert_eq!(at("inputs.1"), "\"g\"");
        assert_eq!(at("select.missing"), "{ \"x.y\" = \"1\", z = '2' }");
        assert_eq!(at("else"), "[processors.p]");
    }

    #[test]
    fn a_column_of_the_text_is_a_place_in_the_file() {
        let root = root();
        let when = root.locate(&["processors", "p"], "when");
        assert_eq!(&FILE[when.inside(FILE, 5)], "bb");
        assert_eq!(&FILE[when.inside(FILE, 3)], ">");
        assert_eq!(&FILE[when.inside(FILE, 99)], "\"a > bb\"");
        let changed = Place { text: Some("${A}".into()), ..when.clone() };
        assert_eq!(&FILE[changed.inside(FILE, 1)], "\"a > bb\"");
    }
}
