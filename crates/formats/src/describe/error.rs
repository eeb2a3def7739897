//! Why headers do not make a model.

/// Headers that do not make a model, by the key or file that is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescribeError {
    /// No header was given.
    #[error("no file given")]
    NoFile,
    /// A key that llama.cpp needs.
    #[error("key is missing: {key}")]
    MissingKey {
        /// The full key.
        key: String,
    },
    /// A key with a value of the wrong type.
    #[error("key {key} is no {expected}: {found}")]
    WrongType {
        /// The full key.
        key: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A figure that no model has.
    #[error("key {key} is outside {low} to {high}: {value}")]
    OutOfRange {
        /// The full key.
        key: String,
        /// The least that is possible.
        low: u64,
        /// The most that is possible.
        high: u64,
        /// What it is.
        value: u64,
    },
    /// A list per layer that is not as long as there are layers.
    #[error("key {key} has {found} entries, the model {expected} layers")]
    WrongLength {
        /// The full key.
        key: String,
        /// Layers of the model.
        expected: u64,
        /// Entries of the array.
        found: u64,
    },
    /// A GGUF file that holds something else than a model.
    #[error("the file holds no language model: {found}")]
    NotAModel {
        /// What it holds.
        found: String,
    },
    /// A GGUF file that is no projector, adapter or control vector of the kind that was asked for.
    #[error("the file holds no {wanted}: {found}")]
    NotAnAttachment {
        /// What was asked for.
        wanted: spec::AttachmentKind,
        /// What it holds.
        found: String,
    },
    /// Metadata without weights.
    #[error("the file holds a vocabulary and no weights")]
    NoTensors,
    /// Several files that are no shards.
    #[error("{files} files given, file {file} is no part of a split model")]
    NotSplit {
        /// How many were given.
        files: usize,
        /// The first without `split.count`, from 1.
        file: usize,
    },
    /// Shards that are not there.
    #[error("the model is split into {count} files, missing: {}", numbers(missing))]
    MissingShards {
        /// How many there should be.
        count: u32,
        /// Numbers of the missing files, from 1; the first twenty.
        missing: Vec<u32>,
    },
    /// A shard that stands twice.
    #[error("part {number} of the split model was given twice, as file {first} and file {second}")]
    DuplicateShard {
        /// Its number, from 1.
        number: u32,
        /// Position among the files given, from 1.
        first: usize,
        /// Position among the files given, from 1.
        second: usize,
    },
    /// Shards in another order than theirs.
    #[error("files of the split model are out of order: file {position} is part {number}")]
    ShardOrder {
        /// Position among the files given, from 1.
        position: usize,
        /// Its number, from 1.
        number: u32,
    },
    /// Files of different models.
    #[error("file {position} is part of another model: {problem}")]
    ShardMismatch {
        /// Position among the files given, from 1.
        position: usize,
        /// What differs.
        problem: String,
    },
    /// Tensors that are in two shards.
    #[error("tensor stands in files {first} and {second}: {name}")]
    DuplicateTensor {
        /// The tensor.
        name: String,
        /// Position among the files given, from 1.
        first: usize,
        /// Position among the files given, from 1.
        second: usize,
    },
    /// Shards that hold more or fewer tensors than the first says.
    #[error("split.tensors.count is {stated}, the files hold {found} tensors")]
    TensorCount {
        /// What the metadata says.
        stated: u64,
        /// How many there are.
        found: u64,
    },
}

impl DescribeError {
    /// What a person can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotAModel { .. } => Some("give the file of the language model itself; adapters and projectors go with it"),
            Self::MissingShards { .. } => Some("keep all parts in one folder under their own names, and name the first"),
            Self::DuplicateShard { .. } | Self::ShardOrder { .. } | Self::ShardMismatch { .. } | Self::NotSplit { .. } => {
                Some("name the first part only; the others are found by their names")
            }
            Self::TensorCount { .. } | Self::DuplicateTensor { .. } => Some("the parts are not of one conversion: fetch all of them again"),
            Self::NoTensors => Some("such files test tokenizers; fetch the model itself"),
            _ => None,
        }
    }
}

fn numbers(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
