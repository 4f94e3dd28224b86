//! Mistakes in a configuration, and how they are shown: file, line, column, the line itself and a hint.

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Report, Severity};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// How unlike a known word a written one may be and still get a "did you mean": the measure is Jaro–Winkler, 1 is equal.
const ALIKE: f64 = 0.75;

/// One mistake, at bytes of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which bytes of the file are wrong.
    pub span: Range<usize>,
    /// What is wrong with them.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// All mistakes found in one file, or all its warnings, in the order of the file.
#[derive(Clone, Debug)]
pub struct Problems {
    /// The file's name as it was given.
    pub file: Arc<str>,
    /// What stands in it.
    pub text: Arc<str>,
    /// The mistakes; at least one. Of warnings there may be none.
    pub list: Vec<Problem>,
}

impl Problem {
    /// A mistake without a hint.
    pub fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with the hint that a known word is near to what was written, if one is.
    #[must_use]
    pub fn did_you_mean<'k>(mut self, written: &str, known: impl IntoIterator<Item = &'k str>) -> Self {
        self.hint = nearest(written, known).map(|word| format!("did you mean `{word}`?")).or(self.hint);
        self
    }
}

impl Problems {
    /// The mistakes of a file, sorted by place.
    #[must_use]
    pub fn new(file: &str, text: &str, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|p| (p.span.start, p.span.end));
        list.dedup();
        Self { file: file.into(), text: text.into(), list }
    }

    /// Line and column of a mistake, both from 1, the column in characters.
    #[must_use]
    pub fn place(&self, problem: &Problem) -> (usize, usize) {
        let before = self.text.get(..problem.span.start).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// All mistakes with their lines of the file; with colours for a terminal.
    #[must_use]
    pub fn render(&self, colours: bool) -> String {
        self.render_as(Severity::Error, colours)
    }

    /// The same for warnings; empty without any.
    #[must_use]
    pub fn render_warnings(&self, colours: bool) -> String {
        self.render_as(Severity::Warning, colours)
    }

    fn render_as(&self, severity: Severity, colours: bool) -> String {
        let theme = if colours { GraphicalTheme::unicode() } else { GraphicalTheme::none() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(140).with_links(false);
        let mut out = String::new();
        for problem in &self.list {
            let (line, column) = self.place(problem);
            let mut shown = MietteDiagnostic::new(format!("{}:{line}:{column}: {}", self.file, problem.message))
                .with_label(LabeledSpan::new_with_span(None, problem.span.clone()))
                .with_severity(severity);
            shown.help = problem.hint.clone();
            let report = Report::from(shown).with_source_code(NamedSource::new(&*self.file, self.text.to_string()));
            if handler.render_report(&mut out, report.as_ref()).is_err() {
                out.push_str(&format!("{}:{line}:{column}: {}\n", self.file, problem.message));
            }
        }
        out
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.list {
            let (line, column) = self.place(problem);
            writeln!(f, "{}:{line}:{column}: {}", self.file, problem.message)?;
            if let Some(hint) = &problem.hint {
                writeln!(f, "  {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The known word nearest to the written one, if any is near.
fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let scored = known.into_iter().map(|word| (strsim::jaro_winkler(written, word), word));
    scored.filter(|(score, _)| *score >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_from_one() {
        let problems = Problems::new("p.toml", "a = 1\nü = 2\n", vec![Problem::new(10..11, "no")]);
        assert_eq!(problems.place(&problems.list[0]), (2, 4));
    }

    #[test]
    fn a_hint_names_only_what_is_near() {
        let known = ["format", "event_time", "explode"];
        assert_eq!(Problem::new(0..0, "").did_you_mean("formt", known).hint.as_deref(), Some("did you mean `format`?"));
        assert_eq!(Problem::new(0..0, "").did_you_mean("zzz", known).hint, None);
    }
}
