//! The metadata that conversion would write, out of `config.json`.

use super::config::{Config, count, shown};
use super::error::HuggingFaceError;
use super::family::{COMMON, Family, From};
use crate::gguf::{Array, ElementType, Value};
use serde_json::Value as Json;
use spec::model::MetaValue;
use std::collections::BTreeMap;

/// Metadata by full key.
pub(super) fn metadata(config: &Config, family: &Family, n_layer: u64) -> Result<BTreeMap<String, Value>, HuggingFaceError> {
    let mut keys = BTreeMap::new();
    keys.insert("general.architecture".to_owned(), text(family.architecture));
    keys.insert("general.type".to_owned(), text("model"));
    if let Some(name) = config.text(&["_name_or_path"]).filter(|name| !name.is_empty() && name.len() <= 256) {
        keys.insert("general.name".to_owned(), text(name));
    }
    let full = |key: &str| format!("{}.{key}", family.architecture);
    keys.insert(full("block_count"), uint(n_layer));
    if !family.no_head_dim {
        for key in ["attention.key_length", "attention.value_length"] {
            let width = value(config, From::Count(&["head_dim"]), n_layer)?;
            keys.extend(width.map(|width| (full(key), width)));
        }
    }
    rotary(config, &mut |key, value| {
        keys.insert(full(key), value);
    })?;
    gating(config, &mut |key, value| {
        keys.insert(full(key), value);
    });
    for (key, from) in COMMON.iter().chain(family.keys) {
        if let Some(value) = value(config, *from, n_layer)? {
            keys.insert(full(key), value);
        }
    }
    if family.architecture == "mamba" {
        mamba(config, &mut |key, value| {
            keys.insert(full(key), value);
        })?;
    }
    if let Some(factor) = long_context(config).filter(|_| family.architecture == "phi3") {
        keys.insert(full("rope.scaling.attn_factor"), real(factor));
    }
    Ok(keys)
}

/// How much the attention of Phi-3 is scaled up where its context was stretched; `None` where it was not.
fn long_context(config: &Config) -> Option<f64> {
    config.rope("long_factor")?.as_array().filter(|list| !list.is_empty())?;
    let before = config.rope("original_max_position_embeddings")?.as_f64()?;
    let stretch = config.count(&["n_positions", "max_position_embeddings"]).ok()?? as f64 / before;
    let factor = match config.rope_type().as_deref() {
        _ if stretch <= 1.0 => 1.0,
        Some("yarn") => 0.1 * stretch.ln() + 1.0,
        _ => (1.0 + stretch.ln() / before.ln()).sqrt(),
    };
    factor.is_finite().then_some(factor)
}

fn text(text: &str) -> Value {
    Value::Scalar(MetaValue::Text(text.to_owned()))
}

fn uint(count: u64) -> Value {
    Value::Scalar(MetaValue::Uint(count))
}

/// A number in single precision, as a GGUF file holds it.
fn real(number: f64) -> Value {
    Value::Scalar(MetaValue::Float(f64::from(number as f32)))
}

fn value(config: &Config, from: From, n_layer: u64) -> Result<Option<Value>, HuggingFaceError> {
    Ok(match from {
        From::Count(names) => config.get(names).map(|value| counts(names, value)).transpose()?,
        From::Need(names) => Some(uint(config.need(names)?)),
        From::Fixed(count) => Some(uint(count)),
        From::Or(names, default) => Some(uint(config.count(names)?.unwrap_or(default))),
        From::Real(names) => match config.get(names) {
            None => None,
            Some(found) => Some(real(found.as_f64().ok_or_else(|| bad(names, "number", found))?)),
        },
        From::True(name) => config.flag(name).then_some(Value::Scalar(MetaValue::Bool(true))),
        From::HeadWidth => Some(uint(config.head_width()?)),
        From::Sum(names) => {
            let mut sum = 0;
            for name in names {
                sum += config.need(&[name])?;
            }
            Some(uint(sum))
        }
        From::RotaryPart => Some(uint(rotary_part(config)?)),
        From::Rope(name) => config.rope(name).map(|value| counts(&[name], value)).transpose()?,
        From::Windows { every } => windows(config, n_layer, every),
        From::WindowUnlessFull => match config.count(&["sliding_window_pattern"])? {
            Some(1) => None,
            _ => config.count(&["sliding_window"])?.map(uint),
        },
    })
}

fn bad(names: &[&str], expected: &'static str, found: &Json) -> HuggingFaceError {
    HuggingFaceError::BadValue { key: names.join(" or "), expected, found: shown(found) }
}

/// One count, or one for each layer.
fn counts(names: &[&str], value: &Json) -> Result<Value, HuggingFaceError> {
    let Json::Array(list) = value else { return count(names, value).map(uint) };
    if list.len() as u64 > crate::gguf::MAX_KEPT_ARRAY {
        return Err(bad(names, "count, or list of one for each layer", value));
    }
    let numbers = list.iter().map(|value| count(names, value).map(|count| count as f64)).collect::<Result<Vec<f64>, _>>()?;
    Ok(Value::Array(Array { element: ElementType::U32, length: list.len() as u64, numbers: Some(numbers) }))
}

/// Rotating width of a head of Phi-3: a share of the stream over the heads.
pub(super) fn rotary_part(config: &Config) -> Result<u64, HuggingFaceError> {
    let share = config.rope("partial_rotary_factor").and_then(Json::as_f64).filter(|share| (0.0..=1.0).contains(share)).unwrap_or(1.0);
    let (n_embd, heads) = (config.need(&["hidden_size", "n_embd"])?, config.need(&["num_attention_heads", "n_head"])?);
    Ok(((share * n_embd as f64) as u64).checked_div(heads).unwrap_or(0))
}

/// Which layers slide a window: no key without a window.
fn windows(config: &Config, n_layer: u64, every: u64) -> Option<Value> {
    config.get(&["sliding_window"])?;
    let stated = config.get(&["layer_types"]).and_then(Json::as_array);
    let slides = |layer: u64| match stated {
        Some(types) => usize::try_from(layer).ok().and_then(|layer| types.get(layer)?.as_str()) == Some("sliding_attention"),
        None => !(layer + 1).is_multiple_of(every),
    };
    let numbers = (0..n_layer).map(|layer| f64::from(u8::from(slides(layer)))).collect();
    Some(Value::Array(Array { element: ElementType::Bool, length: n_layer, numbers: Some(numbers) }))
}

/// The keys of rotary scaling.
fn rotary(config: &Config, add: &mut dyn FnMut(&str, Value)) -> Result<(), HuggingFaceError> {
    if let Some(base) = config.rope("rope_theta").and_then(Json::as_f64) {
        add("rope.freq_base", real(base));
    }
    let factor = config.rope("factor").and_then(Json::as_f64);
    match (config.rope_type().as_deref(), factor) {
        (Some(kind @ ("linear" | "yarn")), Some(factor)) => {
            add("rope.scaling.type", text(kind));
            add("rope.scaling.factor", real(factor));
            if kind == "yarn" {
                if let Some(context) = value(config, From::Rope("original_max_position_embeddings"), 0)? {
                    add("rope.scaling.original_context_length", context);
                }
                for (key, name) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
                    if let Some(beta) = config.rope(name).and_then(Json::as_f64) {
                        add(&format!("rope.scaling.{key}"), real(beta));
                    }
                }
                if let Some(scale) = config.rope("mscale_all_dim").and_then(Json::as_f64) {
                    add("rope.scaling.yarn_log_multiplier", real(0.1 * scale));
                }
            }
        }
        (Some("su" | "longrope"), _) => add("rope.scaling.type", text("longrope")),
        _ => {}
    }
    Ok(())
}

/// How the router turns scores into weights.
fn gating(config: &Config, add: &mut dyn FnMut(&str, Value)) {
    match config.text(&["score_function", "scoring_func", "score_func"]) {
        Some("softmax") => add("expert_gating_func", uint(1)),
        Some("sigmoid") => add("expert_gating_func", uint(2)),
        _ => {}
    }
}

/// Figures of Mamba that follow from its width where `config.json` leaves them out.
fn mamba(config: &Config, add: &mut dyn FnMut(&str, Value)) -> Result<(), HuggingFaceError> {
    let width = config.need(&["hidden_size", "d_model"])?;
    add("ssm.inner_size", uint(config.count(&["intermediate_size", "d_inner"])?.unwrap_or(2 * width)));
    // `"auto"` stands where the rank follows from the width.
    let rank = config.get(&["time_step_rank", "dt_rank"]).and_then(Json::as_u64).filter(|rank| *rank <= u64::from(u32::MAX));
    add("ssm.time_step_rank", uint(rank.unwrap_or(width.div_ceil(16))));
    let norms = config.text(&["model_type"]) == Some("falcon_mamba");
    add("ssm.dt_b_c_rms", Value::Scalar(MetaValue::Bool(norms)));
    Ok(())
}
