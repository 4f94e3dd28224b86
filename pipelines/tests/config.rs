//! What a configuration says about itself: every mistake with its place, every file that we ship without one.
//!
//! `tests/golden/config/X.toml` is a file with mistakes, `X.txt` what is printed for it. `UPDATE_GOLDEN=1` writes the latter anew.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with it")]

use flow::metric::{Kind, Metric};
use pipelines::plan::{Input, Plan, PlannedExit, Stage, TableKind};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == ending)).collect();
    files.sort();
    assert!(!files.is_empty(), "no .{ending} in {folder}");
    files
}

fn plan(path: &Path) -> Result<Plan, pipelines::diagnose::Problems> {
    let name = path.file_name().unwrap().to_str().unwrap();
    Plan::read(name, &fs::read_to_string(path).unwrap())
}

#[test]
fn mistakes_are_told_with_their_place() {
    let mut wrong = vec![];
    for file in files("tests/golden/config", "toml") {
        let told = Plan::check(file.file_name().unwrap().to_str().unwrap(), &fs::read_to_string(&file).unwrap());
        let told = told.expect_err("a file without mistakes").render(false);
        let expected = file.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &told).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != told {
            wrong.push(format!("{}:\n{told}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_keeps_every_value_of_a_window_is_a_warning_with_its_place() {
    let file = root().join("config/pipelines/meters.toml");
    let text = fs::read_to_string(&file).unwrap().replace("\"max(watts)\"", "\"1 + median(watts)\"");
    let plan = Plan::read("meters.toml", &text).unwrap();
    let told = plan.warnings.render_warnings(false);
    assert!(told.contains("! meters.toml:35:") && told.contains("median keeps every value"), "{told}");
    let places: Vec<&str> = plan.warnings.list.iter().map(|warning| &text[warning.span.clone()]).collect();
    assert_eq!(places, ["median", "counter_increase"]);
}

#[test]
fn a_window_that_cannot_go_by_its_devices_time_is_a_warning() {
    let text = fs::read_to_string(root().join("config/pipelines/loggers.toml")).unwrap();
    assert!(Plan::read("loggers.toml", &text).unwrap().warnings.list.is_empty());
    let of_all = text.replace("name     = \"loggers\"", "name = \"loggers\"\nlanes = 1");
    let of_all = of_all.replace("key    = [\"logger\"]\nwindow", "key    = [\"celsius\"]\nwindow");
    let of_all = &of_all[..of_all.find("[[tests]]").unwrap()];
    let told = Plan::read("loggers.toml", of_all).unwrap().warnings.render_warnings(false);
    assert!(told.contains("goes by the lane's watermark, not by the device's: its key does not hold the source's"), "{told}");
}

#[test]
fn every_shipped_pipeline_is_right() {
    for file in files("config/pipelines", "toml") {
        let mut plan = plan(&file).unwrap_or_else(|problems| panic!("{problems}"));
        for lookup in &mut plan.lookups {
            // As from the root of the repository.
            lookup.options.path = root().join(&lookup.options.path).to_str().unwrap().to_owned();
            lookup.of_file().unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn the_plan_of_the_plant_is_what_its_file_means() {
    let plan = plan(&root().join("config/pipelines/plant.toml")).unwrap();
    assert_eq!(plan.operators.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["once", "valid", "per_minute", "per_site"]);
    assert_eq!(plan.operators[2].inputs, [Input::Operator(1)]);
    let columns = |table: &str| -> Vec<String> { plan.table(table).unwrap().schema.fields().iter().map(|f| f.name().clone()).collect() };
    assert_eq!(columns("readings"), ["site", "device_id", "temperature", "seq", "event_time"]);
    assert_eq!(columns("late_per_minute"), ["site", "device_id", "temperature", "seq", "event_time", "arrival", "topic"]);
    assert_eq!(plan.table("per_minute").unwrap().key, ["site", "device_id"]);
    assert_eq!(plan.table("readings").unwrap().key, ["device_id"]);
    assert_eq!(plan.table("late_per_minute").unwrap().kind, TableKind::Late(2));
    assert_eq!(plan.operators[2].late, Some(4));
    assert!(matches!(plan.operators[3].stage, Stage::Both { .. }), "the devices of a site are in several lanes");
    assert_eq!(plan.exits, [PlannedExit { input: Input::Partials(3), name: "per_site".into(), sources: vec![0], schema: None }]);
    assert_eq!(columns("late_per_site").last().unwrap(), "readings");
    assert_eq!(plan.tables[plan.dead_letters_table()].name, "dead_letters");
    assert!(plan.has_journal() && plan.sources[0].key_columns == [1]);
    for operator in &plan.operators {
        assert_eq!(operator.build.build().unwrap().schema(), operator.schema);
    }
}

#[test]
fn the_fingerprint_changes_with_what_state_depends_on_and_with_nothing_else() {
    let text = fs::read_to_string(root().join("config/pipelines/plant.toml")).unwrap();
    let fingerprint = |text: &str| Plan::read("plant.toml", text).unwrap_or_else(|e| panic!("{e}")).fingerprint;
    let plain = fingerprint(&text);
    for (from, to) in [("256MiB", "128MiB"), ("7d", "8d"), ("BETWEEN -60", "BETWEEN -50"), ("\"1m\" }\nselect", "\"60s\" }\nselect")] {
        assert!(text.contains(from), "{from}");
        assert_eq!(fingerprint(&text.replace(from, to)), plain, "{to}");
    }
    for (from, to) in [
        ("= 4 ", "= 8 "),
        ("size = \"1m\"", "size = \"2m\""),
        ("\"float64\"", "\"float32\""),
        ("[\"device_id\"]", "[\"site\", \"device_id\"]"),
        ("watermark = {", "watermark = { per = \"device\","),
    ] {
        assert!(text.contains(from), "{from}");
        assert_ne!(fingerprint(&text.replace(from, to)), plain, "{to}");
    }
}

#[test]
fn alert_rules_name_only_metrics_that_are_there() {
    let mut names: BTreeSet<String> = Metric::ALL.iter().map(|m| m.name().to_owned()).collect();
    for metric in Metric::ALL.iter().filter(|m| m.kind() == Kind::Histogram) {
        names.extend(["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", metric.name())));
    }
    let rules = fs::read_to_string(root().join("config/prometheus/alerts.yml")).unwrap();
    let used: BTreeSet<&str> =
        rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| w.starts_with("tidegate_")).collect();
    assert!(used.len() > 5);
    for name in used {
        assert!(names.contains(name), "{name}");
    }
}

#[test]
fn promtool_takes_the_prometheus_files() {
    let file = root().join("config/prometheus/prometheus.yml");
    let promtool = std::process::Command::new("promtool").args(["check", "config"]).arg(file).output();
    let checked = promtool.expect("promtool comes with Debian's package prometheus; `make test` installs it");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn the_tests_of_every_shipped_pipeline_pass() {
    let mut tests = 0;
    for file in files("config/pipelines", "toml") {
        let plan = plan(&file).unwrap_or_else(|problems| panic!("{problems}"));
        for outcome in pipelines::run::trial::run(&plan).unwrap_or_else(|e| panic!("{}: {e}", file.display())) {
            assert!(outcome.difference.is_empty(), "{}: {}:\n{}", file.display(), outcome.name, outcome.difference.join("\n"));
            tests += 1;
        }
    }
    assert!(tests >= 8, "only {tests} tests ran");
}

#[test]
fn a_test_that_fails_names_the_rows_that_differ() {
    let text = fs::read_to_string(root().join("config/pipelines/factory.toml")).unwrap();
    let (was, wrong) = ("event_time = 2026-01-01T00:04:00Z\nvalue      = 69.0", "event_time = 2026-01-01T00:05:00Z\nvalue      = 69.0");
    assert!(text.contains(was));
    let plan = Plan::read("factory.toml", &text.replace(was, wrong)).unwrap();
    let outcomes = pipelines::run::trial::run(&plan).unwrap();
    let failed: Vec<_> = outcomes.iter().filter(|o| !o.difference.is_empty()).collect();
    assert_eq!(failed.len(), 1);
    let [missing, more] = failed[0].difference.as_slice() else { panic!("{:?}", failed[0].difference) };
    assert!(missing.starts_with("alerts: - ") && missing.contains("00:05:00Z"), "{missing}");
    assert!(more.starts_with("alerts: + ") && more.contains("00:04:00Z"), "{more}");
}

#[test]
fn tidegate_test_fails_with_code_1_on_a_difference() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(root().join("config/pipelines/factory.toml")).unwrap();
    let run = |text: &str| {
        let file = folder.path().join("factory.toml");
        fs::write(&file, text).unwrap();
        std::process::Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("test").arg(&file).output().unwrap()
    };
    let right = run(&text);
    assert_eq!(right.status.code(), Some(0), "{}", String::from_utf8_lossy(&right.stdout));
    assert_eq!(String::from_utf8_lossy(&right.stdout).matches("ok     ").count(), 5);
    let wrong = run(&text.replace("expect = { alerts = [] }", "expect = { alerts = [{ machine = \"press-9\" }] }"));
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8_lossy(&wrong.stdout).into_owned();
    assert!(said.contains("FAILED a short peak is no alert\n    alerts: - machine = \"press-9\"\n"), "{said}");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("1 of 5 tests"), "{:?}", wrong.stderr);
    assert_eq!(run("[pipeline]\n").status.code(), Some(78));
}
