//! Models by name and by size, without a file: published shapes that many people run.
//!
//! `data/models.csv` names them; each row points to a shape of [`synthetic`], whose table or outline gives every figure and the
//! repository it was published in. The model is made as any other is: a GGUF header is written and read again, so that all that
//! follows works unchanged. What it cannot know is what a file may do differently; [`crate::open::Origin::Assumed`] says so.
//!
//! ```
//! let known = loadmaster::known::find("Qwen/Qwen3-8B").unwrap();
//! assert_eq!(known.name, "qwen3-8b");
//! assert_eq!(loadmaster::known::find("llama3.1:8b").unwrap().name, "llama-3.1-8b");
//! let model = known.model(loadmaster::formats::FileType::Q4_K_M).unwrap();
//! assert_eq!((model.n_layer(), model.n_embd), (36, 4096));
//! ```

pub mod precision;
mod size;

pub use size::{ModelSize, NoTypicalShape, typical};

use formats::FileType;
use spec::Model;
use std::sync::OnceLock;

const TABLE: &str = include_str!("../data/models.csv");

/// A model that is known by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownModel {
    /// Its name: `qwen3-8b`.
    pub name: String,
    /// What people call it: `Qwen3 8B`.
    pub title: String,
    /// The shape, of [`synthetic::preset`] or [`synthetic::outline`].
    pub shape: String,
    /// Year and month of its publication: `2025-04`.
    pub released: String,
    /// Other names of it, and models of the same shape.
    pub aliases: Vec<String>,
    /// Where the figures were published: a repository of the Hugging Face hub, with a remark where they could not be checked there.
    pub source: String,
    /// `qwen3`, `llama`, ...
    pub architecture: String,
}

/// Why a shape makes no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shape {shape} makes no {file_type} file: {reason}")]
pub struct ShapeError {
    /// The shape.
    pub shape: String,
    /// The file type asked for.
    pub file_type: FileType,
    /// What stands against it.
    pub reason: String,
}

/// A name that no known model has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no known model {name}")]
pub struct UnknownModel {
    /// What was given.
    pub name: String,
    /// The nearest names, best first; empty where none is like it.
    pub nearest: Vec<&'static str>,
}

/// Every known model, in the order of the table.
pub fn models() -> &'static [KnownModel] {
    static MODELS: OnceLock<Vec<KnownModel>> = OnceLock::new();
    MODELS.get_or_init(|| read(TABLE).unwrap_or_default())
}

/// The model of this name: its own, an alias, or the repository of its figures, whatever the case and the separators, with or without
/// what finetunes for conversation append (`-Instruct`, `-it`, `-GGUF`, ...).
///
/// # Errors
/// No known model has the name; says which are like it.
pub fn find(name: &str) -> Result<&'static KnownModel, UnknownModel> {
    let wanted = plain(name);
    let has = |model: &&KnownModel| names(model).any(|known| plain(known) == wanted);
    models().iter().find(has).ok_or_else(|| UnknownModel { name: name.to_owned(), nearest: nearest(&wanted) })
}

/// All names of a model, its own first.
fn names(model: &KnownModel) -> impl Iterator<Item = &str> {
    let repository = model.source.split(' ').next().unwrap_or_default();
    std::iter::once(model.name.as_str()).chain(model.aliases.iter().map(String::as_str)).chain(std::iter::once(repository))
}

/// Endings that name a finetune or a container and no shape.
const ENDINGS: &[&str] = &["instruct", "chat", "it", "base", "pt", "hf", "gguf", "latest", "thinking"];

/// A name without organisation, case, separators and such endings: `llama3.18b` of `meta-llama/Llama-3.1-8B-Instruct`.
fn plain(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').filter(|word| !word.is_empty()).collect();
    let kept = words.iter().rposition(|word| !ENDINGS.contains(word)).map_or(words.len(), |last| last + 1);
    let mut words = words;
    words.truncate(kept);
    words.concat()
}

/// Names like this one, at most three: of the models alone, for aliases would say the same twice.
fn nearest(wanted: &str) -> Vec<&'static str> {
    let likeness = |model: &KnownModel| names(model).map(|known| strsim::jaro_winkler(&plain(known), wanted)).fold(0.0, f64::max);
    let mut found: Vec<(f64, &'static str)> = models().iter().map(|model| (likeness(model), model.name.as_str())).collect();
    found.retain(|(likeness, _)| *likeness > 0.75);
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    found.into_iter().take(3).map(|(_, name)| name).collect()
}

impl KnownModel {
    /// The model as the file of this type that llama-quantize would make of it: every tensor in its size, no weights, no table of
    /// tokens.
    ///
    /// # Errors
    /// The type has no place for one of the tensors.
    pub fn model(&self, file_type: FileType) -> Result<Model, ShapeError> {
        Ok(Model { name: Some(self.name.clone()), ..shape(&self.shape, file_type)? })
    }

    /// The type that the weights were published in, where that is no 16-bit type: a file in another type is larger and no better.
    pub fn native(&self) -> Option<FileType> {
        match self.architecture.as_str() {
            "gpt-oss" => Some(FileType::MXFP4_MOE),
            "bitnet" => Some(FileType::TQ2_0),
            _ => None,
        }
    }

    /// The name that its file has where people share it: `qwen3-8b-Q4_K_M.gguf`.
    pub fn file_name(&self, file_type: FileType) -> String {
        format!("{}-{file_type}.gguf", self.name)
    }
}

/// The model of a shape of [`synthetic`], by way of a GGUF header.
///
/// # Errors
/// No such shape, or a type that has no place for one of its tensors.
pub fn shape(name: &str, file_type: FileType) -> Result<Model, ShapeError> {
    let failed = |reason: String| ShapeError { shape: name.to_owned(), file_type, reason };
    // A table of tokens changes nothing that is planned but the host program's own memory, and takes most of the time.
    let options = synthetic::Options { vocabulary: synthetic::Vocabulary::None, ..synthetic::Options::default() };
    let file = match (synthetic::preset(name), synthetic::outline(name)) {
        (Some(shape), _) => synthetic::gguf(&shape, file_type, &options),
        (None, Some(outline)) => synthetic::outline_file(&outline, file_type, &options),
        (None, None) => return Err(failed("there is no such shape".to_owned())),
    };
    let file = file.map_err(|error| failed(error.to_string()))?;
    let gguf = formats::gguf::read(&file.header, file.size).map_err(|error| failed(error.to_string()))?;
    formats::describe(&[gguf]).map_err(|error| failed(error.to_string()))
}

/// The rows of the table.
///
/// # Errors
/// The row that is none, and why.
fn read(text: &str) -> Result<Vec<KnownModel>, String> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let mut models = Vec::new();
    for (index, record) in reader.records().enumerate() {
        let at = |problem: String| format!("models.csv, row {}: {problem}", index + 1);
        let record = record.map_err(|error| at(error.to_string()))?;
        let cell = |column: usize| record.get(column).unwrap_or_default().to_owned();
        let shape = cell(2);
        let (source, architecture) = match (synthetic::preset(&shape), synthetic::outline(&shape)) {
            (Some(shape), _) => (shape.source, shape.architecture.to_string()),
            (None, Some(outline)) => (outline.source, outline.architecture),
            (None, None) => return Err(at(format!("no shape {shape:?}"))),
        };
        let aliases = cell(4).split_ascii_whitespace().map(str::to_owned).collect();
        models.push(KnownModel { name: cell(0), title: cell(1), shape, released: cell(3), aliases, source, architecture });
    }
    Ok(models)
}

#[cfg(test)]
mod tests;
