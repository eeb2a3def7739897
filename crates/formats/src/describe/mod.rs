//! Headers to a model, by the rules of llama.cpp.

use crate::gguf::Gguf;
use spec::Model;

/// Why headers do not make a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescribeError {
    /// No header was given.
    #[error("no file")]
    NoFile,
}

/// Describes the model in these files: one header, or those of all shards in order.
///
/// # Errors
/// Shards that do not belong together, or a key that llama.cpp needs and the file lacks.
pub fn describe(files: &[Gguf]) -> Result<Model, DescribeError> {
    let _ = files;
    Err(DescribeError::NoFile)
}
