//! From a path to a [`spec::Model`]: shards found, headers read, tensor data left alone.
//!
//! Headers are read, not mapped: a mapped file that another program shortens kills its reader with SIGBUS, while a read
//! ends in an error. Only as much is read as the headers are long.

use formats::gguf::{Gguf, GgufError};
use formats::{DescribeError, describe, gguf, shards};
use spec::{Attachment, AttachmentKind, Bytes, Model};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Read at first: enough for most headers whose vocabulary is small.
const FIRST_READ: u64 = 1 << 20;

/// How much more is read each time that a header goes on: few rounds, little read in vain.
const GROWTH: u64 = 4;

/// A longer header is no header. Vocabularies of a million tokens stay far below.
const MAX_HEADER: u64 = 1 << 30;

/// A model and the files it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// The model.
    pub model: Model,
    /// Its files in order; one, or every shard.
    pub files: Vec<PathBuf>,
}

impl Opened {
    /// The path that an engine is given: the first file finds the others.
    pub fn first(&self) -> PathBuf {
        self.files.first().cloned().unwrap_or_default()
    }
}

/// Why a model cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such file.
    #[error("{}: no such file", path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// A folder where a file is meant.
    #[error("{}: is a directory{}", path.display(), match models.as_slice() {
        [] => ", without any .gguf file".to_owned(),
        [model] => format!(", holding {}", model.display()),
        [model, ..] => format!(", holding {} models, {} among them", models.len(), model.display()),
    })]
    Directory {
        /// The path.
        path: PathBuf,
        /// File names of the models in it.
        models: Vec<PathBuf>,
    },
    /// A pipe, socket or device.
    #[error("{}: not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file of zero bytes.
    #[error("{}: empty file", path.display())]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// The system does not let us read it.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that breaks its own format.
    #[error("{}: {source}", path.display())]
    Broken {
        /// The path.
        path: PathBuf,
        /// What is wrong, and at which byte.
        source: GgufError,
    },
    /// A shard that is not there.
    #[error("{}: shard {number} of {count} is missing", path.display())]
    MissingShard {
        /// Where it should be.
        path: PathBuf,
        /// Its number, from 1.
        number: u32,
        /// How many there are.
        count: u32,
    },
    /// Headers that describe no model.
    #[error("{}: {source}", path.display())]
    Describe {
        /// The first file.
        path: PathBuf,
        /// What is wrong, and with which key or tensor.
        source: DescribeError,
    },
}

impl OpenError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotFound { path } => match path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() && !folder.exists() => format!("{} does not exist either", folder.display()),
                _ => "check the spelling of the path".into(),
            },
            Self::Directory { .. } => "name a file in it".into(),
            Self::Empty { .. } => "the download did not begin, or failed: fetch it again".into(),
            Self::MissingShard { .. } => "all shards must lie in one folder under their original names".into(),
            Self::Broken { source, .. } => return source.hint().map(str::to_owned),
            Self::NotAFile { .. } | Self::Unreadable { .. } | Self::Describe { .. } => return None,
        })
    }
}

/// Opens a model file; of a split model any shard, the others are found by their names.
///
/// # Errors
/// The file or a shard is missing, is no file, cannot be read, or is no valid model.
pub fn open(path: &Path) -> Result<Model, OpenError> {
    Ok(open_files(path)?.model)
}

/// As [`open`], with the files.
///
/// # Errors
/// As [`open`].
pub fn open_files(path: &Path) -> Result<Opened, OpenError> {
    let files = siblings(path)?;
    let headers: Vec<Gguf> = files.iter().map(|file| header(file)).collect::<Result<_, _>>()?;
    let first = files.first().map_or(path, PathBuf::as_path).to_owned();
    let model = describe(&headers).map_err(|source| OpenError::Describe { path: first, source })?;
    Ok(Opened { model, files })
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

/// The header of one file, read in growing pieces until it is complete.
fn header(path: &Path) -> Result<Gguf, OpenError> {
    let unreadable = |source| OpenError::Unreadable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let mut prefix = Vec::new();
    let mut target = FIRST_READ;
    loop {
        let more = target.min(size).saturating_sub(prefix.len() as u64);
        let before = prefix.len();
        file.by_ref().take(more).read_to_end(&mut prefix).map_err(unreadable)?;
        // A file that shrinks while it is read ends where it ends now.
        let ended = prefix.len() - before < usize::try_from(more).unwrap_or(usize::MAX);
        let size = if ended { prefix.len() as u64 } else { size };
        match gguf::read(&prefix, Bytes::new(size)) {
            Ok(header) => return Ok(header),
            Err(source) => match source.need_more() {
                Some(at_least) if !ended && (prefix.len() as u64) < size && at_least.get() <= MAX_HEADER => {
                    target = at_least.get().max(prefix.len() as u64 * GROWTH).min(MAX_HEADER);
                    // The limit is reached and the header goes on.
                    if target <= prefix.len() as u64 {
                        return Err(OpenError::Broken { path: path.to_owned(), source });
                    }
                }
                _ => return Err(OpenError::Broken { path: path.to_owned(), source }),
            },
        }
    }
}

#[cfg(test)]
mod tests;
