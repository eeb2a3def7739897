//! What can be wrong with a GGUF file, and where.

use super::magic::Foreign;
use spec::{Bytes, QuantType};

/// A file that is no GGUF file or breaks the format, and the byte where it does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {kind}")]
pub struct GgufError {
    /// Offset from the start of the file.
    pub offset: u64,
    /// What is wrong.
    pub kind: GgufErrorKind,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufErrorKind {
    /// Nothing is wrong yet: the prefix ends inside the header, and the file goes on.
    #[error("the header goes on: at least {at_least} of the file are needed")]
    NeedMore {
        /// How much of the file to read at least.
        at_least: Bytes,
    },
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// Another format.
    #[error("not a GGUF file: {found}")]
    NotGguf {
        /// What it looks like.
        found: Foreign,
    },
    /// Version 1.
    #[error("GGUF version 1, which no engine reads since 2023")]
    Version1,
    /// Bytes in the other order.
    #[error("big-endian GGUF, version {version}")]
    BigEndian {
        /// The version, read in its own byte order.
        version: u32,
    },
    /// Any other version.
    #[error("GGUF version not known (2 and 3 are): {version}")]
    UnknownVersion {
        /// The version.
        version: u32,
    },
    /// The file ends inside the header.
    #[error("the file ends inside the header: {what} needs {needs}, left {left}")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// How much it takes.
        needs: Bytes,
        /// How much there is.
        left: Bytes,
    },
    /// A count above any sense.
    #[error("more {what} than the limit of {limit}: {count}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The count stated.
        count: u64,
        /// The limit.
        limit: u64,
    },
    /// A count of things that could not follow in this file.
    #[error("more {what} stated than fit into the {left} left of the file: {count}")]
    CountPastEnd {
        /// Of what.
        what: &'static str,
        /// The count stated.
        count: u64,
        /// What is left of the file.
        left: Bytes,
    },
    /// A string longer than the rest of the file.
    #[error("{what} longer than the {left} left of the file: {declared} bytes stated")]
    LengthPastEnd {
        /// What the string is.
        what: &'static str,
        /// The length stated.
        declared: u64,
        /// What is left of the file.
        left: Bytes,
    },
    /// A string above its limit.
    #[error("{what} longer than {limit} bytes: {declared}")]
    TooLong {
        /// What the string is.
        what: &'static str,
        /// The length stated.
        declared: u64,
        /// The limit.
        limit: u64,
    },
    /// A name that is no text.
    #[error("{what} is not UTF-8")]
    NotUtf8 {
        /// What the string is.
        what: &'static str,
    },
    /// A key of no letters.
    #[error("empty key")]
    EmptyKey,
    /// A key that stands twice.
    #[error("key stands twice: {key}")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A type of value that the format does not have.
    #[error("key {key} has a value of unknown type: {id}")]
    UnknownValueType {
        /// The key.
        key: String,
        /// The type id.
        id: u32,
    },
    /// A list of the vocabulary whose elements are none of its own.
    #[error("key {key} cannot be a list of {found:?}")]
    OtherList {
        /// The key.
        key: String,
        /// Type of its elements.
        found: super::ElementType,
    },
    /// Arrays in arrays in arrays.
    #[error("key {key} nests arrays deeper than {limit}")]
    NestedTooDeep {
        /// The key.
        key: String,
        /// The limit.
        limit: u32,
    },
    /// `general.alignment` is no alignment.
    #[error("general.alignment is no power of two in 32 bits: {found}")]
    BadAlignment {
        /// What it is.
        found: String,
    },
    /// A tensor name that stands twice.
    #[error("tensor stands twice: {name}")]
    DuplicateTensor {
        /// The tensor.
        name: String,
    },
    /// More than four dimensions.
    #[error("tensor {name} has more than 4 dimensions: {dimensions}")]
    TooManyDimensions {
        /// The tensor.
        name: String,
        /// The number stated.
        dimensions: u32,
    },
    /// More elements than 2^63.
    #[error("tensor {name} has a shape without a size: {shape:?}")]
    ShapeTooLarge {
        /// The tensor.
        name: String,
        /// Its extents.
        shape: [u64; 4],
    },
    /// A type id that no version of ggml had.
    #[error("tensor {name} has an unknown type: {id}")]
    UnknownTensorType {
        /// The tensor.
        name: String,
        /// The type id.
        id: u32,
    },
    /// A type id that ggml has taken back.
    #[error("tensor {name} has type {was}, which ggml removed: {id}")]
    RemovedTensorType {
        /// The tensor.
        name: String,
        /// What the type was.
        was: &'static str,
        /// The type id.
        id: u32,
    },
    /// Rows that are no whole number of blocks.
    #[error("tensor {name} has rows of {columns} elements, no multiple of the {block} in a block of {ty}")]
    RaggedRow {
        /// The tensor.
        name: String,
        /// Elements of a row.
        columns: u64,
        /// Elements of a block.
        block: u64,
        /// The type.
        ty: QuantType,
    },
    /// A tensor that does not begin where the one before ends.
    #[error("tensor {name} should begin at byte {expected} of the data, and states {stated}")]
    WrongOffset {
        /// The tensor.
        name: String,
        /// Where the tensor before it ends, padded.
        expected: u64,
        /// What the table says.
        stated: u64,
    },
    /// Tensor data past the end of the file.
    #[error("tensor {name} ends at byte {end}, the file at byte {file_size}")]
    TensorPastEnd {
        /// The first such tensor.
        name: String,
        /// Where it ends.
        end: u64,
        /// Where the file ends.
        file_size: u64,
    },
}

/// A string of a tebibyte is none.
const IMPLAUSIBLE: u64 = 1 << 40;

const MISLEADING: &str = "the header is damaged, or was made to mislead: fetch the file again from a source you trust";

impl GgufError {
    /// How much of the file to read before trying again; `None` where more bytes do not help.
    pub fn need_more(&self) -> Option<Bytes> {
        match self.kind {
            GgufErrorKind::NeedMore { at_least } => Some(at_least),
            _ => None,
        }
    }

    /// What a person can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        use GgufErrorKind as K;
        match &self.kind {
            K::LengthPastEnd { declared, .. } if *declared >= IMPLAUSIBLE => Some(MISLEADING),
            // A count that passed its limit and a length that a file can have: it is the file that is too short.
            K::Empty | K::Truncated { .. } | K::TensorPastEnd { .. } | K::CountPastEnd { .. } | K::LengthPastEnd { .. } => {
                Some("the download looks truncated: compare the size with the source, then fetch the file again")
            }
            K::NotGguf { found } => found.hint(),
            K::Version1 => Some("convert the model again with llama.cpp's convert_hf_to_gguf.py, or fetch a newer file"),
            K::BigEndian { .. } => Some("fetch the little-endian file, or turn this one with gguf-py's gguf_convert_endian.py"),
            K::UnknownVersion { .. } => Some("the file may be newer than this program: update it"),
            K::RemovedTensorType { id: 31..=38, .. } => Some("quantise again to Q4_0 or IQ4_NL; engines repack these when they load"),
            K::RemovedTensorType { .. } => Some("quantise the model again with a type that exists"),
            K::UnknownTensorType { .. } => Some("the file may come from a fork of llama.cpp, or be newer than this program"),
            K::TooMany { .. } | K::TooLong { .. } | K::ShapeTooLarge { .. } => Some(MISLEADING),
            _ => None,
        }
    }
}
