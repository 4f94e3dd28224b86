//! Topic patterns: `plants/{site}/{device_id}/data`. A named level becomes a column; `+` and `#` are MQTT's own wildcards.

use super::OptionError;

/// A topic with named levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern {
    levels: Vec<Level>,
    captures: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Text(String),
    Capture,
    Any,
    Rest,
}

impl TopicPattern {
    /// Reads the patterns of a source, in their order. Each has the captures of the first; in which order is each one's own.
    pub fn parse_all(topics: &[String]) -> Result<Vec<Self>, OptionError> {
        let wrong = |message: String, hint: &str| OptionError { path: "topics".into(), message, hint: Some(hint.into()) };
        if topics.is_empty() {
            return Err(wrong("names no topic".into(), "`#` takes all of them"));
        }
        let patterns = topics.iter().map(|t| Self::parse(t)).collect::<Result<Vec<_>, _>>()?;
        for (pattern, text) in patterns.iter().zip(topics) {
            let captures = patterns[0].captures();
            if captures.len() != pattern.captures().len() || !captures.iter().all(|c| pattern.captures().contains(c)) {
                let message = format!("`{text}` captures {:?}, `{}` captures {captures:?}", pattern.captures(), topics[0]);
                return Err(wrong(message, "topics of one source name the same columns"));
            }
        }
        Ok(patterns)
    }

    /// Reads a pattern. An error (its path is `topics`) when a wildcard is not a whole level, `#` is not the last or a name stands twice.
    pub fn parse(pattern: &str) -> Result<Self, OptionError> {
        let wrong = |message: String, hint: &str| OptionError { path: "topics".into(), message, hint: Some(hint.into()) };
        if pattern.is_empty() {
            return Err(wrong("a topic is empty".into(), "write a topic such as `plants/{device_id}/data`"));
        }
        let mut captures: Vec<String> = Vec::new();
        let mut levels = Vec::new();
        for level in pattern.split('/') {
            if levels.last() == Some(&Level::Rest) {
                return Err(wrong(format!("`#` is not the last level of `{pattern}`"), "`+` stands for one level"));
            }
            levels.push(match level {
                "+" => Level::Any,
                "#" => Level::Rest,
                _ => match level.strip_prefix('{').and_then(|l| l.strip_suffix('}')) {
                    Some(name) if captures.iter().any(|c| c == name) => {
                        return Err(wrong(format!("`{{{name}}}` stands twice in `{pattern}`"), "give each level its own name"));
                    }
                    Some(name) if !name.is_empty() && !name.contains(['{', '}', '+', '#']) => {
                        captures.push(name.into());
                        Level::Capture
                    }
                    None if !level.contains(['{', '}', '+', '#']) => Level::Text(level.into()),
                    _ => {
                        return Err(wrong(
                            format!("level `{level}` of `{pattern}` is not a topic level"),
                            "a capture or wildcard is a whole level",
                        ));
                    }
                },
            });
        }
        Ok(Self { levels, captures })
    }

    /// The MQTT filter to subscribe to.
    #[must_use]
    pub fn filter(&self) -> String {
        let word = |level: &Level| match level {
            Level::Text(text) => text.clone(),
            Level::Capture | Level::Any => "+".into(),
            Level::Rest => "#".into(),
        };
        self.levels.iter().map(word).collect::<Vec<_>>().join("/")
    }

    /// Names of the captures, from left to right.
    #[must_use]
    pub fn captures(&self) -> &[String] {
        &self.captures
    }

    /// Whether `topic` fits; if so, `out` holds the values of the captures, else it is empty.
    pub fn match_into<'t>(&self, topic: &'t str, out: &mut Vec<&'t str>) -> bool {
        out.clear();
        let fits = self.fits(topic, out);
        if !fits {
            out.clear();
        }
        fits
    }

    fn fits<'t>(&self, topic: &'t str, out: &mut Vec<&'t str>) -> bool {
        // A wildcard in the first place does not take the broker's own topics (MQTT 5, 4.7.2).
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Text(_))) {
            return false;
        }
        let mut words = topic.split('/');
        for level in &self.levels {
            if *level == Level::Rest {
                return true;
            }
            let Some(word) = words.next() else { return false };
            match level {
                Level::Text(text) if text != word => return false,
                Level::Capture => out.push(word),
                _ => {}
            }
        }
        words.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured<'t>(pattern: &str, topic: &'t str) -> Option<Vec<&'t str>> {
        let mut out = vec!["old"];
        TopicPattern::parse(pattern).unwrap().match_into(topic, &mut out).then_some(out)
    }

    #[test]
    fn named_levels_are_captured_from_left_to_right() {
        let pattern = TopicPattern::parse("plants/{site}/+/{device_id}/#").unwrap();
        assert_eq!(pattern.filter(), "plants/+/+/+/#");
        assert_eq!(pattern.captures(), ["site", "device_id"]);
        assert_eq!(captured("plants/{site}/{id}", "plants/a/7"), Some(vec!["a", "7"]));
        assert_eq!(captured("plants/{site}/{id}", "plants/a"), None);
        assert_eq!(captured("plants/{site}/{id}", "plants/a/7/x"), None);
        assert_eq!(captured("plants/{id}", "fields/7"), None);
        assert_eq!(captured("{id}/#", "a/b/c"), Some(vec!["a"]));
        assert_eq!(captured("{id}/#", "a"), Some(vec!["a"]));
        assert_eq!(captured("#", "$SYS/uptime"), None);
    }

    #[test]
    fn a_bad_pattern_is_refused() {
        for bad in ["", "a/#/b", "a/{x}/{x}", "a/b{x}", "a/b+", "a/{}", "a/{x+}"] {
            assert_eq!(TopicPattern::parse(bad).unwrap_err().path, "topics", "{bad}");
        }
    }
}
