//! Small facts about `csv.rs`.

use super::*;
use crate::decode::{Columns, decoder_with};
use arrow::array::AsArray;
use arrow::datatypes::Float64Type;

fn csv(columns: &str, options: &str) -> Result<Box<dyn Decoder>, OptionError> {
    let columns: Columns = toml::from_str(columns).unwrap();
    let decode = toml::from_str("format = 'csv'\nevent_time = { path = 'ts', format = 'unix_s' }").unwrap();
    decoder_with(&decode, &columns, &[], &["id".into()], &toml::from_str(options).unwrap())
}

const COLUMNS: &str = "id = { type = 'utf8' }\nt = { type = 'float64', path = 'Temp' }";

fn decode(decoder: &mut dyn Decoder, records: &[&str]) -> Decoded {
    let messages: Vec<Message<'_>> = records.iter().map(|r| Message { topic: None, captures: &[], payload: r.as_bytes() }).collect();
    decoder.decode(&messages, WallTime(0))
}

#[test]
fn the_header_says_where_the_fields_stand() {
    let mut decoder = csv(COLUMNS, "null = 'NA'").unwrap();
    decoder.begin(b"ts,more,\"Temp\",id\r\n").unwrap();
    let out = decode(
        &mut *decoder,
        &["1700000000,x,20.5,a\r\n", "1700000001,,NA,\"b \"\"c\"\"\nd\"\n", "1,2\n", "1700000001,,NA,NA", "1700000001,,1,c,9"],
    );
    assert_eq!(out.messages, [0, 1]);
    assert_eq!(out.rows.column(0).as_string_view().iter().flatten().collect::<Vec<_>>(), ["a", "b \"c\"\nd"]);
    assert_eq!(out.rows.column(1).as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), [Some(20.5), None]);
    let reasons: Vec<_> = out.rejects.iter().map(|r| (r.message, r.reason)).collect();
    assert_eq!(reasons, [(2, Reason::Malformed), (3, Reason::KeyMissing), (4, Reason::Malformed)]);
}

#[test]
fn a_header_without_a_declared_field_is_refused() {
    let mut decoder = csv(COLUMNS, "").unwrap();
    assert_eq!(decoder.begin(b"ts,id").unwrap_err().path, "columns.t.path");
    assert_eq!(decoder.begin(b"Temp,id").unwrap_err().path, "decode.event_time.path");
    assert_eq!(decoder.begin(b"Temp,id,ts,id").unwrap_err().path, "csv.header");
    assert_eq!(csv(COLUMNS, "delimiter = 'ü'").err().unwrap().path, "csv.delimiter");
}

#[test]
fn without_a_header_fields_stand_in_the_order_of_the_columns() {
    let mut decoder = csv(COLUMNS, "header = false\ndelimiter = ';'").unwrap();
    let out = decode(&mut *decoder, &["a;1;1700000000\nb;;1700000001", "a;x;1700000000"]);
    assert_eq!(out.messages, [0, 0]);
    assert_eq!(out.rows.column(1).null_count(), 1);
    assert_eq!(out.rejects[0].reason, Reason::WrongType);
}

#[test]
fn a_record_ends_at_a_line_end_outside_quotes() {
    assert_eq!(record_end(b"a,b\nc", b','), Some(4));
    assert_eq!(record_end(b"a,\"b\n\",c\nd", b','), Some(9));
    assert_eq!(record_end(b"a,\"b\"\"\n\"\nd", b','), Some(9));
    assert_eq!(record_end(b"5\" pipe,b\nc", b','), Some(10));
    assert_eq!(record_end(b"a,\"b\n", b','), None);
    assert_eq!(record_end(b"a", b','), None);
}
