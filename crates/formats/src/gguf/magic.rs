//! The first bytes of a file: GGUF of a version that can be read, or what else they look like.

use super::error::{GgufError, GgufErrorKind};
use crate::reader::Reader;
use std::fmt;

/// What a file that is no GGUF file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Foreign {
    /// A pointer of Git LFS instead of the file.
    GitLfsPointer,
    /// A web page.
    Html,
    /// Tensors of Hugging Face.
    Safetensors,
    /// A ZIP archive, as PyTorch writes its checkpoints.
    Zip,
    /// A Python pickle.
    Pickle,
    /// One of the formats before GGUF: ggml, ggmf, ggjt, ggla, ggsn.
    OldGgml,
    /// A compressed file.
    Compressed,
    /// HDF5, as Keras writes it.
    Hdf5,
    /// Bytes that are all zero.
    Zeros,
    /// Text of some kind.
    Text,
    /// Anything else, by its first bytes.
    Unknown {
        /// The first bytes, zero where the file is shorter.
        start: [u8; 4],
    },
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GitLfsPointer => "a Git LFS pointer, the file itself was not fetched",
            Self::Html => "a web page",
            Self::Safetensors => "safetensors",
            Self::Zip => "a ZIP archive or PyTorch checkpoint",
            Self::Pickle => "a Python pickle",
            Self::OldGgml => "a ggml file from before GGUF (2023)",
            Self::Compressed => "a compressed file",
            Self::Hdf5 => "HDF5",
            Self::Zeros => "only zeros",
            Self::Text => "a text file",
            Self::Unknown { start: [a, b, c, d] } => return write!(f, "begins with the bytes {a:02x} {b:02x} {c:02x} {d:02x}"),
        })
    }
}

impl Foreign {
    /// What to do with such a file.
    pub(super) fn hint(self) -> Option<&'static str> {
        match self {
            Self::GitLfsPointer => Some("run git lfs pull in the folder of the file"),
            Self::Html => Some("the download saved a page, often a login or an error, instead of the file"),
            Self::Safetensors | Self::Zip | Self::Pickle | Self::Hdf5 => {
                Some("convert the model with llama.cpp's convert_hf_to_gguf.py, or fetch its GGUF file")
            }
            Self::OldGgml => Some("fetch a GGUF file of the model"),
            Self::Compressed => Some("unpack the file first"),
            Self::Zeros => Some("the download was reserved on disk but not filled: fetch the file again"),
            Self::Text | Self::Unknown { .. } => None,
        }
    }

    fn of(prefix: &[u8]) -> Self {
        let starts = |mark: &[u8]| prefix.starts_with(mark);
        let any = |marks: &[&[u8]]| marks.iter().any(|mark| starts(mark));
        let sample = &prefix[..prefix.len().min(512)];
        if starts(b"version https://git-lfs") {
            Self::GitLfsPointer
        } else if any(&[b"PK\x03\x04", b"PK\x05\x06"]) {
            Self::Zip
        } else if any(&[b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"]) {
            Self::Pickle
        } else if any(&[b"lmgg", b"fmgg", b"tjgg", b"algg", b"nsgg", b"ggml", b"ggmf", b"ggjt", b"ggla", b"ggsn"]) {
            Self::OldGgml
        } else if any(&[b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh", b"7z\xbc\xaf", b"Rar!"]) {
            Self::Compressed
        } else if starts(b"\x89HDF\r\n\x1a\n") {
            Self::Hdf5
        } else if sample.iter().all(|&byte| byte == 0) {
            Self::Zeros
        } else if prefix.get(8..10).is_some_and(|json| matches!(json, b"{\"" | b"{ ")) && prefix[4..8] == [0; 4] {
            // The length of a JSON header in 64 bits, then the JSON.
            Self::Safetensors
        } else if is_html(sample) {
            Self::Html
        } else if sample.iter().all(|&byte| byte >= 0x20 || matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b)) && is_utf8_start(sample) {
            Self::Text
        } else {
            let mut start = [0; 4];
            start.iter_mut().zip(prefix).for_each(|(to, from)| *to = *from);
            Self::Unknown { start }
        }
    }
}

fn is_html(sample: &[u8]) -> bool {
    let text = sample.trim_ascii_start().to_ascii_lowercase();
    text.starts_with(b"<!doctype html") || text.starts_with(b"<html")
}

/// True where the sample is UTF-8 up to at most one character cut off at its end.
fn is_utf8_start(sample: &[u8]) -> bool {
    std::str::from_utf8(sample).map_or_else(|error| error.error_len().is_none(), |_| true)
}

/// Reads the magic and the version.
pub(super) fn version(reader: &mut Reader<'_>, prefix: &[u8]) -> Result<u32, GgufError> {
    if reader.left() == 0 {
        return Err(reader.error(GgufErrorKind::Empty));
    }
    let available = &prefix[..prefix.len().min(4)];
    if !b"GGUF".starts_with(available) {
        return Err(reader.error(GgufErrorKind::NotGguf { found: Foreign::of(prefix) }));
    }
    reader.take(4, "magic")?;
    let start = reader.offset();
    let version = reader.u32("version")?;
    let kind = match version {
        2 | 3 => return Ok(version),
        1 => GgufErrorKind::Version1,
        // A small number in the other byte order.
        _ if version != 0 && version & 0xffff == 0 => GgufErrorKind::BigEndian { version: version.swap_bytes() },
        _ => GgufErrorKind::UnknownVersion { version },
    };
    Err(GgufError { offset: start, kind })
}
