//! From the spec to the plan, part by part. What follows from an earlier mistake is left out, so that each mistake is told once.

use super::stream::Stream;
use super::{
    BuildOperator, Input, OperatorKind, Plan, PlannedLookup, PlannedOperator, PlannedSink, PlannedSource, PlannedTable, Stage, TableKind,
    fingerprint, lookups, names, stages, tables, trials,
};
use crate::diagnose::Problem;
use crate::spec::{Processor, Source, SourceSpec, Spec, Written};
use arrow::datatypes::SchemaRef;
use flow::{Error, LookupShape, Operator};
use ingest::decode::OptionError;
use ingest::rejected::Rejected;
use processors::BuildError;
use processors::join::JoinOptions;
use processors::watermark::Per;
use processors::window::{ByDevice, Maker};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// The plan of a file, or what is wrong with it.
pub(super) fn plan(written: &Written) -> Result<Plan, Vec<Problem>> {
    let problems = names::check(written);
    if problems.is_empty() { Builder::new(written).plan() } else { Err(problems) }
}

struct Builder<'w> {
    written: &'w Written,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    sources: Vec<PlannedSource>,
    source_streams: Vec<Option<Stream>>,
    lookups: Vec<PlannedLookup>,
    operators: Vec<PlannedOperator>,
    /// By the number of the processor in the spec: its number among the operators and what it puts out.
    operator_streams: Vec<Option<(usize, Stream)>>,
    tables: Vec<PlannedTable>,
    sinks: Vec<PlannedSink>,
}

impl<'w> Builder<'w> {
    fn new(written: &'w Written) -> Self {
        let operator_streams = vec![None; written.spec.processors.len()];
        Self {
            written,
            problems: vec![],
            warnings: vec![],
            sources: vec![],
            source_streams: vec![],
            lookups: vec![],
            operators: vec![],
            operator_streams,
            tables: vec![],
            sinks: vec![],
        }
    }

    fn plan(mut self) -> Result<Plan, Vec<Problem>> {
        let spec = &self.written.spec;
        if spec.sources.is_empty() {
            self.problems.push(Problem::new(self.written.place(&["pipeline"], ""), "there is no source").hint("[sources.name] makes one"));
        }
        self.timezone();
        self.http();
        for (name, source) in &spec.sources {
            let stream = self.source(name, source);
            self.source_streams.push(stream);
        }
        self.lookups = lookups::plan(self.written, &mut self.problems);
        self.operators();
        self.dead_letters();
        self.declared_tables();
        self.sinks();
        self.producers();
        self.unread();
        self.shared();
        self.implicit_tables();
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let written = self.written;
        let plan = self.finish();
        let problems = trials::check(written, &plan);
        if problems.is_empty() { Ok(plan) } else { Err(problems) }
    }

    fn finish(self) -> Plan {
        let spec = &self.written.spec;
        let exits = stages::exits(&self.operators, &self.sources, &|of, branch| branch_name(spec, &self.operators[of].name, branch));
        let mut plan = Plan {
            name: spec.pipeline.name.clone(),
            data_dir: PathBuf::from(&spec.pipeline.data_dir),
            shared: spec.pipeline.shared,
            lanes: spec.pipeline.lanes.get(),
            epoch: spec.pipeline.epoch.0,
            timezone: spec.pipeline.timezone.clone(),
            journal: spec.journal.clone(),
            sources: self.sources,
            lookups: self.lookups,
            operators: self.operators,
            exits,
            tables: self.tables.into_iter().map(tables::growing).collect(),
            sinks: self.sinks,
            dead_letters: spec.dead_letters.options,
            http: spec.http.clone(),
            observability: spec.observability.clone(),
            limits: spec.limits,
            tests: spec.tests.clone(),
            warnings: self.written.problems(self.warnings),
            fingerprint: Default::default(),
        };
        plan.fingerprint = fingerprint::of(&plan, spec);
        plan
    }

    /// What processes share are the lanes of partitions: a journal or a file has one owner.
    fn shared(&mut self) {
        let spec = &self.written.spec;
        if !spec.pipeline.shared {
            return;
        }
        for (name, source) in &spec.sources {
            if !matches!(source.source, Source::Kafka(_)) {
                let what = format!("source `{name}` is no Kafka topic, and `shared` processes share partitions");
                let problem = Problem::new(self.written.place(&["sources", name], "type"), what);
                self.problems.push(problem.hint("a pipeline of its own for it, which puts its readings into a topic"));
            }
        }
    }

    fn timezone(&mut self) {
        let zone = &self.written.spec.pipeline.timezone;
        if zone.parse::<chrono_tz::Tz>().is_err() {
            let problem = Problem::new(self.written.place(&["pipeline"], "timezone"), format!("there is no time zone `{zone}`"));
            self.problems.push(problem.hint("an IANA name such as `UTC` or `Europe/Berlin`"));
        }
    }

    /// Whoever can reach the interface must be asked who they are, where that is more than this machine.
    fn http(&mut self) {
        let http = &self.written.spec.http;
        let mut tell = |key: &str, message: String, hint: &str| {
            self.problems.push(Problem::new(self.written.place(&["http"], key), message).hint(hint));
        };
        if !http.listen.ip().is_loopback() && http.token.is_none() {
            let message = format!("{} can be reached from outside, and nobody is asked for a token", http.listen);
            tell("listen", message, "`token = { env = \"NAME\" }` beside it, or an address such as 127.0.0.1:8080");
        }
        if http.ingest_token.is_some() && http.token.is_none() {
            tell(
                "ingest_token",
                "stands without `token`: everybody could ask".to_owned(),
                "`token` opens everything, `ingest_token` the way in",
            );
        }
        for (key, secret) in [("token", &http.token), ("ingest_token", &http.ingest_token)] {
            if let Some(Err(e)) = secret.as_ref().map(|secret| secret.check(key)) {
                self.problems.push(Problem { span: self.written.place(&["http"], &e.path), message: e.message, hint: e.hint });
            }
        }
    }

    /// Adds a source to the plan; gives what it puts out.
    fn source(&mut self, name: &str, spec: &SourceSpec) -> Option<Stream> {
        let captures = self.captures(name, &spec.source)?;
        let common = &spec.common;
        let schema = ingest::decode::schema(&common.decode, &common.columns, &captures, &common.key);
        let schema = self.option(name, schema)?;
        let key_columns = common.key.iter().filter_map(|k| schema.index_of(k).ok()).collect();
        self.sources.push(PlannedSource {
            name: name.to_owned(),
            kind: spec.source.clone(),
            decode: common.decode.clone(),
            columns: common.columns.clone(),
            captures,
            key: common.key.clone(),
            key_columns,
            watermark: common.watermark.clone(),
            max_message: common.max_message.0,
            schema: schema.clone(),
        });
        let number = self.source_streams.len();
        let lane_key = (!is_scattered(&spec.source)).then(|| common.key.clone());
        Some(Stream { schema, key: common.key.clone(), lane_key, sources: vec![number], second: false })
    }

    fn captures(&mut self, name: &str, source: &Source) -> Option<Vec<String>> {
        match source {
            Source::Mqtt(options) => {
                self.option(name, options.check())?;
                let patterns = self.option(name, options.patterns())?;
                Some(patterns.first().map(|p| p.captures().to_vec()).unwrap_or_default())
            }
            Source::Http(options) => {
                let patterns = self.option(name, options.patterns())?;
                Some(patterns.first().map(|p| p.captures().to_vec()).unwrap_or_default())
            }
            Source::File(_) => Some(vec![]),
            Source::Kafka(options) => {
                self.option(name, options.check())?;
                Some(options.captures())
            }
        }
    }

    fn option<T>(&mut self, source: &str, result: Result<T, OptionError>) -> Option<T> {
        let say = |e: OptionError| Problem { span: self.written.place(&["sources", source], &e.path), message: e.message, hint: e.hint };
        result.map_err(|e| self.problems.push(say(e))).ok()
    }

    fn operators(&mut self) {
        let spec = &self.written.spec;
        let mut inputs = vec![];
        for (name, processor) in &spec.processors {
            inputs.push(names::inputs(self.written, &["processors", name], &processor.inputs, &mut self.problems));
        }
        let order = match names::order(&inputs) {
            Ok(order) => order,
            Err(circle) => return self.circle(&circle),
        };
        for number in order {
            if let Some((planned, stream)) = self.operator(number, &inputs[number]) {
                self.operator_streams[number] = Some((self.operators.len(), stream));
                self.operators.push(planned);
            }
        }
    }

    fn circle(&mut self, circle: &[usize]) {
        let name = |number: usize| self.written.spec.processors.get_index(number).map_or("", |(name, _)| name.as_str());
        let start = name(circle[0]);
        let path = circle.iter().chain(&circle[..1]).map(|number| name(*number)).collect::<Vec<_>>().join(" reads ");
        self.problems.push(Problem::new(self.written.place(&["processors", start], "inputs"), format!("a circle: {path}")));
    }

    fn operator(&mut self, number: usize, inputs: &[Input]) -> Option<(PlannedOperator, Stream)> {
        let (name, spec) = self.written.spec.processors.get_index(number)?;
        let part = ["processors", name.as_str()];
        let stream = match &spec.processor {
            Processor::Union(_) => self.united(&part, inputs)?,
            Processor::Join(options) => self.paired(&part, inputs, options)?,
            _ => self.joined(&part, inputs)?,
        };
        self.meeting(&part, &stream);
        let lookup = match &spec.processor {
            Processor::Enrich(options) => Some(self.lookup(&part, &options.lookup)?),
            _ => None,
        };
        let sides = self.streams(inputs)?.into_iter().map(|(_, s)| s.schema.clone()).collect();
        let by_device = self.by_device(&part, &spec.processor, &stream);
        let stage = self.stage(&part, &spec.processor, &stream, by_device);
        let given = Given { by_device, lookup, sides };
        let build = builder(name, &spec.processor, given, &stream.schema);
        let operator = match build() {
            Ok(operator) => operator,
            Err(e) => {
                let span = self.written.place_inside(&part, &e.key, e.column);
                self.problems.push(Problem { span, message: e.message, hint: e.hint });
                return None;
            }
        };
        self.warn(&part, &spec.processor, &stream.schema);
        let output = Stream { second: stage.is_second(), ..put_out(&spec.processor, &stream, operator.schema()) };
        let planned = PlannedOperator {
            name: name.clone(),
            kind: kind(&spec.processor),
            inputs: self.numbered(inputs),
            input_schema: stream.schema,
            schema: output.schema.clone(),
            sources: output.sources.clone(),
            build: built(name, build),
            stage,
            identity: match &spec.processor {
                Processor::Window(options) => options.identity(),
                _ => None,
            },
            late: None,
        };
        Some((planned, output))
    }

    /// The watermarks by device of a window, where its sources ask for them and it has them. A warning where it cannot have them.
    fn by_device(&mut self, part: &[&str], processor: &Processor, stream: &Stream) -> Option<ByDevice> {
        let Processor::Window(options) = processor else { return None };
        let waters = stream.sources.iter().filter_map(|n| Some(&self.written.spec.sources.get_index(*n)?.1.common.watermark));
        let all = waters.clone().all(|w| w.per == Per::Device);
        let most = waters.cloned().reduce(|a, b| a.or_later(&b)).filter(|w| w.per == Per::Device)?;
        if all && stream.holds_lane_key(&options.key) {
            let (delay, idle, retention) = (most.out_of_orderness, most.device_idle_timeout, most.device_retention);
            return Some(ByDevice { delay: delay.0.0, idle: idle.0.0, retention: retention.0.0 });
        }
        let (message, hint) = match all {
            true if self.scattered(stream) => {
                ("the window goes by the lane's watermark, not by the device's: `rekey` has a device in many lanes", "key")
            }
            true => ("the window goes by the lane's watermark, not by the device's: its key does not hold the source's", "key"),
            false => ("the window goes by the lane's watermark, not by the device's: one of its sources has none by device", "inputs"),
        };
        let problem = Problem::new(self.written.place(part, hint), message);
        self.warnings.push(problem.hint("`watermark = { per = \"device\" }` of a source is for windows by its key"));
        None
    }

    /// The lookup table that a processor names; a mistake in it is told there.
    fn lookup(&mut self, part: &[&str], name: &str) -> Option<LookupShape> {
        let known = &self.written.spec.lookups;
        if !known.contains_key(name) {
            let problem = Problem::new(self.written.place(part, "lookup"), format!("there is no lookup `{name}`"));
            let problem = problem.hint(format!("[lookups.{name}] makes one"));
            self.problems.push(problem.did_you_mean(name, known.keys().map(String::as_str)));
        }
        self.lookups.iter().find(|l| *l.shape.name == *name).map(|l| l.shape.clone())
    }

    fn warn(&mut self, part: &[&str], processor: &Processor, schema: &SchemaRef) {
        let Processor::Window(options) = processor else { return };
        for warning in processors::window::warnings(options, schema) {
            let span = self.written.place_inside(part, &warning.key, warning.column);
            self.warnings.push(Problem { span, message: warning.message, hint: warning.hint });
        }
    }

    /// The rows that a part reads; none where an input is wrong, which is told there.
    fn joined(&mut self, part: &[&str], inputs: &[Input]) -> Option<Stream> {
        let streams = self.streams(inputs)?;
        let problem = |e: String| Problem::new(self.written.place(part, "inputs"), format!("the inputs differ: {e}"));
        let joined = Stream::join(&streams).map_err(|e| problem(e).hint("a `map` before it can make them alike"));
        joined.map_err(|p| self.problems.push(p)).ok()
    }

    /// The rows of a union: the columns of all inputs.
    fn united(&mut self, part: &[&str], inputs: &[Input]) -> Option<Stream> {
        let streams = self.streams(inputs)?;
        let schemas: Vec<_> = streams.iter().map(|(name, s)| (*name, s.schema.clone())).collect();
        let schema = processors::union::columns(&schemas);
        let problem = |e: BuildError| Problem { span: self.written.place(part, &e.key), message: e.message, hint: e.hint };
        let united = schema.map(|schema| Stream::with_schema(&streams, schema)).map_err(problem);
        united.map_err(|p| self.problems.push(p)).ok()
    }

    /// The rows of a join's two inputs, in the shape in which both have room.
    fn paired(&mut self, part: &[&str], inputs: &[Input], options: &JoinOptions) -> Option<Stream> {
        let streams = self.streams(inputs)?;
        let [(_, left), (_, right)] = streams[..] else {
            // A name that is wrong is told, and missing here.
            if streams.len() == self.written.spec.processors[part[1]].inputs.len() {
                let message = format!("a join has two inputs, left and right, not {}", streams.len());
                self.problems.push(Problem::new(self.written.place(part, "inputs"), message));
            }
            return None;
        };
        let say = |e: BuildError| Problem { span: self.written.place(part, &e.key), message: e.message, hint: e.hint };
        let paired = processors::join::columns(options, &left.schema, &right.schema).map(|schema| Stream::with_schema(&streams, schema));
        paired.map_err(|e| self.problems.push(say(e))).ok()
    }

    /// The inputs with their names; none where one is wrong.
    fn streams(&self, inputs: &[Input]) -> Option<Vec<(&'w str, &Stream)>> {
        let mut streams = vec![];
        for input in inputs {
            streams.push(match input {
                Input::Source(n) => (self.written.spec.sources.get_index(*n)?.0.as_str(), self.source_streams[*n].as_ref()?),
                Input::Operator(n) | Input::Branch(n, _) | Input::Partials(n) => {
                    (self.written.spec.processors.get_index(*n)?.0.as_str(), &self.operator_streams[*n].as_ref()?.1)
                }
            });
        }
        (!streams.is_empty()).then_some(streams)
    }

    /// Files and topics are logs of their own, so no operator can have them and another source upstream.
    fn meeting(&mut self, part: &[&str], stream: &Stream) {
        let kind = |n: &usize| match &self.written.spec.sources.get_index(*n)?.1.source {
            Source::Mqtt(_) | Source::Http(_) => None,
            Source::File(_) => Some("file"),
            Source::Kafka(_) => Some("kafka"),
        };
        if let (true, Some(kind)) = (stream.sources.len() > 1, stream.sources.iter().find_map(kind)) {
            let message = format!("a {kind} source cannot meet another source in a processor yet");
            let problem = Problem::new(self.written.place(part, "inputs"), message);
            self.problems.push(problem.hint("give each source its processors; they may meet in a table"));
        }
    }

    /// The lanes that an operator is in: rows that it must see together have to be in one.
    fn stage(&mut self, part: &[&str], processor: &Processor, stream: &Stream, by_device: Option<ByDevice>) -> Stage {
        let of_kafka = |n: &usize| matches!(self.written.spec.sources.get_index(*n), Some((_, s)) if matches!(s.source, Source::Kafka(_)));
        // The lanes of a topic are its partitions: how many, only the broker knows.
        let lanes = if stream.sources.iter().any(of_kafka) { u32::MAX } else { self.written.spec.pipeline.lanes.get() };
        let name = part[1];
        match processor {
            _ if stream.second => Stage::Second,
            _ if keyed(processor).is_none_or(|key| stream.is_split_by(key, lanes)) => Stage::First,
            Processor::Window(o) if o.splits() && by_device.is_none() => {
                let (first, second) = ((o.clone(), stream.schema.clone()), (o.clone(), stream.schema.clone()));
                let (first_made, second_made) = (OnceLock::new(), OnceLock::new());
                Stage::Both {
                    first: built(name, Arc::new(move || made(&first_made, || processors::window::first_maker(&first.0, &first.1)))),
                    second: built(name, Arc::new(move || made(&second_made, || processors::window::second_maker(&second.0, &second.1)))),
                }
            }
            _ => {
                self.whole_rows(part, stream);
                Stage::Second
            }
        }
    }

    /// Whether a source of these rows has those of a device in several lanes.
    fn scattered(&self, stream: &Stream) -> bool {
        let source = |n: &usize| self.written.spec.sources.get_index(*n).is_some_and(|(_, of)| is_scattered(&of.source));
        stream.sources.iter().any(source)
    }

    /// One lane takes what all lanes have: a price to know of.
    fn whole_rows(&mut self, part: &[&str], stream: &Stream) {
        let lane_key = match &stream.lane_key {
            Some(key) => format!("{key:?} chooses"),
            None if self.scattered(stream) => "its partition (`rekey`) chooses".to_owned(),
            None => "the sources' keys choose".to_owned(),
        };
        let message = format!("all of its rows go through one lane of a second stage: {lane_key} the lane of a reading, not this key");
        let problem = Problem::new(self.written.place(part, "key"), message);
        let hint = "tumbling, hopping and calendar windows with one pane each are aggregated in every lane first; a key that holds the source's needs no second stage";
        self.warnings.push(problem.hint(hint));
    }

    /// The journal keeps no more of a message than this.
    fn dead_letters(&mut self) {
        let (payload, most) = (self.written.spec.dead_letters.options.payload.0, Rejected::PAYLOAD_LIMIT as u64);
        if payload > most {
            let message = format!("dead_letters.payload is {payload} bytes; at most {most} of a message are kept");
            self.problems.push(Problem::new(self.written.place(&["dead_letters"], "payload"), message));
        }
    }

    fn declared_tables(&mut self) {
        for (name, table) in &self.written.spec.tables {
            let part = ["tables", name.as_str()];
            let inputs = names::inputs(self.written, &part, &table.inputs, &mut self.problems);
            if let Err(e) = table.options.warm.check() {
                self.problems.push(Problem::new(self.written.place(&part, "warm.partition"), e));
            }
            if let Some(Err((key, e))) = table.options.cold.as_ref().map(|cold| cold.check(self.written.spec.limits.query_time.0)) {
                self.problems.push(Problem::new(self.written.place(&part, key), e));
            }
            let Some(stream) = self.joined(&part, &inputs) else { continue };
            self.tables.push(PlannedTable {
                name: name.clone(),
                kind: TableKind::Declared,
                schema: stream.schema,
                key: stream.key,
                options: table.options.clone(),
                inputs: self.numbered(&inputs),
                sources: stream.sources,
            });
        }
    }

    fn sinks(&mut self) {
        let spec = &self.written.spec;
        for (name, sink) in &spec.sinks {
            let part = ["sinks", name.as_str()];
            let moves = sink.inputs == [names::MOVES];
            let inputs = if moves { vec![] } else { names::inputs(self.written, &part, &sink.inputs, &mut self.problems) };
            if let Err(e) = sink.options.check() {
                self.problems.push(Problem { span: self.written.place(&part, &e.path), message: e.message, hint: e.hint });
            }
            let stream = if moves { Some(self.moves(&part)) } else { self.joined(&part, &inputs) };
            let Some(stream) = stream else { continue };
            let key = sink.options.key.clone().unwrap_or(stream.key);
            let of_key = key.iter().enumerate().map(|(at, column)| (format!("key.{at}"), column.clone()));
            let of_headers = sink.options.headers.iter().map(|(name, column)| (format!("headers.{name}"), column.clone()));
            let of_topic = sink.options.check().is_ok().then(|| sink.options.template());
            let of_topic = of_topic.iter().flat_map(|of| of.columns()).map(|column| ("topic".to_owned(), column.clone()));
            for (place, column) in of_key.chain(of_headers).chain(of_topic) {
                self.column(&part, &place, &column, &stream.schema);
            }
            let (options, inputs) = (sink.options.clone(), self.numbered(&inputs));
            self.sinks.push(PlannedSink {
                name: name.clone(),
                schema: stream.schema,
                key,
                options,
                inputs,
                sources: stream.sources,
                moves,
            });
        }
    }

    /// What a sink is told of moves: by every lane.
    fn moves(&mut self, part: &[&str]) -> Stream {
        let spec = &self.written.spec;
        let mut options = spec.tables.values().map(|table| &table.options).chain([&spec.dead_letters.table]);
        if options.all(|table| table.cold.is_none()) {
            let problem = Problem::new(self.written.place(part, "inputs"), "no table has a cold tier: nothing ever moves");
            self.problems.push(problem.hint("cold = { url = \"cold\" } in a table"));
        }
        Stream {
            schema: tables::moves_schema(),
            key: vec!["table".into()],
            lane_key: None,
            sources: (0..spec.sources.len()).collect(),
            second: false,
        }
    }

    /// Tells of a column that is not there.
    fn column(&mut self, part: &[&str], place: &str, column: &str, schema: &SchemaRef) {
        if schema.index_of(column).is_err() {
            let known: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            let problem = Problem::new(self.written.place(part, place), format!("there is no column `{column}`"));
            let hint = known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
            self.problems.push(problem.hint(format!("there are {hint}")).did_you_mean(column, known));
        }
    }

    /// Two sources whose connections have the same numbers in the journal: one in a million.
    fn producers(&mut self) {
        let journaled: Vec<_> = self.sources.iter().filter(|s| s.is_journaled()).collect();
        let meet = |(at, one): (usize, &&PlannedSource)| {
            let other = journaled[..at].iter().find(|other| other.producers().start == one.producers().start)?;
            let problem =
                Problem::new(self.written.place(&["sources", &one.name], ""), "its name has the same short hash as another one's");
            Some(problem.hint(format!("another name than `{}` or `{}` for one of the two sources", one.name, other.name)))
        };
        let problems: Vec<_> = journaled.iter().enumerate().filter_map(meet).collect();
        self.problems.extend(problems);
    }

    /// Rows that nobody reads would be lost in silence.
    fn unread(&mut self) {
        let spec = &self.written.spec;
        let read = |name: &String| {
            let by_processor = spec.processors.values().any(|p| p.inputs.contains(name));
            by_processor || spec.tables.values().any(|t| t.inputs.contains(name)) || spec.sinks.values().any(|s| s.inputs.contains(name))
        };
        for name in names::readable(spec).iter().filter(|name| !read(name)) {
            let (of, branch) = name.split_once('.').unwrap_or((name, ""));
            let section = if spec.sources.contains_key(of) { "sources" } else { "processors" };
            let place = self.written.place(&[section, of], if branch.is_empty() { "" } else { "branches" });
            let problem = Problem::new(place, format!("nothing reads `{name}`: its rows would be lost"));
            let table = if branch.is_empty() { of } else { branch };
            self.problems.push(problem.hint(format!("[tables.{table}] with inputs = [\"{name}\"] keeps them")));
        }
    }

    fn implicit_tables(&mut self) {
        self.tables.push(PlannedTable {
            name: "dead_letters".to_owned(),
            kind: TableKind::DeadLetters,
            schema: tables::dead_letters_schema(),
            key: vec!["source".to_owned()],
            options: self.written.spec.dead_letters.table.clone(),
            inputs: vec![],
            sources: (0..self.sources.len()).collect(),
        });
        for (number, operator) in self.operators.iter_mut().enumerate().filter(|(_, o)| o.kind.has_late()) {
            operator.late = Some(self.tables.len());
            let schema = match operator.stage {
                Stage::Both { .. } => tables::late_partials_schema(&operator.input_schema),
                Stage::First | Stage::Second => tables::late_schema(&operator.input_schema),
            };
            let first = operator.sources.first().and_then(|s| self.written.spec.sources.get_index(*s));
            let keys = first.map(|(_, s)| s.common.key.clone()).unwrap_or_default();
            self.tables.push(PlannedTable {
                name: format!("late_{}", operator.name),
                kind: TableKind::Late(number),
                key: keys.into_iter().filter(|k| schema.index_of(k).is_ok()).collect(),
                schema,
                options: Default::default(),
                inputs: vec![],
                sources: operator.sources.clone(),
            });
        }
    }

    /// Inputs by the numbers of the plan; those of the spec that have none were mistakes.
    fn numbered(&self, inputs: &[Input]) -> Vec<Input> {
        let number = |input: &Input| match input {
            Input::Source(n) => Some(Input::Source(*n)),
            Input::Operator(n) => self.operator_streams[*n].as_ref().map(|(at, _)| Input::Operator(*at)),
            Input::Branch(n, branch) => self.operator_streams[*n].as_ref().map(|(at, _)| Input::Branch(*at, *branch)),
            Input::Partials(n) => self.operator_streams[*n].as_ref().map(|(at, _)| Input::Partials(*at)),
        };
        inputs.iter().filter_map(number).collect()
    }
}

/// Whether the readings of a device may be in any lane.
fn is_scattered(source: &Source) -> bool {
    matches!(source, Source::Kafka(options) if options.rekey)
}

/// The name of a branch, as others read it.
fn branch_name(spec: &Spec, router: &str, branch: usize) -> String {
    let names = match spec.processors.get(router).map(|p| &p.processor) {
        Some(Processor::Route(options)) => options.names(),
        _ => vec![],
    };
    format!("{router}.{}", names.get(branch).copied().unwrap_or_default())
}

/// As the plan keeps it: what was built once is built again.
fn built(name: &str, build: Build) -> BuildOperator {
    let name = name.to_owned();
    BuildOperator(Arc::new(move || build().map_err(|e| Error::stop(format!("building operator {name}"), e))))
}

/// The texts of a window are read once: that costs milliseconds, too much for each of many lanes.
fn made(window: &OnceLock<Maker>, read: impl FnOnce() -> Result<Maker, BuildError>) -> Result<Box<dyn Operator>, BuildError> {
    match window.get() {
        Some(maker) => maker(),
        None => {
            let maker = read()?;
            window.get_or_init(|| maker)()
        }
    }
}

type Build = Arc<dyn Fn() -> Result<Box<dyn Operator>, BuildError> + Send + Sync>;

/// What an operator is given beside its options and columns.
struct Given {
    by_device: Option<ByDevice>,
    lookup: Option<LookupShape>,
    /// The columns of each input.
    sides: Vec<SchemaRef>,
}

/// The key of rows that must be seen together, where there is one.
fn keyed(processor: &Processor) -> Option<&[String]> {
    match processor {
        Processor::Window(o) => Some(&o.key),
        Processor::Join(o) => Some(&o.key),
        Processor::Dedupe(o) => Some(&o.key),
        Processor::Deadband(o) => Some(&o.key),
        Processor::Rate(o) => Some(&o.key),
        Processor::Alert(o) => Some(&o.key),
        Processor::Presence(o) => Some(&o.key),
        Processor::Anomaly(o) => Some(&o.key),
        Processor::Filter(_) | Processor::Map(_) | Processor::Route(_) | Processor::Union(_) | Processor::Enrich(_) => None,
    }
}

/// What makes an operator with these options over these columns.
fn builder(name: &str, processor: &Processor, given: Given, schema: &SchemaRef) -> Build {
    let (name, processor, schema) = (name.to_owned(), processor.clone(), schema.clone());
    let window = OnceLock::new();
    Arc::new(move || match &processor {
        Processor::Filter(o) => processors::filter::build(o, &schema),
        Processor::Map(o) => processors::map::build(o, &schema),
        Processor::Dedupe(o) => processors::dedupe::build(o, &schema),
        Processor::Window(o) => made(&window, || processors::window::maker(o, given.by_device, &schema)),
        Processor::Route(o) => processors::route::build(o, &schema),
        Processor::Union(o) => processors::union::build(o, &schema),
        Processor::Join(o) => processors::join::build(o, &given.sides[0], &given.sides[1]),
        Processor::Deadband(o) => processors::deadband::build(o, &schema),
        Processor::Rate(o) => processors::rate::build(o, &schema),
        Processor::Alert(o) => processors::alert::build(&name, o, &schema),
        Processor::Presence(o) => processors::presence::build(o, &schema),
        Processor::Anomaly(o) => processors::anomaly::build(o, &schema),
        Processor::Enrich(o) => {
            processors::enrich::build(o, &schema, given.lookup.as_ref().expect("the table of an enrich was found before"))
        }
    })
}

fn kind(processor: &Processor) -> OperatorKind {
    match processor {
        Processor::Filter(_) => OperatorKind::Filter,
        Processor::Map(_) => OperatorKind::Map,
        Processor::Dedupe(_) => OperatorKind::Dedupe,
        Processor::Window(_) => OperatorKind::Window,
        Processor::Route(_) => OperatorKind::Route,
        Processor::Union(_) => OperatorKind::Union,
        Processor::Join(_) => OperatorKind::Join,
        Processor::Deadband(_) => OperatorKind::Deadband,
        Processor::Rate(_) => OperatorKind::Rate,
        Processor::Alert(_) => OperatorKind::Alert,
        Processor::Presence(_) => OperatorKind::Presence,
        Processor::Anomaly(_) => OperatorKind::Anomaly,
        Processor::Enrich(_) => OperatorKind::Enrich,
    }
}

/// What an operator puts out, of what it reads.
fn put_out(processor: &Processor, read: &Stream, schema: SchemaRef) -> Stream {
    match processor {
        Processor::Map(o) => read.mapped(schema, o.select.iter().map(|(name, sql)| (name.as_str(), sql.as_str()))),
        Processor::Window(o) => Stream { schema, key: o.key.clone(), ..read.clone() },
        Processor::Join(o) => Stream { schema, key: o.key.clone(), ..read.clone() },
        Processor::Alert(o) => Stream { schema, key: o.key.clone(), ..read.clone() },
        Processor::Anomaly(o) => Stream { schema, key: o.key.clone(), ..read.clone() },
        Processor::Presence(o) => Stream { schema, key: o.key.clone(), ..read.clone() },
        Processor::Filter(_)
        | Processor::Dedupe(_)
        | Processor::Route(_)
        | Processor::Union(_)
        | Processor::Deadband(_)
        | Processor::Rate(_)
        | Processor::Enrich(_) => Stream { schema, ..read.clone() },
    }
}
