//! What a tool answered, kept per content of its file.
//!
//! One small JSON file per executable path. Size and modification time tell cheaply that a file is the same; where they
//! differ the content's hash decides, so that touching or reinstalling the same build asks nothing. Anything wrong with
//! the cache means that the tool is asked again.

use super::{Answers, Engine, EngineError};
use planner::Tool;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Entries of another format are asked for anew. Raise when what is parsed changes.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Entry {
    format: u32,
    path: PathBuf,
    size: u64,
    /// Nanoseconds since 1970; -1 where the system does not tell.
    modified: i128,
    hash: String,
    answers: Answers,
}

pub(super) fn probe_cached(
    path: &Path,
    tool: Tool,
    cache: Option<&Path>,
    ask: impl FnOnce() -> Result<Answers, EngineError>,
) -> Result<Engine, EngineError> {
    let engine =
        |hash: String, answers: Answers| Engine { path: path.to_owned(), tool, version: answers.version, flags: answers.flags, hash };
    let cannot = |source| EngineError::CannotRun { path: path.to_owned(), source };
    // Symbolic links lead many names to one file, and one name to a new file after an update.
    let real = path.canonicalize().map_err(cannot)?;
    let about = real.metadata().map_err(cannot)?;
    let modified = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified = modified.and_then(|since| i128::try_from(since.as_nanos()).ok()).unwrap_or(-1);
    let file =
        cache.map(|folder| folder.join("engines").join(format!("{}.json", hex(&Sha256::digest(real.as_os_str().as_encoded_bytes())))));

    let known = file.as_deref().and_then(read).filter(|entry| entry.format == FORMAT && entry.path == real);
    if let Some(entry) = &known
        && (entry.size, entry.modified) == (about.len(), modified)
        && modified >= 0
    {
        return Ok(engine(entry.hash.clone(), entry.answers.clone()));
    }
    let hash = hash(&real).map_err(cannot)?;
    let answers = match known {
        Some(entry) if entry.hash == hash => entry.answers,
        _ => ask()?,
    };
    if let Some(file) = file {
        keep(&file, &Entry { format: FORMAT, path: real, size: about.len(), modified, hash: hash.clone(), answers: answers.clone() });
    }
    Ok(engine(hash, answers))
}

fn read(file: &Path) -> Option<Entry> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// A cache that cannot be written costs time at the next start and nothing else, so its errors are dropped.
fn keep(file: &Path, entry: &Entry) {
    let (Some(folder), Ok(json)) = (file.parent(), serde_json::to_vec(entry)) else { return };
    if std::fs::create_dir_all(folder).is_ok() {
        let _ = crate::store::write_atomically(file, &json);
    }
}

fn hash(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(block.get(..n).unwrap_or_default()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
