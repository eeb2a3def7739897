//! What can go wrong between us and the engine.

use std::path::PathBuf;

/// The engine could not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LlamaError {
    /// The file could not be loaded as a model.
    #[error("{}: the engine could not load the model: {log}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// The engine's last words about it.
        log: String,
    },
}
