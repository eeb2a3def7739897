//! What a folder of the hub says about text: tokenizer, chat template, and the tokens that end a text.

use super::{OpenError, text};
use serde_json::Value;
use std::path::Path;

/// A longer `tokenizer.json` is none; the largest published ones have some 35 MB.
const MAX_TOKENIZER: u64 = 256 << 20;
/// A longer file of settings, or template, is none.
const MAX_SETTINGS: u64 = 16 << 20;
/// More ends than any model has.
const MAX_ENDS: usize = 64;

/// The files beside the weights, as far as texts need them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FolderText {
    /// `tokenizer.json`.
    pub(crate) tokenizer: Vec<u8>,
    /// `eos_token_id` of `generation_config.json`, else of `config.json`.
    pub(crate) ends: Vec<u32>,
    /// `chat_template.jinja`, else that of `tokenizer_config.json`; of several the default one.
    pub(crate) chat_template: Option<String>,
    /// The mark at the beginning of a text as it is spelled; empty where there is none.
    pub(crate) bos: String,
    /// The mark at its end.
    pub(crate) eos: String,
}

impl FolderText {
    /// Reads the files of a folder.
    ///
    /// # Errors
    /// There is no `tokenizer.json`, or a file that is there cannot be read or is no JSON object.
    pub(crate) fn read(folder: &Path) -> Result<Self, OpenError> {
        let tokenizer = text(&folder.join("tokenizer.json"), MAX_TOKENIZER)?;
        let settings = settings(folder, "tokenizer_config.json")?;
        let generation = settings_ends(folder, "generation_config.json")?;
        let ends = if generation.is_empty() { settings_ends(folder, "config.json")? } else { generation };
        let spelled = |key: &str| settings.as_ref().and_then(|settings| spelling(settings.get(key)?)).unwrap_or_default();
        let template = folder.join("chat_template.jinja");
        let chat_template = match template.is_file() {
            true => Some(String::from_utf8_lossy(&text(&template, MAX_SETTINGS)?).into_owned()),
            false => settings.as_ref().and_then(|settings| default_template(settings.get("chat_template")?)),
        };
        Ok(Self { tokenizer, ends, chat_template, bos: spelled("bos_token"), eos: spelled("eos_token") })
    }
}

/// A JSON object; `None` where there is no such file.
fn settings(folder: &Path, name: &str) -> Result<Option<Value>, OpenError> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let parsed: Result<Value, _> = serde_json::from_slice(&text(&path, MAX_SETTINGS)?);
    match parsed {
        Ok(value) if value.is_object() => Ok(Some(value)),
        Ok(_) => Err(OpenError::BrokenSettings { path, problem: "no object".to_owned() }),
        Err(error) => Err(OpenError::BrokenSettings { path, problem: error.to_string() }),
    }
}

/// `eos_token_id`: one number, or several.
fn settings_ends(folder: &Path, name: &str) -> Result<Vec<u32>, OpenError> {
    let settings = settings(folder, name)?;
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    Ok(match settings.as_ref().and_then(|settings| settings.get("eos_token_id")) {
        Some(Value::Array(ids)) => ids.iter().take(MAX_ENDS).filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    })
}

/// A mark: a text, or an object with its `content`.
fn spelling(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// A template, or of a list of named ones that called `default`.
fn default_template(value: &Value) -> Option<String> {
    let Value::Array(list) = value else { return value.as_str().map(str::to_owned) };
    let named = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
    list.iter().find(named).or(list.first())?.get("template")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<FolderText, OpenError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        FolderText::read(folder.path())
    }

    #[test]
    fn marks_templates_and_ends_are_found_in_all_their_forms() {
        let found = read(&[
            ("tokenizer.json", "{}"),
            ("config.json", r#"{"eos_token_id": 7}"#),
            ("tokenizer_config.json", r#"{"bos_token": {"content": "<b>"}, "eos_token": "<e>", "chat_template": "plain"}"#),
        ]);
        let expected = FolderText {
            tokenizer: b"{}".to_vec(),
            ends: vec![7],
            chat_template: Some("plain".into()),
            bos: "<b>".into(),
            eos: "<e>".into(),
        };
        assert_eq!(found.unwrap(), expected);
        let found = read(&[
            ("tokenizer.json", "{}"),
            ("generation_config.json", r#"{"eos_token_id": [9, -1, 8]}"#),
            ("config.json", r#"{"eos_token_id": 7}"#),
            ("tokenizer_config.json", r#"{"chat_template": [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]}"#),
        ]);
        let found = found.unwrap();
        assert_eq!((found.ends, found.chat_template.as_deref(), found.bos.as_str()), (vec![9, 8], Some("d"), ""));
        let found =
            read(&[("tokenizer.json", "{}"), ("chat_template.jinja", "file"), ("tokenizer_config.json", r#"{"chat_template": "x"}"#)]);
        assert_eq!(found.unwrap().chat_template.as_deref(), Some("file"));
    }

    #[test]
    fn what_is_missing_or_broken_is_named() {
        assert!(read(&[]).unwrap_err().to_string().ends_with("tokenizer.json: no such file"));
        let error = read(&[("tokenizer.json", "{}"), ("tokenizer_config.json", "[]")]).unwrap_err().to_string();
        assert!(error.ends_with("tokenizer_config.json: no object"), "{error}");
        let error = read(&[("tokenizer.json", "{}"), ("generation_config.json", "{")]).unwrap_err().to_string();
        assert!(error.contains("generation_config.json: EOF"), "{error}");
    }
}
