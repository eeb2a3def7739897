//! Headers read in growing pieces until they are complete, from a disk or from elsewhere.

use super::OpenError;
use spec::Bytes;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Read at first: enough for most headers whose vocabulary is small.
pub(super) const FIRST_READ: u64 = 1 << 20;

/// How much more is read each time that a header goes on: few rounds, little read in vain.
const GROWTH: u64 = 4;

/// A file of which the first bytes can be read.
pub(super) trait Prefix {
    /// What messages call it.
    fn name(&self) -> PathBuf;
    /// Its length.
    fn size(&self) -> u64;
    /// A longer header is not read.
    fn limit(&self) -> u64;
    /// Reads on until `prefix` has `to` bytes. Fewer means that the file ends there now.
    fn extend(&mut self, prefix: &mut Vec<u8>, to: u64) -> Result<(), OpenError>;
}

/// The header of a file: reads until `parse` does not need more of it.
pub(super) fn header_of<T, E>(
    file: &mut dyn Prefix,
    parse: impl Fn(&[u8], Bytes) -> Result<T, E>,
    need_more: impl Fn(&E) -> Option<Bytes>,
    broken: impl Fn(PathBuf, E) -> OpenError,
) -> Result<T, OpenError> {
    let (limit, mut prefix) = (file.limit(), Vec::new());
    let mut target = FIRST_READ;
    loop {
        let to = target.min(file.size());
        file.extend(&mut prefix, to)?;
        // A file that shrinks while it is read ends where it ends now.
        let ended = (prefix.len() as u64) < to;
        let size = if ended { prefix.len() as u64 } else { file.size() };
        match parse(&prefix, Bytes::new(size)) {
            Ok(header) => return Ok(header),
            Err(source) => match need_more(&source) {
                Some(at_least) if !ended && (prefix.len() as u64) < size && at_least.get() <= limit => {
                    target = at_least.get().max((prefix.len() as u64).saturating_mul(GROWTH)).min(limit);
                    // The limit is reached and the header goes on.
                    if target <= prefix.len() as u64 {
                        return Err(broken(file.name(), source));
                    }
                }
                _ => return Err(broken(file.name(), source)),
            },
        }
    }
}

/// A file on this machine.
pub(super) struct OnDisk {
    path: PathBuf,
    file: File,
    size: u64,
}

impl OnDisk {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let unreadable = |source| OpenError::Unreadable { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        Ok(Self { path: path.to_owned(), file, size })
    }
}

impl Prefix for OnDisk {
    fn name(&self) -> PathBuf {
        self.path.clone()
    }
    fn size(&self) -> u64 {
        self.size
    }
    /// Vocabularies of a million tokens stay far below.
    fn limit(&self) -> u64 {
        1 << 30
    }
    fn extend(&mut self, prefix: &mut Vec<u8>, to: u64) -> Result<(), OpenError> {
        let more = to.saturating_sub(prefix.len() as u64);
        let read = self.file.by_ref().take(more).read_to_end(prefix);
        read.map(|_| ()).map_err(|source| OpenError::Unreadable { path: self.path.clone(), source })
    }
}

/// A whole file of text, where it is no longer than `limit`.
pub(super) fn text(path: &Path, limit: u64) -> Result<Vec<u8>, OpenError> {
    super::check_file(path)?;
    let mut file = OnDisk::open(path)?;
    let too_long = |size| OpenError::TooLong { path: path.to_owned(), limit: Bytes::new(limit), size: Bytes::new(size) };
    if file.size > limit {
        return Err(too_long(file.size));
    }
    let mut text = Vec::new();
    file.extend(&mut text, limit + 1)?;
    if text.len() as u64 > limit { Err(too_long(text.len() as u64)) } else { Ok(text) }
}
