//! A random pipeline with a random data set, and both as the text of a pipeline file.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::fmt::Write;

/// One reading. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) id: i64,
    pub(crate) device: usize,
    pub(crate) site: usize,
    pub(crate) seq: i64,
    pub(crate) time: i64,
    pub(crate) v: Option<i64>,
    pub(crate) f: f64,
}

/// What happens, in order.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A message with readings.
    Message(Vec<Reading>),
    /// Silence moves the watermark on to this time.
    Watermark(i64),
    Restart,
}

/// An operator before the last one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Keeps `v` above this.
    Filter(i64),
    /// Makes `v` of `v * 2 + 1`.
    Map,
    Dedupe,
    /// A route by `v` above this, and a union of its branches: all readings.
    Split(i64),
}

/// How windows are cut. Lengths in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cut {
    Even {
        size: i64,
        hop: i64,
        offset: i64,
    },
    /// Days of a zone that is so far ahead of UTC.
    Day(&'static str, i64),
    Session {
        gap: i64,
        max: Option<i64>,
    },
    Sliding {
        size: i64,
    },
    Count {
        count: usize,
        partial: bool,
    },
    Global,
}

#[derive(Clone, Debug)]
pub(crate) struct Windows {
    pub(crate) cut: Cut,
    pub(crate) key: &'static [&'static str],
    pub(crate) lateness: i64,
    pub(crate) select: Vec<(&'static str, &'static str)>,
    /// Windows of all of these windows: their length.
    pub(crate) again: Option<i64>,
}

/// Pairs of readings with an even `v` (left) and an odd one (right).
#[derive(Clone, Debug)]
pub(crate) struct Pairs {
    pub(crate) key: &'static [&'static str],
    pub(crate) before: i64,
    pub(crate) after: i64,
    pub(crate) outer: bool,
}

/// The last operator.
#[derive(Clone, Debug)]
pub(crate) enum Last {
    Windows(Windows),
    Pairs(Pairs),
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) delay: i64,
    pub(crate) steps: Vec<Step>,
    pub(crate) last: Last,
    pub(crate) events: Vec<Event>,
}

/// Aggregates: name, SQL. `naive` knows them by name.
const AGGREGATES: [(&str, &str); 13] = [
    ("n", "count(*)"),
    ("known", "count(v)"),
    ("total", "sum(v)"),
    ("low", "min(v)"),
    ("high", "max(v)"),
    ("mean", "avg(f)"),
    ("weight", "sum(f)"),
    ("heavy", "sum(f) FILTER (WHERE v > 3)"),
    ("kinds", "count(DISTINCT v)"),
    ("spread", "max(v) - min(v)"),
    ("middle", "median(f)"),
    ("first", "first_value(seq)"),
    ("last", "last_value(seq)"),
];

const KEYS: [&[&str]; 4] = [&["device"], &["site"], &["device", "site"], &[]];

impl Case {
    pub(crate) fn of(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let disorder = *[0, 0, 800, 5_000, 20_000].choose(&mut chance).unwrap();
        let on_time = disorder == 0 || chance.random_bool(0.5);
        let delay = if on_time { disorder + chance.random_range(1..2_000) } else { chance.random_range(0..disorder) };
        let last =
            if chance.random_bool(0.2) { Last::Pairs(pairs(&mut chance)) } else { Last::Windows(windows(&mut chance, on_time, disorder)) };
        // Neither may change the order in which readings come: a union does, within a message.
        let in_order = matches!(&last, Last::Windows(w) if matches!(w.cut, Cut::Count { .. } | Cut::Session { max: Some(_), .. }));
        let mut steps: Vec<Step> = (0..chance.random_range(0..3)).map(|_| step(&mut chance, on_time && !in_order)).collect();
        let twice = chance.random_bool(0.3);
        if twice {
            steps.insert(0, Step::Dedupe);
        }
        let readings = readings(&mut chance, disorder, twice, on_time);
        Self { delay, steps, last, events: events(&mut chance, readings, on_time) }
    }

    /// The pipeline with the data as its test.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "[pipeline]\nname = \"oracle\"\ndata_dir = \"data\"\nlanes = 1\n\n[sources.floor]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1\"\ntopics = [\"floor\"]\n\
             decode = {{ format = \"json\", explode = \"$.r\", event_time = {{ path = \"$.r.t\", format = \"unix_ms\" }} }}\nkey = [\"device\"]\n\
             watermark = {{ out_of_orderness = \"{}ms\", idle_timeout = \"1h\" }}\n\n[sources.floor.columns]\n",
            self.delay
        );
        for (name, kind) in [("id", "int64"), ("device", "utf8"), ("site", "utf8"), ("seq", "int64"), ("v", "int64"), ("f", "float64")] {
            let _ = writeln!(text, "{name} = {{ path = \"$.r.{name}\", type = \"{kind}\" }}");
        }
        let mut inputs = "\"floor\"".to_owned();
        for (number, step) in self.steps.iter().enumerate() {
            inputs = write_step(&mut text, number, *step, &inputs);
        }
        match &self.last {
            Last::Windows(windows) => write_windows(&mut text, windows, &inputs),
            Last::Pairs(pairs) => write_pairs(&mut text, pairs, &inputs),
        }
        text.push_str("\n[[tests]]\nname = \"drawn\"\nexpect = {}\ngiven = [\n");
        for (number, event) in self.events.iter().enumerate() {
            // Long after every event time.
            let at = if number == 0 { "at = \"2026-02-01T00:00:00Z\", " } else { "" };
            let _ = match event {
                Event::Message(readings) => writeln!(text, "  {{ {at}topic = \"floor\", payload = '{}' }},", message(readings)),
                Event::Watermark(time) => writeln!(text, "  {{ watermark = \"{}\" }},", instant(*time)),
                Event::Restart => writeln!(text, "  {{ restart = true }},"),
            };
        }
        text.push_str("]\n");
        text
    }
}

fn step(chance: &mut StdRng, may_split: bool) -> Step {
    match chance.random_range(0..4) {
        0 => Step::Filter(chance.random_range(-2..4)),
        1 => Step::Map,
        2 if may_split => Step::Split(chance.random_range(0..6)),
        _ => Step::Dedupe,
    }
}

fn pairs(chance: &mut StdRng) -> Pairs {
    let key = KEYS[..3].choose(chance).unwrap();
    let (before, after) = (chance.random_range(0..9_000), chance.random_range(0..9_000));
    Pairs { key, before, after, outer: chance.random_bool(0.4) }
}

fn windows(chance: &mut StdRng, on_time: bool, disorder: i64) -> Windows {
    let size = chance.random_range(1..30) * 500;
    let cut = match chance.random_range(0..9) {
        0 | 1 => Cut::Even { size, hop: size, offset: chance.random_range(0..2) * chance.random_range(0..size) },
        2 | 3 => {
            let hop = chance.random_range(1..20) * 700;
            Cut::Even { size, hop, offset: chance.random_range(0..2) * chance.random_range(0..hop) }
        }
        4 => *[Cut::Day("UTC", 0), Cut::Day("Europe/Berlin", 3_600_000), Cut::Day("Asia/Kolkata", 19_800_000)].choose(chance).unwrap(),
        5 | 6 => {
            // A longest length depends on the order in which readings come, unless they come in order.
            let max = (disorder == 0 && chance.random_bool(0.5)).then(|| chance.random_range(1_000..20_000));
            Cut::Session { gap: chance.random_range(200..6_000), max }
        }
        7 => Cut::Sliding { size },
        _ if chance.random_bool(0.5) => Cut::Count { count: chance.random_range(1..7), partial: chance.random_bool(0.5) },
        _ => Cut::Global,
    };
    let fixed = matches!(cut, Cut::Even { .. } | Cut::Day(..));
    let takes_late = fixed || matches!(cut, Cut::Session { max: None, .. });
    let lateness = if takes_late && chance.random_bool(0.4) { chance.random_range(1..15_000) } else { 0 };
    let keys = if fixed && lateness == 0 { &KEYS[..] } else { &KEYS[..3] };
    let mut select: Vec<_> = AGGREGATES[1..].iter().filter(|_| chance.random_bool(0.35)).copied().collect();
    select.insert(0, AGGREGATES[0]);
    let again = (fixed && on_time && lateness == 0 && chance.random_bool(0.3)).then(|| chance.random_range(1..40) * 1_000);
    Windows { cut, key: keys.choose(chance).unwrap(), lateness, select, again }
}

/// Readings in the order in which they arrive; with `twice` some come again.
fn readings(chance: &mut StdRng, disorder: i64, twice: bool, on_time: bool) -> Vec<Reading> {
    // Half a minute before midnight in one of the zones.
    let midnight = [0, -3_600_000, -19_800_000].choose(chance).unwrap();
    let mut time = 1_768_435_200_000 + midnight - 30_000;
    let (devices, mut seqs) = (chance.random_range(1..6), [0; 6]);
    let pace = *[200, 900, 3_000].choose(chance).unwrap();
    let mut arriving = vec![];
    for id in 0..chance.random_range(10..90) {
        time += chance.random_range(1..pace);
        let device: usize = chance.random_range(0..devices);
        seqs[device] += 1;
        let v = chance.random_bool(0.9).then(|| chance.random_range(-3..9));
        let f = f64::from(chance.random_range(-1_000..1_000)) * 0.1;
        let reading = Reading { id, device, site: device % 3, seq: seqs[device], time, v, f };
        let came = time + if disorder > 0 { chance.random_range(0..disorder) } else { 0 };
        if twice && chance.random_bool(0.2) {
            arriving.push((came + if on_time { 0 } else { chance.random_range(0..3_000) }, reading.clone()));
        }
        arriving.push((came, reading));
    }
    arriving.sort_by_key(|(came, _)| *came);
    arriving.into_iter().map(|(_, reading)| reading).collect()
}

fn events(chance: &mut StdRng, readings: Vec<Reading>, on_time: bool) -> Vec<Event> {
    let (mut events, mut rest) = (vec![], &readings[..]);
    let restarts = *[0.0, 0.1, 0.5].choose(chance).unwrap();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(chance.random_range(1..12)));
        events.push(Event::Message(now.to_vec()));
        if chance.random_bool(restarts) {
            events.push(Event::Restart);
        }
        if !on_time && chance.random_bool(0.05) {
            let newest = now.iter().map(|r| r.time).max().unwrap();
            events.push(Event::Watermark(newest + chance.random_range(-5_000..2_000)));
        }
        rest = later;
    }
    events
}

fn message(readings: &[Reading]) -> String {
    let mut text = "{\"r\":[".to_owned();
    for (number, Reading { id, device, site, seq, time, v, f }) in readings.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        let v = v.map_or("null".to_owned(), |v| v.to_string());
        let _ = write!(
            text,
            "{comma}{{\"id\":{id},\"device\":\"d{device}\",\"site\":\"s{site}\",\"seq\":{seq},\"t\":{time},\"v\":{v},\"f\":{f:?}}}"
        );
    }
    text + "]}"
}

/// Milliseconds as RFC 3339.
fn instant(time: i64) -> String {
    let options = arrow::util::display::FormatOptions::default();
    let column = arrow::array::TimestampMillisecondArray::from(vec![time]).with_timezone("UTC");
    arrow::util::display::ArrayFormatter::try_new(&column, &options).unwrap().value(0).to_string()
}

/// Writes a step; gives what reads it.
fn write_step(text: &mut String, number: usize, step: Step, inputs: &str) -> String {
    let of = |body: &str| format!("\n[processors.step_{number}]\ninputs = [{inputs}]\n{body}\n");
    let columns =
        "id = \"id\", device = \"device\", site = \"site\", seq = \"seq\", v = \"v * 2 + 1\", f = \"f\", event_time = \"event_time\"";
    text.push_str(&match step {
        Step::Filter(above) => of(&format!("type = \"filter\"\nwhen = \"v > {above}\"")),
        Step::Map => of(&format!("type = \"map\"\nselect = {{ {columns} }}")),
        Step::Dedupe => of("type = \"dedupe\"\nkey = [\"device\"]\nsequence = \"seq\"\nhorizon = \"1d\""),
        Step::Split(above) => of(&format!("type = \"route\"\nbranches = {{ high = \"v > {above}\" }}\nelse = \"rest\"")),
    });
    if let Step::Split(_) = step {
        let _ =
            write!(text, "\n[processors.joined_{number}]\ntype = \"union\"\ninputs = [\"step_{number}.high\", \"step_{number}.rest\"]\n");
        return format!("\"joined_{number}\"");
    }
    format!("\"step_{number}\"")
}

fn write_windows(text: &mut String, windows: &Windows, inputs: &str) {
    let cut = match windows.cut {
        Cut::Even { size, hop, offset } if size == hop => format!("type = \"tumbling\", size = \"{size}ms\", offset = \"{offset}ms\""),
        Cut::Even { size, hop, offset } => format!("type = \"hopping\", size = \"{size}ms\", hop = \"{hop}ms\", offset = \"{offset}ms\""),
        Cut::Day(zone, _) => format!("type = \"calendar\", size = \"1d\", timezone = \"{zone}\""),
        Cut::Session { gap, max: None } => format!("type = \"session\", gap = \"{gap}ms\""),
        Cut::Session { gap, max: Some(max) } => format!("type = \"session\", gap = \"{gap}ms\", max = \"{max}ms\""),
        Cut::Sliding { size } => format!("type = \"sliding\", size = \"{size}ms\""),
        Cut::Count { count, partial } => format!("type = \"count\", count = {count}, partial = {partial}"),
        Cut::Global => "type = \"global\"".to_owned(),
    };
    let lateness = if windows.lateness > 0 { format!("allowed_lateness = \"{}ms\"\n", windows.lateness) } else { String::new() };
    let select: Vec<_> = windows.select.iter().map(|(name, sql)| format!("{name} = \"{sql}\"")).collect();
    let _ = write!(
        text,
        "\n[processors.windows]\ntype = \"window\"\ninputs = [{inputs}]\nkey = {:?}\nwindow = {{ {cut} }}\n{lateness}select = {{ {} }}\n\n[tables.windows]\ninputs = [\"windows\"]\n",
        windows.key,
        select.join(", ")
    );
    if let Some(size) = windows.again {
        let _ = write!(
            text,
            "\n[processors.again]\ntype = \"window\"\ninputs = [\"windows\"]\nkey = []\nwindow = {{ type = \"tumbling\", size = \"{size}ms\" }}\n\
             select = {{ n = \"sum(n)\", windows = \"count(*)\" }}\n\n[tables.again]\ninputs = [\"again\"]\n"
        );
    }
}

fn write_pairs(text: &mut String, pairs: &Pairs, inputs: &str) {
    for (side, odd) in [("left", 0), ("right", 1)] {
        let _ = write!(text, "\n[processors.{side}]\ntype = \"filter\"\ninputs = [{inputs}]\nwhen = \"abs(v) % 2 = {odd}\"\n");
    }
    let kind = if pairs.outer { "left" } else { "inner" };
    let _ = write!(
        text,
        "\n[processors.pairs]\ntype = \"join\"\ninputs = [\"left\", \"right\"]\nkey = {:?}\nbefore = \"{}ms\"\nafter = \"{}ms\"\njoin = \"{kind}\"\n\
         select = {{ l = \"left.id\", r = \"right.id\" }}\n\n[tables.pairs]\ninputs = [\"pairs\"]\n",
        pairs.key, pairs.before, pairs.after
    );
}

/// The kinds of cases, so that a campaign can show that it met all of them.
pub(crate) fn kinds(case: &Case) -> BTreeSet<&'static str> {
    let mut kinds = BTreeSet::new();
    for step in &case.steps {
        kinds.insert(match step {
            Step::Filter(_) => "filter",
            Step::Map => "map",
            Step::Dedupe => "dedupe",
            Step::Split(_) => "route and union",
        });
    }
    match &case.last {
        Last::Pairs(_) => _ = kinds.insert("join"),
        Last::Windows(w) => {
            kinds.insert(match w.cut {
                Cut::Even { size, hop, .. } if size == hop => "tumbling",
                Cut::Even { size, hop, .. } if hop > size => "hopping with gaps",
                Cut::Even { .. } => "hopping",
                Cut::Day(..) => "calendar",
                Cut::Session { max: None, .. } => "session",
                Cut::Session { .. } => "session with max",
                Cut::Sliding { .. } => "sliding",
                Cut::Count { .. } => "count",
                Cut::Global => "global",
            });
            kinds.extend((w.lateness > 0).then_some("allowed lateness"));
            kinds.extend(w.again.map(|_| "windows of windows"));
            kinds.extend(w.key.is_empty().then_some("no key"));
        }
    }
    for event in &case.events {
        kinds.extend(match event {
            Event::Restart => Some("restart"),
            Event::Watermark(_) => Some("silence"),
            Event::Message(_) => None,
        });
    }
    kinds
}
