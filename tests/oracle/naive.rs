//! What a pipeline must put out, computed reading by reading from its definition. No code of the engine.

use crate::draw::{Case, Cut, Event, Last, Pairs, Reading, Step, Windows};
use std::collections::BTreeMap;

/// A row of a table: key, bounds in microseconds, values by name. What is null is not there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) key: Vec<String>,
    pub(crate) bounds: (i64, i64),
    pub(crate) values: BTreeMap<String, f64>,
}

/// What the tables must hold.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    pub(crate) rows: Vec<Row>,
    /// Numbers of readings that are late for the last operator.
    pub(crate) late: Vec<i64>,
    pub(crate) again: Vec<Row>,
}

/// A reading, and the watermark when it came.
#[derive(Clone, Debug)]
struct Taken {
    of: Reading,
    mark: i64,
}

pub(crate) fn run(case: &Case) -> Expected {
    let mut taken = marked(case);
    for step in &case.steps {
        taken = apply(*step, taken);
    }
    match &case.last {
        Last::Windows(windows) => put_together(windows, &taken),
        Last::Pairs(pairs) => paired(pairs, &taken),
    }
}

fn marked(case: &Case) -> Vec<Taken> {
    let (mut w, mut all) = (i64::MIN, vec![]);
    for event in &case.events {
        match event {
            Event::Message(readings) => {
                for reading in readings {
                    all.push(Taken { of: reading.clone(), mark: w });
                    w = w.max(reading.time - case.delay);
                }
            }
            Event::Watermark(time) => w = w.max(*time),
            Event::Restart => {}
        }
    }
    all
}

fn apply(step: Step, taken: Vec<Taken>) -> Vec<Taken> {
    let mut seen: Vec<(usize, i64)> = vec![];
    let mut kept = vec![];
    for mut reading in taken {
        match step {
            Step::Filter(above) if reading.of.v.is_none_or(|v| v <= above) => continue,
            Step::Dedupe if seen.contains(&(reading.of.device, reading.of.seq)) => continue,
            Step::Map => reading.of.v = reading.of.v.map(|v| v * 2 + 1),
            Step::Filter(_) | Step::Dedupe | Step::Split(_) => {}
        }
        seen.push((reading.of.device, reading.of.seq));
        kept.push(reading);
    }
    kept
}

fn key(of: &Reading, columns: &[&str]) -> Vec<String> {
    columns.iter().map(|column| if *column == "device" { format!("d{}", of.device) } else { format!("s{}", of.site) }).collect()
}

/// A window with what it holds; bounds in milliseconds.
struct Open<'t> {
    key: Vec<String>,
    start: i64,
    end: i64,
    readings: Vec<&'t Reading>,
}

fn put_together(of: &Windows, taken: &[Taken]) -> Expected {
    let (mut windows, mut late): (Vec<Open<'_>>, Vec<i64>) = (vec![], vec![]);
    match of.cut {
        Cut::Even { size, hop, offset } => fixed(of, taken, &|time| covering(time, size, hop, offset), &mut windows, &mut late),
        Cut::Day(_, ahead) => fixed(of, taken, &|time| covering(time, 86_400_000, 86_400_000, -ahead), &mut windows, &mut late),
        Cut::Session { gap, max } => sessions(of, taken, gap, max.unwrap_or(i64::MAX), &mut windows, &mut late),
        Cut::Sliding { size } => sliding(of, taken, size, &mut windows, &mut late),
        Cut::Count { count, partial } => counted(of, taken, count, partial, &mut windows),
        Cut::Global => counted(of, taken, usize::MAX, true, &mut windows),
    }
    let row = |open: &Open<'_>| {
        let times = open.readings.iter().map(|r| r.time);
        let bounds = match of.cut {
            Cut::Count { .. } | Cut::Global => (times.clone().min().unwrap() * 1_000, times.max().unwrap() * 1_000 + 1),
            // The end belongs to it, the start does not.
            Cut::Sliding { .. } => (open.start * 1_000 + 1, open.end * 1_000 + 1),
            _ => (open.start * 1_000, open.end * 1_000),
        };
        let values = of.select.iter().filter_map(|(name, _)| Some(((*name).to_owned(), aggregate(name, &open.readings)?))).collect();
        Row { key: open.key.clone(), bounds, values }
    };
    let rows: Vec<Row> = windows.iter().map(row).collect();
    let again = of.again.map(|size| again(&rows, size * 1_000)).unwrap_or_default();
    Expected { rows, late, again }
}

/// The windows that cover a time.
fn covering(time: i64, size: i64, hop: i64, offset: i64) -> Vec<(i64, i64)> {
    let last = (time - offset).div_euclid(hop) * hop + offset;
    let starts = (0..).map(|back| last - back * hop).take_while(|start| start + size > time);
    starts.map(|start| (start, start + size)).collect()
}

fn fixed<'t>(
    of: &Windows,
    taken: &'t [Taken],
    covering: &dyn Fn(i64) -> Vec<(i64, i64)>,
    windows: &mut Vec<Open<'t>>,
    late: &mut Vec<i64>,
) {
    for Taken { of: reading, mark } in taken {
        let (all, key) = (covering(reading.time), key(reading, of.key));
        let open: Vec<_> = all.iter().filter(|(_, end)| end + of.lateness > *mark).copied().collect();
        if open.is_empty() && !all.is_empty() {
            late.push(reading.id);
        }
        for (start, end) in open {
            match windows.iter_mut().find(|w| w.key == key && w.start == start) {
                Some(window) => window.readings.push(reading),
                None => windows.push(Open { key: key.clone(), start, end, readings: vec![reading] }),
            }
        }
    }
}

fn sessions<'t>(of: &Windows, taken: &'t [Taken], gap: i64, max: i64, windows: &mut Vec<Open<'t>>, late: &mut Vec<i64>) {
    for Taken { of: reading, mark } in taken {
        let (time, key) = (reading.time, key(reading, of.key));
        let mut mine = Open { key, start: time, end: time + gap, readings: vec![reading] };
        let is_open = |end: i64| end + of.lateness > *mark;
        let mut touched = false;
        let (mut at, mut merged) = (0, vec![]);
        while at < windows.len() {
            let other = &windows[at];
            let near = time <= other.end && time >= other.start - gap;
            let length = mine.end.max(other.end) - gap - mine.start.min(other.start);
            if other.key == mine.key && is_open(other.end) && near && length <= max {
                let other = windows.remove(at);
                (mine.start, mine.end) = (mine.start.min(other.start), mine.end.max(other.end));
                merged.extend(other.readings);
                touched = true;
            } else {
                at += 1;
            }
        }
        if !touched && !is_open(mine.end) {
            late.push(reading.id);
            continue;
        }
        mine.readings.extend(merged);
        windows.push(mine);
    }
}

fn sliding<'t>(of: &Windows, taken: &'t [Taken], size: i64, windows: &mut Vec<Open<'t>>, late: &mut Vec<i64>) {
    let (on_time, behind): (Vec<_>, Vec<_>) = taken.iter().partition(|t| t.of.time >= t.mark);
    late.extend(behind.iter().map(|t| t.of.id));
    for last in &on_time {
        let (time, key_of) = (last.of.time, key(&last.of, of.key));
        let within = |t: &&&Taken| key(&t.of, of.key) == key_of && t.of.time > time - size && t.of.time <= time;
        let readings = on_time.iter().filter(within).map(|t| &t.of).collect();
        windows.push(Open { key: key_of.clone(), start: time - size, end: time, readings });
    }
}

fn counted<'t>(of: &Windows, taken: &'t [Taken], count: usize, partial: bool, windows: &mut Vec<Open<'t>>) {
    for Taken { of: reading, .. } in taken {
        let key = key(reading, of.key);
        match windows.iter_mut().find(|w| w.key == key && w.readings.len() < count) {
            Some(window) => window.readings.push(reading),
            None => windows.push(Open { key, start: 0, end: 0, readings: vec![reading] }),
        }
    }
    windows.retain(|w| partial || w.readings.len() == count);
}

fn aggregate(name: &str, readings: &[&Reading]) -> Option<f64> {
    let known: Vec<i64> = readings.iter().filter_map(|r| r.v).collect();
    let mut weights: Vec<f64> = readings.iter().map(|r| r.f).collect();
    let real = |n: i64| n as f64;
    match name {
        "n" => Some(readings.len() as f64),
        "known" => Some(known.len() as f64),
        "total" => (!known.is_empty()).then(|| real(known.iter().sum())),
        "low" => known.iter().min().map(|v| real(*v)),
        "high" => known.iter().max().map(|v| real(*v)),
        "spread" => Some(real(known.iter().max()? - known.iter().min()?)),
        "mean" => Some(weights.iter().sum::<f64>() / weights.len() as f64),
        "weight" => Some(weights.iter().sum()),
        "heavy" => {
            let heavy: Vec<f64> = readings.iter().filter(|r| r.v.is_some_and(|v| v > 3)).map(|r| r.f).collect();
            (!heavy.is_empty()).then(|| heavy.iter().sum())
        }
        "kinds" => {
            let mut kinds = known;
            kinds.sort_unstable();
            kinds.dedup();
            Some(kinds.len() as f64)
        }
        "middle" => {
            weights.sort_by(f64::total_cmp);
            let half = weights.len() / 2;
            Some(if weights.len() % 2 == 1 { weights[half] } else { f64::midpoint(weights[half - 1], weights[half]) })
        }
        "first" => readings.iter().min_by_key(|r| r.time).map(|r| real(r.seq)),
        "last" => readings.iter().max_by_key(|r| r.time).map(|r| real(r.seq)),
        other => panic!("an unknown aggregate {other}"),
    }
}

/// Windows of windows: each is one reading, 1 µs before its end.
fn again(rows: &[Row], size: i64) -> Vec<Row> {
    let mut groups: BTreeMap<i64, (f64, f64)> = BTreeMap::new();
    for row in rows {
        let group = groups.entry((row.bounds.1 - 1).div_euclid(size) * size).or_default();
        *group = (group.0 + row.values["n"], group.1 + 1.0);
    }
    let row = |(start, (n, windows)): (i64, (f64, f64))| Row {
        key: vec![],
        bounds: (start, start + size),
        values: [("n".to_owned(), n), ("windows".to_owned(), windows)].into(),
    };
    groups.into_iter().map(row).collect()
}

/// Pairs have no bounds but their time.
fn paired(of: &Pairs, taken: &[Taken]) -> Expected {
    let mut expected = Expected::default();
    let sides: Vec<_> = taken.iter().filter(|t| t.of.v.is_some()).collect();
    let (on_time, late): (Vec<_>, Vec<_>) = sides.into_iter().partition(|t| t.of.time >= t.mark);
    expected.late = late.iter().map(|t| t.of.id).collect();
    let (left, right): (Vec<_>, Vec<_>) = on_time.into_iter().partition(|t| t.of.v.is_some_and(|v| v % 2 == 0));
    for l in &left {
        let mut alone = true;
        let mut put = |r: Option<&Reading>, time: i64| {
            let mut values: BTreeMap<String, f64> = [("l".to_owned(), l.of.id as f64)].into();
            values.extend(r.map(|r| ("r".to_owned(), r.id as f64)));
            expected.rows.push(Row { key: key(&l.of, of.key), bounds: (time * 1_000, time * 1_000), values });
        };
        for r in right.iter().map(|r| &r.of).filter(|r| key(r, of.key) == key(&l.of, of.key)) {
            if r.time >= l.of.time - of.before && r.time <= l.of.time + of.after {
                put(Some(r), r.time.max(l.of.time));
                alone = false;
            }
        }
        if alone && of.outer {
            put(None, l.of.time);
        }
    }
    expected
}
