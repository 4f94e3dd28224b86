//! Lookup tables as they are meant, and whether their files are what the pipeline says.

use super::{Plan, PlannedLookup};
use crate::diagnose::Problem;
use crate::run::trial::as_json;
use crate::spec::Written;
use flow::LookupVersion;
use ingest::lookup::{FileLookup, LookupError, LookupFormat, LookupOptions, LookupSource};

/// The tables of a file; none for one with a mistake.
pub(super) fn plan(written: &Written, problems: &mut Vec<Problem>) -> Vec<PlannedLookup> {
    let mut planned = vec![];
    for (name, options) in &written.spec.lookups {
        match options.shape(name) {
            Ok(shape) => planned.push(PlannedLookup { shape, options: options.clone() }),
            Err(e) => problems.push(Problem { span: written.place(&["lookups", name], &e.path), message: e.message, hint: e.hint }),
        }
    }
    planned
}

/// What is wrong with the files of the lookup tables: each is read whole.
pub(super) fn files(written: &Written, plan: &Plan) -> Vec<Problem> {
    let look = |lookup: &PlannedLookup| {
        let error = lookup.of_file().err()?;
        let message = format!("lookup `{}` cannot be read: {error}", lookup.shape.name);
        Some(Problem::new(written.place(&["lookups", &lookup.shape.name], "path"), message))
    };
    plan.lookups.iter().filter_map(look).collect()
}

impl PlannedLookup {
    /// The version that its file holds now.
    pub fn of_file(&self) -> Result<LookupVersion, LookupError> {
        let found = FileLookup::new(self.shape.clone(), self.options.clone()).look()?;
        Ok(found.expect("the first look gives a version or fails"))
    }

    /// A version with these rows, as a test gives them. Columns have their declared names.
    pub fn of_rows(&self, rows: &[toml::Table]) -> Result<LookupVersion, LookupError> {
        let mut options = LookupOptions { format: Some(LookupFormat::Ndjson), ..self.options.clone() };
        options.columns.values_mut().for_each(|column| column.path = None);
        let from = format!("the rows of lookup {}", self.shape.name);
        let failed = |e: serde_json::Error| LookupError { from: from.clone(), line: None, message: e.to_string() };
        let mut lines = vec![];
        for row in rows {
            serde_json::to_writer(&mut lines, &as_json(row)).map_err(failed)?;
            lines.push(b'\n');
        }
        ingest::lookup::parse(&self.shape, &options, &from, lines)
    }
}
