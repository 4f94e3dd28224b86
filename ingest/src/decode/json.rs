//! JSON messages: one walk over the text, straight to the declared columns. No tree is built; undeclared fields are passed over.

use super::layout::{Layout, Rows, Wrong, shown};
use super::path::{self, Step};
use super::scan::{Scalar, Scan, Text};
use super::shape::{Found, Hole, MOST_HOLES, Shapes, What};
use super::value::Cell;
use super::{DecodeOptions, Decoded, Decoder, Message, OptionError};
use arrow::datatypes::{DataType, SchemaRef};
use flow::{Reason, WallTime};
use std::sync::Arc;

/// A place in a message that some declared path goes through.
#[derive(Default)]
struct Node {
    /// How the place is called in reject details.
    path: String,
    /// Fields below it.
    fields: Vec<(String, usize)>,
    /// Cells that are read here.
    slots: Vec<usize>,
    /// The elements of the exploded array.
    each: Option<usize>,
}

/// Where the declared columns stand in a message.
struct Plan {
    layout: Arc<Layout>,
    nodes: Vec<Node>,
    explodes: bool,
    /// For each cell whether it is read from an element of the exploded array.
    in_element: Vec<bool>,
}

/// The decoder of JSON messages.
pub(super) struct Json {
    plan: Plan,
    rows: Rows,
    scratch: String,
    seen: Vec<u64>,
    stamp: u64,
    known: Known,
}

/// What earlier messages looked like.
struct Known {
    messages: Shapes,
    /// Elements of the exploded array.
    elements: Shapes,
    /// Scratch: the values met in the message that is walked, and in its present element.
    holes: Vec<Hole>,
    holes_of_element: Vec<Hole>,
}

impl Json {
    pub(super) fn new(decode: &DecodeOptions, layout: Arc<Layout>) -> Result<Self, OptionError> {
        let plan = Plan::new(decode, layout.clone())?;
        let seen = vec![0; plan.nodes.len()];
        let known = Known { messages: Shapes::new(), elements: Shapes::new(), holes: vec![], holes_of_element: vec![] };
        Ok(Self { plan, rows: Rows::new(layout), scratch: String::new(), seen, stamp: 0, known })
    }
}

impl Decoder for Json {
    fn schema(&self) -> &SchemaRef {
        &self.plan.layout.schema
    }

    fn decode(&mut self, messages: &[Message<'_>], arrival: WallTime) -> Decoded {
        let (mut shared, mut cells, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for (number, message) in messages.iter().enumerate() {
            let number = number as u32;
            let Ok(text) = std::str::from_utf8(message.payload) else {
                self.rows.reject(number, *Wrong::new(Reason::Malformed, "not UTF-8".into()));
                continue;
            };
            let mut walk = Walk {
                plan: &self.plan,
                scan: Scan::new(text),
                shared: &mut shared,
                cells: &mut cells,
                element: None,
                exploded: false,
                scratch: &mut self.scratch,
                seen: &mut self.seen,
                stamp: &mut self.stamp,
                known: &mut self.known,
                found: &mut found,
            };
            match walk.read() {
                Ok(()) => self.rows.push(number, message, if self.plan.explodes { &cells } else { &shared }, &self.scratch, arrival),
                Err(wrong) => self.rows.reject(number, *wrong),
            }
        }
        self.rows.finish()
    }
}

impl Plan {
    fn new(decode: &DecodeOptions, layout: Arc<Layout>) -> Result<Self, OptionError> {
        let mut plan = Self { nodes: vec![Node { path: "$".into(), ..Node::default() }], explodes: false, in_element: vec![], layout };
        let wrong = |key: &str, message| OptionError { path: key.into(), message, hint: Some("paths look like `$.meta.bat`".into()) };
        let mut exploded = None;
        if let Some(text) = &decode.explode {
            let mut steps = path::parse(text).map_err(|m| wrong("decode.explode", m))?;
            if steps.last() == Some(&Step::Each) {
                steps.pop();
            }
            let array = plan.place(0, &steps).map_err(|m| wrong("decode.explode", m))?;
            plan.nodes.push(Node { path: format!("{text}[*]"), ..Node::default() });
            let element = plan.nodes.len() - 1;
            plan.nodes[array].each = Some(element);
            plan.explodes = true;
            exploded = Some((steps, element));
        }
        for slot in 0..plan.layout.width() {
            let (key, text) = match plan.layout.slots.get(slot) {
                Some(s) => (format!("columns.{}.path", s.name), s.path.clone().unwrap_or_else(|| format!("$['{}']", s.name))),
                None => ("decode.event_time.path".into(), decode.event_time.path.clone()),
            };
            plan.add(slot, &text, exploded.as_ref()).map_err(|m| wrong(&key, m))?;
        }
        Ok(plan)
    }

    fn add(&mut self, slot: usize, text: &str, exploded: Option<&(Vec<Step>, usize)>) -> Result<(), String> {
        let steps = path::parse(text)?;
        let inside = exploded.and_then(|(array, element)| steps.strip_prefix(array.as_slice()).map(|rest| (rest, *element)));
        self.in_element.push(inside.is_some());
        let node = match inside {
            Some(([Step::Each, rest @ ..] | rest, element)) => self.place(element, rest)?,
            None => self.place(0, &steps)?,
        };
        if node == 0 || self.nodes[node].each.is_some() || !self.nodes[node].fields.is_empty() {
            return Err(format!("`{text}` is an object or array of other paths"));
        }
        self.nodes[node].slots.push(slot);
        Ok(())
    }

    /// The node `steps` below `node`.
    fn place(&mut self, mut node: usize, steps: &[Step]) -> Result<usize, String> {
        for step in steps {
            let Step::Field(name) = step else { return Err("`[*]` stands only behind the path of `explode`".into()) };
            if !self.nodes[node].slots.is_empty() {
                return Err(format!("`{}` is a column, so nothing can be read below it", self.nodes[node].path));
            }
            node = match self.nodes[node].fields.iter().find(|(field, _)| field == name) {
                Some((_, child)) => *child,
                None => {
                    let child = self.nodes.len();
                    let path = format!("{}.{name}", self.nodes[node].path);
                    self.nodes.push(Node { path, ..Node::default() });
                    self.nodes[node].fields.push((name.clone(), child));
                    child
                }
            };
        }
        Ok(node)
    }
}

/// The walk over one message.
struct Walk<'w, 'a> {
    plan: &'w Plan,
    scan: Scan<'a>,
    /// One row of cells read outside the exploded array.
    shared: &'w mut Vec<Cell<'a>>,
    /// The rows of the message.
    cells: &'w mut Vec<Cell<'a>>,
    /// Where in `cells` the element begins in which we are.
    element: Option<usize>,
    exploded: bool,
    scratch: &'w mut String,
    /// For each node the scope (message or element) in which it was last met.
    seen: &'w mut [u64],
    stamp: &'w mut u64,
    known: &'w mut Known,
    found: &'w mut Vec<Found<'a>>,
}

impl<'a> Walk<'_, 'a> {
    /// Reads a message: rows in `cells` where an array is exploded, else one in `shared`.
    fn read(&mut self) -> Result<(), Box<Wrong>> {
        if !self.known.messages.are_worth_a_try() {
            return self.message();
        }
        self.found.clear();
        let elements = self.plan.explodes.then_some(&mut self.known.elements);
        if self.known.messages.read(&mut self.scan, self.found, elements) && self.scan.end().is_ok() && self.take_found().is_ok() {
            return Ok(());
        }
        self.scan.go_back((0, 0));
        self.message()?;
        let text = self.scan.text();
        self.known.messages.learn(text, 0..text.len(), &self.known.holes);
        Ok(())
    }

    fn begin(&mut self) {
        self.shared.clear();
        self.shared.resize(self.plan.layout.width(), Cell::Unset);
        self.cells.clear();
        self.scratch.clear();
        self.known.holes.clear();
        self.element = None;
        self.exploded = false;
    }

    /// Takes what was found in a message of a known shape.
    fn take_found(&mut self) -> Result<(), Box<Wrong>> {
        self.begin();
        for at in 0..self.found.len() {
            match self.found[at] {
                Found::Value(node, value) => self.leaf(&self.plan.nodes[node], value)?,
                Found::Element => self.begin_row(),
                Found::EndOfArray => self.element = None,
            }
        }
        self.fill_rows();
        Ok(())
    }

    /// Walks a message.
    fn message(&mut self) -> Result<(), Box<Wrong>> {
        self.begin();
        *self.stamp += 1;
        self.value(0, *self.stamp)?;
        self.scan.end()?;
        if self.plan.explodes && !self.exploded {
            return Err(Wrong::new(Reason::Malformed, "the array to explode is missing".into()));
        }
        self.fill_rows();
        Ok(())
    }

    /// Begins the row of an element.
    fn begin_row(&mut self) {
        let start = self.cells.len();
        self.cells.resize(start + self.plan.layout.width(), Cell::Unset);
        self.element = Some(start);
    }

    /// Gives each row the cells that were read outside the array.
    fn fill_rows(&mut self) {
        for row in self.cells.chunks_exact_mut(self.plan.layout.width()) {
            for (slot, cell) in row.iter_mut().enumerate().filter(|(slot, _)| !self.plan.in_element[*slot]) {
                *cell = self.shared[slot];
            }
        }
    }

    /// Reads the value on which we stand, a declared place of the scope `scope`.
    fn value(&mut self, at: usize, scope: u64) -> Result<(), Box<Wrong>> {
        let node = &self.plan.nodes[at];
        match (self.scan.peek()?, node.each) {
            (b'[', Some(element)) => self.explode(element),
            (b'{', None) if node.slots.is_empty() && (at == 0 || !node.fields.is_empty()) => self.object(node, scope),
            (b'{' | b'[', _) => {
                self.scan.skip()?;
                Err(Wrong::new(Reason::WrongType, format!("{} is an object or array in an unexpected place", node.path)))
            }
            _ => {
                let from = self.scan.at();
                let scalar = self.scan.scalar()?;
                self.met(from, What::Leaf(at));
                self.leaf(node, scalar)
            }
        }
    }

    fn object(&mut self, node: &Node, scope: u64) -> Result<(), Box<Wrong>> {
        self.scan.enter()?;
        let (mut first, mut hint) = (true, 0);
        while let Some(key) = self.scan.next_key(first)? {
            first = false;
            let Some(child) = self.find(node, key, &mut hint)? else {
                self.scan.peek()?;
                let from = self.scan.at();
                self.scan.skip()?;
                self.met(from, What::Other);
                continue;
            };
            if self.seen[child] == scope {
                return Err(Wrong::new(Reason::DuplicateColumn, format!("{} stands twice", self.plan.nodes[child].path)));
            }
            self.seen[child] = scope;
            self.value(child, scope)?;
        }
        Ok(())
    }

    /// We have read the value that began at `from`.
    fn met(&mut self, from: usize, what: What) {
        let holes = if self.element.is_some() { &mut self.known.holes_of_element } else { &mut self.known.holes };
        if holes.len() <= MOST_HOLES {
            holes.push(Hole { at: from..self.scan.at(), what, depth: self.scan.depth() });
        }
    }

    /// The declared field of this name. Devices keep the order of their fields, so the search begins behind the last one found.
    fn find(&mut self, node: &Node, key: Text<'a>, hint: &mut usize) -> Result<Option<usize>, Box<Wrong>> {
        let start = self.scratch.len();
        if key.escaped && !key.unescape(self.scratch) {
            return Err(self.scan.wrong("half a surrogate pair in a key"));
        }
        let name = if key.escaped { &self.scratch[start..] } else { key.raw };
        let count = node.fields.len();
        let found = (0..count).map(|i| (*hint + i) % count).find(|&i| node.fields[i].0 == name);
        self.scratch.truncate(start);
        if let Some(i) = found {
            *hint = i + 1;
        }
        Ok(found.map(|i| node.fields[i].1))
    }

    fn explode(&mut self, element: usize) -> Result<(), Box<Wrong>> {
        self.exploded = true;
        let array = self.scan.at();
        self.scan.enter()?;
        let mut first = true;
        while self.scan.next_element(first)? {
            first = false;
            self.begin_row();
            self.element(element)?;
        }
        self.element = None;
        self.met(array, What::Array);
        Ok(())
    }

    /// Reads the element on which we stand.
    fn element(&mut self, element: usize) -> Result<(), Box<Wrong>> {
        let (learns, from) = (self.known.elements.are_worth_a_try(), self.scan.place());
        if learns {
            self.found.clear();
            if self.known.elements.read(&mut self.scan, self.found, None) && self.take_element().is_ok() {
                return Ok(());
            }
            self.scan.go_back(from);
        }
        self.known.holes_of_element.clear();
        *self.stamp += 1;
        let node = &self.plan.nodes[element];
        if node.fields.is_empty() && node.slots.is_empty() {
            self.scan.skip()?;
            self.met(from.0, What::Other);
        } else {
            self.value(element, *self.stamp)?;
        }
        if learns {
            self.known.elements.learn(self.scan.text(), from.0..self.scan.at(), &self.known.holes_of_element);
        }
        Ok(())
    }

    fn take_element(&mut self) -> Result<(), Box<Wrong>> {
        for at in 0..self.found.len() {
            if let Found::Value(node, value) = self.found[at] {
                self.leaf(&self.plan.nodes[node], value)?;
            }
        }
        Ok(())
    }

    fn leaf(&mut self, node: &Node, scalar: Scalar<'a>) -> Result<(), Box<Wrong>> {
        if node.slots.is_empty() && scalar != Scalar::Null {
            return Err(Wrong::new(Reason::WrongType, format!("{} is a bare value where an object or array is expected", node.path)));
        }
        for &slot in &node.slots {
            let cell = self.cell(slot, scalar)?;
            match self.element {
                Some(start) => self.cells[start + slot] = cell,
                None => self.shared[slot] = cell,
            }
        }
        Ok(())
    }

    fn cell(&mut self, slot: usize, scalar: Scalar<'a>) -> Result<Cell<'a>, Box<Wrong>> {
        let layout = &self.plan.layout;
        match scalar {
            Scalar::Null => Ok(Cell::Null),
            Scalar::Bool(value) => layout.boolean(slot, value),
            Scalar::Number(text) => layout.number(slot, text),
            Scalar::Text(Text { raw, escaped: false }) => layout.text(slot, raw, false),
            Scalar::Text(text) => self.unescaped(slot, text),
        }
    }

    fn unescaped(&mut self, slot: usize, text: Text<'a>) -> Result<Cell<'a>, Box<Wrong>> {
        let start = self.scratch.len();
        if !text.unescape(self.scratch) {
            return Err(Wrong::new(Reason::Malformed, format!("half a surrogate pair in {}", shown(text.raw))));
        }
        let layout = &self.plan.layout;
        if layout.slots.get(slot).is_some_and(|s| s.kind == DataType::Utf8View) {
            return Ok(Cell::Scratch(start, self.scratch.len()));
        }
        layout.text(slot, &self.scratch[start..], false).map(|cell| cell.without_text())
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
