//! Names and manifests of Ollama's store.
//!
//! Layout: `manifests/HOST/NAMESPACE/MODEL/TAG` is JSON that lists layers by digest, `blobs/sha256-…` are the layers
//! (`types/model/name.go` and `server/manifest.go` of Ollama).

use crate::json;
use serde_json::Value;
use std::fmt;

/// A longer manifest is none; real ones have about a kilobyte.
pub const MAX_MANIFEST: u64 = 1 << 20;

/// A model's name: `llama3.2:1b`, `user/model`, `hf.co/user/model:Q4_K_M`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Registry.
    pub host: String,
    /// Owner; `library` for Ollama's own.
    pub namespace: String,
    /// Model.
    pub model: String,
    /// Version.
    pub tag: String,
}

impl Name {
    /// Reads a name, without `ollama:` before it; what is left out is `registry.ollama.ai`, `library` and `latest`. `None`
    /// for what no name can be: more than three parts, an empty one, or characters that lead out of the store.
    ///
    /// ```
    /// let name = formats::ollama::Name::parse("llama3.2:1b").unwrap();
    /// assert_eq!(name.path(), ["registry.ollama.ai", "library", "llama3.2", "1b"]);
    /// assert!(formats::ollama::Name::parse("../x").is_none());
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, tag) = match text.rsplit_once(':') {
            // A port of the registry is no tag.
            Some((rest, tag)) if !tag.contains('/') => (rest, tag),
            _ => (text, "latest"),
        };
        let parts: Vec<&str> = rest.split('/').collect();
        let (host, namespace, model) = match parts.as_slice() {
            [model] => ("registry.ollama.ai", "library", *model),
            [namespace, model] => ("registry.ollama.ai", *namespace, *model),
            [host, namespace, model] => (*host, *namespace, *model),
            _ => return None,
        };
        let sound = |part: &str, more: &[char]| {
            let known = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter) || more.contains(&letter);
            part.len() <= 350 && part.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_') && part.chars().all(known)
        };
        let all = sound(host, &[':']) && sound(namespace, &[]) && sound(model, &[]) && sound(tag, &[]);
        all.then(|| Self { host: host.to_owned(), namespace: namespace.to_owned(), model: model.to_owned(), tag: tag.to_owned() })
    }

    /// The folders and the file under `manifests`.
    pub fn path(&self) -> [&str; 4] {
        [&self.host, &self.namespace, &self.model, &self.tag]
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}:{}", self.host, self.namespace, self.model, self.tag)
    }
}

/// The layers of a model that an engine loads, as names of files under `blobs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The model.
    pub model: String,
    /// Projectors of images or sound.
    pub projectors: Vec<String>,
    /// LoRA adapters.
    pub adapters: Vec<String>,
}

/// What is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// No JSON.
    #[error("byte {offset}: no manifest of Ollama: {problem}")]
    Malformed {
        /// Offset from the start of the text.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// A layer that is no `sha256:` and 64 digits.
    #[error("no digest of a layer: {found}")]
    BadDigest {
        /// What stands in its place.
        found: String,
    },
    /// No model among the layers.
    #[error("the manifest lists no model of type application/vnd.ollama.image.model")]
    NoModel,
    /// A model in several files.
    #[error("the manifest lists more models than one: {count}")]
    SeveralModels {
        /// How many.
        count: usize,
    },
}

/// Reads a manifest.
///
/// # Errors
/// It is no JSON, lists no model or several, or a digest that is none.
pub fn manifest(text: &[u8]) -> Result<Manifest, ManifestError> {
    let malformed = |offset, problem: &str| ManifestError::Malformed { offset, problem: problem.to_owned() };
    let value: Value = serde_json::from_slice(text).map_err(|error| malformed(json::offset(text, &error), &json::problem(&error)))?;
    let layers = value.get("layers").and_then(Value::as_array).ok_or_else(|| malformed(0, "no list of layers"))?;
    let mut manifest = Manifest::default();
    let mut models = Vec::new();
    for layer in layers {
        let of = match layer.get("mediaType").and_then(Value::as_str) {
            Some("application/vnd.ollama.image.model") => &mut models,
            Some("application/vnd.ollama.image.projector") => &mut manifest.projectors,
            Some("application/vnd.ollama.image.adapter") => &mut manifest.adapters,
            _ => continue,
        };
        of.push(blob(layer.get("digest").unwrap_or(&Value::Null))?);
    }
    match models.len() {
        0 => Err(ManifestError::NoModel),
        1 => Ok(Manifest { model: models.remove(0), ..manifest }),
        count => Err(ManifestError::SeveralModels { count }),
    }
}

/// The name of a blob's file.
fn blob(digest: &Value) -> Result<String, ManifestError> {
    let hex = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:").or_else(|| digest.strip_prefix("sha256-")));
    let hex = hex.filter(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let hex = hex.ok_or_else(|| ManifestError::BadDigest { found: digest.to_string().chars().take(100).collect() })?;
    Ok(format!("sha256-{}", hex.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_defaults_and_stay_in_the_store() {
        let name = |text: &str| Name::parse(text).map(|name| name.to_string());
        assert_eq!(name("llama3.2").unwrap(), "registry.ollama.ai/library/llama3.2:latest");
        assert_eq!(name("me/mine:q4").unwrap(), "registry.ollama.ai/me/mine:q4");
        assert_eq!(name("hf.co/a/b-GGUF:Q4_K_M").unwrap(), "hf.co/a/b-GGUF:Q4_K_M");
        assert_eq!(name("localhost:5000/a/b").unwrap(), "localhost:5000/a/b:latest");
        for text in ["", ":", "a:", "/a", "a/../b", "a/b/c/d", "..", "a b", "a\\b", "a/b:c/d"] {
            assert_eq!(name(text), None, "{text}");
        }
    }

    #[test]
    fn a_manifest_lists_what_is_loaded() {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let layer =
            |kind: &str, digest: &str| format!(r#"{{"mediaType":"application/vnd.ollama.image.{kind}","digest":"{digest}","size":1}}"#);
        let text = |layers: &[String]| format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, layers.join(","));
        let read = |text: &str| manifest(text.as_bytes());
        let good = read(&text(&[layer("model", &digest("a")), layer("template", "x"), layer("projector", &digest("B"))])).unwrap();
        assert_eq!((good.model, good.projectors), (format!("sha256-{}", "a".repeat(64)), vec![format!("sha256-{}", "b".repeat(64))]));
        let error = |text: &str| read(text).unwrap_err().to_string();
        insta::assert_snapshot!(error("{}"), @"byte 0: no manifest of Ollama: no list of layers");
        insta::assert_snapshot!(error("{\"layers\" "), @"byte 9: no manifest of Ollama: EOF while parsing an object");
        insta::assert_snapshot!(error(&text(&[layer("license", &digest("a"))])), @"the manifest lists no model of type application/vnd.ollama.image.model");
        insta::assert_snapshot!(error(&text(&[layer("model", "sha256:../../x")])), @r#"no digest of a layer: "sha256:../../x""#);
        insta::assert_snapshot!(error(&text(&[layer("model", &digest("a")), layer("model", &digest("b"))])), @"the manifest lists more models than one: 2");
    }
}
