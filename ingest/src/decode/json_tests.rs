//! Small facts about `json.rs`.

use super::*;
use crate::decode::{Columns, Reject, decoder};
use arrow::array::{Array, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType, UInt64Type};
use proptest::prelude::*;

const COLUMNS: &str = "t = { type = 'float64' }\nseq = { type = 'uint64' }\nbat = { path = '$.meta.bat', type = 'int64', parse = true }\nnote = { type = 'utf8' }";

fn json(columns: &str, extra: &str) -> Result<Box<dyn Decoder>, OptionError> {
    let columns: Columns = toml::from_str(columns).unwrap();
    let decode = toml::from_str(&format!("event_time = {{ path = '$.ts', format = 'unix_ms' }}\n{extra}")).unwrap();
    decoder(&decode, &columns, &["id".into()], &["id".into()])
}

fn decode(decoder: &mut dyn Decoder, payloads: &[&str]) -> Decoded {
    let messages: Vec<Message<'_>> = payloads.iter().map(|p| Message { topic: None, captures: &["dev"], payload: p.as_bytes() }).collect();
    decoder.decode(&messages, WallTime(42))
}

fn reason(payload: &str) -> Option<Reason> {
    let out = decode(&mut *json(COLUMNS, "").unwrap(), &[payload, r#"{"ts":1700000000000}"#]);
    assert_eq!(out.messages.last(), Some(&1), "the next message is not harmed by {payload}");
    assert_eq!(out.rejects.len() + out.rows.num_rows(), 2);
    out.rejects.first().map(|r| r.reason)
}

#[test]
fn declared_fields_become_columns() {
    let mut decoder = json(COLUMNS, "").unwrap();
    let out = decode(
        &mut *decoder,
        &[
            r#"{"ts":1700000000000,"t":20.5,"seq":18446744073709551615,"x":[{"t":1}],"meta":{"bat":"7"},"note":"a\n\u00e9"}"#,
            r#" {"note":"plain","meta":null,"t":null,"\u0074s":1700000000001} "#,
        ],
    );
    assert_eq!(out.rejects, []);
    let names: Vec<_> = out.rows.schema_ref().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["id", "t", "seq", "bat", "note", "event_time"]);
    assert_eq!(out.rows.column(0).as_string_view().value(1), "dev");
    assert_eq!(out.rows.column(1).null_count(), 1);
    assert_eq!(out.rows.column(2).as_primitive::<UInt64Type>().value(0), u64::MAX);
    assert_eq!(out.rows.column(3).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(7), None]);
    assert_eq!(out.rows.column(4).as_string_view().iter().flatten().collect::<Vec<_>>(), ["a\né", "plain"]);
    assert_eq!(out.rows.column(5).as_primitive::<TimestampMicrosecondType>().values(), &[1_700_000_000_000_000, 1_700_000_000_001_000]);
    assert_eq!(decode(&mut *decoder, &[]).rows.num_rows(), 0);
}

#[test]
fn every_bad_message_has_its_reason() {
    let with = |field: &str| reason(&format!(r#"{{"ts":1700000000000,{field}}}"#));
    assert_eq!(with(r#""seq":18446744073709551616"#), Some(Reason::WrongType));
    assert_eq!(with(r#""t":1e400"#), Some(Reason::WrongType));
    assert_eq!(with(r#""t":"1""#), Some(Reason::WrongType));
    assert_eq!(with(r#""t":NaN"#), Some(Reason::Malformed));
    assert_eq!(with(r#""t":[1]"#), Some(Reason::WrongType));
    assert_eq!(with(r#""note":5"#), Some(Reason::WrongType));
    assert_eq!(with(r#""meta":5"#), Some(Reason::WrongType));
    assert_eq!(with(r#""t":1,"t":1"#), Some(Reason::DuplicateColumn));
    assert_eq!(with(r#""t":1,"\u0074":1"#), Some(Reason::DuplicateColumn));
    assert_eq!(with(r#""x":1,"x":1e400"#), None);
    assert_eq!(with(&format!(r#""x":{}{}"#, "[".repeat(63), "]".repeat(63))), None);
    assert_eq!(with(&format!(r#""x":{}{}"#, "[".repeat(64), "]".repeat(64))), Some(Reason::TooDeep));
    assert_eq!(reason("{}"), Some(Reason::TimeMissing));
    assert_eq!(reason(r#"{"ts":null}"#), Some(Reason::TimeMissing));
    assert_eq!(reason(r#"{"ts":true}"#), Some(Reason::TimeUnreadable));
    assert_eq!(reason(r#"{"ts":12}"#), Some(Reason::TimeTooOld));
    assert_eq!(reason(r#"{"ts":1700000000000"#), Some(Reason::Malformed));
    assert_eq!(reason(r#"{"ts":1700000000000} x"#), Some(Reason::Malformed));
    assert_eq!(reason("5"), Some(Reason::WrongType));
}

#[test]
fn a_null_key_is_missing_and_an_event_time_may_be_the_arrival() {
    let columns: Columns = toml::from_str("dev = { type = 'int32' }\nts = { type = 'int64' }").unwrap();
    let options =
        toml::from_str("event_time = { path = '$.ts', format = 'unix_us', on_missing = 'arrival', min_time = '1970-01-01T00:00:00Z' }")
            .unwrap();
    let mut decoder = decoder(&options, &columns, &[], &["dev".into()]).unwrap();
    let payloads = [r#"{"dev":null,"ts":5}"#, r#"{"ts":5}"#, r#"{"dev":1,"ts":5}"#, r#"{"dev":2}"#];
    let messages = payloads.map(|p| Message { topic: None, captures: &[], payload: p.as_bytes() });
    let out = decoder.decode(&messages, WallTime(42));
    assert_eq!(out.rejects.iter().map(|r| r.reason).collect::<Vec<_>>(), [Reason::KeyMissing; 2]);
    assert_eq!(out.rows.column(1).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(5), None]);
    assert_eq!(out.rows.column(2).as_primitive::<TimestampMicrosecondType>().values(), &[5, 42]);
}

#[test]
fn an_array_explodes_into_rows_all_or_none() {
    let columns = "t = { type = 'int64', path = '$.r[*].t' }\nsite = { type = 'utf8', path = '$.site' }";
    let mut decoder = json(columns, "explode = '$.r'").unwrap();
    let payloads = [
        r#"{"ts":1700000000000,"r":[{"t":1},{"t":2},{}],"site":"s"}"#,
        r#"{"ts":1700000000000,"r":[{"t":1},{"t":"x"}]}"#,
        r#"{"ts":1700000000000,"r":[{"t":1,"t":2}]}"#,
        r#"{"ts":1700000000000,"r":[]}"#,
        r#"{"ts":1700000000000}"#,
    ];
    let out = decode(&mut *decoder, &payloads);
    assert_eq!(out.messages, [0, 0, 0]);
    assert_eq!(out.rows.column(1).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(1), Some(2), None]);
    assert_eq!(out.rows.column(2).as_string_view().value(2), "s");
    let reasons: Vec<_> = out.rejects.iter().map(|r| (r.message, r.reason)).collect();
    assert_eq!(reasons, [(1, Reason::WrongType), (2, Reason::DuplicateColumn), (4, Reason::Malformed)]);
    let mut bare = json("v = { type = 'int64', path = '$.v[*]' }", "explode = '$.v'").unwrap();
    assert_eq!(decode(&mut *bare, &[r#"{"v":[1,2],"ts":1700000000000}"#]).messages, [0, 0]);
}

#[test]
fn a_mistake_in_the_options_names_its_key() {
    let path = |columns: &str| json(columns, "").err().unwrap().path;
    assert_eq!(path("t = { type = 'double' }"), "columns.t.type");
    assert_eq!(path("t = { type = 'int8', path = 't' }"), "columns.t.path");
    assert_eq!(path("t = { type = 'int8' }\nu = { type = 'int8', path = '$.t.u' }"), "columns.u.path");
    assert_eq!(path("u = { type = 'int8', path = '$.t.u' }\nt = { type = 'int8' }"), "columns.t.path");
    assert_eq!(path("event_time = { type = 'timestamp' }"), "columns.event_time");
    assert_eq!(path("id = { type = 'utf8' }"), "columns.id");
    let columns: Columns = toml::from_str("t = { type = 'float64' }").unwrap();
    let options = toml::from_str("event_time = { path = '$.ts' }").unwrap();
    let key = |name: &str| decoder(&options, &columns, &[], &[name.into()]).err().unwrap().path;
    assert_eq!((key("x").as_str(), key("t").as_str()), ("key", "key"));
}

#[test]
fn a_message_gives_the_same_alone_and_among_others() {
    let payloads = [
        r#"{"ts":1700000000000,"t":1,"note":"\u0041"}"#,
        r#"{"ts":1700000000001,"t":"x","note":"\n"}"#,
        r#"{"ts":1700000000002,"seq":3}"#,
        r#"{"ts":1700000000003,"note":"b","seq":"#,
        r#"{"ts":1700000000004,"note":"\tlonger than twelve bytes","meta":{"bat":1}}"#,
    ];
    let mut decoder = json(COLUMNS, "").unwrap();
    let together = decode(&mut *decoder, &payloads);
    assert_eq!(together.messages, [0, 2, 4]);
    for (number, payload) in payloads.iter().enumerate() {
        let alone = decode(&mut *decoder, &[payload]);
        match together.messages.iter().position(|m| *m as usize == number) {
            Some(row) => assert_eq!(alone.rows, together.rows.slice(row, 1)),
            None => assert_eq!(alone.rejects[0].reason, together.rejects.iter().find(|r| r.message as usize == number).unwrap().reason),
        }
    }
}

/// Values of every kind, good and bad ones for the columns of `COLUMNS`.
const VALUES: [&str; 16] = [
    "1",
    "-2.5",
    "1700000000000",
    "1.70000000025e12",
    "\"7\"",
    "\"a text of more than twelve bytes\"",
    r#""\u00e9\n""#,
    r#""\ud800""#,
    "null",
    "true",
    "{}",
    r#"{"bat":5}"#,
    r#"{ "bat" : "6", "x":[1,{"a":[]}]}"#,
    "[1,2,[3]]",
    "1e400",
    "01",
];

proptest! {
    #[test]
    fn messages_give_the_same_whatever_was_read_before(
        shapes in prop::collection::vec(prop::collection::vec((0..7usize, 0..4usize, any::<bool>()), 0..6), 1..8),
        messages in prop::collection::vec((0..8usize, prop::collection::vec(0..VALUES.len(), 6), 0..40usize), 1..60),
    ) {
        let names = ["ts", "t", "seq", "meta", "note", "other", r"\u0074s"];
        let payloads: Vec<String> = messages.iter().map(|(shape, values, cut)| {
            let fields = &shapes[shape % shapes.len()];
            // Mostly what the field takes, so that messages are good more often than not.
            let value = |name: usize, pick: usize, at: usize| match (pick, names[name]) {
                (0, _) => VALUES[values[at]],
                (_, "ts" | r"\u0074s") => VALUES[2],
                (_, "note") => VALUES[4 + values[at] % 2],
                (_, "meta") => VALUES[11 + values[at] % 2],
                (_, "other") => VALUES[values[at] % 14],
                _ => VALUES[0],
            };
            let space = |is: bool| if is { " " } else { "" };
            let fields: Vec<String> = fields.iter().enumerate().map(|(at, (name, pick, spaced))| {
                format!("{s}\"{}\"{s}:{s}{}", names[*name], value(*name, *pick, at), s = space(*spaced))
            }).collect();
            let text = format!("{{{}}}", fields.join(","));
            // One in ten is cut off or goes on.
            match cut { 0..=1 => text[..text.len() - 1].to_owned(), 2 => text + "}", 3 => text + "\n", _ => text }
        }).collect();
        alike_whatever_was_read_before(COLUMNS, "", &payloads);
    }

    #[test]
    fn exploded_messages_give_the_same_whatever_was_read_before(
        messages in prop::collection::vec((prop::collection::vec((0..6usize, 0..VALUES.len()), 0..6), 0..6usize, 0..40usize), 1..60),
    ) {
        let columns = "t = { type = 'int64', path = '$.r[*].t' }\nbat = { type = 'int64', path = '$.r[*].meta.bat', parse = true }\nsite = { type = 'utf8', path = '$.site' }";
        let payloads: Vec<String> = messages.iter().map(|(elements, shape, cut)| {
            let elements: Vec<String> = elements.iter().map(|(shape, value)| match shape {
                0 => format!(r#"{{"t":{}}}"#, value % 3),
                1 => format!(r#"{{"meta":{{"bat":{value}}},"t":7}}"#),
                2 => format!(r#" {{"t":{},"x":{}}}"#, VALUES[0], VALUES[*value]),
                3 => format!(r#"{{"x":{},"t":1 }}"#, VALUES[value % 14]),
                4 => VALUES[*value].to_owned(),
                _ => "{}".to_owned(),
            }).collect();
            let array = elements.join(if *shape == 0 { " , " } else { "," });
            let text = match shape {
                0 => format!(r#"{{"ts":1700000000000,"r":[{array}]}}"#),
                1 => format!(r#"{{"ts":1700000000000,"r":[{array}],"site":"c"}}"#),
                2 => format!(r#"{{"r":[{array}],"site":"a","ts":1700000000000}}"#),
                3 => format!(r#"{{"site":"b","ts":1700000000000,"x":[{array}],"r":[{array}]}}"#),
                4 => format!(r#"{{"ts":1700000000000,"r":[{array}],"r":[]}}"#),
                _ => r#"{"ts":1700000000000,"r":null}"#.to_owned(),
            };
            match cut { 0 => text[..text.len() - 1].to_owned(), 1 => text + "}", _ => text }
        }).collect();
        alike_whatever_was_read_before(columns, "explode = '$.r'", &payloads);
    }
}

/// A decoder that read all of them gives for each what a new one gives.
fn alike_whatever_was_read_before(columns: &str, extra: &str, payloads: &[String]) {
    let slices: Vec<&str> = payloads.iter().map(String::as_str).collect();
    let (mut rows, mut rejects) = (vec![], vec![]);
    for (number, payload) in (0..).zip(&slices) {
        let fresh = decode(&mut *json(columns, extra).unwrap(), &[payload]);
        rejects.extend(fresh.rejects.into_iter().map(|r| Reject { message: number, ..r }));
        rows.push(fresh.rows);
    }
    let mut decoder = json(columns, extra).unwrap();
    let together = decode(&mut *decoder, &slices);
    assert_eq!(together.rejects, rejects);
    assert_eq!(together.rows, concat_batches(together.rows.schema_ref(), &rows).unwrap());
    // And with the shapes of all of them.
    let again = decode(&mut *decoder, &slices);
    assert_eq!((again.rows, again.rejects), (together.rows, together.rejects));
}

#[test]
fn a_passed_over_value_is_as_deep_in_a_known_shape_as_in_a_new_one() {
    let nested = |n: usize| format!(r#"{{"ts":1700000000000,"x":{}{}}}"#, "[".repeat(n), "]".repeat(n));
    let payloads = [nested(1), nested(63), nested(64), nested(63)];
    let exploded = |n: usize| format!(r#"{{"ts":1700000000000,"r":[{{"t":1,"x":{}{}}}]}}"#, "[".repeat(n), "]".repeat(n));
    alike_whatever_was_read_before(
        "t = { type = 'int64', path = '$.r[*].t' }",
        "explode = '$.r'",
        &[exploded(1), exploded(61), exploded(62)],
    );
    let out = decode(&mut *json(COLUMNS, "").unwrap(), &payloads.each_ref().map(String::as_str));
    assert_eq!(out.messages, [0, 1, 3]);
    assert_eq!(out.rejects[0].reason, Reason::TooDeep);
}
