//! INSPECT. Bytes of model files in, a [`spec::Model`] out.
//!
//! Pure: the caller hands over bytes and file sizes. No length that a file states is believed, no tensor data is read,
//! and every error names the byte or the key where the file breaks its own format.
//!
//! * [`gguf`]: the header of one file: metadata and tensor table
//! * [`safetensors`]: the header of one file of unquantised weights
//! * [`huggingface`]: `config.json` and safetensors headers to the model that they become
//! * [`ollama`]: names and manifests of Ollama's store
//! * [`shards`]: names of the files of a split model
//! * [`mod@describe`]: headers to a model, by the rules of llama.cpp
//! * [`analysis`]: what a model computes and reads per token
#![forbid(unsafe_code)]

pub mod analysis;
pub mod describe;
pub mod gguf;
pub mod huggingface;
mod json;
pub mod ollama;
mod reader;
pub mod safetensors;
pub mod shards;

pub use analysis::{Analysis, Bound, Limit, analyze, bound};
pub use describe::{DescribeError, describe};
pub use gguf::{Gguf, GgufError, GgufErrorKind};
pub use huggingface::HuggingFaceError;
pub use safetensors::{Safetensors, SafetensorsError};

pub use mixture::{FileType, ParseFileTypeError};
