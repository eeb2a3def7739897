//! Writes files to disk, sparse where they are zero. The only part of this crate that does I/O.

use crate::{File, Fill, Folder, WEIGHTS};
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

/// Writes a folder, which is made where it is not there.
///
/// # Errors
/// As [`write`].
pub fn write_folder(folder: &Folder, fill: Fill, path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    for (name, text) in &folder.texts {
        std::fs::File::create(path.join(name))?.write_all(text.as_bytes())?;
    }
    write(&folder.weights, fill, &path.join(WEIGHTS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileType, Options, Shape, demo, gguf};

    #[test]
    fn what_is_written_is_the_file_and_zeros_are_holes() {
        let shape = Shape { n_layer: 2, n_vocab: 300, ..demo() };
        let file = gguf(&shape, FileType::Q8_0, &Options::default()).unwrap();
        let path = std::env::temp_dir().join(format!("loadmaster-synthetic-{}.gguf", std::process::id()));
        for fill in [Fill::Random { seed: 3 }, Fill::Zero] {
            write(&file, fill, &path).unwrap();
            let mut found = Vec::new();
            io::Read::read_to_end(&mut std::fs::OpenOptions::new().read(true).open(&path).unwrap(), &mut found).unwrap();
            let mut expected = vec![0; file.size.get() as usize];
            file.read_at(fill, 0, &mut expected);
            assert!(found == expected);
        }
        std::fs::remove_file(&path).unwrap();
        assert!(write(&file, Fill::Zero, Path::new("/no/such/folder/x.gguf")).is_err());
    }
}
