//! The JSON schema of the configuration file, made from the tables that the reader goes by.

use super::VERSION;
use planner::UseCase;
use planner::emit::flags::{Flag, ValueKind, flags};
use planner::plan::{DevicePreference, DiskPolicy, Power, Priority};
use serde_json::{Map, Value, json};
use spec::settings::CACHE_TYPES;

/// The schema, JSON Schema draft 2020-12. It holds for a TOML file as well.
pub fn schema() -> Value {
    let mut schema = of_choices();
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.extend(super::metadata::schemas());
    }
    schema
}

/// The schema of all that is acted upon.
fn of_choices() -> Value {
    let settings: Map<String, Value> = flags().iter().map(|flag| (flag.setting.to_owned(), setting(flag))).collect();
    let types: Vec<String> = CACHE_TYPES.iter().map(ToString::to_string).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "loadmaster configuration",
        "description": "A model, a use case, preferences and pinned settings.",
        "type": "object",
        "additionalProperties": false,
        "required": ["loadmaster"],
        "properties": {
            "$schema": { "type": "string", "description": "Address of this schema, for editors." },
            "loadmaster": { "const": VERSION, "description": "Version of this format." },
            "model": { "type": "string", "minLength": 1, "description": "Path of the model; a relative one is relative to this file." },
            "use_case": words("What the model is for.", UseCase::ALL.iter().map(|word| word.as_str())),
            "engine": {
                "type": "string",
                "pattern": "^bitnet(:(file|q8_0|blocks64)(,(file|q8_0|blocks64))*)?$",
                "description": "How our own engine computes a BitNet model: its output head as the file has it or copied in q8_0, and I2_S codes in blocks of 64. Other engines are not named here.",
            },
            "workload": {
                "type": "object",
                "additionalProperties": false,
                "description": "What requests look like and must not fall below, where the use case has it wrong.",
                "properties": {
                    "prompt_tokens": count("Tokens of a typical prompt, none of them in the cache yet."),
                    "output_tokens": count("Tokens of a typical answer."),
                    "users": count("Requests at the same time."),
                    "min_context": count("Tokens of context per sequence below which there is no plan."),
                    "ttft": positive("Seconds until the first token, at most."),
                    "min_tps": positive("Tokens per second of one answer, at least."),
                    "quality_floor": words("The coarsest type that the KV cache may have.", types.iter().map(String::as_str)),
                },
            },
            "preferences": {
                "type": "object",
                "additionalProperties": false,
                "description": "What matters beyond the use case.",
                "properties": {
                    "device": words("Processors to use.", DevicePreference::ALL.iter().map(|word| word.as_str())),
                    "margin": {
                        "description": "Memory to leave free in every pool: a share of its total, or a size such as \"2GiB\".",
                        "oneOf": [{ "type": "number", "minimum": 0, "maximum": 0.9 }, { "type": "string", "pattern": "^[0-9.]+ *[A-Za-z]*$" }],
                    },
                    "priority": words("One user or many.", Priority::ALL.iter().map(|word| word.as_str())),
                    "power": words("How much power may be drawn.", Power::ALL.iter().map(|word| word.as_str())),
                    "disk": words("Weights that do not stay in memory.", DiskPolicy::ALL.iter().map(|word| word.as_str())),
                },
            },
            "beside": {
                "type": "object",
                "additionalProperties": false,
                "description": "What is loaded beside the model, as llama-server spells it; relative paths are relative to this file.",
                "properties": super::beside::schema(),
            },
            "settings": {
                "type": "object",
                "additionalProperties": false,
                "description": "Settings that are fixed, under llama-server's names; what is not here is planned.",
                "properties": settings,
            },
        },
    })
}

fn count(description: &str) -> Value {
    json!({ "description": description, "type": "integer", "minimum": 1, "maximum": i32::MAX })
}

fn positive(description: &str) -> Value {
    json!({ "description": description, "type": "number", "exclusiveMinimum": 0 })
}

fn words<'a>(description: &str, words: impl Iterator<Item = &'a str>) -> Value {
    json!({ "description": description, "enum": words.collect::<Vec<_>>() })
}

fn setting(flag: &Flag) -> Value {
    let mut schema = match flag.kind {
        ValueKind::Count => json!({ "oneOf": [
            { "type": "integer", "minimum": -1, "maximum": i32::MAX },
            { "enum": ["auto", "all"] },
        ]}),
        ValueKind::Switch | ValueKind::Bit => json!({ "type": "boolean" }),
        ValueKind::Mask => {
            json!({ "type": "string", "pattern": "^(none|(0x)?[0-9A-Fa-f]+|[0-9]*-[0-9]*(,[0-9]*-?[0-9]*)*|[0-9]+(,[0-9]*-?[0-9]*)+)$" })
        }
        ValueKind::Word(words) => json!({ "enum": words }),
        ValueKind::Shares => json!({ "type": "array", "items": { "type": "number", "minimum": 0 } }),
        ValueKind::Names => json!({ "oneOf": [
            { "enum": ["all", "none"] },
            { "type": "array", "items": { "type": "string", "minLength": 1 } },
        ]}),
        ValueKind::Overrides => json!({ "type": "array", "items": { "type": "string", "pattern": "^[^=]+=.+$" } }),
    };
    if let Value::Object(schema) = &mut schema {
        schema.insert("description".into(), flag.help.into());
    }
    schema
}
