//! Why a model of the Hugging Face hub cannot be described as the GGUF file that it would become.

use mixture::{FileType, MixtureError};
use spec::QuantType;

/// Why `config.json` and safetensors headers make no model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HuggingFaceError {
    /// No JSON.
    #[error("config.json, byte {offset}: {problem}")]
    Malformed {
        /// Offset from the start of the text.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// A text above any sense.
    #[error("config.json is longer than any: {length} bytes")]
    ConfigTooLong {
        /// Its length.
        length: u64,
    },
    /// A figure that the architecture needs.
    #[error("config.json has no {key}")]
    Missing {
        /// Its name, or its names.
        key: String,
    },
    /// A figure of the wrong kind.
    #[error("config.json: {key} is no {expected}: {found}")]
    BadValue {
        /// Its name.
        key: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A class that this program does not convert.
    #[error("architecture not known here: {class}; there are {}", super::classes().collect::<Vec<_>>().join(", "))]
    Unsupported {
        /// The first of `architectures`.
        class: String,
    },
    /// Weights that are quantised by a method that the converter does not undo here.
    #[error("weights quantised by {method}")]
    Quantized {
        /// The method.
        method: String,
    },
    /// BitNet's quantisation of another model than BitNet.
    #[error("ternary weights of a {class}: the engine for them computes BitNetForCausalLM")]
    Packed {
        /// The first of `architectures`.
        class: String,
    },
    /// BitNet's master weights.
    #[error("weights in 16 bits that become ternary as they are used (quantization_mode online), which no engine here does")]
    Online,
    /// A file type for weights that are ternary already.
    #[error("its weights are ternary and packed already; nothing makes {to} of them")]
    AlreadyTernary {
        /// The file type asked for.
        to: FileType,
    },
    /// A tensor of a type that cannot stand there.
    #[error("tensor {tensor} should be {expected}; it is {found}")]
    BadType {
        /// Its name.
        tensor: String,
        /// Its type.
        found: String,
        /// Types that can.
        expected: &'static str,
    },
    /// A tensor that every such model has.
    #[error("no file has what becomes the tensor {tensor}")]
    MissingTensor {
        /// Its name in a GGUF file.
        tensor: String,
    },
    /// A tensor whose name has no place in the architecture.
    #[error("{class} has no place for the tensor {tensor}")]
    UnknownTensor {
        /// The first of `architectures`.
        class: String,
        /// Its name.
        tensor: String,
    },
    /// Extents that do not agree with `config.json`.
    #[error("tensor {tensor} of {shape:?} does not fit {expected}")]
    BadShape {
        /// Its name.
        tensor: String,
        /// Its extents, slowest first.
        shape: Vec<u64>,
        /// What it should agree with.
        expected: String,
    },
    /// A name that two files have, or that two tensors become.
    #[error("tensor stands twice: {tensor}")]
    DuplicateTensor {
        /// Its name.
        tensor: String,
    },
    /// Experts of a layer that are not all there.
    #[error("{found} of {expected} experts are there: {tensor}")]
    MissingExperts {
        /// Name of the stacked tensor.
        tensor: String,
        /// How many are there.
        found: u64,
        /// How many there should be.
        expected: u64,
    },
    /// A tensor that is quantised already and would be again.
    #[error("tensor {tensor} is already {from}, and llama-quantize does not make {to} of it")]
    Requantized {
        /// Its name.
        tensor: String,
        /// Its type.
        from: QuantType,
        /// The type asked for.
        to: QuantType,
    },
    /// A mixture that `llama-quantize` could not make.
    #[error(transparent)]
    Mixture(#[from] MixtureError),
    /// A file that describes no model.
    #[error("as a GGUF file: {0}")]
    Describe(#[from] crate::DescribeError),
}

impl HuggingFaceError {
    /// What a person can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unsupported { .. } | Self::UnknownTensor { .. } => {
                "convert the model with llama.cpp's convert_hf_to_gguf.py and name the GGUF file"
            }
            Self::Quantized { .. } => "name the model with its original weights, or a GGUF file",
            Self::Requantized { .. } => "ask for --quant MXFP4_MOE, which keeps such tensors, or for none",
            Self::Packed { .. } => "name a GGUF file of the model in TQ1_0 or TQ2_0, which llama.cpp computes",
            Self::Online | Self::BadType { expected: "U8, packed", .. } => {
                "name the folder of the packed weights (quantization_mode offline), or a GGUF file in I2_S"
            }
            Self::AlreadyTernary { .. } => "leave --quant out: the BitNet engine runs the folder as it is",
            Self::MissingTensor { .. } => "the files are not all there: fetch the model again",
            Self::MissingExperts { .. } => "the files are not all there: fetch the model again",
            _ => return None,
        })
    }
}
