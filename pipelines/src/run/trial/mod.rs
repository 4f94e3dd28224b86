//! `tidegate test`: the `[[tests]]` of a pipeline through its real decoders, lanes and operators, without sockets or clocks. The only
//! files read are those of lookup tables of which a test gives no rows.
//!
//! All journaled sources share one lane, each file source has one of its own, however many the pipeline has: which device is in which
//! lane is no matter of a test. Tables hold what the lanes put out; a restart saves and loads the state of the lanes, in a temporary folder.

mod compare;

pub(crate) use compare::expected as as_json;

use crate::plan::{Part, Plan, PlannedSource};
use crate::run::build::{self, Role};
use crate::run::lane::{Action, Event, Lane, Written};
use crate::spec::{Given, Source, TestOptions};
use arrow::array::{ArrayRef, BinaryViewArray, RecordBatch};
use flow::{Batch, Error, EventTime, LookupVersion, Offset, Origin, Reason, Result, WallTime, trail};
use ingest::decode::{Decoder, Message, TopicPattern, decoder, decoder_with};
use ingest::kafka::MetadataColumns;
use ingest::lookup::LookupError;
use ingest::rejected::Rejected;
use processors::watermark::WatermarkOptions;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::epoch::{Claimed, Header, Whole};
use storage::state::StateStore;
use tempfile::TempDir;
use world::local_disk;

/// What became of a test.
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// What differs from what it expects, as lines for a person; empty if it passed.
    pub difference: Vec<String>,
}

/// Runs the tests of a plan, in the order of the file. An error is a broken promise of ours.
pub fn run(plan: &Plan) -> Result<Vec<Outcome>> {
    plan.tests.iter().map(|test| Trial::new(plan)?.run(test)).collect()
}

/// What the tables of a plan hold after a test, by name: rows as JSON, in which a null column is not there. What the test expects is not
/// looked at. An error is a broken promise of ours.
pub fn tables(plan: &Plan, test: &TestOptions) -> Result<BTreeMap<String, Vec<Map<String, Value>>>> {
    let mut trial = Trial::new(plan)?;
    trial.play(test)?;
    plan.tables.iter().zip(&trial.tables).map(|(table, rows)| Ok((table.name.clone(), compare::rows(rows)?))).collect()
}

/// A lane with the sources that reach it.
struct TestedLane {
    log: Arc<str>,
    sources: Vec<usize>,
    watermark: WatermarkOptions,
    lane: Lane,
    next: u64,
}

/// A source's way from messages to rows.
struct Input {
    decoder: Box<dyn Decoder>,
    beside: Beside,
}

/// What stands beside the payload of a message and makes columns.
enum Beside {
    Nothing,
    /// Levels of its topic.
    Topics(Vec<TopicPattern>),
    /// Key, topic and headers of a record; the topic to take where a test names none.
    Record(MetadataColumns, String),
}

struct Trial<'p> {
    plan: &'p Plan,
    /// State of the lanes, after the first restart.
    folder: Option<TempDir>,
    inputs: Vec<Input>,
    lanes: Vec<TestedLane>,
    /// By table: what it was given.
    tables: Vec<Vec<RecordBatch>>,
    /// By sink: the same.
    sinks: Vec<Vec<RecordBatch>>,
}

impl<'p> Trial<'p> {
    fn new(plan: &'p Plan) -> Result<Self> {
        let (journaled, files): (Vec<usize>, Vec<usize>) = (0..plan.sources.len()).partition(|s| plan.sources[*s].is_journaled());
        let mut lanes = vec![];
        if !journaled.is_empty() {
            lanes.push(TestedLane::new(plan, "test", &build::journal_watermark(plan), journaled)?);
        }
        for source in files {
            let PlannedSource { name, watermark, .. } = &plan.sources[source];
            lanes.push(TestedLane::new(plan, name, watermark, vec![source])?);
        }
        let inputs = plan.sources.iter().map(Input::new).collect::<Result<_>>()?;
        Ok(Self { plan, folder: None, inputs, lanes, tables: vec![vec![]; plan.tables.len()], sinks: vec![vec![]; plan.sinks.len()] })
    }

    fn play(&mut self, test: &TestOptions) -> Result<()> {
        for lookup in &self.plan.lookups {
            let version = match test.lookups.get(&*lookup.shape.name) {
                Some(rows) => lookup.of_rows(rows),
                None => lookup.of_file(),
            };
            self.look_up(version)?;
        }
        let mut at = WallTime(i64::MIN);
        for given in &test.given {
            at = given.at.map_or(at, |moment| moment.0);
            for (name, rows) in &given.lookups {
                let lookup = self.plan.lookups.iter().find(|l| *l.shape.name == **name).expect("the names of a test were checked");
                self.look_up(lookup.of_rows(rows))?;
            }
            if given.restart {
                self.restart()?;
            }
            match (&given.watermark, &given.payload) {
                (Some(moment), _) => self.move_on(EventTime(moment.0.0))?,
                (None, Some(payload)) => self.receive(given, payload.as_bytes(), at)?,
                (None, None) => {}
            }
        }
        if test.end {
            (0..self.lanes.len()).try_for_each(|lane| self.step(lane, Event::End))?;
        }
        Ok(())
    }

    fn run(mut self, test: &TestOptions) -> Result<Outcome> {
        self.play(test)?;
        let mut difference = vec![];
        for (name, expected) in &test.expect {
            let table = self.plan.tables.iter().position(|t| t.name == *name).map(|of| &self.tables[of]);
            let sink = || self.plan.sinks.iter().position(|s| s.name == *name).map(|of| &self.sinks[of]);
            let Some(came) = table.or_else(sink) else { continue };
            let expected = expected.iter().map(compare::expected).collect();
            let lines = compare::difference(expected, compare::rows(came)?);
            difference.extend(lines.into_iter().map(|line| format!("{name}: {line}")));
        }
        let unaccounted: u64 = self.lanes.iter().map(|l| l.lane.unaccounted()).sum();
        if unaccounted > 0 {
            difference.push(format!("{unaccounted} readings are unaccounted for"));
        }
        Ok(Outcome { name: test.name.clone(), difference })
    }

    fn look_up(&mut self, version: Result<LookupVersion, LookupError>) -> Result<()> {
        let version = version.map_err(|e| Error::stop("a lookup table of the tests", e))?;
        (0..self.lanes.len()).try_for_each(|lane| self.step(lane, Event::Lookup { log: None, version: version.clone() }))
    }

    /// Every lane seals what it has, and goes on as after a start.
    fn restart(&mut self) -> Result<()> {
        let failed = |e| Error::stop("a folder for the state of lanes", e);
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => tempfile::tempdir().map_err(failed)?,
        };
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            let store = StateStore::open(local_disk(), &folder.path().join(number.to_string()))?;
            lane.restart(self.plan, &store)?;
        }
        self.folder = Some(folder);
        Ok(())
    }

    fn move_on(&mut self, watermark: EventTime) -> Result<()> {
        for lane in 0..self.lanes.len() {
            let (log, next) = self.lanes[lane].advance();
            self.step(lane, Event::Tick { log, watermark, next })?;
        }
        Ok(())
    }

    fn receive(&mut self, given: &Given, payload: &[u8], at: WallTime) -> Result<()> {
        let named = given.source.as_ref().and_then(|name| self.plan.sources.iter().position(|s| s.name == *name));
        let source = named.unwrap_or(0);
        let planned = &self.plan.sources[source];
        let (batch, rejects) = self.inputs[source].read(planned, source, given, payload, at)?;
        let lane = self.lanes.iter().position(|l| l.sources.contains(&source)).expect("every source has a lane");
        let (log, next) = self.lanes[lane].advance();
        let event = match batch {
            Some(batch) => Event::Rows { source, log, batch, next },
            None => Event::Rejects { log, rejects, next },
        };
        self.step(lane, event)
    }

    fn step(&mut self, lane: usize, event: Event) -> Result<()> {
        for action in self.lanes[lane].lane.step(event)? {
            if let Action::Show { table, rows, .. } = action {
                self.tables[table].push(rows);
            }
        }
        for leaving in self.lanes[lane].lane.take_leaving() {
            let sink = self.plan.sinks.iter().position(|s| s.name == leaving.exit).expect("a whole lane has no exits but sinks");
            self.sinks[sink].extend(leaving.rows);
        }
        Ok(())
    }
}

impl TestedLane {
    fn new(plan: &Plan, name: &str, watermark: &WatermarkOptions, sources: Vec<usize>) -> Result<Self> {
        let nodes = plan.operators_of(Part::Whole).map(|o| Ok(build::node(&o, o.build.build()?))).collect::<Result<_>>()?;
        let header = Header {
            lane: name.to_owned(),
            number: 1,
            parent: 0,
            generation: 1,
            chain: String::new(),
            incarnation: 0,
            owner: String::new(),
            fingerprint: plan.fingerprint.clone(),
            product: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let claimed = Claimed { header, whole: Arc::new(Whole::default()) };
        Ok(Self {
            log: name.into(),
            sources,
            watermark: watermark.clone(),
            lane: Lane::new(build::parts(plan, &Role::whole(plan), nodes, watermark, claimed))?,
            next: 0,
        })
    }

    /// Closes an epoch as a run does, but for its segments, and loads what it saved into fresh operators.
    fn restart(&mut self, plan: &Plan, store: &StateStore) -> Result<()> {
        for action in
            self.lane.step(Event::Close { now: WallTime(0), floors: vec![0; plan.tables.len()], taken: vec![], pressed: false })?
        {
            let Action::Write(mut cut) = action else { continue };
            let state = store.finish(&cut.state, &self.lane.chain().whole().state, &mut cut.names)?;
            self.lane.step(Event::Written(Written { segments: vec![], exits: vec![], state }))?;
            self.lane.step(Event::Sealed)?;
        }
        let (header, whole) = (self.lane.chain().header().clone(), self.lane.chain().whole().clone());
        let mut nodes = vec![];
        for placed in plan.operators_of(Part::Whole) {
            let mut operator = placed.build.build()?;
            operator.load(&mut store.load(&whole.state, &placed.planned.name))?;
            nodes.push(build::node(&placed, operator));
        }
        self.lane = Lane::new(build::parts(plan, &Role::whole(plan), nodes, &self.watermark, Claimed { header, whole }))?;
        Ok(())
    }

    /// The next place in the lane's log.
    fn advance(&mut self) -> (Arc<str>, Offset) {
        self.next += 1;
        (self.log.clone(), Offset(self.next))
    }
}

impl Input {
    fn new(source: &PlannedSource) -> Result<Self> {
        let (decode, columns, captures, key) = (&source.decode, &source.columns, &source.captures, &source.key);
        let wrong = |e| Error::stop(format!("source {}, which was checked", source.name), e);
        let (decoder, beside) = match &source.kind {
            Source::Mqtt(options) => (decoder(decode, columns, captures, key), Beside::Topics(options.patterns().map_err(wrong)?)),
            Source::Http(options) => (decoder(decode, columns, captures, key), Beside::Topics(options.patterns().map_err(wrong)?)),
            Source::File(options) => {
                let csv = ingest::decode::CsvOptions { header: false, ..options.csv.clone() };
                (decoder_with(decode, columns, captures, key, &csv), Beside::Nothing)
            }
            Source::Kafka(options) => {
                (decoder(decode, columns, captures, key), Beside::Record(options.metadata.clone(), options.topics[0].clone()))
            }
        };
        Ok(Self { decoder: decoder.map_err(wrong)?, beside })
    }

    /// The rows of a message, or why there are none.
    fn read(
        &mut self,
        source: &PlannedSource,
        producer: usize,
        given: &Given,
        payload: &[u8],
        arrival: WallTime,
    ) -> Result<(Option<Batch>, Vec<Rejected>)> {
        let topic = given.topic.as_deref();
        let reject = |reason: Reason, detail: String| Rejected {
            source: source.name.as_str().into(),
            topic: topic.map(Into::into),
            offset: None,
            reason,
            detail,
            payload: Rejected::cut(payload),
            length: payload.len() as u64,
            arrival,
        };
        if payload.len() as u64 > source.max_message {
            let detail = format!("{} bytes, max_message is {}", payload.len(), source.max_message);
            return Ok((None, vec![reject(Reason::TooLarge, detail)]));
        }
        let captures = match self.beside.captures(source, given) {
            Ok(captures) => captures,
            Err((reason, detail)) => return Ok((None, vec![reject(reason, detail)])),
        };
        let decoded = self.decoder.decode(&[Message { topic, captures: &captures, payload }], arrival);
        let rejects = decoded.rejects.into_iter().map(|r| reject(r.reason, r.detail)).collect();
        if decoded.rows.num_rows() == 0 {
            return Ok((None, rejects));
        }
        let producer = u32::try_from(producer).map_err(|e| Error::stop("numbering producers", e))?;
        let origin = Origin { source: source.name.as_str().into(), producer, topic: topic.map(Into::into), arrival };
        let raw: ArrayRef = Arc::new(BinaryViewArray::from_iter_values(std::iter::repeat_n(payload, decoded.rows.num_rows())));
        let beside = RecordBatch::try_from_iter_with_nullable([(trail::RAW, raw, true)]);
        let beside = beside.map_err(|e| Error::stop("keeping the bytes of a message", e))?;
        Ok((Some(Batch::new(decoded.rows, Arc::new(origin))?.with_trail(Some(beside))), rejects))
    }
}

impl Beside {
    /// The columns of what stands beside the payload, in the order of the source's columns; or why there are none.
    fn captures<'g>(&'g self, source: &PlannedSource, given: &'g Given) -> Result<Vec<&'g str>, (Reason, String)> {
        match self {
            Self::Nothing => Ok(vec![]),
            Self::Topics(patterns) => {
                let mut found = vec![];
                let pattern = patterns.iter().find(|p| {
                    found.clear();
                    p.match_into(given.topic.as_deref().unwrap_or_default(), &mut found)
                });
                let fits = |pattern: &TopicPattern| {
                    let place = |name: &String| pattern.captures().iter().position(|c| c == name);
                    source.captures.iter().map(|name| Some(found[place(name)?])).collect::<Option<Vec<_>>>()
                };
                let none = || (Reason::UnknownTopic, "the topic fits none of the source's patterns".to_owned());
                pattern.and_then(fits).ok_or_else(none)
            }
            Self::Record(metadata, topic) => {
                let missing = |what: &str| (Reason::KeyMissing, format!("the record has no {what}"));
                let mut found = vec![];
                if metadata.key.is_some() {
                    found.push(given.key.as_deref().ok_or_else(|| missing("key"))?);
                }
                if metadata.topic.is_some() {
                    found.push(given.topic.as_deref().unwrap_or(topic));
                }
                for header in metadata.headers.values() {
                    found.push(given.headers.get(header).ok_or_else(|| missing(&format!("header {header}")))?);
                }
                Ok(found)
            }
        }
    }
}
