//! `config.json`: figures by name, `text_config` over the rest.

use super::error::HuggingFaceError;
use crate::json;
use serde_json::{Map, Value};

/// A longer `config.json` is none; real ones have some kilobytes.
pub const MAX_CONFIG: u64 = 16 << 20;

/// The figures of a model, as `transformers` writes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    values: Map<String, Value>,
    /// `rope_parameters` or the older `rope_scaling`, of the layers with full attention.
    rope: Map<String, Value>,
    class: String,
}

impl Config {
    /// Reads `config.json`.
    ///
    /// ```
    /// let config = formats::huggingface::Config::parse(br#"{"architectures":["LlamaForCausalLM"]}"#).unwrap();
    /// assert_eq!(config.class(), "LlamaForCausalLM");
    /// ```
    ///
    /// # Errors
    /// No JSON object, longer than [`MAX_CONFIG`], or without `architectures`.
    pub fn parse(text: &[u8]) -> Result<Self, HuggingFaceError> {
        if text.len() as u64 > MAX_CONFIG {
            return Err(HuggingFaceError::ConfigTooLong { length: text.len() as u64 });
        }
        let parsed: Value = serde_json::from_slice(text)
            .map_err(|error| HuggingFaceError::Malformed { offset: json::offset(text, &error), problem: json::problem(&error) })?;
        let Value::Object(mut values) = parsed else {
            return Err(HuggingFaceError::Malformed { offset: 0, problem: "no object".to_owned() });
        };
        let class = values.get("architectures").and_then(|classes| classes.get(0)?.as_str()).map(str::to_owned);
        // `ssm_cfg` and `d_model` are the marks of the first Mamba checkpoints, which name no class.
        let class = class.or_else(|| values.contains_key("ssm_cfg").then(|| "MambaLMHeadModel".to_owned()));
        let class = class.ok_or_else(|| HuggingFaceError::Missing { key: "architectures".to_owned() })?;
        for key in ["text_config", "llm_config", "language_config"] {
            if let Some(Value::Object(text)) = values.remove(key) {
                values.extend(text);
            }
        }
        let rope = ["rope_parameters", "rope_scaling"].iter().find_map(|key| values.get(*key)?.as_object());
        let rope = rope.map(|rope| rope.get("full_attention").and_then(Value::as_object).unwrap_or(rope)).cloned().unwrap_or_default();
        Ok(Self { values, rope, class })
    }

    /// The first of `architectures`.
    pub fn class(&self) -> &str {
        &self.class
    }

    /// The value under the first of these names that is there and not null.
    pub(super) fn get(&self, names: &[&str]) -> Option<&Value> {
        names.iter().find_map(|name| self.values.get(*name).filter(|value| !value.is_null()))
    }

    /// A value of the rotary settings; those of later versions of the format stand outside too.
    pub(super) fn rope(&self, name: &str) -> Option<&Value> {
        self.rope.get(name).filter(|value| !value.is_null()).or_else(|| self.get(&[name]))
    }

    /// The kind of rotary scaling, in lower case.
    pub(super) fn rope_type(&self) -> Option<String> {
        let name = ["rope_type", "type"].iter().find_map(|key| self.rope.get(*key)?.as_str());
        name.map(str::to_lowercase)
    }

    pub(super) fn count(&self, names: &[&str]) -> Result<Option<u64>, HuggingFaceError> {
        self.get(names).map(|value| count(names, value)).transpose()
    }

    pub(super) fn need(&self, names: &[&str]) -> Result<u64, HuggingFaceError> {
        self.count(names)?.ok_or_else(|| HuggingFaceError::Missing { key: names.join(" or ") })
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(&[name]).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(super) fn text(&self, names: &[&str]) -> Option<&str> {
        self.get(names)?.as_str()
    }

    /// How the weights are quantised, where they are.
    pub(super) fn quantization(&self) -> Option<&str> {
        let method = self.get(&["quantization_config"])?.get("quant_method");
        Some(method.and_then(Value::as_str).unwrap_or("an unnamed method"))
    }

    /// True where linear layers are BitNet's, ternary and packed, which are described as they are and not converted.
    pub fn is_packed(&self) -> bool {
        self.quantization() == Some("bitnet")
    }

    /// The width of a head: stated, or the stream's over the heads.
    pub(super) fn head_width(&self) -> Result<u64, HuggingFaceError> {
        if let Some(width) = self.count(&["head_dim"])? {
            return Ok(width);
        }
        let (embd, heads) = (self.need(&["hidden_size", "n_embd"])?, self.need(&["num_attention_heads", "n_head"])?);
        embd.checked_div(heads).ok_or_else(|| HuggingFaceError::BadValue {
            key: "num_attention_heads".to_owned(),
            expected: "count above zero",
            found: heads.to_string(),
        })
    }
}

/// A count that fits into 32 bits, as all counts of a GGUF file do.
pub(super) fn count(names: &[&str], value: &Value) -> Result<u64, HuggingFaceError> {
    let found =
        value.as_u64().or_else(|| value.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0).map(|number| number as u64));
    found.filter(|count| *count <= u64::from(u32::MAX)).ok_or_else(|| HuggingFaceError::BadValue {
        key: names.join(" or "),
        expected: "count of at most 32 bits",
        found: shown(value),
    })
}

/// A value in a message, cut short.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
