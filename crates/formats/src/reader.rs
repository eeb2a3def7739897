//! Little-endian reading from a prefix of a file. No length is believed: each is compared with what the file still has
//! before anything is taken or allocated.

use crate::gguf::{GgufError, GgufErrorKind};
use spec::Bytes;

/// A position in the prefix of a file whose size is known.
pub(crate) struct Reader<'a> {
    prefix: &'a [u8],
    at: usize,
    file_size: u64,
}

impl<'a> Reader<'a> {
    /// Reads `prefix`, the first bytes of a file of `file_size`.
    pub(crate) fn new(prefix: &'a [u8], file_size: Bytes) -> Self {
        Self { prefix, at: 0, file_size: file_size.get().max(prefix.len() as u64) }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.at as u64
    }

    /// Bytes between here and the end of the file, as far as the file's size tells.
    pub(crate) fn left(&self) -> u64 {
        self.file_size - self.offset()
    }

    pub(crate) fn error(&self, kind: GgufErrorKind) -> GgufError {
        GgufError { offset: self.offset(), kind }
    }

    /// The next `count` bytes, which hold `what`.
    pub(crate) fn take(&mut self, count: u64, what: &'static str) -> Result<&'a [u8], GgufError> {
        if count > self.left() {
            return Err(self.error(GgufErrorKind::Truncated { what, needs: Bytes::new(count), left: Bytes::new(self.left()) }));
        }
        let end = self.offset() + count;
        let taken = usize::try_from(end).ok().and_then(|end| self.prefix.get(self.at..end));
        let taken = taken.ok_or_else(|| self.error(GgufErrorKind::NeedMore { at_least: Bytes::new(end) }))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64, what)?);
        Ok(bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `each` bytes of the file: above `limit`, or more than could follow, is refused.
    pub(crate) fn count(&mut self, what: &'static str, each: u64, limit: u64) -> Result<u64, GgufError> {
        let start = self.offset();
        let count = self.u64(what)?;
        let refuse = |kind| Err(GgufError { offset: start, kind });
        if count > limit {
            return refuse(GgufErrorKind::TooMany { what, count, limit });
        }
        if count.saturating_mul(each) > self.left() {
            return refuse(GgufErrorKind::CountPastEnd { what, count, left: Bytes::new(self.left()) });
        }
        Ok(count)
    }

    /// The bytes of a length-prefixed string.
    pub(crate) fn string(&mut self, what: &'static str, limit: u64) -> Result<&'a [u8], GgufError> {
        let start = self.offset();
        let declared = self.u64(what)?;
        let refuse = |kind| Err(GgufError { offset: start, kind });
        if declared > self.left() {
            return refuse(GgufErrorKind::LengthPastEnd { what, declared, left: Bytes::new(self.left()) });
        }
        if declared > limit {
            return refuse(GgufErrorKind::TooLong { what, declared, limit });
        }
        self.take(declared, what)
    }

    /// A length-prefixed string that must be UTF-8.
    pub(crate) fn text(&mut self, what: &'static str, limit: u64) -> Result<&'a str, GgufError> {
        let start = self.offset();
        std::str::from_utf8(self.string(what, limit)?).map_err(|_| GgufError { offset: start, kind: GgufErrorKind::NotUtf8 { what } })
    }
}
