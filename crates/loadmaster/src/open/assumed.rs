//! Models that are named and not there: published shapes.

use super::{OpenError, Opened, Origin};
use crate::known::{KnownModel, ModelSize, find, precision, typical};
use formats::FileType;
use std::path::Path;

/// What goes before a size where a model is named.
pub const SIZE: &str = "size:";

/// The known model of this name or size; `None` where the text names a file, a URL or a store, whether it is there or not.
pub(super) fn open(name: &Path, quant: Option<FileType>) -> Result<Option<Opened>, OpenError> {
    let Some(text) = name.to_str() else { return Ok(None) };
    if let Some(size) = text.strip_prefix(SIZE) {
        return opened(of_size(size)?, quant).map(Some);
    }
    if !is_a_name(name, text) {
        return Ok(None);
    }
    match find(text) {
        Ok(known) => opened(known, quant).map(Some),
        Err(unknown) => Err(OpenError::UnknownModel { name: unknown.name, nearest: unknown.nearest }),
    }
}

fn of_size(text: &str) -> Result<&'static KnownModel, OpenError> {
    let size: ModelSize = text.parse().map_err(|reason| OpenError::Size { reason, nearest: None })?;
    typical(size).map_err(|far| OpenError::Size { reason: far.to_string(), nearest: far.nearest })
}

fn opened(known: &'static KnownModel, quant: Option<FileType>) -> Result<Opened, OpenError> {
    let file_type = quant.unwrap_or_else(|| precision::usual(known));
    let model = known.model(file_type)?;
    let files = vec![known.file_name(file_type).into()];
    Ok(Opened { model, files, origin: Origin::Assumed(known), beside: Vec::new() })
}

/// Endings of files that are meant as such.
const FILES: &[&str] = &["gguf", "safetensors", "json", "toml", "bin", "txt", "csv", "ggml", "pt", "pth"];

/// True for a text that nothing on this machine is called and that looks like the name of a model: no path (but `ORGANISATION/NAME`),
/// no file's ending, no URL, no store.
fn is_a_name(path: &Path, text: &str) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    let parts: Vec<&str> = text.split(['/', std::path::MAIN_SEPARATOR]).collect();
    let plain = parts.len() <= 2 && parts.iter().all(|part| !part.is_empty() && !part.starts_with(['.', '~']));
    let in_a_folder = parts.len() == 2 && path.parent().is_some_and(Path::exists);
    let elsewhere = text.contains("://") || text.starts_with("ollama:");
    plain && !in_a_folder && !elsewhere && !FILES.contains(&ending.as_str()) && std::fs::symlink_metadata(path).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> bool {
        is_a_name(Path::new(text), text)
    }

    #[test]
    fn what_is_meant_as_a_file_stays_one() {
        for text in ["qwen3-8b", "Qwen/Qwen3-8B", "llama3.1:8b", "qwen2.5-0.5b"] {
            assert!(name(text), "{text}");
        }
        for text in [
            "none.gguf",
            "./qwen3-8b",
            "../x",
            "/qwen3-8b",
            "a/b/c",
            "~/x",
            "",
            "x/",
            "ollama:llama3.2",
            "https://h/x",
            "src/qwen3-8b",
            "Cargo.toml",
            "src",
        ] {
            assert!(!name(text), "{text}");
        }
    }

    #[test]
    fn a_name_or_a_size_is_a_model_without_a_file() {
        let open = |text: &str| open(Path::new(text), None).unwrap().unwrap();
        let by_name = open("qwen3-8b");
        assert_eq!(by_name.model.file_type.as_deref(), Some("Q4_K_M"));
        assert_eq!(by_name.first(), Path::new("qwen3-8b-Q4_K_M.gguf"));
        assert_eq!(open("size:8B"), by_name);
        let error = by_name.origin.check_runnable(&by_name.first()).unwrap_err();
        assert_eq!(error.to_string(), "qwen3-8b: a known shape, not a file on this machine");
        assert!(error.hint().unwrap().contains("Qwen/Qwen3-8B"));
    }

    #[test]
    fn what_is_not_known_names_its_neighbours() {
        let error = |text: &str| open(Path::new(text), None).unwrap_err();
        let unknown = error("qwen3-9b");
        assert_eq!(unknown.to_string(), "qwen3-9b: no such file or folder, and no known model of that name");
        assert_eq!(unknown.exit_code(), 7);
        assert!(unknown.hint().unwrap().contains("qwen3-8b"));
        assert_eq!(error("size:3T").exit_code(), 2);
        assert_eq!(error("size:large").to_string(), "no size of a model: \"large\"; write 8B, 350M or 30B-A3B");
    }
}
