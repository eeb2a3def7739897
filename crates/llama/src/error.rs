//! What can go wrong between us and the engine.

use crate::protocol::FailureKind;
use std::path::PathBuf;

/// The engine could not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LlamaError {
    /// The file could not be loaded as a model.
    #[error("{}: not loaded: {log}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// The engine's words about it.
        log: String,
    },
    /// Memory was refused.
    #[error("memory refused: {log}")]
    Memory {
        /// The engine's words about it.
        log: String,
    },
    /// The context could not be made for another reason than memory.
    #[error("no context: {log}")]
    Context {
        /// The engine's words about it.
        log: String,
    },
    /// A setting is outside of what the engine takes.
    #[error("{setting}: {reason}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// The prompt cannot be used.
    #[error("prompt: {reason}")]
    Prompt {
        /// What is wrong with it.
        reason: String,
    },
    /// The engine failed while computing.
    #[error("the engine failed while computing: {log}")]
    Compute {
        /// The engine's words about it.
        log: String,
    },
    /// The engine uses instructions that this CPU lacks.
    #[error("the engine was built for a CPU with {}, which this one lacks; run ./x setup and build again on this machine", missing.join(", "))]
    Cpu {
        /// What is missing, in the kernel's spelling.
        missing: Vec<String>,
    },
    /// It was told to stop.
    #[error("cancelled")]
    Cancelled,
}

impl LlamaError {
    /// The kind of failure, as the protocol names it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Model { .. } => FailureKind::Model,
            Self::Memory { .. } => FailureKind::Memory,
            Self::Setting { .. } => FailureKind::Settings,
            Self::Prompt { .. } => FailureKind::Prompt,
            Self::Context { .. } | Self::Compute { .. } | Self::Cpu { .. } => FailureKind::Compute,
            Self::Cancelled => FailureKind::Cancelled,
        }
    }

    /// The error behind a log that ends in a failed allocation, if it does.
    pub(crate) fn memory(log: &str) -> Option<Self> {
        let lower = log.to_ascii_lowercase();
        ["failed to allocate", "unable to allocate", "cannot allocate", "out of memory", "bad_alloc"]
            .iter()
            .any(|mark| lower.contains(mark))
            .then(|| Self::Memory { log: log.to_owned() })
    }
}
