//! What can be wrong with a configuration file, and where.

use super::VERSION;
use crate::error::exit;
use std::fmt;
use std::path::PathBuf;

/// A configuration file that cannot be used.
#[derive(Debug)]
pub struct ConfigError {
    /// The file; `None` for a text.
    pub path: Option<PathBuf>,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong.
    pub kind: ConfigErrorKind,
}

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigErrorKind {
    /// It cannot be read.
    #[error("cannot read the configuration: {0}")]
    Read(#[source] std::io::Error),
    /// It is too large to be a configuration.
    #[error("no configuration: {size} bytes, at most {most} are read")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The largest size that is read.
        most: u64,
    },
    /// It is no text.
    #[error("no configuration: byte {offset} is no UTF-8")]
    NotUtf8 {
        /// The first byte that is not.
        offset: usize,
    },
    /// It is neither TOML nor JSON.
    #[error("not {format}: {reason}")]
    Syntax {
        /// `TOML` or `JSON`, by its first character.
        format: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// It has no version.
    #[error("no version: the key loadmaster is missing")]
    NoVersion,
    /// It was written by a newer program.
    #[error("version {found} is newer than this program, which reads up to {VERSION}")]
    Newer {
        /// The version in the file.
        found: u64,
    },
    /// A key that does not exist.
    #[error("unknown key {key}{}", nearest.as_ref().map_or(String::new(), |key| format!(", did you mean {key}?")))]
    UnknownKey {
        /// The key, with its table.
        key: String,
        /// The nearest key that exists.
        nearest: Option<String>,
    },
    /// A value of the wrong kind or out of range.
    #[error("{key}: {reason}")]
    Value {
        /// The key, with its table.
        key: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        self.kind.fmt(f)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            ConfigErrorKind::Read(source) => Some(source),
            _ => None,
        }
    }
}

impl ConfigError {
    /// The exit code: unreadable where the file cannot be read, usage where its content is wrong.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ConfigErrorKind::Read(_) | ConfigErrorKind::TooLarge { .. } | ConfigErrorKind::NotUtf8 { .. } => exit::UNREADABLE,
            _ => exit::USAGE,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match &self.kind {
            ConfigErrorKind::NoVersion => format!("begin the file with `loadmaster = {VERSION}`"),
            ConfigErrorKind::Newer { .. } => "update loadmaster, or write the file again with this version".into(),
            ConfigErrorKind::TooLarge { .. } | ConfigErrorKind::NotUtf8 { .. } => {
                "is this the model? --config takes a TOML or JSON file".into()
            }
            _ => return None,
        })
    }
}
