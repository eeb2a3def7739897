//! A file as memory, which weights are used from in place.

use bytes::Bytes;
use std::fs::File;
use std::io;

/// The bytes of a file where they are: pages are read as they are used, and the system may drop them again.
///
/// The file must stay as it is while it is mapped: a program that shortens it ends this one with SIGBUS, and one that writes to it changes
/// the weights. Engines that map files have the same contract.
///
/// # Errors
/// The system's own: no file that can be mapped, no room in the address space.
pub fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: the mapping is private and only read; that nobody shortens or writes the file is the contract above.
    let mapping = unsafe { memmap2::MmapOptions::new().map(file)? };
    // Read-ahead is a wish: weights are read whatever the system says to it.
    #[cfg(unix)]
    let _ = mapping.advise(memmap2::Advice::WillNeed);
    Ok(Bytes::from_owner(mapping))
}
