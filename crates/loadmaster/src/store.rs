//! Folders of our own, and files that appear whole or not at all.

use crate::error::WriteError;
use etcetera::BaseStrategy;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The folder for files that can be made again: `$XDG_CACHE_HOME/loadmaster` or what the system uses in its place.
/// `None` where the system names no home folder.
pub fn cache_dir() -> Option<PathBuf> {
    Some(etcetera::choose_base_strategy().ok()?.cache_dir().join("loadmaster"))
}

/// The folder for what is learned from launches: `$XDG_DATA_HOME/loadmaster` or what the system uses in its place. `None` where the system
/// names no home folder.
pub fn data_dir() -> Option<PathBuf> {
    Some(etcetera::choose_base_strategy().ok()?.data_dir().join("loadmaster"))
}

/// The user's folder of configuration (`$XDG_CONFIG_HOME`, `~/.config`), shared by all programs.
pub(crate) fn config_home() -> Option<PathBuf> {
    Some(etcetera::choose_base_strategy().ok()?.config_dir())
}

/// Writes a file so that its name shows the old content or the new one, never a part: a temporary file in the same
/// folder, flushed to the disk, then renamed. An existing file is replaced.
///
/// # Errors
/// The folder does not exist, is not writable, or the disk is full. Nothing is left behind.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), WriteError> {
    create_atomically(path, |file| file.write_all(content))
}

/// As [`write_atomically`], for content that is produced piece by piece.
///
/// # Errors
/// As [`write_atomically`], and any error that `fill` returns.
pub(crate) fn create_atomically(path: &Path, fill: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>) -> Result<(), WriteError> {
    let error = |source| WriteError { path: path.to_owned(), source };
    // A bare file name has the empty path as its parent.
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Err(error(std::io::ErrorKind::IsADirectory.into()));
    }
    // Opened here and not by `tempfile`, whose errors name the temporary file; and with the permissions that any program
    // asks for, of which the user's umask takes off what it should.
    let open = |temporary: &Path| std::fs::OpenOptions::new().write(true).create_new(true).open(temporary);
    let mut file = tempfile::Builder::new().prefix(".loadmaster-").make_in(folder, open).map_err(error)?;
    fill(file.as_file_mut()).map_err(error)?;
    file.as_file().sync_all().map_err(error)?;
    file.persist(path).map_err(|failed| error(failed.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_atomically(&path, b"old").unwrap();
        let error = create_atomically(&path, |file| {
            file.write_all(b"ne")?;
            Err(std::io::ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert!(error.to_string().contains("a.json"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_names_the_file_asked_for_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none/a.json");
        let error = write_atomically(&path, b"x").unwrap_err();
        assert_eq!((error.source.kind(), &error.path), (std::io::ErrorKind::NotFound, &path));
        let said = error.to_string();
        assert!(said.contains("none/a.json") && !said.contains(".loadmaster-"), "{said}");
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_the_umask_lets_them() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write_atomically(&ours, b"x").unwrap();
        std::fs::write(&plain, b"x").unwrap();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn a_folder_is_no_place_to_write_over() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_atomically(folder.path(), b"x").unwrap_err();
        assert_eq!(error.source.kind(), std::io::ErrorKind::IsADirectory);
        assert!(folder.path().is_dir());
    }

    /// A file system of 64 KiB, where this program may mount one; `None` and a word about it elsewhere.
    #[cfg(target_os = "linux")]
    fn tiny_disk(options: &str) -> Option<(tempfile::TempDir, impl Drop)> {
        struct Mount(std::path::PathBuf);
        impl Drop for Mount {
            fn drop(&mut self) {
                let _ = std::process::Command::new("umount").arg(&self.0).status();
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path()).stderr(std::process::Stdio::null()).status();
        if !mount.is_ok_and(|status| status.success()) {
            println!("SKIPPED: mounting a file system needs root");
            return None;
        }
        let mount = Mount(folder.path().to_owned());
        Some((folder, mount))
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_keeps_the_old_file_and_a_read_only_one_is_named() {
        if let Some((folder, _mount)) = tiny_disk("size=64k") {
            let path = folder.path().join("a.json");
            write_atomically(&path, b"old").unwrap();
            let error = write_atomically(&path, &vec![b'x'; 1 << 20]).unwrap_err();
            assert_eq!(error.source.kind(), std::io::ErrorKind::StorageFull);
            assert!(error.hint().unwrap().contains("space"));
            assert_eq!(std::fs::read(&path).unwrap(), b"old");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
        if let Some((folder, _mount)) = tiny_disk("ro") {
            let error = write_atomically(&folder.path().join("a.json"), b"x").unwrap_err();
            assert_eq!(error.source.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
            assert!(error.hint().unwrap().contains("read-only"));
        }
    }
}
