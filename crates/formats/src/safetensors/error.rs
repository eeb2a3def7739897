//! What can be wrong with a safetensors file, and where.

use spec::Bytes;

/// A file that is no safetensors file or breaks the format, and the byte where it does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {kind}")]
pub struct SafetensorsError {
    /// Offset from the start of the file.
    pub offset: u64,
    /// What is wrong.
    pub kind: SafetensorsErrorKind,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsErrorKind {
    /// Nothing is wrong yet: the prefix ends inside the header, and the file goes on.
    #[error("the header goes on: at least {at_least} of the file are needed")]
    NeedMore {
        /// How much of the file to read at least.
        at_least: Bytes,
    },
    /// The file ends before its header does.
    #[error("the file ends inside the header, left {left}")]
    Truncated {
        /// How much there is.
        left: Bytes,
    },
    /// A header longer than the file.
    #[error("header longer than the {left} left of the file: {declared} bytes stated")]
    LengthPastEnd {
        /// The length stated.
        declared: u64,
        /// What is left of the file.
        left: Bytes,
    },
    /// A header above the format's limit.
    #[error("header longer than {limit} bytes: {declared}")]
    TooLong {
        /// The length stated.
        declared: u64,
        /// The limit.
        limit: u64,
    },
    /// Something else where the header should be.
    #[error("no safetensors header: it should begin with {{")]
    NoHeader,
    /// JSON that is broken, or describes no tensors.
    #[error("malformed header: {problem}")]
    Malformed {
        /// What is wrong.
        problem: String,
    },
}

impl SafetensorsError {
    /// How much of the file to read before trying again; `None` where more bytes do not help.
    pub fn need_more(&self) -> Option<Bytes> {
        match self.kind {
            SafetensorsErrorKind::NeedMore { at_least } => Some(at_least),
            _ => None,
        }
    }

    /// What a person can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        use SafetensorsErrorKind as K;
        match self.kind {
            K::Truncated { .. } | K::LengthPastEnd { .. } => {
                Some("the download looks truncated, or is a pointer of Git LFS: fetch the file again")
            }
            K::NoHeader | K::TooLong { .. } => Some("fetch the file again; a file of PyTorch (.bin, .pth) is not read"),
            _ => None,
        }
    }
}
