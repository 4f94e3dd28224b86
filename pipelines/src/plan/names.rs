//! Names: which are allowed, what they stand for, and in which order operators come.

use super::Input;
use crate::diagnose::Problem;
use crate::spec::{Processor, Spec, Written};
use std::ops::Range;

/// Names that the product's own tables and schemas have.
const RESERVED: [&str; 4] = ["dead_letters", "tiers", "tidegate", "information_schema"];
/// What a sink reads to be told of rows that have gone to the cold tier.
pub(super) const MOVES: &str = "tidegate.moves";
/// Longer names make no good file names with what is put around them.
const LONGEST: usize = 63;

/// What is wrong with the names of the file's parts.
pub(super) fn check(written: &Written) -> Vec<Problem> {
    let spec = &written.spec;
    let mut problems = vec![];
    let mut add = |span: Range<usize>, found: Option<Problem>| problems.extend(found.map(|p| Problem { span, ..p }));
    add(written.place(&["pipeline"], "name"), unfit("the pipeline", &spec.pipeline.name));
    for name in spec.sources.keys() {
        add(written.place(&["sources", name], ""), unfit("a source", name).or_else(|| reserved(name)));
    }
    for name in spec.processors.keys() {
        let taken = spec.sources.contains_key(name).then(|| Problem::new(0..0, format!("`{name}` is also the name of a source")));
        add(written.place(&["processors", name], ""), unfit("a processor", name).or_else(|| reserved(name)).or(taken));
    }
    for name in spec.lookups.keys() {
        add(written.place(&["lookups", name], ""), unfit("a lookup", name));
    }
    for (name, table) in &spec.tables {
        let other = (spec.sources.contains_key(name) || spec.processors.contains_key(name)) && !table.inputs.contains(name);
        let taken = other.then(|| {
            let message = format!("table `{name}` has the name of another part, which it does not read");
            Problem::new(0..0, message).hint("give it another name, or put that part into its `inputs`")
        });
        add(written.place(&["tables", name], ""), unfit("a table", name).or_else(|| reserved(name)).or(taken));
    }
    for name in spec.sinks.keys() {
        let other = spec.sources.contains_key(name) || spec.processors.contains_key(name) || spec.tables.contains_key(name);
        let taken = other.then(|| Problem::new(0..0, format!("`{name}` is also the name of another part")));
        add(written.place(&["sinks", name], ""), unfit("a sink", name).or_else(|| reserved(name)).or(taken));
    }
    problems
}

fn unfit(what: &str, name: &str) -> Option<Problem> {
    let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && name.len() <= LONGEST;
    let rule = format!("a lower-case letter, then lower-case letters, digits and _, at most {LONGEST}: names stand in SQL and file names");
    (!fits).then(|| Problem::new(0..0, format!("`{name}` cannot be the name of {what}")).hint(rule))
}

fn reserved(name: &str) -> Option<Problem> {
    let taken = RESERVED.contains(&name) || name.starts_with("late_") || name.ends_with("_last");
    taken.then(|| Problem::new(0..0, format!("the name `{name}` is reserved")).hint("`dead_letters`, `late_…`, `…_last`, `tiers` are ours"))
}

/// What the `inputs` of a part name, by the numbers of the spec; unknown names are problems, and so are names that stand twice but where
/// a stream may be joined with itself.
pub(super) fn inputs(written: &Written, part: &[&str], names: &[String], problems: &mut Vec<Problem>) -> Vec<Input> {
    let spec = &written.spec;
    if names.is_empty() {
        problems.push(Problem::new(written.place(part, "inputs"), "`inputs` names nothing"));
    }
    let may_repeat =
        matches!(part, ["processors", name] if matches!(spec.processors.get(*name).map(|p| &p.processor), Some(Processor::Join(_))));
    let mut found = vec![];
    for (at, name) in names.iter().enumerate() {
        let span = written.place(part, &format!("inputs.{at}"));
        match resolve(spec, name) {
            Some(input) if found.contains(&input) && !may_repeat => problems.push(Problem::new(span, format!("`{name}` stands twice"))),
            Some(input) => found.push(input),
            None => problems.push(unknown(spec, name, span)),
        }
    }
    found
}

fn resolve(spec: &Spec, name: &str) -> Option<Input> {
    if let Some((router, branch)) = name.split_once('.') {
        let (number, _, processor) = spec.processors.get_full(router)?;
        let Processor::Route(options) = &processor.processor else { return None };
        return options.names().iter().position(|n| *n == branch).map(|branch| Input::Branch(number, branch));
    }
    let source = spec.sources.get_index_of(name).map(Input::Source);
    source.or_else(|| {
        let (number, _, processor) = spec.processors.get_full(name)?;
        (!matches!(processor.processor, Processor::Route(_))).then_some(Input::Operator(number))
    })
}

/// What can be read, by name: a route by its branches.
pub(super) fn readable(spec: &Spec) -> Vec<String> {
    let processors = spec.processors.iter().flat_map(|(name, processor)| match &processor.processor {
        Processor::Route(options) => options.names().iter().map(|branch| format!("{name}.{branch}")).collect(),
        _ => vec![name.clone()],
    });
    spec.sources.keys().cloned().chain(processors).collect()
}

fn unknown(spec: &Spec, name: &str, span: Range<usize>) -> Problem {
    if name == MOVES {
        return Problem::new(span, format!("`{MOVES}` is read by a sink, and alone"));
    }
    let known = readable(spec);
    let all = known.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    if let Some(Processor::Route(options)) = spec.processors.get(name).map(|p| &p.processor) {
        let branches = options.names().iter().map(|branch| format!("`{name}.{branch}`")).collect::<Vec<_>>().join(", ");
        return Problem::new(span, format!("`{name}` is a route: its branches are read, not itself")).hint(format!("there are {branches}"));
    }
    let problem = Problem::new(span, format!("no source or processor is named `{name}`"));
    if all.is_empty() { problem } else { problem.hint(format!("there are {all}")).did_you_mean(name, known.iter().map(String::as_str)) }
}

/// The numbers of the operators, each after what it reads, otherwise in the order given; or the operators of a circle, in its order.
pub(super) fn order(inputs: &[Vec<Input>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut walk = Walk { inputs, state: vec![State::New; inputs.len()], path: vec![], done: vec![] };
    for operator in 0..inputs.len() {
        walk.visit(operator)?;
    }
    Ok(walk.done)
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Open,
    Done,
}

struct Walk<'a> {
    inputs: &'a [Vec<Input>],
    state: Vec<State>,
    path: Vec<usize>,
    done: Vec<usize>,
}

impl Walk<'_> {
    fn visit(&mut self, operator: usize) -> Result<(), Vec<usize>> {
        match self.state[operator] {
            State::Done => return Ok(()),
            State::Open => {
                let start = self.path.iter().position(|o| *o == operator).unwrap_or(0);
                return Err(self.path.split_off(start));
            }
            State::New => {}
        }
        self.state[operator] = State::Open;
        self.path.push(operator);
        for input in &self.inputs[operator] {
            if let Some(of) = input.operator() {
                self.visit(of)?;
            }
        }
        self.path.pop();
        self.state[operator] = State::Done;
        self.done.push(operator);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operator_comes_after_what_it_reads() {
        let reads = |of: &[usize]| of.iter().map(|o| Input::Operator(*o)).collect::<Vec<_>>();
        assert_eq!(order(&[reads(&[2]), vec![Input::Source(0)], reads(&[1])]), Ok(vec![1, 2, 0]));
        assert_eq!(order(&[reads(&[]), reads(&[2]), reads(&[3]), reads(&[1])]), Err(vec![1, 2, 3]));
        assert_eq!(order(&[reads(&[0])]), Err(vec![0]));
    }

    #[test]
    fn names_that_are_ours_are_reserved() {
        for name in ["dead_letters", "late_x", "x_last", "tiers", "tidegate"] {
            assert!(reserved(name).is_some(), "{name}");
        }
        assert!(reserved("readings").is_none() && unfit("a table", "readings_2").is_none());
        for name in ["", "Readings", "2x", "a-b", "a.b", "_x"] {
            assert!(unfit("a table", name).is_some(), "{name}");
        }
    }
}
