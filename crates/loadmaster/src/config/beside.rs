//! The table `[beside]`: what is loaded beside the model. One row per key; reader, writer and schema go by these rows.

use crate::beside::{Beside, OWN_DRAFT, draft_layers};
use planner::emit::ALL;
use serde_json::{Map, Value, json};
use spec::QuantType;
use spec::settings::CACHE_TYPES;
use std::path::PathBuf;

/// What a key holds: where it lies in [`Beside`].
enum Field {
    Path(fn(&mut Beside) -> &mut Option<PathBuf>),
    Paths(fn(&mut Beside) -> &mut Vec<PathBuf>),
    Name(fn(&mut Beside) -> &mut Option<String>),
    Switch(fn(&mut Beside) -> &mut Option<bool>),
    Layers(fn(&mut Beside) -> &mut Option<u32>),
    Count(fn(&mut Beside) -> &mut Option<u32>),
    Type(fn(&mut Beside) -> &mut Option<QuantType>),
    OwnDraft,
}

/// Key, place and description.
const ROWS: &[(&str, Field, &str)] = &[
    ("mmproj", Field::Path(|b| &mut b.mmproj), "Projector of a multimodal model."),
    ("mmproj_offload", Field::Switch(|b| &mut b.mmproj_offload), "Whether the projector may lie on a GPU."),
    ("mmproj_device", Field::Name(|b| &mut b.mmproj_device), "Device of the projector; none: the host."),
    ("lora", Field::Paths(|b| &mut b.lora), "LoRA adapters."),
    ("control_vector", Field::Paths(|b| &mut b.control_vector), "Control vectors."),
    ("model_draft", Field::Path(|b| &mut b.model_draft), "Model that drafts tokens."),
    ("spec_type", Field::OwnDraft, "Draft with the model's own prediction layers."),
    ("draft_max", Field::Count(|b| &mut b.draft_max), "Tokens drafted at once at most."),
    ("n_gpu_layers_draft", Field::Layers(|b| &mut b.n_gpu_layers_draft), "Layers of the draft model on GPUs."),
    ("ctx_size_draft", Field::Count(|b| &mut b.ctx_size_draft), "Context of the draft model; engines before 2026-06."),
    ("spec_draft_n_ubatch", Field::Count(|b| &mut b.ubatch_draft), "Micro-batch of the draft; llama-server 0.7.0."),
    ("cache_type_k_draft", Field::Type(|b| &mut b.cache_type_k_draft), "Type of the draft's K cache."),
    ("cache_type_v_draft", Field::Type(|b| &mut b.cache_type_v_draft), "Type of the draft's V cache."),
];

/// Every key.
pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|(key, ..)| *key).collect()
}

/// Writes the value of a key; keys that there are not are left to the caller.
///
/// # Errors
/// What is wrong with the value, for people.
pub(super) fn read(key: &str, value: &Value, beside: &mut Beside) -> Result<(), String> {
    let Some((_, field, _)) = ROWS.iter().find(|(name, ..)| *name == key) else { return Ok(()) };
    let path = |value: &Value| match value.as_str() {
        Some("") | None => Err(format!("{value} is no path")),
        Some(path) => Ok(PathBuf::from(path)),
    };
    match field {
        Field::Path(place) => *place(beside) = Some(path(value)?),
        Field::Paths(place) => {
            let paths = value.as_array().ok_or_else(|| format!("{value} is no list of paths"))?;
            *place(beside) = paths.iter().map(path).collect::<Result<_, _>>()?;
        }
        Field::Name(place) => match value.as_str() {
            Some("") | None => return Err(format!("{value} is no name")),
            Some(name) => *place(beside) = Some(name.to_owned()),
        },
        Field::Layers(place) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            *place(beside) = Some(draft_layers(&text)?);
        }
        Field::Switch(place) => *place(beside) = Some(value.as_bool().ok_or_else(|| format!("{value} is neither true nor false"))?),
        Field::Count(place) => {
            let count = value.as_u64().and_then(|count| i32::try_from(count).ok()).and_then(|count| u32::try_from(count).ok());
            *place(beside) = Some(count.ok_or_else(|| format!("{value} is not a whole number from 0 to {}", i32::MAX))?);
        }
        Field::Type(place) => {
            let found = value.as_str().and_then(|name| CACHE_TYPES.iter().copied().find(|ty| ty.name() == name));
            *place(beside) = Some(found.ok_or_else(|| format!("{value} is not one of {}", types().join(", ")))?);
        }
        Field::OwnDraft if value == OWN_DRAFT => beside.own_draft = true,
        Field::OwnDraft => return Err(format!("{value} is not {OWN_DRAFT:?}")),
    }
    Ok(())
}

/// What is said, by key.
pub(super) fn write(beside: &Beside) -> Map<String, Value> {
    let mut beside = beside.clone();
    let text = |path: &PathBuf| Value::from(path.to_string_lossy());
    let value = |field: &Field, beside: &mut Beside| match field {
        Field::Path(place) => place(beside).as_ref().map(text),
        Field::Paths(place) => Some(place(beside)).filter(|paths| !paths.is_empty()).map(|paths| paths.iter().map(text).collect()),
        Field::Name(place) => place(beside).clone().map(Value::from),
        Field::Layers(place) => place(beside).map(|count| if count == ALL { "all".into() } else { count.into() }),
        Field::Switch(place) => place(beside).map(Value::from),
        Field::Count(place) => place(beside).map(Value::from),
        Field::Type(place) => place(beside).map(|ty| ty.name().into()),
        Field::OwnDraft => beside.own_draft.then(|| OWN_DRAFT.into()),
    };
    ROWS.iter().filter_map(|(key, field, _)| Some(((*key).to_owned(), value(field, &mut beside)?))).collect()
}

/// The schema of each key.
pub(super) fn schema() -> Map<String, Value> {
    let of = |field: &Field| match field {
        Field::Path(_) => json!({ "type": "string", "minLength": 1 }),
        Field::Paths(_) => json!({ "type": "array", "items": { "type": "string", "minLength": 1 } }),
        Field::Name(_) => json!({ "type": "string", "minLength": 1 }),
        Field::Layers(_) => {
            json!({ "oneOf": [{ "type": "integer", "minimum": -1, "maximum": i32::MAX }, { "enum": ["all", "auto"] }] })
        }
        Field::Switch(_) => json!({ "type": "boolean" }),
        Field::Count(_) => json!({ "type": "integer", "minimum": 0, "maximum": i32::MAX }),
        Field::Type(_) => json!({ "enum": types() }),
        Field::OwnDraft => json!({ "const": OWN_DRAFT }),
    };
    let described = |(key, field, description): &(&str, Field, &str)| {
        let mut schema = of(field);
        if let Value::Object(schema) = &mut schema {
            schema.insert("description".into(), (*description).into());
        }
        ((*key).to_owned(), schema)
    };
    ROWS.iter().map(described).collect()
}

fn types() -> Vec<&'static str> {
    CACHE_TYPES.iter().map(|ty| ty.name()).collect()
}
