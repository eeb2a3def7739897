//! Where models are looked for: folders, Ollama's store, lists, and the table of known models.

use crate::known::{self, KnownModel};
use crate::open;
use formats::FileType;
use formats::shards;
use std::io;
use std::path::{Path, PathBuf};

/// Folders below the one named; deeper ones belong to other programs.
const DEPTH: usize = 6;

/// More models than this are no collection, and a folder with more files than this is not searched to its end.
const MOST: usize = 4096;

/// A longer list is none.
const MAX_LIST: u64 = 1 << 20;

/// A model to look at, and the type to plan it in where it is no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// As [`crate::open()`] takes it.
    pub name: PathBuf,
    /// The type to plan it in; `None`: the file's own, or for a known model the one that the use case chooses.
    pub quant: Option<FileType>,
}

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// The folder or list cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The folder or list.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The list is too long to be one.
    #[error("{}: no list of models: {size} bytes, at most {MAX_LIST} are read", path.display())]
    TooLong {
        /// The list.
        path: PathBuf,
        /// Its length in bytes.
        size: u64,
    },
    /// No model is there.
    #[error("{}: holds no model: no .gguf file, no folder of safetensors, no manifest of Ollama", path.display())]
    Nothing {
        /// The folder or list.
        path: PathBuf,
    },
}

/// Models of a folder and those below it (files, of split models the first; folders of safetensors; a store of Ollama), of Ollama's store
/// (`ollama`), or of a list: a text of one path or name a line, relative to the list's folder, `#` before remarks.
///
/// # Errors
/// It cannot be read, or holds no model.
pub fn candidates(place: &Path) -> Result<Vec<Candidate>, FindError> {
    let read = |source| FindError::Read { path: place.to_owned(), source };
    let mut names = Vec::new();
    if place.as_os_str() == "ollama" && !place.exists() {
        for store in open::ollama_stores() {
            let manifests = store.join("manifests");
            let mut found = Vec::new();
            in_folder(&manifests, DEPTH, &mut found);
            names.extend(found.iter().filter_map(|path| ollama_name(path.strip_prefix(&manifests).ok()?)));
        }
    } else if place.is_dir() {
        // The folder itself must be readable; those below that are not are passed over.
        std::fs::read_dir(place).map_err(read)?;
        in_folder(place, DEPTH, &mut names);
    } else if place.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")) {
        names.push(place.to_owned());
    } else {
        names = listed(place)?;
    }
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(FindError::Nothing { path: place.to_owned() });
    }
    Ok(names.into_iter().map(|name| Candidate { name, quant: None }).collect())
}

/// What Ollama calls the model of a manifest, by its path below `manifests`: `ollama:llama3.2:1b`.
fn ollama_name(path: &Path) -> Option<PathBuf> {
    let parts: Vec<&str> = path.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
    let [host, namespace, model, tag] = parts.as_slice() else { return None };
    Some(PathBuf::from(match (*host, *namespace) {
        ("registry.ollama.ai", "library") => format!("ollama:{model}:{tag}"),
        ("registry.ollama.ai", namespace) => format!("ollama:{namespace}/{model}:{tag}"),
        (host, namespace) => format!("ollama:{host}/{namespace}/{model}:{tag}"),
    }))
}

fn listed(place: &Path) -> Result<Vec<PathBuf>, FindError> {
    let read = |source| FindError::Read { path: place.to_owned(), source };
    let about = std::fs::metadata(place).map_err(read)?;
    if about.len() > MAX_LIST {
        return Err(FindError::TooLong { path: place.to_owned(), size: about.len() });
    }
    let text = std::fs::read_to_string(place).map_err(read)?;
    let folder = place.parent().unwrap_or(Path::new(""));
    let line = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let beside = folder.join(line);
        // What lies beside the list is meant; anything else is a name, a URL or a path of its own.
        (!line.is_empty()).then(|| if beside.exists() { beside } else { PathBuf::from(line) })
    };
    Ok(text.lines().filter_map(line).take(MOST).collect())
}

fn in_folder(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if open::is_hub_folder(folder) {
        found.push(folder.to_owned());
        return;
    }
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if found.len() >= MOST {
            return;
        }
        let is_folder = std::fs::symlink_metadata(&path).is_ok_and(|about| about.is_dir());
        if is_folder && depth > 0 {
            in_folder(&path, depth - 1, found);
        } else if !is_folder && (is_model(&path) || open::is_manifest(&path)) {
            found.push(path);
        }
    }
}

/// A GGUF file that is a model by its name: of a split one the first, no projector.
fn is_model(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let lower = name.to_ascii_lowercase();
    lower.ends_with(".gguf") && !lower.contains("mmproj") && shards::parse(name).is_none_or(|shard| shard.number == 1)
}

/// Known models that were published in the last two years that the table knows of: what people would fetch today.
pub fn known_today() -> Vec<Candidate> {
    let month = |model: &KnownModel| {
        let (year, month) = model.released.split_once('-')?;
        Some(year.parse::<u32>().ok()? * 12 + month.parse::<u32>().ok()?)
    };
    let newest = known::models().iter().filter_map(month).max().unwrap_or(0);
    let recent = known::models().iter().filter(|model| month(model).is_some_and(|month| month + 24 > newest));
    recent.map(|model| Candidate { name: model.name.clone().into(), quant: None }).collect()
}

/// Types that a model which is no file yet may be planned in, best first.
pub const QUANTISATIONS: &[FileType] = &[
    FileType::BF16,
    FileType::Q8_0,
    FileType::Q6_K,
    FileType::Q5_K_M,
    FileType::Q5_K_S,
    FileType::Q4_K_M,
    FileType::Q4_K_S,
    FileType::Q3_K_L,
    FileType::Q3_K_M,
    FileType::Q3_K_S,
    FileType::Q2_K,
];

/// One model in every type that it may be planned in; a model that is a GGUF file in its own.
pub fn quantisations(name: &Path) -> Vec<Candidate> {
    let known = known::find(&name.to_string_lossy()).ok().filter(|_| !name.exists());
    let types = match known {
        Some(known) => known.native().map_or_else(|| QUANTISATIONS.to_vec(), |native| vec![native]),
        None if open::is_hub_folder(name) && !open::is_packed_folder(name) => QUANTISATIONS.to_vec(),
        None => return vec![Candidate { name: name.to_owned(), quant: None }],
    };
    types.into_iter().map(|quant| Candidate { name: name.to_owned(), quant: Some(quant) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_searched_for_files_splits_and_safetensors() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a/b", "hub", "too/deep/to/be/looked/at/here"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        for name in [
            "x.GGUF",
            "notes.txt",
            "mmproj-x.gguf",
            "a/b/y-00001-of-00002.gguf",
            "a/b/y-00002-of-00002.gguf",
            "hub/config.json",
            "hub/model.safetensors",
            "too/deep/to/be/looked/at/here/z.gguf",
        ] {
            std::fs::write(at(name), "").unwrap();
        }
        let names: Vec<PathBuf> = candidates(folder.path()).unwrap().into_iter().map(|found| found.name).collect();
        assert_eq!(names, [at("a/b/y-00001-of-00002.gguf"), at("hub"), at("x.GGUF")]);
    }

    #[test]
    fn a_list_names_files_beside_it_and_known_models() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list.txt");
        std::fs::write(folder.path().join("m.gguf"), "").unwrap();
        std::fs::write(&list, "# mine\nm.gguf\n\nqwen3-8b # by name\n").unwrap();
        let names: Vec<PathBuf> = candidates(&list).unwrap().into_iter().map(|found| found.name).collect();
        assert_eq!(names, [folder.path().join("m.gguf"), "qwen3-8b".into()]);
    }

    #[test]
    fn what_holds_no_model_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(candidates(folder.path()).unwrap_err().to_string().contains("holds no model"));
        assert!(candidates(&folder.path().join("none")).unwrap_err().to_string().starts_with("cannot read "));
        std::fs::File::create(folder.path().join("long")).unwrap().set_len(1 << 30).unwrap();
        assert!(candidates(&folder.path().join("long")).unwrap_err().to_string().contains("no list of models"));
    }

    #[test]
    fn known_models_of_today_are_many_and_recent() {
        let today = known_today();
        assert!(today.len() >= 40, "{}", today.len());
        assert!(!today.iter().any(|candidate| candidate.name == Path::new("llama-2-7b")));
    }
}
