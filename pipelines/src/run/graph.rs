//! The operators of one lane, wired: rows go in at a source, come out at tables. Pure and single-threaded.
//!
//! One pass in topological order does a batch: each operator takes its rows, then its watermark, before anything reads it, so
//! whatever a window puts out at a watermark reaches the next operator before that watermark does.

use crate::plan::Input;
use crate::run::exits;
use crate::run::tally::Tally;
use flow::{Batch, Count, DeadLetters, EventTime, LookupVersion, Operator, Output, Result, Span};

/// One operator and what stands between its calls.
pub(crate) struct Node {
    /// The operator's number in the plan.
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) operator: Box<dyn Operator>,
    pub(crate) inputs: Vec<Input>,
    /// What others call its rows.
    pub(crate) gives: Input,
    pub(crate) tally: Tally,
    watermark: EventTime,
    passed_on: EventTime,
    /// Batches, each with the place among `inputs` of what it came from.
    inbox: Vec<(usize, Batch)>,
}

impl Node {
    pub(crate) fn new(number: usize, name: String, operator: Box<dyn Operator>, inputs: Vec<Input>, holds_rows: bool) -> Self {
        let tally = Tally { holds_rows, ..Tally::default() };
        let (gives, watermark) = (Input::Operator(number), EventTime::MIN);
        Self { number, name, operator, inputs, gives, tally, watermark, passed_on: watermark, inbox: vec![] }
    }
}

/// Rows on their way to a table.
pub(crate) struct Arriving {
    /// The table's number.
    pub(crate) table: usize,
    /// The number of the operator that made them.
    pub(crate) of: Option<usize>,
    /// Others will take the place of them.
    pub(crate) provisional: bool,
    pub(crate) batch: Batch,
}

/// What left the graph in one pass, in order.
#[derive(Default)]
pub(crate) struct Emitted {
    /// Rows for tables.
    pub(crate) tables: Vec<Arriving>,
    /// Rows that came too late for an operator, by its number.
    pub(crate) late: Vec<(usize, Batch)>,
    /// Rows that could not be used.
    pub(crate) dead: Vec<DeadLetters>,
    /// Rows for the second stage, by the number of the exit, with their marks.
    pub(crate) exits: Vec<(usize, Batch, Vec<i64>)>,
}

/// The operators in topological order, and the inputs of each table and exit.
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
    tables: Vec<Vec<Input>>,
    exits: Vec<Input>,
    /// The watermark of what comes from outside.
    watermark: EventTime,
}

impl Graph {
    /// Wires operators (each reading only what comes from outside and earlier operators), tables and exits.
    pub(crate) fn new(nodes: Vec<Node>, tables: Vec<Vec<Input>>, exits: Vec<Input>) -> Self {
        let graph = Self { nodes, tables, exits, watermark: EventTime::MIN };
        for (index, node) in graph.nodes.iter().enumerate() {
            let earlier = |input: &Input| graph.giver(*input).is_none_or(|of| of < index);
            assert!(node.inputs.iter().all(earlier), "operator {} reads a later one", node.name);
        }
        graph
    }

    /// Takes rows from outside (none for a watermark alone) and moves every operator on to watermark `w`.
    pub(crate) fn pass(&mut self, rows: Option<(Input, Batch)>, w: EventTime, emitted: &mut Emitted) -> Result<()> {
        let before = std::mem::replace(&mut self.watermark, w);
        if let Some((from, batch)) = rows {
            self.deliver(from, batch, (before, w), emitted);
        }
        self.run_all(w, false, emitted)
    }

    /// Whether rows themselves leave for the second stage: their marks must be exact.
    pub(crate) fn has_row_exits(&self) -> bool {
        self.exits.iter().any(|exit| !matches!(exit, Input::Partials(_)))
    }

    /// The watermark of an exit: no row that leaves later has a lower mark.
    pub(crate) fn frontier(&self, exit: usize) -> EventTime {
        self.giver(self.exits[exit]).map_or(self.watermark, |node| self.nodes[node].passed_on)
    }

    /// The place among the nodes of what gives these rows; none for what comes from outside.
    fn giver(&self, input: Input) -> Option<usize> {
        let of = match input {
            Input::Branch(of, _) => Input::Operator(of),
            other => other,
        };
        self.nodes.iter().position(|node| node.gives == of)
    }

    /// Gives every operator a new version of a lookup table, for the rows that follow.
    pub(crate) fn lookup(&mut self, version: &LookupVersion) -> Result<()> {
        self.nodes.iter_mut().try_for_each(|node| node.operator.on_lookup(version))
    }

    /// Tells every operator, before what reads it, that the input has ended for now.
    pub(crate) fn end(&mut self, w: EventTime, emitted: &mut Emitted) -> Result<()> {
        self.run_all(w, true, emitted)
    }

    fn run_all(&mut self, w: EventTime, ended: bool, emitted: &mut Emitted) -> Result<()> {
        for index in 0..self.nodes.len() {
            let (gives, number, before) = (self.nodes[index].gives, self.nodes[index].number, self.nodes[index].passed_on);
            let outputs = self.run(index, w, ended, emitted)?;
            let moved = (before, self.nodes[index].passed_on);
            for out in outputs {
                match out {
                    Out::Rows(batch) => self.deliver(gives, batch, moved, emitted),
                    Out::Branch(branch, batch) => self.deliver(Input::Branch(number, branch), batch, moved, emitted),
                    Out::Pane(batch) => self.store(gives, &batch, true, emitted),
                }
            }
        }
        Ok(())
    }

    /// The least watermark above `w` at which some operator would act.
    pub(crate) fn next_timer(&self, w: EventTime) -> Option<EventTime> {
        let next = |(node, lag): (&Node, Span)| Some(node.operator.next_timer(EventTime(w.0.saturating_sub(lag.0)))?.plus(lag));
        self.nodes.iter().zip(self.lags()).filter_map(next).min()
    }

    /// The greatest end of an open window of any operator.
    pub(crate) fn last_timer(&self) -> Option<EventTime> {
        self.nodes.iter().zip(self.lags()).filter_map(|(node, lag)| Some(node.operator.last_timer()?.plus(lag))).max()
    }

    /// How far each operator's watermark stays behind the lane's.
    fn lags(&self) -> Vec<Span> {
        let mut lags: Vec<Span> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let behind = |of: usize| Span(lags[of].0.saturating_add(self.nodes[of].operator.lag().0));
            lags.push(node.inputs.iter().filter_map(|input| self.giver(*input)).map(behind).max().unwrap_or(Span(0)));
        }
        lags
    }

    /// Tells every operator, after its state was loaded, the watermark at which it was saved, so that nothing fires twice. Also the
    /// watermark of a lane that has none yet: the next one may close windows.
    pub(crate) fn restore(&mut self, w: EventTime) -> Result<()> {
        self.watermark = w;
        let mut nothing = Emitted::default();
        for index in 0..self.nodes.len() {
            let reached = self.reached(index, w);
            let node = &mut self.nodes[index];
            let mut sink = Sink { node: node.number, tally: &mut node.tally, rows: vec![], emitted: &mut nothing };
            node.watermark = reached;
            node.passed_on = node.operator.on_watermark(reached, &mut sink)?;
            assert!(sink.rows.is_empty(), "a restored operator put out rows of before its save");
        }
        Ok(())
    }

    /// What tables show of windows that may still be revised, after a restore.
    pub(crate) fn panes(&mut self) -> Result<Emitted> {
        let mut emitted = Emitted::default();
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            let (number, gives) = (node.number, node.gives);
            let mut sink = Sink { node: number, tally: &mut node.tally, rows: vec![], emitted: &mut emitted };
            node.operator.panes(&mut sink)?;
            let panes = sink.rows;
            for out in panes {
                let Out::Pane(batch) = out else { panic!("operator {index} put out rows that are not to be revised") };
                self.store(gives, &batch, true, &mut emitted);
            }
        }
        Ok(emitted)
    }

    fn run(&mut self, index: usize, w: EventTime, ended: bool, emitted: &mut Emitted) -> Result<Vec<Out>> {
        let reached = self.reached(index, w);
        let node = &mut self.nodes[index];
        let mut sink = Sink { node: node.number, tally: &mut node.tally, rows: vec![], emitted };
        for (input, batch) in node.inbox.drain(..) {
            sink.tally.input += batch.len() as u64;
            node.operator.on_input(input, batch, &mut sink)?;
        }
        if reached > node.watermark {
            node.watermark = reached;
            node.passed_on = node.operator.on_watermark(reached, &mut sink)?;
        }
        if ended {
            node.operator.on_end(&mut sink)?;
        }
        Ok(sink.rows)
    }

    /// The watermark of what a node reads.
    fn reached(&self, index: usize, w: EventTime) -> EventTime {
        let inputs = self.nodes[index].inputs.iter();
        inputs.map(|input| self.giver(*input).map_or(w, |of| self.nodes[of].passed_on)).min().unwrap_or(w)
    }

    /// Gives rows to whoever reads them. `moved`: the watermark of what they come from, before and after.
    fn deliver(&mut self, from: Input, batch: Batch, moved: (EventTime, EventTime), emitted: &mut Emitted) {
        for node in &mut self.nodes {
            let places = node.inputs.iter().enumerate().filter(|(_, input)| **input == from);
            node.inbox.extend(places.map(|(place, _)| (place, batch.clone())));
        }
        if let Some(exit) = self.exits.iter().position(|exit| *exit == from) {
            emitted.exits.push((exit, batch.clone(), exits::marks(&batch, moved.0, moved.1)));
        }
        self.store(from, &batch, false, emitted);
    }

    /// Rows for the tables that read `from`.
    fn store(&self, from: Input, batch: &Batch, provisional: bool, emitted: &mut Emitted) {
        let reads = self.tables.iter().enumerate().filter(|(_, inputs)| inputs.contains(&from));
        emitted.tables.extend(reads.map(|(table, _)| Arriving { table, of: from.operator(), provisional, batch: batch.clone() }));
    }
}

/// What an operator put out.
enum Out {
    Rows(Batch),
    /// For those who read this branch.
    Branch(usize, Batch),
    /// For tables, until others take the place of them.
    Pane(Batch),
}

/// Where one operator's output of one pass is gathered and counted.
struct Sink<'a> {
    node: usize,
    tally: &'a mut Tally,
    rows: Vec<Out>,
    emitted: &'a mut Emitted,
}

impl Sink<'_> {
    fn put(&mut self, rows: u64, out: Out) {
        self.tally.output += rows;
        if rows > 0 {
            self.rows.push(out);
        }
    }
}

impl Output for Sink<'_> {
    fn rows(&mut self, batch: Batch) {
        self.put(batch.len() as u64, Out::Rows(batch));
    }

    fn branch(&mut self, branch: usize, batch: Batch) {
        self.put(batch.len() as u64, Out::Branch(branch, batch));
    }

    fn pane(&mut self, batch: Batch) {
        self.rows.push(Out::Pane(batch));
    }

    fn late(&mut self, batch: Batch) {
        self.tally.late += batch.len() as u64;
        if !batch.is_empty() {
            self.emitted.late.push((self.node, batch));
        }
    }

    fn dead(&mut self, letters: DeadLetters) {
        self.tally.refused += letters.rows.len() as u64;
        self.emitted.dead.push(letters);
    }

    fn count(&mut self, what: Count, rows: u64) {
        match what {
            Count::Filtered => self.tally.filtered += rows,
            Count::Duplicate => self.tally.duplicate += rows,
            Count::Unproven => self.tally.unproven += rows,
            Count::Taken => self.tally.taken += rows,
            Count::Emitted => self.tally.emitted += rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
    use flow::{EVENT_TIME, Origin, WallTime};
    use processors::{filter, join, route};
    use std::sync::Arc;

    fn batch(values: &[i64]) -> Batch {
        let value: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(1..=values.len() as i64).with_timezone("UTC"));
        let rows = RecordBatch::try_from_iter([("value", value), (EVENT_TIME, time)]).unwrap();
        Batch::new(rows, Arc::new(Origin { source: "s".into(), producer: 0, topic: None, arrival: WallTime(0) })).unwrap()
    }

    #[test]
    fn a_stream_that_is_joined_with_itself_arrives_on_both_sides() {
        let schema = batch(&[1]).rows().schema();
        let options = serde_json::from_value(serde_json::json!({ "key": ["value"], "select": { "other": "right.value" } })).unwrap();
        let join = Node::new(0, "join".into(), join::build(&options, &schema, &schema).unwrap(), vec![Input::Source(0); 2], true);
        let mut graph = Graph::new(vec![join], vec![vec![Input::Operator(0)]], vec![]);
        let mut emitted = Emitted::default();
        graph.pass(Some((Input::Source(0), batch(&[4, 5]))), EventTime(2), &mut emitted).unwrap();
        assert_eq!(emitted.tables.iter().flat_map(|t| t.batch.times().to_vec()).collect::<Vec<_>>(), [1, 2], "each with itself");
        assert_eq!((graph.nodes[0].tally.input, graph.nodes[0].tally.taken, graph.nodes[0].tally.unaccounted()), (4, 4, 0));
    }

    /// The state of a lane that has none.
    struct Nothing;

    impl flow::StateReader for Nothing {
        fn parts(&self) -> Vec<String> {
            vec![]
        }

        fn read(&mut self, _: &str) -> Result<Vec<RecordBatch>> {
            Ok(vec![])
        }
    }

    #[test]
    fn the_first_rows_of_a_lane_may_close_windows() {
        let schema = batch(&[1]).rows().schema();
        let options = serde_json::json!({
            "key": ["value"], "window": { "type": "hopping", "size": "2us", "hop": "1us" }, "select": { "n": "count(*)" }
        });
        let mut window = processors::window::build(&serde_json::from_value(options).unwrap(), &schema).unwrap();
        window.load(&mut Nothing).unwrap();
        let mut graph =
            Graph::new(vec![Node::new(0, "w".into(), window, vec![Input::Source(0)], true)], vec![vec![Input::Operator(0)]], vec![]);
        graph.restore(EventTime::MIN).unwrap();
        let mut emitted = Emitted::default();
        graph.pass(Some((Input::Source(0), batch(&[4, 5, 6]))), EventTime(3), &mut emitted).unwrap();
        assert_eq!(emitted.tables.iter().flat_map(|t| t.batch.times().to_vec()).collect::<Vec<_>>(), [1, 2, 2], "ends 2 and 3");
    }

    #[test]
    fn each_reader_of_a_branch_gets_its_rows_alone() {
        let schema = batch(&[1]).rows().schema();
        let options = serde_json::from_value(serde_json::json!({ "branches": { "big": "value > 5" }, "else": "rest" })).unwrap();
        let router = Node::new(0, "router".into(), route::build(&options, &schema).unwrap(), vec![Input::Source(0)], false);
        let even = serde_json::from_value(serde_json::json!({ "when": "value % 2 = 0" })).unwrap();
        let filter = Node::new(1, "even".into(), filter::build(&even, &schema).unwrap(), vec![Input::Branch(0, 0)], false);
        let mut graph =
            Graph::new(vec![router, filter], vec![vec![Input::Operator(1)], vec![Input::Branch(0, 1), Input::Branch(0, 0)]], vec![]);
        let mut emitted = Emitted::default();
        graph.pass(Some((Input::Source(0), batch(&[1, 6, 7, 8]))), EventTime(4), &mut emitted).unwrap();
        let times =
            |table: usize| emitted.tables.iter().filter(|t| t.table == table).flat_map(|t| t.batch.times().to_vec()).collect::<Vec<_>>();
        assert_eq!((times(0), times(1)), (vec![2, 4], vec![2, 3, 4, 1]));
        assert!(graph.nodes.iter().all(|n| n.tally.unaccounted() == 0), "every row is accounted for");
        assert_eq!((graph.nodes[0].tally.output, graph.nodes[1].tally.input), (4, 3));
    }
}
