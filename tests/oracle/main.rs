//! Random pipelines over random data, against a computation that follows the definitions reading by reading: windows of all kinds, lateness,
//! joins, and what stands before them, in any batches, with restarts at any moment.
//!
//! `ORACLE_CASES=5000 ORACLE_FROM=1000 cargo test --workspace --test oracle` draws others; `ORACLE_CASE=7` shows one with its pipeline.

#![expect(clippy::unwrap_used, reason = "all of it is a test")]

mod draw;
mod naive;

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use draw::{Case, Last, kinds};
use naive::{Expected, Row};
use pipelines::plan::Plan;
use pipelines::run::trial;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Cases that a run draws.
const CASES: u64 = 1_000;
/// Floating numbers differ by less than this share of the greater.
const SHARE: f64 = 1e-12;

type Table = Vec<Map<String, Value>>;

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

#[test]
fn random_pipelines_put_out_what_their_definitions_say() {
    if let Some(seed) = setting("ORACLE_CASE") {
        let case = Case::of(seed);
        say(&case.text());
        judge(&case).unwrap_or_else(|e| panic!("{e}"));
        return;
    }
    let (from, count) = (setting("ORACLE_FROM").unwrap_or(0), setting("ORACLE_CASES").unwrap_or(CASES));
    let (next, wrong, met) = (AtomicU64::new(from), Mutex::new(vec![]), Mutex::new(BTreeMap::<&str, u64>::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        break;
                    }
                    let case = Case::of(seed);
                    if let Err(difference) = judge(&case) {
                        wrong.lock().unwrap().push(format!("ORACLE_CASE={seed}: {difference}"));
                    }
                    let mut met = met.lock().unwrap();
                    kinds(&case).into_iter().for_each(|kind| *met.entry(kind).or_default() += 1);
                }
            });
        }
    });
    let (wrong, met) = (wrong.into_inner().unwrap(), met.into_inner().unwrap());
    say(&format!("{count} cases: {met:?}"));
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
    assert!(count < CASES || met.len() == 19, "a kind of case was never drawn: {met:?}");
}

/// What differs between the engine and the naive computation.
fn judge(case: &Case) -> Result<(), String> {
    let plan = Plan::read("oracle.toml", &case.text()).map_err(|problems| problems.render(false))?;
    let tables = trial::tables(&plan, &plan.tests[0]).map_err(|e| e.to_string())?;
    let expected = naive::run(case);
    if let Some(letter) = tables["dead_letters"].first() {
        return Err(format!("a dead letter: {letter:?}"));
    }
    match &case.last {
        Last::Windows(windows) => {
            same("windows", &expected.rows, rows(&tables["windows"], windows.key, "window_start", "window_end"))?;
            if windows.again.is_some() {
                same("again", &expected.again, rows(&tables["again"], &[], "window_start", "window_end"))?;
            }
            late(&expected, &tables["late_windows"], &["id"])
        }
        Last::Pairs(pairs) => {
            same("pairs", &expected.rows, rows(&tables["pairs"], pairs.key, "event_time", "event_time"))?;
            late(&expected, &tables["late_pairs"], &["id", "right_id"])
        }
    }
}

fn late(expected: &Expected, table: &Table, columns: &[&str]) -> Result<(), String> {
    let id = |row: &Map<String, Value>| columns.iter().find_map(|column| row.get(*column)?.as_i64());
    let mut came: Vec<i64> = table.iter().filter_map(id).collect();
    let mut ought = expected.late.clone();
    came.sort_unstable();
    ought.sort_unstable();
    if came == ought { Ok(()) } else { Err(format!("late are {came:?} and must be {ought:?}")) }
}

/// The rows of a table in the form of the oracle.
fn rows(table: &Table, key: &[&str], start: &str, end: &str) -> Vec<Row> {
    let time = |row: &Map<String, Value>, name: &str| string_to_timestamp_nanos(row[name].as_str().unwrap()).unwrap().div_euclid(1_000);
    let ours: BTreeSet<&str> = key.iter().copied().chain([start, end, "event_time", "pane", "replaces"]).collect();
    let row = |row: &Map<String, Value>| Row {
        key: key.iter().map(|column| row[*column].as_str().unwrap().to_owned()).collect(),
        bounds: (time(row, start), time(row, end)),
        values: row.iter().filter(|(name, _)| !ours.contains(name.as_str())).map(|(name, v)| (name.clone(), v.as_f64().unwrap())).collect(),
    };
    table.iter().map(row).collect()
}

fn same(table: &str, expected: &[Row], mut came: Vec<Row>) -> Result<(), String> {
    let mut expected = expected.to_vec();
    let order = |row: &Row| (row.key.clone(), row.bounds, format!("{:?}", row.values));
    expected.sort_by_key(order);
    came.sort_by_key(order);
    for at in 0..expected.len().max(came.len()) {
        let (ought, is) = (expected.get(at), came.get(at));
        if !matches!((ought, is), (Some(ought), Some(is)) if alike(ought, is)) {
            return Err(format!("{table}, row {at} of {} is\n  {is:?}\nand must be\n  {ought:?}", came.len()));
        }
    }
    Ok(())
}

fn alike(a: &Row, b: &Row) -> bool {
    let near = |x: f64, y: f64| x == y || (x - y).abs() <= SHARE * x.abs().max(y.abs()).max(1.0);
    let names = a.values.keys().eq(b.values.keys());
    names && a.key == b.key && a.bounds == b.bounds && a.values.values().zip(b.values.values()).all(|(x, y)| near(*x, *y))
}
