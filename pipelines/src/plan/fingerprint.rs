//! What must not change while a data directory lives: key, lanes, windows, types of columns.

use super::Plan;
use crate::spec::{Processor, Spec};
use arrow::datatypes::SchemaRef;
use processors::watermark::Per;
use serde::Serialize;
use std::collections::BTreeMap;
use storage::epoch::Fingerprint;

/// The fingerprint of a plan: a word for each part, so that a difference can be told to a person.
pub(super) fn of(plan: &Plan, spec: &Spec) -> Fingerprint {
    let mut parts = BTreeMap::new();
    parts.insert("pipeline.lanes".to_owned(), plan.lanes.to_string());
    for source in &plan.sources {
        parts.insert(format!("sources.{}.key", source.name), source.key.join(", "));
        if source.watermark.per == Per::Device {
            parts.insert(format!("sources.{}.watermark.per", source.name), text(&source.watermark.per));
        }
        columns(&format!("sources.{}", source.name), &source.schema, &mut parts);
    }
    for (name, processor) in &spec.processors {
        for (key, value) in held(&processor.processor, spec) {
            parts.insert(format!("processors.{name}.{key}"), value);
        }
    }
    for operator in plan.operators.iter().filter(|o| o.stage.is_second()) {
        // Its state is in another lane than without.
        parts.insert(format!("processors.{}.stage", operator.name), "second".to_owned());
    }
    for table in &plan.tables {
        columns(&format!("tables.{}", table.name), &table.schema, &mut parts);
    }
    Fingerprint(parts)
}

fn columns(part: &str, schema: &SchemaRef, parts: &mut BTreeMap<String, String>) {
    for field in schema.fields() {
        parts.insert(format!("{part}.columns.{}", field.name()), field.data_type().to_string());
    }
}

/// The options on which a processor's state depends.
fn held(processor: &Processor, spec: &Spec) -> Vec<(&'static str, String)> {
    match processor {
        Processor::Window(o) => vec![
            ("key", text(&o.key)),
            ("window", text(&o.window)),
            ("select", text(&o.select)),
            ("panes", text(&(o.allowed_lateness, o.emit, o.accumulation))),
        ],
        Processor::Dedupe(o) => vec![("key", text(&o.key)), ("sequence", text(&o.sequence)), ("by", text(&o.by))],
        Processor::Deadband(o) => vec![
            ("key", text(&o.key)),
            ("columns", text(&(o.absolute.keys().collect::<Vec<_>>(), o.percent.keys().collect::<Vec<_>>(), &o.change))),
        ],
        Processor::Rate(o) => vec![("key", text(&o.key)), ("columns", text(&o.columns))],
        Processor::Alert(o) => vec![("key", text(&o.key))],
        Processor::Anomaly(o) => vec![("key", text(&o.key)), ("column", text(&o.column))],
        Processor::Presence(o) => vec![("key", text(&o.key))],
        Processor::Enrich(o) => {
            let table = spec.lookups.get(&o.lookup).map(|l| (&l.key, &l.valid_from, &l.columns));
            vec![("key", text(&o.key)), ("columns", text(&o.columns)), ("lookup", text(&(&o.lookup, table)))]
        }
        Processor::Join(o) => vec![
            ("key", text(&o.key)),
            ("interval", text(&(o.before, o.after))),
            ("join", text(&o.join)),
            ("columns", text(&(&o.select, &o.prefix))),
        ],
        Processor::Filter(_) | Processor::Map(_) | Processor::Route(_) | Processor::Union(_) => vec![],
    }
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("options are made of texts, numbers and lists")
}
