//! What is written: `pipeline.toml` as options, table by table, with the place of every value. What it means is the plan's to say.

mod env;
mod options;
mod place;
mod read;
mod trial;

pub use env::Lookup;
pub use options::{
    DeadLetterOptions, DeadLetters, HttpOptions, Inputs, LimitOptions, ObservabilityOptions, OnError, PipelineOptions, Processor,
    ProcessorSpec, SinkSpec, Source, SourceCommon, SourceSpec, Spec, TableSpec,
};
pub(crate) use options::{PROCESSOR_TYPES, SINK_TYPES, SOURCE_TYPES};
pub use trial::{Given, LookupRows, Moment, TestOptions};

use crate::diagnose::{Problem, Problems};
use indexmap::IndexMap;
use options::{DEAD_LETTER_KEYS, SOURCE_KEYS};
use place::Place;
use read::Table;
use serde::de::DeserializeOwned;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// The sections of the file.
const SECTIONS: [&str; 12] = [
    "pipeline",
    "journal",
    "sources",
    "lookups",
    "processors",
    "tables",
    "sinks",
    "dead_letters",
    "http",
    "observability",
    "limits",
    "tests",
];

/// A file that was read: its options, and where they stand.
#[derive(Clone, Debug)]
pub struct Written {
    /// The file's name as it was given.
    pub file: String,
    /// What stands in it.
    pub text: String,
    /// Its options.
    pub spec: Spec,
    places: Place,
}

impl Written {
    /// Reads a file's text. The error holds the first mistake of each table.
    pub fn read(file: &str, text: &str, lookup: Lookup<'_>) -> Result<Self, Problems> {
        let mut problems = vec![];
        let found = parse(text, lookup, &mut problems);
        match found {
            Some((spec, places)) if problems.is_empty() => Ok(Self { file: file.to_owned(), text: text.to_owned(), spec, places }),
            _ => Err(Problems::new(file, text, problems)),
        }
    }

    /// Where the value at `path` below the tables `parts` stands; where it is not in the file, the nearest thing that is.
    #[must_use]
    pub fn place(&self, parts: &[&str], path: &str) -> Range<usize> {
        self.places.locate(parts, path).span.clone()
    }

    /// Where column `column` (from 1) of the text at `path` stands; the whole value where the text has no such column.
    #[must_use]
    pub fn place_inside(&self, parts: &[&str], path: &str, column: Option<usize>) -> Range<usize> {
        let place = self.places.locate(parts, path);
        column.map_or_else(|| place.span.clone(), |column| place.inside(&self.text, column))
    }

    /// Mistakes in this file.
    #[must_use]
    pub fn problems(&self, list: Vec<Problem>) -> Problems {
        Problems::new(&self.file, &self.text, list)
    }
}

fn parse(text: &str, lookup: Lookup<'_>, problems: &mut Vec<Problem>) -> Option<(Spec, Place)> {
    let (parsed, errors) = DeTable::parse_recoverable(text);
    problems.extend(errors.iter().map(|e| read::problem(e, &(0..text.len()), &[])));
    if !problems.is_empty() {
        return None;
    }
    let mut values = parsed.into_inner();
    env::substitute(&mut values, lookup, problems);
    let places = Place::of(&values);
    Sections { values, problems }.read().map(|spec| (spec, places))
}

/// The sections of the file while they are read.
struct Sections<'i, 'p> {
    values: DeTable<'i>,
    problems: &'p mut Vec<Problem>,
}

impl<'i> Sections<'i, '_> {
    fn read(mut self) -> Option<Spec> {
        self.unknown();
        let pipeline = self.pipeline();
        let journal = self.section("journal");
        let sources = self.each("sources", source);
        let lookups = self.each("lookups", |table| table.read(&[]));
        let processors = self.each("processors", processor);
        let tables = self.each("tables", table);
        let sinks = self.each("sinks", sink);
        let dead_letters = self.dead_letters();
        let (http, observability, limits) = (self.section("http"), self.section("observability"), self.section("limits"));
        let tests = self.tests();
        Some(Spec {
            pipeline: pipeline?,
            journal,
            sources,
            lookups,
            processors,
            tables,
            sinks,
            dead_letters,
            http,
            observability,
            limits,
            tests,
        })
    }

    fn unknown(&mut self) {
        for key in self.values.keys() {
            let name = key.get_ref().as_ref();
            if !SECTIONS.contains(&name) {
                let known = Problem::new(key.span(), format!("unknown section `{name}`"));
                self.problems.push(known.hint(format!("known are {}", listed(&SECTIONS))).did_you_mean(name, SECTIONS));
            }
        }
    }

    fn pipeline(&mut self) -> Option<PipelineOptions> {
        if !self.values.contains_key("pipeline") {
            self.problems.push(Problem::new(0..0, "no section [pipeline]").hint("begin with [pipeline] and name = \"…\""));
            return None;
        }
        let table = self.table("pipeline")?;
        self.keep(table.read(&[]))
    }

    fn table(&mut self, name: &str) -> Option<Table<'i>> {
        let value = self.values.remove(name)?;
        self.keep(Table::of(name, value))
    }

    fn section<T: DeserializeOwned + Default>(&mut self, name: &str) -> T {
        let read = self.table(name).map(|table| table.read(&[]));
        read.and_then(|read| self.keep(read)).unwrap_or_default()
    }

    fn each<T>(&mut self, section: &str, one: impl Fn(Table<'i>) -> Result<T, Problem>) -> IndexMap<String, T> {
        let mut found = IndexMap::new();
        for (key, value) in self.table(section).map(|t| t.entries).unwrap_or_default() {
            let name = key.into_inner().into_owned();
            let read = Table::of(&name, value).and_then(&one);
            if let Some(read) = self.keep(read) {
                found.insert(name, read);
            }
        }
        found
    }

    fn dead_letters(&mut self) -> DeadLetters {
        let Some(mut table) = self.table("dead_letters") else { return DeadLetters::default() };
        let own = table.take(&DEAD_LETTER_KEYS).read(&[]);
        let tiers = table.read(&DEAD_LETTER_KEYS);
        let both = first_of(own, tiers);
        self.keep(both).map_or_else(DeadLetters::default, |(options, table)| DeadLetters { options, table })
    }

    fn tests(&mut self) -> Vec<TestOptions> {
        let Some(value) = self.values.remove("tests") else { return vec![] };
        let span = value.span();
        let DeValue::Array(list) = value.into_inner() else {
            self.problems.push(Problem::new(span, "`tests` should be a list").hint("each test begins with [[tests]]"));
            return vec![];
        };
        let tests = list.into_iter().map(|test| Table::of("tests", test).and_then(|table| table.read(&[])));
        tests.filter_map(|read| self.keep(read)).collect()
    }

    fn keep<T>(&mut self, read: Result<T, Problem>) -> Option<T> {
        read.map_err(|problem| self.problems.push(problem)).ok()
    }
}

fn source(mut table: Table<'_>) -> Result<SourceSpec, Problem> {
    let kind = kind(&mut table, &SOURCE_TYPES)?;
    let common = table.take(&SOURCE_KEYS).read(&[]);
    let source = match kind {
        "mqtt" => table.read(&SOURCE_KEYS).map(|options| Source::Mqtt(Box::new(options))),
        "file" => table.read(&SOURCE_KEYS).map(Source::File),
        "kafka" => table.read(&SOURCE_KEYS).map(|options| Source::Kafka(Box::new(options))),
        "http" => table.read(&SOURCE_KEYS).map(Source::Http),
        other => unreachable!("{other} is not among the kinds"),
    };
    first_of(common, source).map(|(common, source)| SourceSpec { common, source })
}

fn processor(mut table: Table<'_>) -> Result<ProcessorSpec, Problem> {
    let kind = kind(&mut table, &PROCESSOR_TYPES)?;
    let inputs = table.take(&["inputs"]).read::<Inputs>(&[]);
    let elsewhere = ["inputs"];
    let processor = match kind {
        "filter" => table.read(&elsewhere).map(Processor::Filter),
        "map" => table.read(&elsewhere).map(Processor::Map),
        "enrich" => table.read(&elsewhere).map(Processor::Enrich),
        "dedupe" => table.read(&elsewhere).map(Processor::Dedupe),
        "window" => table.read(&elsewhere).map(Processor::Window),
        "route" => table.read(&elsewhere).map(Processor::Route),
        "union" => table.read(&elsewhere).map(Processor::Union),
        "join" => table.read(&elsewhere).map(Processor::Join),
        "deadband" => table.read(&elsewhere).map(Processor::Deadband),
        "rate" => table.read(&elsewhere).map(Processor::Rate),
        "alert" => table.read(&elsewhere).map(Processor::Alert),
        "anomaly" => table.read(&elsewhere).map(Processor::Anomaly),
        "presence" => table.read(&elsewhere).map(Processor::Presence),
        other => unreachable!("{other} is not among the kinds"),
    };
    first_of(inputs, processor).map(|(Inputs { inputs }, processor)| ProcessorSpec { inputs, processor })
}

fn table(mut table: Table<'_>) -> Result<TableSpec, Problem> {
    let inputs = table.take(&["inputs"]).read::<Inputs>(&[]);
    first_of(inputs, table.read(&["inputs"])).map(|(Inputs { inputs }, options)| TableSpec { inputs, options })
}

fn sink(mut table: Table<'_>) -> Result<SinkSpec, Problem> {
    kind(&mut table, &SINK_TYPES)?;
    let inputs = table.take(&["inputs"]).read::<Inputs>(&[]);
    first_of(inputs, table.read(&["inputs"])).map(|(Inputs { inputs }, options)| SinkSpec { inputs, options })
}

/// Takes the key `type` and finds it among the kinds.
fn kind(table: &mut Table<'_>, kinds: &[&'static str]) -> Result<&'static str, Problem> {
    let Some(written) = table.take_text("type")? else {
        return Err(Problem::new(table.span.clone(), "missing key `type`").hint(format!("known are {}", listed(kinds))));
    };
    kinds.iter().find(|k| *k == written.get_ref()).copied().ok_or_else(|| {
        let unknown = Problem::new(written.span(), format!("unknown type `{}`", written.get_ref()));
        unknown.hint(format!("known are {}", listed(kinds))).did_you_mean(written.get_ref(), kinds.iter().copied())
    })
}

/// Both, or the mistake that stands first in the file.
fn first_of<A, B>(a: Result<A, Problem>, b: Result<B, Problem>) -> Result<(A, B), Problem> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(a), Err(b)) => Err(if b.span.start < a.span.start { b } else { a }),
        (Err(e), _) | (_, Err(e)) => Err(e),
    }
}

fn listed(words: &[&str]) -> String {
    words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
}
