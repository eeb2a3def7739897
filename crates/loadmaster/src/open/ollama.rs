//! Models of Ollama's store: by name, or by the path of a manifest.

use super::prefix::text;
use super::{OpenError, Opened, open_gguf};
use formats::ollama::{MAX_MANIFEST, Name, manifest};
use spec::AttachmentKind;
use std::path::{Path, PathBuf};

/// The stores of this machine: the one that `OLLAMA_MODELS` names, else the user's, then that of the system's service.
pub fn stores() -> Vec<PathBuf> {
    if let Some(store) = std::env::var_os("OLLAMA_MODELS").filter(|store| !store.is_empty()) {
        return vec![store.into()];
    }
    let mut stores: Vec<PathBuf> = etcetera::home_dir().map(|home| home.join(".ollama/models")).into_iter().collect();
    if cfg!(target_os = "linux") {
        stores.push("/usr/share/ollama/.ollama/models".into());
    }
    stores
}

/// Opens a model by its name, without `ollama:` before it.
pub(super) fn by_name(text: &str) -> Result<Opened, OpenError> {
    in_stores(text, stores())
}

fn in_stores(text: &str, stores: Vec<PathBuf>) -> Result<Opened, OpenError> {
    let name = Name::parse(text).ok_or_else(|| OpenError::OllamaName { name: text.to_owned() })?;
    let manifest_in = |store: &PathBuf| store.join("manifests").join(name.path().iter().collect::<PathBuf>());
    match stores.iter().map(manifest_in).find(|path| path.is_file()) {
        Some(path) => by_manifest(&path),
        None => Err(OpenError::NotInOllama { name: name.to_string(), folders: stores }),
    }
}

/// The store that a file is a manifest of, as far as its path tells.
fn store_of(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let store = path.ancestors().nth(5)?;
    let is_one = path.ancestors().nth(4)?.file_name()? == "manifests" && store.join("blobs").is_dir();
    is_one.then(|| store.to_owned())
}

/// True for the path of a manifest in a store.
pub fn is_manifest(path: &Path) -> bool {
    path.is_file() && store_of(path).is_some()
}

/// Opens the model that a manifest lists.
pub(super) fn by_manifest(path: &Path) -> Result<Opened, OpenError> {
    let listed = manifest(&text(path, MAX_MANIFEST)?).map_err(|source| OpenError::Manifest { path: path.to_owned(), source })?;
    let blobs = store_of(path).unwrap_or_default().join("blobs");
    let opened = open_gguf(&blobs.join(&listed.model))?;
    let projectors = listed.projectors.iter().map(|blob| (AttachmentKind::Projector, blobs.join(blob)));
    let adapters = listed.adapters.iter().map(|blob| (AttachmentKind::Lora, blobs.join(blob)));
    Ok(Opened { beside: projectors.chain(adapters).collect(), ..opened })
}

#[cfg(test)]
mod tests {
    use super::*;
    use synthetic::{FileType, Options};

    #[test]
    fn a_name_leads_to_its_blob_and_what_lies_beside_it() {
        let store = tempfile::tempdir().unwrap();
        let (blobs, manifests) = (store.path().join("blobs"), store.path().join("manifests/registry.ollama.ai/library/tiny"));
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::create_dir_all(&manifests).unwrap();
        let shape = synthetic::Shape { n_layer: 1, ..synthetic::preset("smollm2-135m").unwrap() };
        let file = synthetic::gguf(&shape, FileType::Q8_0, &Options::default()).unwrap();
        let blob = blobs.join(format!("sha256-{}", "a".repeat(64)));
        std::fs::write(&blob, &file.header).unwrap();
        std::fs::File::options().write(true).open(&blob).unwrap().set_len(file.size.get()).unwrap();
        let layer = |kind: &str, digit: &str| {
            format!(r#"{{"mediaType":"application/vnd.ollama.image.{kind}","digest":"sha256:{}"}}"#, digit.repeat(64))
        };
        let text = format!(r#"{{"layers":[{},{}]}}"#, layer("model", "a"), layer("projector", "b"));
        std::fs::write(manifests.join("1b"), text).unwrap();

        let stores = || vec![store.path().join("none"), store.path().to_owned()];
        let opened = in_stores("tiny:1b", stores()).unwrap();
        assert_eq!((opened.model.n_layer(), opened.first()), (1, blob));
        assert_eq!(opened.beside, [(AttachmentKind::Projector, blobs.join(format!("sha256-{}", "b".repeat(64))))]);
        assert_eq!(super::super::open_files(&manifests.join("1b")).unwrap(), opened);

        let told = |name: &str| in_stores(name, stores()).unwrap_err().to_string().replace(&store.path().display().to_string(), "STORE");
        insta::assert_snapshot!(told("tiny"), @"no model registry.ollama.ai/library/tiny:latest in Ollama's store, looked in STORE/none, STORE");
        insta::assert_snapshot!(told("../x"), @"no name of a model of Ollama: ../x");
        std::fs::write(manifests.join("1b"), "{}").unwrap();
        insta::assert_snapshot!(told("tiny:1b"), @"STORE/manifests/registry.ollama.ai/library/tiny/1b: byte 0: no manifest of Ollama: no list of layers");
    }
}
