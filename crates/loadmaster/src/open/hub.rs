//! Folders as the Hugging Face hub stores models: `config.json` beside safetensors.

mod text;

pub(crate) use text::FolderText;

use super::prefix::{OnDisk, header_of, text};
use super::{OpenError, Opened, Origin, check_file};
use formats::huggingface::{Config, MAX_CONFIG, plan};
use formats::{FileType, Safetensors, SafetensorsError, safetensors};
use std::path::{Path, PathBuf};

/// The table of the files of a model in several.
const INDEX: &str = "model.safetensors.index.json";
/// A longer index is none; a quarter of a million tensors take some 30 MB.
const MAX_INDEX: u64 = 256 << 20;

/// True for a folder with `config.json` and safetensors, and for each of these files themselves.
pub(super) fn is_one(path: &Path) -> bool {
    let folder = folder(path);
    folder.join("config.json").is_file() && (folder.join(INDEX).is_file() || !parts(folder).is_empty())
}

/// True for a folder with `config.json` and safetensors.
pub fn is_folder(path: &Path) -> bool {
    path.is_dir() && is_one(path)
}

/// True for such a folder whose weights an engine loads as they are: those of a packed BitNet model.
pub fn is_packed(path: &Path) -> bool {
    let config = || Config::parse(&text(&path.join("config.json"), MAX_CONFIG).ok()?).ok();
    is_folder(path) && config().is_some_and(|config| config.is_packed())
}

/// The folder of the model that `path` belongs to.
pub(crate) fn folder(path: &Path) -> &Path {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let inside = name == "config.json" || name == INDEX || name.ends_with(".safetensors");
    match path.parent() {
        Some(parent) if inside && !path.is_dir() => {
            if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            }
        }
        _ => path,
    }
}

/// The safetensors of a folder without an index, sorted: those of the model, not of adapters.
fn parts(folder: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let of_model = |name: &str| name.starts_with("model") && name.ends_with(".safetensors");
    let mut names: Vec<PathBuf> = names.filter(|name| name.to_str().is_some_and(of_model)).map(|name| folder.join(name)).collect();
    names.sort();
    names
}

/// The safetensors of the model in a folder, in the order of their names.
pub(crate) fn weights(folder: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let index = folder.join(INDEX);
    if !index.is_file() {
        return Ok(parts(folder));
    }
    let names = safetensors::index(&text(&index, MAX_INDEX)?);
    let names = names.map_err(|source| OpenError::BrokenSafetensors { path: index, source })?;
    Ok(names.iter().map(|name| folder.join(name)).collect())
}

/// The GGUF file that a folder becomes, or the folder itself where an engine reads it as it is.
pub(super) fn open(path: &Path, quant: Option<FileType>) -> Result<Opened, OpenError> {
    let folder = folder(path);
    let hub = |source| OpenError::Hub { path: folder.to_owned(), source };
    let config = Config::parse(&text(&folder.join("config.json"), MAX_CONFIG)?).map_err(hub)?;
    let files = weights(folder)?;
    let headers: Vec<Safetensors> = files.iter().map(|file| header(file)).collect::<Result<_, _>>()?;
    let mut model = plan(&config, &headers, quant).map_err(hub)?;
    if model.name.is_none() {
        // As conversion does: the folder's name where the files state none.
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        model.name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    }
    let (files, origin) = if config.is_packed() { (files, Origin::Local) } else { (vec![folder.to_owned()], Origin::Planned) };
    Ok(Opened { model, files, origin, beside: Vec::new() })
}

fn header(path: &Path) -> Result<Safetensors, OpenError> {
    check_file(path)?;
    let broken = |path: PathBuf, source| OpenError::BrokenSafetensors { path, source };
    header_of(&mut OnDisk::open(path)?, safetensors::read, SafetensorsError::need_more, broken)
}
