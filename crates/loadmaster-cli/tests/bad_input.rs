//! Bad input of every kind: a clear message, the right exit code, no panic and no hang.

mod common;

use common::{Folder, header};
use insta::assert_snapshot;
use synthetic::writer::{TensorEntry, Value};
use synthetic::{FileType, Options};

/// A small intact model as bytes.
fn demo() -> Vec<u8> {
    let file = synthetic::gguf(&synthetic::demo(), FileType::Q4_K_M, &Options::default()).unwrap();
    let mut bytes = vec![0; file.size.get() as usize];
    file.read_at(synthetic::Fill::Zero, 0, &mut bytes);
    bytes
}

#[test]
fn a_missing_file() {
    assert_snapshot!(Folder::new().run("inspect nowhere.gguf"), @"");
}

#[test]
fn a_directory() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("models")).unwrap();
    assert_snapshot!(folder.run("inspect models"), @"");
}

#[test]
fn an_empty_file() {
    let folder = Folder::new();
    folder.file("m.gguf", "");
    assert_snapshot!(folder.run("inspect m.gguf"), @"");
}

#[test]
fn a_text_file() {
    let folder = Folder::new();
    folder.file("m.gguf", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 42\n".repeat(3));
    assert_snapshot!(folder.run("plan m.gguf"), @"");
}

#[test]
fn a_truncated_header() {
    let folder = Folder::new();
    folder.file("m.gguf", demo().get(..5000).unwrap());
    assert_snapshot!(folder.run("inspect m.gguf"), @"");
}

#[test]
fn truncated_tensor_data() {
    let folder = Folder::new();
    let whole = demo();
    folder.file("m.gguf", &whole[..whole.len() - 4096]);
    assert_snapshot!(folder.run("plan m.gguf"), @"");
}

#[test]
fn absurd_counts_and_lengths() {
    let folder = Folder::new();
    let absurd = (1_u64 << 63).to_le_bytes();
    for (name, at) in [("tensors.gguf", 8), ("keys.gguf", 16), ("key_length.gguf", 24)] {
        let mut bytes = header().encode();
        bytes[at..at + 8].copy_from_slice(&absurd);
        folder.file(name, bytes);
    }
    let mut shape = header();
    shape.tensors[0].shape = vec![1 << 62, 1 << 62];
    folder.file("shape.gguf", shape.encode());
    let mut offset = header();
    offset.tensors[0].offset = 1 << 63;
    folder.file("offset.gguf", offset.encode());
    let mut text = String::new();
    for name in ["tensors", "keys", "key_length", "shape", "offset"] {
        text.push_str(&folder.run(&format!("inspect {name}.gguf")));
    }
    assert_snapshot!(text, @"");
}

#[test]
fn duplicate_tensors() {
    let folder = Folder::new();
    let mut header = header();
    let again = TensorEntry { offset: 512, ..header.tensors[0].clone() };
    header.tensors.push(again);
    let mut bytes = header.encode();
    bytes.resize(bytes.len() + 1024, 0);
    folder.file("m.gguf", bytes);
    assert_snapshot!(folder.run("inspect m.gguf"), @"");
}

#[test]
fn an_unknown_tensor_type() {
    let folder = Folder::new();
    let mut header = header();
    header.tensors[0].type_id = 250;
    let mut bytes = header.encode();
    bytes.resize(bytes.len() + 1024, 0);
    folder.file("m.gguf", bytes);
    assert_snapshot!(folder.run("inspect m.gguf"), @"");
}

#[test]
fn an_unknown_architecture_is_accounted_generically_and_says_so() {
    let folder = Folder::new();
    let mut bytes = demo();
    // The same length, so that everything stays where it is.
    let at = bytes.windows(5).position(|window| window == b"qwen3").unwrap();
    bytes[at..at + 5].copy_from_slice(b"qwen9");
    folder.file("m.gguf", bytes);
    let shown = folder.run("inspect m.gguf");
    assert!(shown.starts_with("exit 0") && shown.contains("not known by name"), "{shown}");
}

#[test]
fn version_1_and_big_endian() {
    let folder = Folder::new();
    let mut old = header();
    old.version = 1;
    folder.file("old.gguf", old.encode());
    let mut big = header().encode();
    big[4..8].copy_from_slice(&3_u32.to_be_bytes());
    folder.file("big.gguf", big);
    let text = folder.run("inspect old.gguf") + &folder.run("inspect big.gguf");
    assert_snapshot!(text, @"");
}

#[test]
fn shards_in_the_wrong_order_and_missing() {
    let folder = Folder::new();
    let files = synthetic::shards(&synthetic::demo(), FileType::Q8_0, &Options::default(), 3).unwrap();
    let mut write =
        |name: &str, index: usize| synthetic::write::write(&files[index], synthetic::Fill::Zero, &folder.path().join(name)).unwrap();
    write("order-00001-of-00003.gguf", 0);
    write("order-00002-of-00003.gguf", 2);
    write("order-00003-of-00003.gguf", 1);
    write("missing-00001-of-00003.gguf", 0);
    write("missing-00003-of-00003.gguf", 2);
    let text = folder.run("inspect order-00001-of-00003.gguf") + &folder.run("inspect missing-00001-of-00003.gguf");
    assert_snapshot!(text, @"");
}

#[test]
fn a_configuration_with_a_typo() {
    let folder = Folder::new();
    folder.model("m.gguf", "demo", FileType::Q4_K_M).file("c.toml", "loadmaster = 1\nmodel = \"m.gguf\"\n\n[settings]\nn_ctxx = 4096\n");
    assert_snapshot!(folder.run("validate c.toml"), @"");
}

#[test]
fn negative_and_huge_values() {
    let folder = Folder::new();
    folder.model("m.gguf", "demo", FileType::Q4_K_M);
    folder.file("negative.toml", "loadmaster = 1\nmodel = \"m.gguf\"\n[settings]\nn_ubatch = -5\n");
    folder.file("huge.toml", "loadmaster = 1\nmodel = \"m.gguf\"\n[settings]\nn_ctx = 99999999999999\n");
    let mut text = folder.run("validate negative.toml") + &folder.run("validate huge.toml");
    for line in
        ["plan m.gguf -c -5", "plan m.gguf -c 99999999999999", "plan m.gguf -b banana", "plan m.gguf -ctk q9_9", "plan m.gguf -ts 0,0"]
    {
        text.push_str(&folder.run(line));
    }
    assert_snapshot!(text, @"");
}

#[test]
fn a_machine_file_of_a_newer_version_and_other_bad_machines() {
    let folder = Folder::new();
    folder.model("m.gguf", "demo", FileType::Q4_K_M);
    assert!(folder.run("detect --capture here.json").starts_with("exit 0"));
    let recording = std::fs::read_to_string(folder.path().join("here.json")).unwrap();
    let newer = recording.replacen('1', "999", 1);
    folder.file("newer.json", newer).file("text.json", "hello\n");
    let mut text = String::new();
    for machine in ["newer.json", "text.json", "nowhere.json", "ram=banana", "ram=64GiB,cores=-1", "gpus=3", "ram=0B"] {
        text.push_str(&folder.run(&format!("plan m.gguf --machine {machine}")));
    }
    assert_snapshot!(text, @"");
}

#[test]
fn no_engine() {
    let folder = Folder::new();
    folder.model("m.gguf", "demo", FileType::Q4_K_M).file("notes.txt", "hello\n");
    let text = folder.run("serve m.gguf")
        + &folder.run("serve m.gguf --engine nowhere/llama-server")
        + &folder.run("serve m.gguf --engine notes.txt");
    assert_snapshot!(text, @"");
}

/// What a llama-server says when asked, and then the line that it does in place of serving.
fn fake_server(instead: &str) -> String {
    format!(
        r#"case "$1" in
--version) echo 'version: 0.7.0 (build 9999)' >&2; exit 0 ;;
--help) cat <<'HELP'
----- common params -----

-h,    --help, --usage                  print usage and exit
-t,    --threads N                      threads
-tb,   --threads-batch N                threads
-c,    --ctx-size N                     context
-b,    --batch-size N                   batch
-ub,   --ubatch-size N                  micro-batch
-m,    --model FNAME                    model
-ngl,  --gpu-layers, --n-gpu-layers N   layers
--host HOST                             host
--port PORT                             port
HELP
exit 0 ;;
--list-devices) echo 'Available devices:'; exit 0 ;;
esac
{instead}"#
    )
}

#[test]
fn an_engine_that_dies_at_load() {
    let mut folder = Folder::new();
    folder.model("m.gguf", "demo", FileType::Q4_K_M);
    folder.script("llama-server", &fake_server("echo 'ggml_assert: out of luck' >&2; kill -ABRT $$"));
    assert_snapshot!(folder.run("serve m.gguf --port 0"), @"");
}

#[test]
fn an_engine_that_hangs() {
    let mut folder = Folder::new();
    folder.model("m.gguf", "demo", FileType::Q4_K_M);
    folder.script("llama-server", &fake_server("sleep 1000"));
    assert_snapshot!(folder.run("serve m.gguf --port 0 --engine-timeout 1"), @"");
}

#[test]
fn an_engine_that_hangs_when_asked() {
    let mut folder = Folder::new();
    folder.model("m.gguf", "demo", FileType::Q4_K_M);
    folder.script("llama-server", "sleep 1000");
    assert_snapshot!(folder.run("serve m.gguf --port 0 --engine-timeout 1"), @"");
}

#[test]
fn a_target_that_cannot_be_written() {
    let folder = Folder::new();
    folder.model("m.gguf", "demo", FileType::Q4_K_M);
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let mut text = String::new();
    for target in ["nowhere/plan.toml", "folder", "/proc/plan.toml"] {
        text.push_str(
            &folder
                .run(&format!("plan m.gguf --quiet --machine ram=8GiB,cores=4 -o {target} --json"))
                .split("--- stderr")
                .next_back()
                .unwrap(),
        );
    }
    assert_snapshot!(text, @"");
}

#[test]
fn a_full_disk() {
    let folder = Folder::new();
    folder.model("m.gguf", "demo", FileType::Q4_K_M);
    let output = common::finish(
        {
            let mut command = folder.command("detect --json");
            command.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
            command
        },
        "detect",
    );
    assert_eq!(output.status.code(), Some(7));
}
