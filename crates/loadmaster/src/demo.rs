//! The demonstration model: a real architecture at a small size with seeded random weights. Its text is noise.

use crate::error::WriteError;
use crate::store;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use synthetic::{FileType, Fill, Options};

/// File name of the demonstration model.
pub const FILE_NAME: &str = "loadmaster-demo-q4_k_m.gguf";

const FILL: Fill = Fill::Random { seed: 1 };

/// Bytes that are made and written at once.
const BLOCK: usize = 1 << 20;

/// The demonstration model at `path`, or in the cache folder. An intact one is left as it is.
///
/// # Errors
/// The folder cannot be made or written to, or the disk is full.
pub fn ensure(path: Option<&Path>) -> Result<PathBuf, WriteError> {
    let path = match path {
        Some(path) => path.to_owned(),
        // Without a home folder the demonstration still has to lie somewhere.
        None => store::cache_dir().unwrap_or_else(|| std::env::temp_dir().join("loadmaster")).join("demo").join(FILE_NAME),
    };
    let file = model(&path)?;
    if is_intact(&path, &file) {
        return Ok(path);
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| WriteError { path: path.clone(), source })?;
    }
    store::create_atomically(&path, |out| write(&file, out))?;
    Ok(path)
}

fn model(path: &Path) -> Result<synthetic::File, WriteError> {
    synthetic::gguf(&synthetic::demo(), FileType::Q4_K_M, &Options::default())
        .map_err(|error| WriteError { path: path.to_owned(), source: std::io::Error::other(error.to_string()) })
}

/// Writes only what is not zero, so that the file stays sparse where it can.
fn write(file: &synthetic::File, out: &mut File) -> std::io::Result<()> {
    out.set_len(file.size.get())?;
    let mut block = vec![0; BLOCK];
    for extent in file.extents(FILL) {
        let mut offset = extent.start;
        out.seek(SeekFrom::Start(offset))?;
        while offset < extent.end {
            let length = usize::try_from(extent.end - offset).unwrap_or(BLOCK).min(BLOCK);
            let piece = block.get_mut(..length).unwrap_or_default();
            file.read_at(FILL, offset, piece);
            out.write_all(piece)?;
            offset += length as u64;
        }
    }
    Ok(())
}

/// True where the file has the right length, the right header, and the right bytes at the start of every tensor's data.
/// Since it is renamed into place when complete, this finds older versions and damage by other hands.
fn is_intact(path: &Path, file: &synthetic::File) -> bool {
    const SAMPLE: usize = 64;
    let check = || -> std::io::Result<bool> {
        let mut found = File::open(path)?;
        if found.metadata()?.len() != file.size.get() {
            return Ok(false);
        }
        let mut header = vec![0; file.header.len()];
        found.read_exact(&mut header)?;
        if header != file.header {
            return Ok(false);
        }
        for tensor in &file.tensors {
            let length = usize::try_from(tensor.bytes.get()).unwrap_or(SAMPLE).min(SAMPLE);
            let (mut is, mut should) = (vec![0; length], vec![0; length]);
            found.seek(SeekFrom::Start(tensor.offset.get()))?;
            found.read_exact(&mut is)?;
            file.read_at(FILL, tensor.offset.get(), &mut should);
            if is != should {
                return Ok(false);
            }
        }
        Ok(true)
    };
    check().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_once_and_again_when_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub").join("demo.gguf");
        assert_eq!(ensure(Some(&path)).unwrap(), path);
        let model = crate::open(&path).unwrap();
        assert_eq!(model.files.len(), 1);

        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        ensure(Some(&path)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written, "an intact file is left alone");

        let mut file = File::options().write(true).open(&path).unwrap();
        let last = synthetic::gguf(&synthetic::demo(), FileType::Q4_K_M, &Options::default()).unwrap();
        file.seek(SeekFrom::Start(last.tensors.last().unwrap().offset.get())).unwrap();
        file.write_all(&[0xff; 64]).unwrap();
        drop(file);
        assert!(!is_intact(&path, &last));
        ensure(Some(&path)).unwrap();
        assert!(is_intact(&path, &last));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let error = ensure(Some(&file.join("demo.gguf"))).unwrap_err();
        assert!(error.to_string().contains("demo.gguf"), "{error}");
    }
}
