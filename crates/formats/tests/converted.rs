//! Small models of every family that is known against what llama.cpp's own converter made of them.
//!
//! `huggingface/converted.jsonl` holds one model a line: `config.json`, the tensors of its safetensors, and metadata and
//! tensors of the GGUF file that `convert_hf_to_gguf.py` wrote (llama.cpp of 28 September 2026, the source in the npm package
//! node-llama-cpp 3.22.1, with zeros for weights and no tokenizer).
#![allow(clippy::unwrap_used, reason = "a test that cannot read its record has failed")]

use formats::huggingface::{Config, classes, plan};
use formats::safetensors::{Entry, Safetensors};
use serde_json::Value;
use spec::model::MetaValue;
use spec::{Bytes, Model};
use std::collections::{BTreeMap, BTreeSet};

const CONVERTED: &str = include_str!("huggingface/converted.jsonl");

fn planned(case: &Value) -> Model {
    let entry = |tensor: &Value| Entry {
        name: tensor[0].as_str().unwrap().to_owned(),
        dtype: tensor[1].as_str().unwrap().to_owned(),
        shape: tensor[2].as_array().unwrap().iter().map(|extent| extent.as_u64().unwrap()).collect(),
        bytes: Bytes::ZERO,
        offset: Bytes::ZERO,
    };
    let tensors = case["tensors"].as_array().unwrap().iter().map(entry).collect();
    let config = Config::parse(case["config"].to_string().as_bytes()).unwrap();
    plan(&config, &[Safetensors { tensors, data_offset: Bytes::ZERO, file_size: Bytes::ZERO }], None)
        .unwrap_or_else(|error| panic!("{}: {error}", case["name"]))
}

/// The value of a key as the record has it.
fn recorded(model: &Model, key: &str) -> Option<Value> {
    if let Some(list) = model.arrays.get(key) {
        return Some(list.clone().into());
    }
    Some(match model.metadata.get(key)? {
        MetaValue::Uint(value) => Value::from(*value),
        MetaValue::Int(value) => Value::from(*value),
        MetaValue::Float(value) => Value::from(*value),
        MetaValue::Bool(value) => Value::from(*value),
        MetaValue::Text(value) => Value::from(value.as_str()),
    })
}

/// Numbers in single precision; flags of lists as numbers.
fn same(left: &Value, right: &Value) -> bool {
    let number = |value: &Value| value.as_f64().or_else(|| value.as_bool().map(|flag| f64::from(u8::from(flag))));
    match (left, right) {
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::String(left), Value::String(right)) => left == right,
        _ => number(left).zip(number(right)).is_some_and(|(left, right)| left as f32 == right as f32),
    }
}

#[test]
fn every_family_becomes_what_the_converter_makes_of_it() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for line in CONVERTED.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let name = case["name"].as_str().unwrap();
        seen.insert(case["config"]["architectures"][0].as_str().unwrap().to_owned());
        let model = planned(&case);
        let ours: BTreeMap<String, String> = model
            .tensors
            .iter()
            .map(|tensor| {
                let used = tensor.shape.iter().rposition(|&extent| extent > 1).map_or(1, |last| last + 1);
                let shape: Vec<String> = tensor.shape[..used].iter().map(u64::to_string).collect();
                (tensor.name.clone(), format!("{} {}", tensor.ty.name().to_uppercase(), shape.join("x")))
            })
            .collect();
        let trimmed = |text: &str| text.strip_suffix("x1").unwrap_or(text).to_owned();
        let theirs: BTreeMap<String, String> =
            case["converted"].as_object().unwrap().iter().map(|(key, value)| (key.clone(), trimmed(value.as_str().unwrap()))).collect();
        for key in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            if ours.get(key) != theirs.get(key) {
                wrong.push(format!("{name}: {key}: {:?} here, {:?} there", ours.get(key), theirs.get(key)));
            }
        }
        for (key, value) in case["metadata"].as_object().unwrap() {
            let found = recorded(&model, key);
            if !found.as_ref().is_some_and(|found| same(found, value)) {
                wrong.push(format!("{name}: {key}: {found:?} here, {value} there"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let known: BTreeSet<String> = classes().map(str::to_owned).collect();
    assert!(seen.is_subset(&known) && seen.len() >= 20, "only {seen:?}");
}
