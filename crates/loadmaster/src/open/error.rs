//! Why a model cannot be opened, and what to do about it.

use super::remote::RemoteError;
use formats::gguf::GgufError;
use formats::ollama::ManifestError;
use formats::{DescribeError, FileType, HuggingFaceError, SafetensorsError};
use spec::Bytes;
use std::path::PathBuf;

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
        [] => ", without any .gguf file, and without safetensors beside a config.json".to_owned(),
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
    /// Standard input.
    #[error(
        "a model cannot be read from standard input: its tensors are checked against the length of the file, which a pipe does not tell"
    )]
    Stdin,
    /// A safetensors file that breaks its own format.
    #[error("{}: {source}", path.display())]
    BrokenSafetensors {
        /// The path.
        path: PathBuf,
        /// What is wrong, and at which byte.
        source: SafetensorsError,
    },
    /// Files of the Hugging Face hub that make no model that is known here.
    #[error("{}: {source}", path.display())]
    Hub {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        source: HuggingFaceError,
    },
    /// A file beside the weights that is no JSON object.
    #[error("{}: {problem}", path.display())]
    BrokenSettings {
        /// The path.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
    /// A text that is longer than any of its kind.
    #[error("{}: longer than the {limit} that such a file may have: {size}", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// The limit.
        limit: Bytes,
        /// Its length.
        size: Bytes,
    },
    /// A file type for what is a GGUF file already.
    #[error("{}: --quant {quant} plans a file that does not exist yet, and this is a GGUF file already", path.display())]
    AlreadyConverted {
        /// The path.
        path: PathBuf,
        /// The file type asked for.
        quant: FileType,
    },
    /// Weights that no engine loads before they are converted.
    #[error("{}: not a GGUF file yet", path.display())]
    NotConverted {
        /// The folder.
        path: PathBuf,
    },
    /// A model on another machine.
    #[error("{url}: not a file on this machine")]
    NotFetched {
        /// Its URL.
        url: String,
    },
    /// A name that neither a file nor a known model has.
    #[error("{name}: no such file or folder, and no known model of that name")]
    UnknownModel {
        /// What was given.
        name: String,
        /// Known models with names like it, best first.
        nearest: Vec<&'static str>,
    },
    /// A text after `size:` that is no size, or a size that no shape is typical of.
    #[error("{reason}")]
    Size {
        /// What is wrong.
        reason: String,
        /// The known model that is nearest.
        nearest: Option<&'static str>,
    },
    /// A known model that cannot be in the file type asked for.
    #[error(transparent)]
    Shape(#[from] crate::known::ShapeError),
    /// A model that is only known by name.
    #[error("{name}: a known shape, not a file on this machine")]
    NoFile {
        /// Its name.
        name: String,
        /// Where its weights were published.
        source_name: String,
    },
    /// A server that does not hand out the header.
    #[error("{url}: {source}")]
    Remote {
        /// The URL.
        url: String,
        /// What happened.
        source: RemoteError,
    },
    /// A text that is no name of Ollama's.
    #[error("no name of a model of Ollama: {name}")]
    OllamaName {
        /// What was given.
        name: String,
    },
    /// A model that Ollama does not have here.
    #[error("no model {name} in Ollama's store{}", match folders.as_slice() {
        [] => " (no home folder is known)".to_owned(),
        folders => format!(", looked in {}", folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")),
    })]
    NotInOllama {
        /// The name, complete.
        name: String,
        /// The stores that were looked into.
        folders: Vec<PathBuf>,
    },
    /// A manifest that leads to no model.
    #[error("{}: {source}", path.display())]
    Manifest {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        source: ManifestError,
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
    /// The exit code that this failure has: wrong usage where no file can make it right.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Stdin | Self::AlreadyConverted { .. } | Self::OllamaName { .. } | Self::Size { .. } | Self::Shape(_) => {
                crate::error::exit::USAGE
            }
            _ => crate::error::exit::UNREADABLE,
        }
    }

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
            Self::BrokenSafetensors { source, .. } => return source.hint().map(str::to_owned),
            Self::Hub { source, .. } => return source.hint().map(str::to_owned),
            Self::Remote { source, .. } => return source.hint().map(str::to_owned),
            Self::Stdin => "write it to a file first, or name its URL".into(),
            Self::AlreadyConverted { .. } => "leave --quant out; `llama-quantize --dry-run` tells the size of another type".into(),
            Self::NotConverted { .. } => {
                "make one with llama.cpp's convert_hf_to_gguf.py, and llama-quantize for another type; `memory` and `plan` work without"
                    .into()
            }
            Self::NotFetched { .. } => "fetch it first, then name the file; `memory` and `plan` work with the URL".into(),
            Self::UnknownModel { nearest, .. } if nearest.is_empty() => "name a file, or a model such as qwen3-8b or llama-3.1-8b".into(),
            Self::UnknownModel { nearest, .. } => format!("known are {}", nearest.join(", ")),
            Self::Size { nearest, .. } => format!("the nearest known model is {}", nearest.as_ref()?),
            Self::NoFile { source_name, .. } => {
                format!("fetch a GGUF file of {source_name}, then name the file; `memory` and `plan` work without")
            }
            Self::OllamaName { .. } => "`ollama list` shows the names, such as ollama:llama3.2:1b".into(),
            Self::NotInOllama { .. } => "`ollama list` shows what is there; OLLAMA_MODELS says where another store is".into(),
            Self::Manifest { .. }
            | Self::TooLong { .. }
            | Self::NotAFile { .. }
            | Self::BrokenSettings { .. }
            | Self::Unreadable { .. }
            | Self::Describe { .. }
            | Self::Shape(_) => {
                return None;
            }
        })
    }
}
