//! JSON paths: `$.meta.bat`, `$['odd name']`, and `[*]` for the elements of the exploded array.

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Field(String),
    Each,
}

/// Reads a path. The error says what is wrong with it.
pub(super) fn parse(path: &str) -> Result<Vec<Step>, String> {
    let mut rest = path.strip_prefix('$').ok_or_else(|| format!("`{path}` does not begin with `$`"))?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("[*]") {
            steps.push(Step::Each);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            steps.push(field(&after[..end], path)?);
            rest = &after[end..];
        } else {
            let quoted = [("['", "']"), ("[\"", "\"]")].iter().find_map(|(open, close)| rest.strip_prefix(open)?.split_once(close));
            let (name, after) = quoted.ok_or_else(|| format!("`{rest}` in `{path}` is no step of a path"))?;
            steps.push(field(name, path)?);
            rest = after;
        }
    }
    Ok(steps)
}

fn field(name: &str, path: &str) -> Result<Step, String> {
    if name.is_empty() { Err(format!("`{path}` has an empty step")) } else { Ok(Step::Field(name.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_step_by_step() {
        let field = |name: &str| Step::Field(name.into());
        assert_eq!(parse("$").unwrap(), []);
        assert_eq!(parse("$.meta.bat").unwrap(), [field("meta"), field("bat")]);
        assert_eq!(parse("$['a.b'][\"c d\"].e").unwrap(), [field("a.b"), field("c d"), field("e")]);
        assert_eq!(parse("$.r[*].t").unwrap(), [field("r"), Step::Each, field("t")]);
        for bad in ["", "t", "$t", "$.", "$.a..b", "$.a[0]", "$['a"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
