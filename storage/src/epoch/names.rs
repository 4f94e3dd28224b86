//! File names of a lane: `<lane>-<generation>-<epoch>-<n>.<kind>`, so that a file tells who wrote it.

/// Makes one path component of a name: `/` becomes `+`, anything else but letters, digits, `_`, `-` and `.` becomes `=` and two hex digits a byte.
///
/// Different names give different components, and no component is `.`, `..` or hidden.
#[must_use]
pub fn component(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (i, byte) in name.bytes().enumerate() {
        match byte {
            b'.' if i == 0 => out.push_str("=2E"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' => out.push(char::from(byte)),
            b'/' => out.push('+'),
            other => out.push_str(&format!("={other:02X}")),
        }
    }
    out
}

/// The name that `component` was made from; none for what it does not make.
#[must_use]
pub fn from_component(component: &str) -> Option<String> {
    let mut out = Vec::with_capacity(component.len());
    let mut rest = component.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => out.push(b'/'),
            b'=' => out.push(hex(rest.next()?)? * 16 + hex(rest.next()?)?),
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

/// Gives the files of one epoch their names.
#[derive(Clone, Debug)]
pub struct Names {
    stem: String,
    next: u64,
}

/// Numbers from here on are of the runs of compactions.
const COMPACTED: u64 = 1_000_000;

impl Names {
    /// Names for the files of epoch `number` of a lane, owned since `generation`.
    #[must_use]
    pub fn new(lane: &str, generation: u64, number: u64) -> Self {
        Self { stem: format!("{}-{generation}-{number}", component(lane)), next: 0 }
    }

    /// Names for the runs of the `n`th compaction of the owner: others than those of the epoch's own files.
    #[must_use]
    pub fn of_compaction(self, n: u64) -> Self {
        Self { next: n * COMPACTED, ..self }
    }

    /// A name that was not given before; `kind` is the extension (`state`, `parquet`).
    pub fn next(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{}-{}.{kind}", self.stem, self.next - 1)
    }
}

/// Whether a file is the run of a compaction, with rows of many epochs.
pub(crate) fn is_of_compaction(file: &str) -> bool {
    let number = file.rsplit('-').next().and_then(|n| n.split('.').next()?.parse::<u64>().ok());
    number.is_none_or(|n| n >= COMPACTED)
}

/// The lane (as a component) and generation of a file name; none for a name of another form. Unfinished files count.
pub(crate) fn lane_and_generation(file: &str) -> Option<(&str, u64)> {
    let mut parts = file.rsplitn(4, '-');
    let (_n, epoch, generation) = (parts.next()?, parts.next()?, parts.next()?);
    epoch.parse::<u64>().ok()?;
    Some((parts.next()?, generation.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_one_component_and_comes_back() {
        for name in ["j-1/0", "file/sea/12", "..", "a=b+c", "grün", "-"] {
            let made = component(name);
            assert!(!made.contains('/') && !made.starts_with('.'), "{made}");
            assert_eq!(from_component(&made).as_deref(), Some(name));
        }
    }

    #[test]
    fn a_file_tells_its_lane_and_generation() {
        let mut names = Names::new("j-1/0", 7, 12);
        let file = names.next("state");
        assert_eq!(file, "j-1+0-7-12-0.state");
        assert_eq!(names.next("parquet"), "j-1+0-7-12-1.parquet");
        assert_eq!(lane_and_generation(&file), Some(("j-1+0", 7)));
        assert_eq!(lane_and_generation(&format!("{file}.99_3.tmp")), Some(("j-1+0", 7)));
        assert_eq!(lane_and_generation("readme.md"), None);
    }
}
