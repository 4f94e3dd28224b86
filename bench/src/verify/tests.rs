use arrow::array::RecordBatch;
use datafusion::prelude::SessionContext;

use super::*;
use crate::fleet::{Class, Clock, Reading, Timing};
use crate::truth::{Counts, Sent, TruthWriter};

const SCENARIO: &str = r#"
signals.v = {}

[verify]
dead_letters = true

[verify.raw.readings]
values = { v = "v" }
DUPLICATES

[verify.windows.per_10s]
raw = "readings"
late = "late_per_10s"
size = "10s"
key = { device_id = "device" }
select = { n = "count(*)", total = "sum(v)" }
"#;

/// A pipeline that has just these tables.
struct Tables(SessionContext);

impl Ask for Tables {
    async fn ask(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        Ok(self.0.sql(sql).await?.collect().await?)
    }
}

/// What is in a pipeline: rows of SQL's VALUES.
#[derive(Default)]
struct Found<'a> {
    /// device, sequence, second, value
    readings: &'a str,
    /// device, start in seconds, count, sum
    windows: &'a str,
    /// device, sequence
    late: &'a str,
    /// reason
    letters: &'a str,
}

/// A message of device `d` that was acknowledged.
fn sent(number: u64, sequence: u64, second: i64, value: f64) -> Sent {
    let reading = Reading {
        number,
        duplicate_of: None,
        device: "d".to_owned(),
        site: "s".to_owned(),
        sequence,
        measured_us: second * 1_000_000,
        event_time_us: Some(second * 1_000_000),
        values: vec![Some(value)],
        timing: Timing::OnTime,
        clock: Clock::Right,
        class: None,
        reason: None,
        anomaly: None,
        schema: None,
        unknown_device: false,
    };
    let at = number as i64 * 60_000_000;
    let topic = "t".to_owned();
    Sent { reading, topic, payload: None, length: 9, due_us: at, sent_us: at, acknowledged_us: Some(at), attempts: 1 }
}

fn unacknowledged(sent: Sent) -> Sent {
    Sent { acknowledged_us: None, ..sent }
}

fn broken(mut of: Sent) -> Sent {
    (of.reading.class, of.reading.reason, of.reading.event_time_us) = (Some(Class::WrongType), Some("wrong_type"), None);
    of.payload = Some(b"{broken}!".to_vec());
    of
}

async fn tables(found: &Found<'_>) -> Tables {
    let context = SessionContext::new();
    let texts = [
        ("readings", "device_id, seq, event_time, v", "'', 0, 0, 0.5", found.readings),
        ("per_10s", "device_id, window_start, n, total", "'', 0, 0, 0.5", found.windows),
        ("late_per_10s", "device_id, seq", "'', 0", found.late),
        ("dead_letters", "reason", "''", found.letters),
    ];
    for (name, columns, none, rows) in texts {
        // The first row gives the types and goes away.
        let rows = if rows.is_empty() { format!("({none})") } else { format!("({none}), {rows}") };
        let first = columns.split(',').next().unwrap();
        let times = |column: &str| format!("CAST({column} AS BIGINT) * 1000000 AS {column}");
        let select = match name {
            "readings" => format!("device_id, seq, {}, v", times("event_time")),
            "per_10s" => format!("device_id, {}, n, total", times("window_start")),
            "dead_letters" => "reason, 't' AS topic, 9 AS length, '{broken}!' AS payload".to_owned(),
            _ => columns.to_owned(),
        };
        let sql = format!("CREATE TABLE {name} AS SELECT {select} FROM (VALUES {rows}) AS t({columns}) WHERE {first} <> ''");
        context.sql(&sql).await.unwrap().collect().await.unwrap();
    }
    Tables(context)
}

/// What `verify` says of tables behind these messages: table, kind and count of each difference.
async fn differences(kept: bool, truth: Vec<Sent>, found: Found<'_>) -> Vec<(String, Kind, u64)> {
    let folder = tempfile::tempdir().unwrap();
    let scenario = SCENARIO.replace("DUPLICATES", if kept { "duplicates = \"kept\"" } else { "" });
    let writer = TruthWriter::create(folder.path(), &Scenario::parse(&scenario).unwrap(), 0).unwrap();
    let mut counts = Counts::default();
    for message in truth {
        counts.add(&message.reading);
        writer.sender().put(message).await;
    }
    writer.finish(&counts).await.unwrap();
    let verdict = verify(folder.path(), &tables(&found).await, None).await.unwrap();
    let of = |check: &Check| -> Vec<_> { check.differences.iter().map(|(kind, n)| (check.table.clone(), *kind, *n)).collect() };
    verdict.checks.iter().flat_map(of).collect()
}

fn said(table: &str, kind: Kind) -> (String, Kind, u64) {
    (table.to_owned(), kind, 1)
}

#[tokio::test]
async fn what_is_as_it_was_sent_is_right() {
    let truth = || vec![sent(0, 0, 3, 1.5), sent(1, 1, 4, 2.0), sent(2, 2, 11, 4.0), broken(sent(3, 3, 12, 0.0))];
    let found = || Found {
        readings: "('d', 0, 3, 1.5), ('d', 1, 4, 2.0), ('d', 2, 11, 4.0)",
        windows: "('d', 0, 2, 3.5), ('d', 10, 1, 4.0)",
        letters: "('wrong_type')",
        ..Found::default()
    };
    assert_eq!(differences(false, truth(), found()).await, []);
    assert_eq!(differences(true, truth(), found()).await, []);
    let cases = [
        (Found { windows: "('d', 0, 2, 3.5)", ..found() }, said("per_10s", Kind::Missing)),
        (Found { windows: "('d', 0, 2, 3.5), ('d', 10, 1, 4.0), ('d', 20, 1, 4.0)", ..found() }, said("per_10s", Kind::Extra)),
        (Found { windows: "('d', 0, 2, 3.5), ('d', 0, 2, 3.5), ('d', 10, 1, 4.0)", ..found() }, said("per_10s", Kind::Duplicate)),
        (Found { windows: "('d', 0, 2, 3.51), ('d', 10, 1, 4.0)", ..found() }, said("per_10s", Kind::Wrong)),
        (Found { readings: "('d', 0, 3, 1.5), ('d', 1, 4, 2.0)", ..found() }, said("readings", Kind::Missing)),
        (Found { readings: "('d', 0, 3, 1.5), ('d', 1, 4, 2.0), ('d', 2, 12, 4.0)", ..found() }, said("readings", Kind::Wrong)),
        (Found { letters: "", ..found() }, said("dead_letters", Kind::Missing)),
        (Found { letters: "('wrong_type'), ('wrong_type')", ..found() }, said("dead_letters", Kind::Duplicate)),
    ];
    for (found, expected) in cases {
        assert_eq!(differences(false, truth(), found).await, [expected]);
    }
    let other = Found { letters: "('malformed')", ..found() };
    assert_eq!(differences(false, truth(), other).await, [said("dead_letters", Kind::Missing), said("dead_letters", Kind::Extra)]);
}

#[tokio::test]
async fn what_was_not_acknowledged_may_be_there_or_not_and_windows_follow() {
    let truth = || vec![sent(0, 0, 3, 1.0), unacknowledged(sent(1, 1, 4, 2.0))];
    let one = || Found { readings: "('d', 0, 3, 1.0)", windows: "('d', 0, 1, 1.0)", ..Found::default() };
    let both = || Found { readings: "('d', 0, 3, 1.0), ('d', 1, 4, 2.0)", windows: "('d', 0, 2, 3.0)", ..Found::default() };
    assert_eq!(differences(false, truth(), one()).await, []);
    assert_eq!(differences(false, truth(), both()).await, []);
    let lost = Found { windows: "('d', 0, 1, 1.0)", ..both() };
    assert_eq!(differences(false, truth(), lost).await, [said("per_10s", Kind::Wrong)]);
}

#[tokio::test]
async fn what_was_sent_twice_is_there_once_or_twice_as_the_scenario_says() {
    let again = || {
        let mut again = sent(1, 0, 3, 1.0);
        again.reading.duplicate_of = Some(0);
        again
    };
    let truth = || vec![sent(0, 0, 3, 1.0), again()];
    let once = || Found { readings: "('d', 0, 3, 1.0)", windows: "('d', 0, 1, 1.0)", ..Found::default() };
    let twice = || Found { readings: "('d', 0, 3, 1.0), ('d', 0, 3, 1.0)", windows: "('d', 0, 2, 2.0)", ..Found::default() };
    assert_eq!(differences(false, truth(), once()).await, []);
    assert_eq!(differences(true, truth(), twice()).await, []);
    assert_eq!(differences(false, truth(), twice()).await, [said("readings", Kind::Duplicate), said("per_10s", Kind::Wrong)]);
    assert_eq!(differences(true, truth(), once()).await, [said("readings", Kind::Missing), said("per_10s", Kind::Wrong)]);
    // A connection was lost in between, so a third is possible.
    let perhaps = vec![Sent { attempts: 2, ..sent(0, 0, 3, 1.0) }, again()];
    assert_eq!(differences(true, perhaps, twice()).await, []);
}

#[tokio::test]
async fn a_late_reading_is_in_no_window_and_has_a_cause() {
    let truth = || vec![sent(0, 0, 3, 1.0), sent(1, 1, 15, 2.0), sent(2, 2, 4, 4.0)];
    let readings = "('d', 0, 3, 1.0), ('d', 1, 15, 2.0), ('d', 2, 4, 4.0)";
    let late = || Found { readings, windows: "('d', 0, 1, 1.0), ('d', 10, 1, 2.0)", late: "('d', 2)", ..Found::default() };
    assert_eq!(differences(false, truth(), late()).await, []);
    let in_both = Found { windows: "('d', 0, 2, 5.0), ('d', 10, 1, 2.0)", ..late() };
    assert_eq!(differences(false, truth(), in_both).await, [said("per_10s", Kind::Wrong)]);
    let twice = Found { late: "('d', 2), ('d', 2)", ..late() };
    assert_eq!(differences(false, truth(), twice).await, [said("late_per_10s", Kind::Duplicate)]);
    let unknown = Found { late: "('d', 2), ('d', 7)", ..late() };
    assert_eq!(differences(false, truth(), unknown).await, [said("late_per_10s", Kind::Extra)]);
    // Nothing beyond its window was sent before the first reading.
    let first = Found { windows: "('d', 0, 1, 4.0), ('d', 10, 1, 2.0)", late: "('d', 0)", ..late() };
    assert_eq!(differences(false, truth(), first).await, [said("late_per_10s", Kind::LateWithoutCause)]);
}

/// What is said of a table of alerts (device and second) when `spike` is on the readings of some seconds.
async fn alerts(labelled: &[i64], raised: &str, options: &str) -> (Vec<(Kind, u64)>, String) {
    let folder = tempfile::tempdir().unwrap();
    let scenario = format!("signals.v = {{}}\n[verify]\ndead_letters = false\n[verify.alerts.spikes]\nlabels = [\"spike\"]\n{options}");
    let writer = TruthWriter::create(folder.path(), &Scenario::parse(&scenario).unwrap(), 0).unwrap();
    let mut counts = Counts::default();
    for second in 0..60 {
        let mut message = sent(second as u64, second as u64, second, 1.0);
        message.reading.anomaly = labelled.contains(&second).then_some(crate::fleet::Anomaly::Spike);
        counts.add(&message.reading);
        writer.sender().put(message).await;
    }
    writer.finish(&counts).await.unwrap();
    let context = SessionContext::new();
    let rows = format!(
        "CREATE TABLE spikes AS SELECT device_id, CAST(second AS BIGINT) * 1000000 AS event_time, kind \
         FROM (VALUES ('', 0, ''){raised}) AS t(device_id, second, kind) WHERE device_id <> ''"
    );
    context.sql(&rows).await.unwrap().collect().await.unwrap();
    let verdict = verify(folder.path(), &Tables(context), None).await.unwrap();
    let check = verdict.checks.into_iter().find(|check| check.table == "spikes").unwrap();
    (check.differences.into_iter().collect(), check.note.unwrap())
}

#[tokio::test]
async fn alerts_have_a_precision_a_recall_and_a_delay() {
    let strict = "precision = 1.0\nrecall = 1.0\nwithin = \"2s\"";
    // One spell of two seconds, and one of a second.
    let labelled = [10, 11, 30];
    let both = ", ('d', 11, 'z'), ('d', 32, 'z')";
    let (differences, note) = alerts(&labelled, both, strict).await;
    assert_eq!(differences, []);
    assert!(
        note.contains("precision 1.000") && note.contains("recall 1.000 of 2") && note.contains("delay p50 1.5 s, p99 2.0 s"),
        "{note}"
    );
    let (differences, note) = alerts(&labelled, ", ('d', 10, 'z'), ('d', 33, 'z'), ('e', 30, 'z')", strict).await;
    assert_eq!(differences, [(Kind::Missing, 1), (Kind::Extra, 2)]);
    assert!(note.contains("precision 0.333") && note.contains("recall 0.500 of 2"), "{note}");
    let lenient = "precision = 0.3\nrecall = 0.5\nwithin = \"2s\"";
    assert_eq!(alerts(&labelled, ", ('d', 10, 'z'), ('d', 33, 'z'), ('e', 30, 'z')", lenient).await.0, []);
    // Other rows of the table do not raise.
    let some = format!("{strict}\nwhen = \"kind = 'z'\"");
    assert_eq!(alerts(&labelled, &format!("{both}, ('d', 50, 'other')"), &some).await.0, []);
    assert_eq!(alerts(&labelled, "", strict).await, (vec![(Kind::Missing, 2)], alerts(&labelled, "", strict).await.1));
    assert_eq!(alerts(&[], "", strict).await.0, []);
}
