//! Folders of our own, and files that appear whole or not at all.

use crate::error::WriteError;
use etcetera::BaseStrategy;
use std::io::{Read, Write};
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
/// folder, flushed to the disk, then renamed. An existing file is replaced and its permissions are kept; a link stays, and what it points to is
/// replaced. What is no regular file (a device, a pipe, `/dev/stdout`) is written to as it is.
///
/// # Errors
/// The folder does not exist, is not writable, or the disk is full: nothing is left behind. A model file is not replaced.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), WriteError> {
    if is_model(path) {
        let reason = "it is a model file, which is not replaced; take another name";
        return Err(WriteError { path: path.to_owned(), source: std::io::Error::new(std::io::ErrorKind::AlreadyExists, reason) });
    }
    create_atomically(path, |file| file.write_all(content))
}

/// Whether a regular file begins as GGUF does.
fn is_model(path: &Path) -> bool {
    let mut magic = [0; 4];
    let regular = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    regular && std::fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok()) && magic == *b"GGUF"
}

/// As [`write_atomically`], for content that is produced piece by piece.
///
/// # Errors
/// As [`write_atomically`], and any error that `fill` returns.
pub(crate) fn create_atomically(path: &Path, fill: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>) -> Result<(), WriteError> {
    let error = |source| WriteError { path: path.to_owned(), source };
    if is_open(path) {
        // Behind what went there before, where it is a file that the shell opened.
        let mut file = std::fs::OpenOptions::new().append(true).open(path).map_err(error)?;
        return fill(&mut file).map_err(error);
    }
    let replaced = behind_links(path).map_err(error)?;
    let permissions = std::fs::metadata(&replaced).ok().map(|metadata| metadata.permissions());
    let path = replaced.as_path();
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
    if let Some(permissions) = permissions {
        file.as_file().set_permissions(permissions).map_err(error)?;
    }
    file.as_file().sync_all().map_err(error)?;
    file.persist(path).map_err(|failed| error(failed.error))?;
    Ok(())
}

/// Whether a path stands for something to write to rather than for a file to be replaced: a device, a pipe, or what this process has open.
fn is_open(path: &Path) -> bool {
    let special = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir());
    let opened = ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"].iter().any(|place| path.starts_with(place));
    special || (cfg!(unix) && opened && path.exists())
}

/// The file that a path leads to, which need not exist.
fn behind_links(path: &Path) -> std::io::Result<PathBuf> {
    /// As many as Linux follows.
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match std::fs::read_link(&path) {
            // An absolute one replaces all of it.
            Ok(to) => path = path.parent().unwrap_or(Path::new("")).join(to),
            Err(_) => return Ok(path),
        }
    }
    Err(std::io::Error::other("its links lead in a circle"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn links_modes_pipes_and_models_stay_what_they_are() {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        // A link to a file, and one to a file that is not there yet.
        std::fs::write(at("file"), "old").unwrap();
        std::fs::set_permissions(at("file"), std::fs::Permissions::from_mode(0o640)).unwrap();
        for (link, to) in [("link", "file"), ("second", "link"), ("dangling", "new")] {
            symlink(to, at(link)).unwrap();
            write_atomically(&at(link), link.as_bytes()).unwrap();
            assert!(at(link).is_symlink());
        }
        assert_eq!(
            (std::fs::read(at("file")).unwrap().as_slice(), std::fs::read(at("new")).unwrap().as_slice()),
            (&b"second"[..], &b"dangling"[..])
        );
        assert_eq!(std::fs::metadata(at("file")).unwrap().permissions().mode() & 0o777, 0o640);
        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        assert!(write_atomically(&at("a"), b"x").is_err() && at("a").is_symlink());
        // A pipe is written to.
        let pipe = at("pipe");
        make_pipe(&pipe);
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        write_atomically(&pipe, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
        write_atomically(Path::new("/dev/null"), b"x").unwrap();
        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        // A file in memory is one like any other; one that is open is added to.
        if let Ok(memory) = tempfile::tempdir_in("/dev/shm") {
            let file = memory.path().join("a");
            ["longer", "short"].iter().for_each(|text| write_atomically(&file, text.as_bytes()).unwrap());
            assert_eq!(std::fs::read(&file).unwrap(), b"short");
        }
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            let mut held = std::fs::File::create(at("held")).unwrap();
            held.write_all(b"before ").unwrap();
            write_atomically(&PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd())), b"behind").unwrap();
            assert_eq!(std::fs::read(at("held")).unwrap(), b"before behind");
        }
        // A model is not replaced, by whatever name.
        std::fs::write(at("m.gguf"), b"GGUF\x03\0\0\0").unwrap();
        symlink("m.gguf", at("m.toml")).unwrap();
        for name in ["m.gguf", "m.toml"] {
            let said = write_atomically(&at(name), b"x").unwrap_err();
            assert!(std::error::Error::source(&said).unwrap().to_string().contains("it is a model file"), "{said}");
        }
        assert_eq!(std::fs::read(at("m.gguf")).unwrap(), b"GGUF\x03\0\0\0");
    }

    #[cfg(unix)]
    fn make_pipe(path: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }

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
