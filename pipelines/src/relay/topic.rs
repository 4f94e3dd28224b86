//! Which topic a row goes to: one for all of a sink, or one that columns name.

/// The name of a topic with places for columns: `plant-{site}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

/// A piece of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// As it stands.
    Text(String),
    /// The value of a column, as text.
    Column(String),
}

impl Template {
    /// Reads what a user wrote. The error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut rest) = (vec![], text);
        while let Some((before, after)) = rest.split_once('{') {
            let (column, behind) = after.split_once('}').ok_or_else(|| format!("`{text}` has a `{{` without `}}`"))?;
            if column.is_empty() {
                return Err(format!("`{text}` has a `{{}}` without a column"));
            }
            parts.extend((!before.is_empty()).then(|| Part::Text(before.to_owned())));
            parts.push(Part::Column(column.to_owned()));
            rest = behind;
        }
        parts.extend((!rest.is_empty()).then(|| Part::Text(rest.to_owned())));
        Ok(Self(parts))
    }

    /// The pieces, in order.
    pub(super) fn parts(&self) -> &[Part] {
        &self.0
    }

    /// The columns that name a row's topic; none where all rows have one.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &String> {
        self.0.iter().filter_map(|part| match part {
            Part::Column(name) => Some(name),
            Part::Text(_) => None,
        })
    }

    /// The name with `value` in the place of every column.
    pub(super) fn with(&self, value: &str) -> String {
        self.0.iter().map(|part| if let Part::Text(text) = part { text } else { value }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_in_braces() {
        let columns = |text: &str| Template::parse(text).unwrap().columns().cloned().collect::<Vec<_>>();
        assert_eq!(columns("plant-{site}.{line}"), ["site", "line"]);
        assert_eq!(columns("{a}{b}"), ["a", "b"]);
        assert!(columns("plant").is_empty());
        assert_eq!(Template::parse("plant-{site}.out").unwrap().with("x"), "plant-x.out");
        assert!(Template::parse("plant-{site").is_err() && Template::parse("plant-{}").is_err());
    }
}
