//! Writes files to disk, sparse where they are zero. The only part of this crate that does I/O.

use crate::{File, Fill};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// How much is computed at once.
const CHUNK: u64 = 1 << 20;

/// Writes the whole file, over what was there.
///
/// # Errors
/// The system's own: no such folder, no space, no permission. What was written so far stays.
pub fn write(file: &File, fill: Fill, path: &Path) -> io::Result<()> {
    let mut out = std::fs::File::create(path)?;
    let mut buffer = vec![0; CHUNK as usize];
    for extent in file.extents(fill) {
        out.seek(SeekFrom::Start(extent.start))?;
        let mut at = extent.start;
        while at < extent.end {
            let part = &mut buffer[..CHUNK.min(extent.end - at) as usize];
            file.read_at(fill, at, part);
            out.write_all(part)?;
            at += part.len() as u64;
        }
    }
    out.set_len(file.size.get())
}
