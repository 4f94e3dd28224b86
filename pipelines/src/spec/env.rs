//! Environment variables in string values: `${V}`, `${V:-default}`, `${V:?message}`; `$$` before a brace stands for one `$`.
//!
//! They are put in after parsing, so a value cannot change the structure of the file. Keys are left alone.

use crate::diagnose::Problem;
use std::borrow::Cow;
use toml::de::{DeTable, DeValue};

/// Gives the value of a variable: the process's environment, or a test's.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Puts variables into every string value below `table`; what cannot be put in is a problem at its value.
pub(super) fn substitute(table: &mut DeTable<'_>, lookup: Lookup<'_>, problems: &mut Vec<Problem>) {
    for (_, value) in table.iter_mut() {
        let span = value.span();
        substitute_value(value.get_mut(), span, lookup, problems);
    }
}

fn substitute_value(value: &mut DeValue<'_>, span: std::ops::Range<usize>, lookup: Lookup<'_>, problems: &mut Vec<Problem>) {
    match value {
        DeValue::String(text) if text.contains("${") => match expand(text, lookup) {
            Ok(expanded) => *text = Cow::Owned(expanded),
            Err(message) => problems.push(Problem::new(span, message)),
        },
        DeValue::Array(items) => {
            for item in items.iter_mut() {
                let span = item.span();
                substitute_value(item.get_mut(), span, lookup, problems);
            }
        }
        DeValue::Table(table) => substitute(table, lookup, problems),
        _ => {}
    }
}

/// The text with its variables put in.
fn expand(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            out.push_str(&rest[..start]);
            out.push('{');
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let end = after.find('}').ok_or("`${` without `}`")?;
        out.push_str(&value_of(&after[..end], lookup)?);
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// The value of what stands between the braces.
fn value_of(reference: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let (name, otherwise) = match reference.split_once(':') {
        Some((name, otherwise)) => (name, Some(otherwise)),
        None => (reference, None),
    };
    let is_name =
        |n: &str| !n.is_empty() && !n.starts_with(|c: char| c.is_ascii_digit()) && n.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name(name) {
        return Err(format!("`{name}` is not the name of an environment variable"));
    }
    // As in a shell: with a colon, an empty variable counts as missing.
    match (lookup(name), otherwise) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(o)) if o.starts_with('-') => Ok(o[1..].to_owned()),
        (_, Some(o)) if o.starts_with('?') => Err(format!("environment variable {name}: {}", &o[1..])),
        (_, Some(o)) => Err(format!("`:{o}` after {name} should begin with `:-` (a default) or `:?` (a message)")),
        (None, None) => Err(format!("environment variable {name} is not set")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_host(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("broker\" # x".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_defaults_and_messages() {
        let expand = |text: &str| expand(text, &with_host);
        assert_eq!(expand("mqtt://${HOST}:1883").unwrap(), "mqtt://broker\" # x:1883");
        assert_eq!(expand("${EMPTY:-a}${NONE:-b:c}${EMPTY}").unwrap(), "ab:c");
        assert_eq!(expand("a $${HOST} $.x").unwrap(), "a ${HOST} $.x");
        assert_eq!(expand("${NONE:?set it}").unwrap_err(), "environment variable NONE: set it");
        assert!(expand("${NONE}").unwrap_err().contains("not set"));
        assert!(expand("${9}").is_err() && expand("${A").is_err() && expand("${HOST_2:=x}").is_err());
    }
}
