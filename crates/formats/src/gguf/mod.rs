//! The header of one GGUF file: metadata and tensor table. Tensor data is never read.
//!
//! Layout: the GGUF specification (`docs/gguf.md` of ggml), versions 2 and 3, little-endian; checks as
//! `gguf_init_from_reader` of `ggml/src/gguf.cpp` makes them (llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161), and
//! limits where that has none.

mod error;
mod magic;
mod metadata;
mod tensors;
mod vocabulary;

pub use error::{GgufError, GgufErrorKind};
pub use magic::Foreign;
pub use metadata::{Array, ElementType, Value};
pub use tensors::TensorInfo;
pub use vocabulary::{MAX_TEMPLATE, MAX_TOKENS, vocabulary};

use crate::reader::Reader;
use spec::Bytes;
use std::collections::BTreeMap;

/// Most tensors of one file; the largest models with every expert apart have some 50,000.
pub const MAX_TENSORS: u64 = 1 << 20;
/// Most metadata pairs; real files have some dozens.
pub const MAX_METADATA: u64 = 1 << 16;
/// Longest key, as the specification limits it.
pub const MAX_KEY: u64 = (1 << 16) - 1;
/// Longest string value, `GGUF_MAX_STRING_LENGTH`.
pub const MAX_STRING: u64 = 1 << 30;
/// Most elements of one array, `GGUF_MAX_ARRAY_ELEMENTS`.
pub const MAX_ARRAY: u64 = 1 << 30;
/// Deepest nesting of arrays; llama.cpp itself takes none nested.
pub const MAX_NESTING: u32 = 4;
/// Longest string value that is kept.
pub const MAX_KEPT_TEXT: usize = 4096;
/// Longest array of numbers that is kept.
pub const MAX_KEPT_ARRAY: u64 = 4096;
/// Longest tensor name, `GGML_MAX_NAME` less its final zero.
pub const MAX_TENSOR_NAME: u64 = 63;
/// Alignment of tensor data without the key `general.alignment`.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// The header of one file.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    /// Format version, 2 or 3.
    pub version: u32,
    /// Metadata by key.
    pub metadata: BTreeMap<String, Value>,
    /// Tensor table in file order.
    pub tensors: Vec<TensorInfo>,
    /// Alignment of tensor data.
    pub alignment: u64,
    /// Where tensor data begins.
    pub data_offset: Bytes,
    /// Length of the file.
    pub file_size: Bytes,
}

/// Reads the header of a file of `file_size` out of `prefix`, its first bytes.
///
/// ```
/// use formats::gguf::{GgufErrorKind, read};
/// use spec::Bytes;
/// let short = read(b"GGUF\x03\0\0\0", Bytes::from_mib(1)).unwrap_err();
/// assert!(matches!(short.kind, GgufErrorKind::NeedMore { .. }));
/// ```
///
/// # Errors
/// [`GgufErrorKind::NeedMore`] where the prefix ends inside the header and the file is longer: read more and call again.
/// Any other kind where the file is no GGUF file, or breaks the format: it will not get better with more bytes.
pub fn read(prefix: &[u8], file_size: Bytes) -> Result<Gguf, GgufError> {
    let mut reader = Reader::new(prefix, file_size);
    let version = magic::version(&mut reader, prefix)?;
    let n_tensors = reader.count("tensors", tensors::MIN_ENTRY, MAX_TENSORS)?;
    let n_metadata = reader.count("metadata pairs", metadata::MIN_PAIR, MAX_METADATA)?;
    let metadata = metadata::read(&mut reader, n_metadata)?;
    let alignment = metadata.alignment;
    let tensors = tensors::read(&mut reader, n_tensors, &metadata)?;
    Ok(Gguf {
        version,
        metadata: metadata.values,
        tensors: tensors.table,
        alignment,
        data_offset: tensors.data_offset,
        file_size: Bytes::new(reader.offset() + reader.left()),
    })
}
