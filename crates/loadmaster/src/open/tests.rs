//! A corpus of files: good ones, sharded ones, and every way to be broken, each with its message.

use super::prefix::FIRST_READ;
use super::*;
use std::fmt::Write;
use std::fs::File;
use synthetic::{FileType, Fill, Options};

/// A small model file, sparse: its header is real, its data zeros and norms.
fn write(file: &synthetic::File, path: &Path) {
    use std::io::{Seek, SeekFrom, Write};
    let mut out = File::create(path).unwrap();
    out.set_len(file.size.get()).unwrap();
    for extent in file.extents(Fill::Zero) {
        let mut bytes = vec![0; (extent.end - extent.start) as usize];
        file.read_at(Fill::Zero, extent.start, &mut bytes);
        out.seek(SeekFrom::Start(extent.start)).unwrap();
        out.write_all(&bytes).unwrap();
    }
}

fn small() -> synthetic::File {
    let mut shape = synthetic::preset("smollm2-135m").unwrap();
    shape.n_layer = 2;
    synthetic::gguf(&shape, FileType::Q8_0, &Options::default()).unwrap()
}

fn shards(folder: &Path) -> Vec<PathBuf> {
    let mut shape = synthetic::preset("smollm2-135m").unwrap();
    shape.n_layer = 2;
    let files = synthetic::shards(&shape, FileType::Q8_0, &Options::default(), 3).unwrap();
    let paths: Vec<PathBuf> = (1..=3).map(|n| folder.join(format!("m-{n:05}-of-00003.gguf"))).collect();
    files.iter().zip(&paths).for_each(|(file, path)| write(file, path));
    paths
}

/// The error's message and hint, with the folder's name left out.
fn told(folder: &Path, path: &Path) -> String {
    let error = open(path).unwrap_err();
    let mut text = error.to_string();
    if let Some(hint) = error.hint() {
        write!(text, "\n  hint: {hint}").unwrap();
    }
    text.replace(&format!("{}/", folder.display()), "").replace(&folder.display().to_string(), "FOLDER")
}

#[test]
fn a_model_is_read_without_its_data() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    write(&small(), &path);
    let opened = open_files(&path).unwrap();
    assert_eq!((opened.model.architecture.as_str(), opened.model.n_layer(), opened.first()), ("llama", 2, path));
    assert_eq!(opened.model.files.len(), 1);
}

#[test]
fn any_shard_leads_to_the_whole_model() {
    let folder = tempfile::tempdir().unwrap();
    let paths = shards(folder.path());
    let whole = open_files(&paths[0]).unwrap();
    assert_eq!(whole.files, paths);
    assert_eq!(open_files(&paths[2]).unwrap(), whole);
    assert_eq!(whole.model.tensor_bytes(), {
        let path = folder.path().join("whole.gguf");
        super::tests::write(&small(), &path);
        open(&path).unwrap().tensor_bytes()
    });
}

#[test]
fn shards_that_do_not_belong_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let paths = shards(folder.path());
    let aside = folder.path().join("aside");
    std::fs::rename(&paths[1], &aside).unwrap();
    insta::assert_snapshot!(told(folder.path(), &paths[0]), @r"
    m-00002-of-00003.gguf: shard 2 of 3 is missing
      hint: all shards must lie in one folder under their original names
    ");
    // The second and the third have changed names.
    std::fs::rename(&paths[2], &paths[1]).unwrap();
    std::fs::rename(&aside, &paths[2]).unwrap();
    let swapped = open(&paths[0]).unwrap_err();
    assert!(matches!(swapped, OpenError::Describe { .. }), "{swapped}");
}

#[test]
fn what_is_no_model_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("empty.gguf"), "").unwrap();
    std::fs::write(at("text.gguf"), "Dear reader, this is no model.\n").unwrap();
    std::fs::create_dir(at("none")).unwrap();
    std::fs::create_dir(at("models")).unwrap();
    for name in ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf", "b.gguf", "c.txt"] {
        std::fs::write(at("models").join(name), "x").unwrap();
    }
    let mut text = String::new();
    for name in ["missing.gguf", "missing/m.gguf", "empty.gguf", "text.gguf", "none", "models", "text.gguf/m.gguf"] {
        writeln!(text, "{}", told(folder.path(), &at(name))).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_broken_header_is_named_with_its_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let file = small();
    let header = file.header.as_slice();
    let case = |text: &mut String, name: &str, bytes: &[u8], size: u64| {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().max(size.min(1 << 20) as usize), 0);
        std::fs::write(&path, bytes).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
        writeln!(text, "{name}: {}", told(folder.path(), &path)).unwrap();
    };
    let patched = |at: usize, with: &[u8]| {
        let mut bytes = header.to_vec();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    let mut text = String::new();
    case(&mut text, "version 1", &patched(4, &1u32.to_le_bytes()), file.size.get());
    case(&mut text, "big-endian", &patched(4, &3u32.to_be_bytes()), file.size.get());
    case(&mut text, "2^63 tensors", &patched(8, &(1u64 << 63).to_le_bytes()), file.size.get());
    case(&mut text, "2^63 pairs", &patched(16, &(1u64 << 63).to_le_bytes()), file.size.get());
    case(&mut text, "key of 2^63 bytes", &patched(24, &(1u64 << 63).to_le_bytes()), file.size.get());
    case(&mut text, "header cut", &header[..1000], 1000);
    insta::assert_snapshot!(text);
    let mut text = String::new();
    case(&mut text, "data cut", header, file.size.get() / 2);
    let says = format!(
        "tensor token_embd.weight ends at byte {}, the file at byte {}",
        file.tensors[0].offset.get() + file.tensors[0].bytes.get(),
        file.size.get() / 2
    );
    assert!(text.contains(&says) && text.contains("truncated"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_pipe_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe.gguf");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert_eq!(told(folder.path(), &path), "pipe.gguf: not a regular file");
}

/// A header of many megabytes takes several reads, and each attempt must end.
#[test]
fn a_long_header_is_read_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let mut shape = synthetic::preset("llama-3.1-70b").unwrap();
    shape.n_layer = 4;
    let file = synthetic::gguf(&shape, FileType::Q4_K_M, &Options::default()).unwrap();
    assert!(file.header.len() as u64 > FIRST_READ, "{} bytes", file.header.len());
    let mut out = File::create(&path).unwrap();
    std::io::Write::write_all(&mut out, &file.header).unwrap();
    out.set_len(file.size.get()).unwrap();
    assert_eq!(open(&path).unwrap().n_layer(), 4);
}

/// A folder as the Hugging Face hub stores a model of one layer in two files.
fn hub(folder: &Path) {
    let config = r#"{"architectures":["LlamaForCausalLM"],"hidden_size":64,"num_hidden_layers":1,"num_attention_heads":4,
        "num_key_value_heads":2,"intermediate_size":128,"vocab_size":100,"max_position_embeddings":512,"tie_word_embeddings":true}"#;
    std::fs::write(folder.join("config.json"), config).unwrap();
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let parts = [
        vec![("model.embed_tokens.weight".to_owned(), vec![100, 64]), ("model.norm.weight".to_owned(), vec![64])],
        vec![
            (layer("input_layernorm"), vec![64]),
            (layer("post_attention_layernorm"), vec![64]),
            (layer("self_attn.q_proj"), vec![64, 64]),
            (layer("self_attn.k_proj"), vec![32, 64]),
            (layer("self_attn.v_proj"), vec![32, 64]),
            (layer("self_attn.o_proj"), vec![64, 64]),
            (layer("mlp.gate_proj"), vec![128, 64]),
            (layer("mlp.up_proj"), vec![128, 64]),
            (layer("mlp.down_proj"), vec![64, 128]),
        ],
    ];
    let mut map = serde_json::Map::new();
    for (number, part) in parts.iter().enumerate() {
        let (mut header, mut end) = (serde_json::Map::new(), 0_u64);
        let file = format!("model-{:05}-of-00002.safetensors", number + 1);
        for (name, shape) in part {
            let bytes = shape.iter().product::<u64>() * 2;
            header.insert(name.clone(), serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [end, end + bytes]}));
            end += bytes;
            map.insert(name.clone(), file.clone().into());
        }
        let header = serde_json::Value::Object(header).to_string();
        let path = folder.join(&file);
        std::fs::write(&path, [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes()].concat()).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(8 + header.len() as u64 + end).unwrap();
    }
    std::fs::write(folder.join("model.safetensors.index.json"), serde_json::json!({"weight_map": map}).to_string()).unwrap();
}

#[test]
fn a_folder_of_the_hub_is_the_file_that_it_becomes() {
    let folder = tempfile::tempdir().unwrap();
    hub(folder.path());
    let opened = open_as(folder.path(), None).unwrap();
    assert_eq!((opened.origin, opened.model.file_type.as_deref(), opened.model.n_layer()), (Origin::Planned, Some("BF16"), 1));
    let quantized = open_as(folder.path(), Some(FileType::Q8_0)).unwrap();
    assert!(quantized.model.tensor_bytes() < opened.model.tensor_bytes());
    // Each of its files means the whole, with an index or without.
    assert_eq!(open_files(&folder.path().join("model-00002-of-00002.safetensors")).unwrap(), opened);
    std::fs::remove_file(folder.path().join("model.safetensors.index.json")).unwrap();
    assert_eq!(open_files(&folder.path().join("config.json")).unwrap().model.tensors, opened.model.tensors);
    let error = opened.origin.check_runnable(&opened.first()).unwrap_err();
    assert!(error.hint().unwrap().contains("convert_hf_to_gguf.py"));

    std::fs::write(folder.path().join("model-00001-of-00002.safetensors"), "version https://git-lfs.github.com/spec/v1").unwrap();
    insta::assert_snapshot!(told(folder.path(), folder.path()), @r"
    model-00001-of-00002.safetensors: byte 0: header longer than the 34 B left of the file: 2336927755350992246 bytes stated
      hint: the download looks truncated, or is a pointer of Git LFS: fetch the file again
    ");
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    insta::assert_snapshot!(told(folder.path(), folder.path()), @"FOLDER: config.json has no architectures");
}

#[test]
fn what_is_a_gguf_file_is_not_planned_again_and_pipes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    write(&small(), &path);
    let error = open_as(&path, Some(FileType::Q4_K_M)).unwrap_err().to_string();
    assert!(error.ends_with("m.gguf: --quant Q4_K_M plans a file that does not exist yet, and this is a GGUF file already"), "{error}");
    let error = open(Path::new("-")).unwrap_err();
    assert!(matches!(error, OpenError::Stdin) && error.hint().is_some());
}
