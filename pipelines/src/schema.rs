//! The JSON Schema of `pipeline.toml`, for editors: made of the same structs that read the file.

use crate::relay::KafkaSinkOptions;
use crate::spec::{
    DeadLetterOptions, HttpOptions, Inputs, LimitOptions, ObservabilityOptions, PROCESSOR_TYPES, PipelineOptions, SINK_TYPES, SOURCE_TYPES,
    SourceCommon, TestOptions,
};
use ingest::file::FileOptions;
use ingest::http::HttpSourceOptions;
use ingest::journal::JournalOptions;
use ingest::kafka::KafkaOptions;
use ingest::lookup::LookupOptions;
use ingest::mqtt::MqttOptions;
use processors::alert::AlertOptions;
use processors::anomaly::AnomalyOptions;
use processors::deadband::DeadbandOptions;
use processors::dedupe::DedupeOptions;
use processors::enrich::EnrichOptions;
use processors::filter::FilterOptions;
use processors::join::JoinOptions;
use processors::map::MapOptions;
use processors::presence::PresenceOptions;
use processors::rate::RateOptions;
use processors::route::RouteOptions;
use processors::union::UnionOptions;
use processors::window::WindowOptions;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use storage::TableOptions;

/// The schema, draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    let mut make = SchemaSettings::draft2020_12().into_generator();
    let sources = [
        both::<SourceCommon, MqttOptions>(&mut make),
        both::<SourceCommon, FileOptions>(&mut make),
        both::<SourceCommon, KafkaOptions>(&mut make),
        both::<SourceCommon, HttpSourceOptions>(&mut make),
    ];
    let processors = [
        both::<Inputs, FilterOptions>(&mut make),
        both::<Inputs, MapOptions>(&mut make),
        both::<Inputs, DedupeOptions>(&mut make),
        both::<Inputs, WindowOptions>(&mut make),
        both::<Inputs, RouteOptions>(&mut make),
        both::<Inputs, UnionOptions>(&mut make),
        both::<Inputs, JoinOptions>(&mut make),
        both::<Inputs, DeadbandOptions>(&mut make),
        both::<Inputs, RateOptions>(&mut make),
        both::<Inputs, AlertOptions>(&mut make),
        both::<Inputs, PresenceOptions>(&mut make),
        both::<Inputs, AnomalyOptions>(&mut make),
        both::<Inputs, EnrichOptions>(&mut make),
    ];
    let properties = json!({
        "pipeline": one::<PipelineOptions>(&mut make),
        "journal": one::<JournalOptions>(&mut make),
        "sources": named(typed(&SOURCE_TYPES, sources)),
        "lookups": named(one::<LookupOptions>(&mut make)),
        "processors": named(typed(&PROCESSOR_TYPES, processors)),
        "tables": named(both::<Inputs, TableOptions>(&mut make)),
        "sinks": named(typed(&SINK_TYPES, [both::<Inputs, KafkaSinkOptions>(&mut make)])),
        "dead_letters": both::<DeadLetterOptions, TableOptions>(&mut make),
        "http": one::<HttpOptions>(&mut make),
        "observability": one::<ObservabilityOptions>(&mut make),
        "limits": one::<LimitOptions>(&mut make),
        "tests": { "type": "array", "items": one::<TestOptions>(&mut make) },
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tidegate pipeline",
        "type": "object",
        "properties": properties,
        "required": ["pipeline", "sources"],
        "additionalProperties": false,
        "$defs": make.take_definitions(true),
    })
}

/// The schema of one struct, written out.
fn one<T: JsonSchema>(make: &mut SchemaGenerator) -> Value {
    T::json_schema(make).into()
}

/// The schema of a table that is read into two structs: it has the keys of both.
fn both<A: JsonSchema, B: JsonSchema>(make: &mut SchemaGenerator) -> Value {
    let (mut a, b) = (one::<A>(make), one::<B>(make));
    for list in ["properties", "required"] {
        match (a.get_mut(list), b.get(list)) {
            (Some(Value::Object(ours)), Some(Value::Object(theirs))) => ours.extend(theirs.clone()),
            (Some(Value::Array(ours)), Some(Value::Array(theirs))) => ours.extend(theirs.clone()),
            (None, Some(theirs)) => a[list] = theirs.clone(),
            _ => {}
        }
    }
    if let Some(about) = b.get("description") {
        a["description"] = about.clone();
    }
    a
}

/// Schemas of which the key `type` chooses one.
fn typed<const N: usize>(types: &[&str; N], mut schemas: [Value; N]) -> Value {
    for (name, schema) in types.iter().zip(&mut schemas) {
        schema["properties"]["type"] = json!({ "const": name });
        let required = schema.as_object_mut().map(|s| s.entry("required").or_insert_with(|| json!([])));
        if let Some(Value::Array(required)) = required {
            required.push(json!("type"));
        }
    }
    json!({ "oneOf": schemas.to_vec() })
}

/// A table of tables with names of the user's choice.
fn named(each: Value) -> Value {
    let mut schema = Map::new();
    schema.insert("type".into(), json!("object"));
    schema.insert("additionalProperties".into(), each);
    Value::Object(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_holds_the_keys_of_both_structs() {
        let schema = schema();
        let mqtt = &schema["properties"]["sources"]["additionalProperties"]["oneOf"][0];
        for key in ["type", "url", "topics", "decode", "columns", "key", "max_message"] {
            assert!(mqtt["properties"][key].is_object(), "{key}");
        }
        assert!(mqtt["required"].as_array().unwrap().contains(&json!("url")));
        assert_eq!(mqtt["additionalProperties"], json!(false));
    }

    #[test]
    fn every_reference_has_its_definition() {
        fn references(of: &Value, found: &mut Vec<String>) {
            match of {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values().for_each(|v| references(v, found));
                }
                Value::Array(list) => list.iter().for_each(|v| references(v, found)),
                _ => {}
            }
        }
        let schema = schema();
        let mut found = vec![];
        references(&schema, &mut found);
        for reference in found {
            assert!(schema.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }
}
