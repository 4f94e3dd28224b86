//! The new pipeline's file as a replay runs it: files in the place of its sources, a folder of its own, and nothing that reaches outside.

use super::log::{Log, Place};
use flow::{Error, Remedy, Result};
use std::path::Path;
use toml::{Table, Value};

/// The name of the file in the replay's folder.
pub(super) const FILE: &str = "replay.toml";
/// What listens takes a free port.
const ANYWHERE: &str = "127.0.0.1:0";

/// The text of the pipeline that takes the logs again in `folder`.
pub(super) fn rewritten(text: &str, logs: &[Log], folder: &Path) -> Result<String> {
    let failed = |e: &dyn std::fmt::Display| Error::new(Remedy::Stop, format!("rewriting the new pipeline: {e}"));
    let mut file: Table = text.parse().map_err(|e: toml::de::Error| failed(&e))?;
    let pipeline = section(&mut file, "pipeline");
    pipeline.remove("shared");
    pipeline.insert("data_dir".into(), folder.join("data").display().to_string().into());
    section(&mut file, "http").clear();
    section(&mut file, "http").insert("listen".into(), ANYWHERE.into());
    section(&mut file, "observability").insert("metrics".into(), ANYWHERE.into());
    // Its tiers are those of the pipeline that runs; here all are kept, so that they can be counted.
    section(&mut file, "dead_letters").clear();
    section(&mut file, "dead_letters").insert("max_per_second".into(), i64::from(u32::MAX).into());
    file.remove("tests");
    file.remove("journal");
    for log in logs {
        let source = section(section(&mut file, "sources"), &log.source.name);
        match &log.place {
            Place::Table { .. } => *source = source_of(log, source, folder),
            Place::Topics { .. } => from_the_beginning(source),
        }
    }
    let sinks = match file.remove("sinks") {
        Some(Value::Table(sinks)) => sinks,
        _ => Table::new(),
    };
    let tables = section(&mut file, "tables");
    for (_, table) in tables.iter_mut() {
        // All of it stays in warm, here.
        if let Value::Table(table) = table {
            table.retain(|key, _| key == "inputs");
        }
    }
    for log in logs {
        if let Place::Topics { table } = &log.place {
            let inputs = Value::Array(vec![log.source.name.clone().into()]);
            tables.entry(table.clone()).or_insert_with(|| of([("inputs", inputs)]));
        }
    }
    for (name, sink) in &sinks {
        // What only a sink has read is kept, so that a processor before it is not without a reader.
        let name = if tables.contains_key(name) { format!("{name}_sink") } else { name.clone() };
        let inputs = sink.get("inputs").cloned().unwrap_or_else(|| Value::Array(vec![]));
        tables.insert(name, of([("inputs", inputs)]));
    }
    toml::to_string(&file).map_err(|e| failed(&e))
}

/// A table of the file, made where it is missing.
fn section<'f>(file: &'f mut Table, name: &str) -> &'f mut Table {
    let entry = file.entry(name.to_owned()).or_insert_with(|| Value::Table(Table::new()));
    if !entry.is_table() {
        *entry = Value::Table(Table::new());
    }
    entry.as_table_mut().expect("made a table just now")
}

/// The topics of a source, beside whoever reads them now.
fn from_the_beginning(source: &mut Table) {
    source.insert("start".into(), "earliest".into());
    let group = format!("tidegate-replay-{:08x}", rand::random::<u32>());
    source.insert("group_id".into(), group.into());
    if let Some(options) = source.get_mut("options").and_then(Value::as_table_mut) {
        // Of the group of processes that share the topic.
        ["group.instance.id", "group.protocol"].iter().for_each(|key| _ = options.remove(*key));
    }
}

/// The source as a file of its rows. What it says about watermarks stays.
fn source_of(log: &Log, written: &Table, folder: &Path) -> Table {
    let text = |text: &str| Value::String(text.to_owned());
    let event_time = [("path", text("$.event_time")), ("format", text("rfc3339")), ("min_time", text("0001-01-01T00:00:00Z"))];
    let decode = [("format", text("json")), ("event_time", of(event_time))];
    let declared = written.get("columns").and_then(Value::as_table);
    let mut columns = Table::new();
    for field in log.source.schema.fields().iter().filter(|field| field.name() != flow::EVENT_TIME) {
        // What is not declared was captured from a topic or stood beside a record: text.
        let mut column = declared.and_then(|all| all.get(field.name())?.as_table()).cloned().unwrap_or_default();
        column.remove("path");
        let kind = column.entry("type").or_insert_with(|| text("utf8"));
        let is_text = kind.as_str() == Some("utf8");
        column.insert("parse".into(), Value::Boolean(!is_text));
        columns.insert(field.name().clone(), Value::Table(column));
    }
    let mut source = Table::new();
    source.insert("type".into(), text("file"));
    source.insert("path".into(), text(&log.path(folder).display().to_string()));
    source.insert("decode".into(), of(decode));
    source.insert("columns".into(), Value::Table(columns));
    for kept in ["key", "watermark"] {
        source.extend(written.get(kept).map(|value| (kept.to_owned(), value.clone())));
    }
    source
}

fn of<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}
