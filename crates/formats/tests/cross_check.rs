//! Files of the project's other writer: read here, their tensors must add up to what that writer planned.
#![allow(clippy::disallowed_methods, reason = "the cross-check is another program and its files")]

use formats::{describe, gguf};
use spec::Bytes;
use std::io::Read;
use std::path::Path;
use std::process::Command;

/// One shape of each architecture, small enough to be written in a moment.
const SHAPES: [&str; 11] = [
    "smollm2-135m",
    "mixtral-8x7b",
    "qwen2.5-0.5b",
    "qwen3-0.6b",
    "qwen3-30b-a3b",
    "gemma3-270m",
    "phi-3-mini",
    "deepseek-v2-lite",
    "gpt-oss-20b",
    "mamba-130m",
    "bitnet-2b",
];

/// Writes each shape with two layers and a short vocabulary, and prints its plan: name, path, bytes of tensors.
const SCRIPT: &str = r#"
import sys
sys.path.insert(0, sys.argv[1])
import make_gguf as other
for name in sys.argv[3].split(","):
    shape = dict(other.PRESETS[name], n_layer=2, n_vocab=1000)
    keys, tensors = other.describe(shape)
    types = other.choose_types(shape, tensors, "Q4_K_M")
    general = [("general.architecture", "str", shape["arch"]), ("general.file_type", "u32", 15)]
    path = sys.argv[2] + "/" + name + ".gguf"
    other.write(path, general + keys + other.vocab_kv(shape, "spm"), tensors, types, "zero", 1)
    print(name, path, sum(other.tensor_bytes(ty, extents) for (_, extents, _), ty in zip(tensors, types)), len(tensors))
"#;

#[test]
fn files_of_the_other_writer_add_up() {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/tools");
    if !tools.join("make_gguf.py").exists() {
        println!("SKIPPED: no cross-check, ../shared/tools/make_gguf.py is not there");
        return;
    }
    let folder = env!("CARGO_TARGET_TMPDIR");
    let output = Command::new("python3").args(["-B", "-c", SCRIPT]).arg(&tools).args([folder, &SHAPES.join(",")]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), SHAPES.len());
    for line in text.lines() {
        let [name, path, bytes, count] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let mut prefix = Vec::new();
        let mut file = std::fs::File::open(path).unwrap();
        file.by_ref().take(1 << 20).read_to_end(&mut prefix).unwrap();
        let header = gguf::read(&prefix, Bytes::new(file.metadata().unwrap().len())).unwrap();
        std::fs::remove_file(path).unwrap();
        let last = header.tensors.last().unwrap();
        assert_eq!((header.data_offset + last.offset + last.bytes).pad_to(32), header.file_size, "{name}");
        let model = describe(&[header]).unwrap();
        assert_eq!((model.tensor_bytes().get().to_string().as_str(), model.tensors.len().to_string().as_str()), (bytes, count), "{name}");
        assert_eq!((model.n_layer_all(), model.n_vocab), (2, 1000), "{name}");
    }
}
