//! What is wrong with `[[tests]]`, seen from the plan: names of sources, tables and columns.

use super::Plan;
use crate::diagnose::Problem;
use crate::spec::Written;

/// The mistakes in the tests of a file.
pub(super) fn check(written: &Written, plan: &Plan) -> Vec<Problem> {
    let mut problems = vec![];
    let mut add = |path: String, problem: Problem| problems.push(Problem { span: written.place(&["tests"], &path), ..problem });
    for (number, test) in written.spec.tests.iter().enumerate() {
        let later = test.given.iter().enumerate().map(|(at, given)| (format!("{number}.given.{at}.lookups"), &given.lookups));
        for (path, lookups) in std::iter::once((format!("{number}.lookups"), &test.lookups)).chain(later) {
            for (name, rows) in lookups {
                let Some(lookup) = plan.lookups.iter().find(|l| *l.shape.name == **name) else {
                    let names = plan.lookups.iter().map(|l| &*l.shape.name);
                    let problem = Problem::new(0..0, format!("there is no lookup `{name}`")).did_you_mean(name, names);
                    add(format!("{path}.{name}"), problem);
                    continue;
                };
                if let Err(e) = lookup.of_rows(rows) {
                    add(format!("{path}.{name}"), Problem::new(0..0, e.to_string()));
                }
            }
        }
        for (at, given) in test.given.iter().enumerate() {
            let path = format!("{number}.given.{at}");
            if let Some(problem) = given.check(0..0) {
                add(path, problem);
                continue;
            }
            match &given.source {
                Some(name) if plan.sources.iter().all(|s| s.name != *name) => {
                    let names = plan.sources.iter().map(|s| s.name.as_str());
                    add(format!("{path}.source"), Problem::new(0..0, format!("there is no source `{name}`")).did_you_mean(name, names));
                }
                None if given.payload.is_some() && plan.sources.len() > 1 => {
                    add(path.clone(), Problem::new(0..0, "there are several sources: `source` says which one receives it"));
                }
                _ => {}
            }
            if at == 0 && given.payload.is_some() && given.at.is_none() {
                add(path, Problem::new(0..0, "the first message needs `at`, the time at which it reaches us"));
            }
        }
        for (name, rows) in &test.expect {
            let sink = || plan.sinks.iter().find(|sink| sink.name == *name).map(|sink| &sink.schema);
            let Some(schema) = plan.table(name).map(|table| &table.schema).or_else(sink) else {
                let names = plan.tables.iter().map(|t| t.name.as_str()).chain(plan.sinks.iter().map(|s| s.name.as_str()));
                let problem = Problem::new(0..0, format!("there is no table or sink `{name}`")).did_you_mean(name, names);
                add(format!("{number}.expect.{name}"), problem);
                continue;
            };
            for (at, row) in rows.iter().enumerate() {
                for column in row.keys().filter(|c| schema.index_of(c).is_err()) {
                    let names = schema.fields().iter().map(|f| f.name().as_str());
                    let problem = Problem::new(0..0, format!("`{name}` has no column `{column}`")).did_you_mean(column, names);
                    add(format!("{number}.expect.{name}.{at}.{column}"), problem);
                }
            }
        }
    }
    problems
}
