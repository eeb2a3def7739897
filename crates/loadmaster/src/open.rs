//! From what a person names to a [`spec::Model`]: shards found, headers read, tensor data left alone.
//!
//! A GGUF file (of a split model any shard), a folder of safetensors with `config.json` (of a packed BitNet model as it is, else as the
//! GGUF file that it becomes), a model of Ollama's store
//! (`ollama:NAME`, or the path of a manifest or blob), a URL of a GGUF file, of which only the header is fetched, or, where nothing of
//! that name is there, the name of a [known model](crate::known) or a size (`size:8B`).
//!
//! Headers are read, not mapped: a mapped file that another program shortens kills its reader with SIGBUS, while a read
//! ends in an error. Only as much is read as the headers are long.

mod assumed;
mod error;
mod hub;
mod ollama;
mod prefix;
mod remote;

pub use assumed::SIZE;
pub use error::OpenError;
pub(crate) use hub::FolderText;
pub use hub::{is_folder as is_hub_folder, is_packed as is_packed_folder};
pub use ollama::{is_manifest, stores as ollama_stores};
pub use remote::RemoteError;

use crate::known::KnownModel;
use formats::gguf::Gguf;
use formats::{FileType, describe, gguf, shards};
use prefix::{OnDisk, Prefix, header_of};
use spec::{Attachment, AttachmentKind, Model};
use std::path::{Path, PathBuf};

/// A model and the files it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// The model.
    pub model: Model,
    /// Its files in order; one, or every shard. Of a remote model, URLs; of one that is not converted yet, its folder.
    pub files: Vec<PathBuf>,
    /// What an engine can make of them.
    pub origin: Origin,
    /// Files that belong to the model and are not part of it.
    pub beside: Vec<(AttachmentKind, PathBuf)>,
}

/// Where a model came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Files on this machine that an engine can load: GGUF, or packed safetensors of a BitNet model.
    Local,
    /// Weights that are not a GGUF file yet: the model is the one that they become.
    Planned,
    /// GGUF files elsewhere, of which the headers were fetched.
    Remote,
    /// No file: the published shape of a model that was named, or of the one that is typical of a size.
    Assumed(&'static KnownModel),
}

impl Opened {
    /// The path that an engine is given: the first file finds the others. Of safetensors their folder.
    pub fn first(&self) -> PathBuf {
        let first = self.files.first().cloned().unwrap_or_default();
        match self.origin {
            Origin::Local if hub::is_one(&first) => hub::folder(&first).to_owned(),
            _ => first,
        }
    }
}

impl Origin {
    /// Nothing where an engine can load the model.
    ///
    /// # Errors
    /// The model is no GGUF file on this machine; says how to make it one.
    pub fn check_runnable(self, path: &Path) -> Result<(), OpenError> {
        match self {
            Self::Local => Ok(()),
            Self::Planned => Err(OpenError::NotConverted { path: path.to_owned() }),
            Self::Remote => Err(OpenError::NotFetched { url: path.display().to_string() }),
            Self::Assumed(known) => Err(OpenError::NoFile { name: known.name.clone(), source_name: known.source.clone() }),
        }
    }
}

/// Opens what a person named; see the module for what that may be.
///
/// # Errors
/// A file or a shard is missing, is no file, cannot be read or fetched, or is no valid model.
pub fn open(name: &Path) -> Result<Model, OpenError> {
    Ok(open_files(name)?.model)
}

/// As [`open`], with the files.
///
/// # Errors
/// As [`open`].
pub fn open_files(name: &Path) -> Result<Opened, OpenError> {
    open_as(name, None)
}

/// As [`open_files`], and weights that are not converted yet, or are only assumed, as the GGUF file of this type that they would become.
///
/// # Errors
/// As [`open`]; also a file type for a model that is a GGUF file already.
pub fn open_as(name: &Path, quant: Option<FileType>) -> Result<Opened, OpenError> {
    let text = name.to_str().unwrap_or_default();
    if text == "-" {
        return Err(OpenError::Stdin);
    }
    if hub::is_one(name) {
        return hub::open(name, quant);
    }
    if let Some(opened) = assumed::open(name, quant)? {
        return Ok(opened);
    }
    let opened = match text.strip_prefix("ollama:") {
        Some(model) => ollama::by_name(model)?,
        None if remote::is_url(text) => remote::open(text)?,
        None if ollama::is_manifest(name) => ollama::by_manifest(name)?,
        None => open_gguf(name)?,
    };
    match quant {
        Some(quant) => Err(OpenError::AlreadyConverted { path: name.to_owned(), quant }),
        None => Ok(opened),
    }
}

/// Opens GGUF files on this machine.
fn open_gguf(path: &Path) -> Result<Opened, OpenError> {
    let files = siblings(path)?;
    let headers: Vec<Gguf> = files.iter().map(|file| header(file)).collect::<Result<_, _>>()?;
    let first = files.first().map_or(path, PathBuf::as_path).to_owned();
    let model = describe(&headers).map_err(|source| OpenError::Describe { path: first, source })?;
    Ok(Opened { model, files, origin: Origin::Local, beside: Vec::new() })
}

/// Opens what is loaded beside a model: a projector, an adapter, a control vector.
///
/// # Errors
/// The file is missing, is no file, cannot be read, or is not of this kind.
pub fn open_attachment(path: &Path, kind: AttachmentKind) -> Result<Attachment, OpenError> {
    check_file(path)?;
    let header = header(path)?;
    formats::describe::attachment(&header, kind).map_err(|source| OpenError::Describe { path: path.to_owned(), source })
}

/// The files with the weights of a model that an engine loads, in the order of [`Model::files`](spec::Model).
pub(crate) fn weight_files(path: &Path) -> Result<Vec<PathBuf>, OpenError> {
    if hub::is_one(path) { hub::weights(hub::folder(path)) } else { siblings(path) }
}

/// The files of the model that `path` belongs to, in order; each is known to be a file.
fn siblings(path: &Path) -> Result<Vec<PathBuf>, OpenError> {
    check_file(path)?;
    let Some(shard) = path.file_name().and_then(|name| shards::parse(name.to_str()?)) else {
        return Ok(vec![path.to_owned()]);
    };
    let mut files = Vec::new();
    for (number, name) in (1..).zip(shard.names()) {
        let file = path.with_file_name(name);
        match check_file(&file) {
            Ok(()) => files.push(file),
            Err(OpenError::NotFound { path }) => return Err(OpenError::MissingShard { path, number, count: shard.count }),
            Err(other) => return Err(other),
        }
    }
    Ok(files)
}

/// Refuses what is no regular file before it is opened: opening a pipe would wait for a writer.
fn check_file(path: &Path) -> Result<(), OpenError> {
    let about = std::fs::metadata(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => OpenError::NotFound { path: path.to_owned() },
        _ => OpenError::Unreadable { path: path.to_owned(), source },
    })?;
    if about.is_dir() {
        return Err(OpenError::Directory { path: path.to_owned(), models: models_in(path) });
    }
    if !about.is_file() {
        return Err(OpenError::NotAFile { path: path.to_owned() });
    }
    if about.len() == 0 {
        return Err(OpenError::Empty { path: path.to_owned() });
    }
    Ok(())
}

/// Names of the models in a folder, sorted; of a split model its first file only.
fn models_in(folder: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let first = |name: &str| name.ends_with(".gguf") && shards::parse(name).is_none_or(|shard| shard.number == 1);
    let mut names: Vec<PathBuf> = names.filter(|name| name.to_str().is_some_and(first)).map(PathBuf::from).collect();
    names.sort();
    names
}

/// The header of one file on this machine.
fn header(path: &Path) -> Result<Gguf, OpenError> {
    gguf_header(&mut OnDisk::open(path)?)
}

/// The header of a GGUF file wherever it lies.
fn gguf_header(file: &mut dyn Prefix) -> Result<Gguf, OpenError> {
    let broken = |path: PathBuf, source| OpenError::Broken { path, source };
    header_of(file, gguf::read, gguf::GgufError::need_more, broken)
}

#[cfg(test)]
mod tests;
