//! Bad input of every kind: a clear message, the right exit code, no panic and no hang.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot be set up has failed, one that skips says so")]

mod common;

use common::{Folder, header};
use insta::assert_snapshot;
use synthetic::writer::TensorEntry;
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
    assert_snapshot!(Folder::new().run("inspect nowhere.gguf"), @r"
    exit 7
    --- stderr
    error: nowhere.gguf: no such file
    hint: check the spelling of the path
    ");
}

#[test]
fn a_directory() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("models")).unwrap();
    assert_snapshot!(folder.run("inspect models"), @r"
    exit 7
    --- stderr
    error: models: is a directory, without any .gguf file, and without safetensors beside a config.json
    hint: name a file in it
    ");
}

#[test]
fn an_empty_file() {
    let folder = Folder::new();
    folder.file("m.gguf", "");
    assert_snapshot!(folder.run("inspect m.gguf"), @r"
    exit 7
    --- stderr
    error: m.gguf: empty file
    hint: the download did not begin, or failed: fetch it again
    ");
}

#[test]
fn a_text_file() {
    let folder = Folder::new();
    folder.file("m.gguf", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 42\n".repeat(3));
    assert_snapshot!(folder.run("plan m.gguf"), @r"
    exit 7
    --- stderr
    error: m.gguf: byte 0: not a GGUF file: a Git LFS pointer, the file itself was not fetched
    hint: run git lfs pull in the folder of the file
    ");
}

#[test]
fn a_truncated_header() {
    let folder = Folder::new();
    folder.file("m.gguf", demo().get(..5000).unwrap());
    assert_snapshot!(common::without_numbers(&folder.run("inspect m.gguf")), @r"
    exit 7
    --- stderr
    error: m.gguf: byte #: more array elements stated than fit into the #.# KiB left of the file: #
    hint: the download looks truncated: compare the size with the source, then fetch the file again
    ");
}

#[test]
fn truncated_tensor_data() {
    let folder = Folder::new();
    let whole = demo();
    folder.file("m.gguf", &whole[..whole.len() - 4096]);
    assert_snapshot!(common::without_numbers(&folder.run("plan m.gguf")), @r"
    exit 7
    --- stderr
    error: m.gguf: byte #: tensor blk.#.ffn_down.weight ends at byte #, the file at byte #
    hint: the download looks truncated: compare the size with the source, then fetch the file again
    ");
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
    assert_snapshot!(text, @r"
    exit 7
    --- stderr
    error: tensors.gguf: byte 8: more tensors than the limit of 1048576: 9223372036854775808
    hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    exit 7
    --- stderr
    error: keys.gguf: byte 16: more metadata pairs than the limit of 65536: 9223372036854775808
    hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    exit 7
    --- stderr
    error: key_length.gguf: byte 24: key longer than the 96 B left of the file: 9223372036854775808 bytes stated
    hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    exit 7
    --- stderr
    error: shape.gguf: byte 69: tensor token_embd.weight has a shape without a size: [4611686018427387904, 4611686018427387904, 1, 1]
    hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    exit 7
    --- stderr
    error: offset.gguf: byte 69: tensor token_embd.weight should begin at byte 0 of the data, and states 9223372036854775808
    ");
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
    assert_snapshot!(folder.run("inspect m.gguf"), @r"
    exit 7
    --- stderr
    error: m.gguf: byte 126: tensor stands twice: token_embd.weight
    ");
}

#[test]
fn an_unknown_tensor_type() {
    let folder = Folder::new();
    let mut header = header();
    header.tensors[0].type_id = 250;
    let mut bytes = header.encode();
    bytes.resize(bytes.len() + 1024, 0);
    folder.file("m.gguf", bytes);
    assert_snapshot!(folder.run("inspect m.gguf"), @r"
    exit 7
    --- stderr
    error: m.gguf: byte 69: tensor token_embd.weight has an unknown type: 250
    hint: the file may come from a fork of llama.cpp, or be newer than this program
    ");
}

#[test]
fn an_unknown_architecture_is_accounted_generically_and_says_so() {
    let folder = Folder::new();
    let mut bytes = demo();
    // The same length, so that everything stays where it is.
    let found: Vec<usize> = (0..20_000).filter(|at| bytes[*at..].starts_with(b"qwen3")).collect();
    found.iter().for_each(|at| bytes[*at..at + 5].copy_from_slice(b"qwen9"));
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
    assert_snapshot!(text, @r"
    exit 7
    --- stderr
    error: old.gguf: byte 4: GGUF version 1, which no engine reads since 2023
    hint: convert the model again with llama.cpp's convert_hf_to_gguf.py, or fetch a newer file
    exit 7
    --- stderr
    error: big.gguf: byte 4: big-endian GGUF, version 3
    hint: fetch the little-endian file, or turn this one with gguf-py's gguf_convert_endian.py
    ");
}

#[test]
fn shards_in_the_wrong_order_and_missing() {
    let folder = Folder::new();
    let files = synthetic::shards(&synthetic::demo(), FileType::Q8_0, &Options::default(), 3).unwrap();
    let write =
        |name: &str, index: usize| synthetic::write::write(&files[index], synthetic::Fill::Zero, &folder.path().join(name)).unwrap();
    write("order-00001-of-00003.gguf", 0);
    write("order-00002-of-00003.gguf", 2);
    write("order-00003-of-00003.gguf", 1);
    write("missing-00001-of-00003.gguf", 0);
    write("missing-00003-of-00003.gguf", 2);
    let text = folder.run("inspect order-00001-of-00003.gguf") + &folder.run("inspect missing-00001-of-00003.gguf");
    assert_snapshot!(text, @r"
    exit 7
    --- stderr
    error: order-00001-of-00003.gguf: files of the split model are out of order: file 3 is part 2
    exit 7
    --- stderr
    error: missing-00002-of-00003.gguf: shard 2 of 3 is missing
    hint: all shards must lie in one folder under their original names
    ");
}

#[test]
fn a_configuration_with_a_typo() {
    let folder = Folder::new();
    folder.model("m.gguf", "demo", FileType::Q4_K_M).file("c.toml", "loadmaster = 1\nmodel = \"m.gguf\"\n\n[settings]\nn_ctxx = 4096\n");
    assert_snapshot!(folder.run("validate c.toml"), @r"
    exit 2
    --- stderr
    error: c.toml: line 5: unknown key settings.n_ctxx, did you mean settings.n_ctx?
    ");
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
    assert_snapshot!(text, @r#"
    exit 2
    --- stderr
    error: negative.toml: line 4: settings.n_ubatch: -5 is negative
    exit 2
    --- stderr
    error: huge.toml: line 4: settings.n_ctx: 99999999999999 is too large, at most 2147483647
    exit 2
    --- stderr
    error: invalid value '-5' for '--ctx-size <N>': "-5" is not a whole number from 0 to 2147483647

    For more information, try '--help'.
    exit 2
    --- stderr
    error: invalid value '99999999999999' for '--ctx-size <N>': "99999999999999" is not a whole number from 0 to 2147483647

    For more information, try '--help'.
    exit 2
    --- stderr
    error: invalid value 'banana' for '--batch-size <N>': "banana" is not a whole number from 0 to 2147483647

    For more information, try '--help'.
    exit 2
    --- stderr
    error: invalid value 'q9_9' for '--cache-type-k <TYPE>': "q9_9" is not one of f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0, q5_1

    For more information, try '--help'.
    exit 2
    --- stderr
    error: invalid value '0,0' for '--tensor-split <N0,N1,...>': "0,0" gives no device a share

    For more information, try '--help'.
    "#);
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
    assert_snapshot!(text, @r#"
    exit 7
    --- stderr
    error: machine recording newer.json: the recording has version 999, this program reads up to version 1; update loadmaster, or record the machine again with this one: loadmaster detect --capture FILE
    hint: make a new recording with `loadmaster detect --capture FILE`
    exit 7
    --- stderr
    error: machine recording text.json: line 1, column 1: not a machine recording: expected value
    hint: make a new recording with `loadmaster detect --capture FILE`
    exit 7
    --- stderr
    error: cannot read the machine recording nowhere.json: No such file or directory (os error 2)
    hint: --machine takes `live`, a file from `loadmaster detect --capture FILE`, or a description such as rtx4090x2,ram=64GiB,cpu=ryzen-9-7950x or ram=64GiB,cores=8,gpu=24GiB
    exit 2
    --- stderr
    error: machine description "ram=banana": "ram=banana": not a size: "banana"; write a number and B, KiB, MiB, GiB or TiB (KB, MB, GB, TB are powers of ten)
    exit 2
    --- stderr
    error: machine description "ram=64GiB,cores=-1": "cores=-1": not a number from 1 to 8192
    exit 2
    --- stderr
    error: machine description "gpus=3": no such key: "gpus"; the keys are cpu, ram, free, swap, cores, threads, bandwidth, gpu, features, arch, os; did you mean gpu?
    exit 2
    --- stderr
    error: machine description "ram=0B": "ram=0B": 0 B is too small; write the unit, e.g. 64GiB
    "#);
}

#[test]
fn no_engine() {
    let folder = Folder::new();
    folder.model("m.gguf", "demo", FileType::Q4_K_M).file("notes.txt", "hello\n");
    let text = folder.run("serve m.gguf")
        + &folder.run("serve m.gguf --engine nowhere/llama-server")
        + &folder.run("serve m.gguf --engine notes.txt");
    assert_snapshot!(text, @r"
    exit 5
    --- stderr
    error: no llama-server found on PATH
    hint: install llama.cpp (Debian 14 or newer: apt install llama.cpp-tools; Nix: nixpkgs#llama-cpp; Homebrew: brew install llama.cpp) or build it from source, or name the llama-server that you have with --engine
    exit 5
    --- stderr
    error: no llama-server at nowhere/llama-server
    hint: install llama.cpp (Debian 14 or newer: apt install llama.cpp-tools; Nix: nixpkgs#llama-cpp; Homebrew: brew install llama.cpp) or build it from source, or name the llama-server that you have with --engine
    exit 5
    --- stderr
    error: cannot run ./notes.txt: Permission denied (os error 13)
    hint: make it executable, or name another with --engine
    ");
}

/// What a llama-server says when asked, and then the line that it does in place of serving.
fn fake_server(instead: &str) -> String {
    format!(
        r#"case "$1" in
--version) echo 'version: 0.7.0 (build 11669, commit Debian)' >&2; echo 'built with GNU 16.2.0 for Linux x86_64' >&2; exit 0 ;;
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
    assert_snapshot!(folder.run("serve m.gguf --port 0 --quiet"), @r"
    exit 6
    --- stderr
    error: the engine ended while starting, killed by SIGABRT: ggml_assert: out of luck
    hint: -v shows the whole log of the engine
    ");
}

#[test]
fn an_engine_that_hangs() {
    let mut folder = Folder::new();
    folder.model("m.gguf", "demo", FileType::Q4_K_M);
    folder.script("llama-server", &fake_server("sleep 1000"));
    assert_snapshot!(folder.run("serve m.gguf --port 0 --engine-timeout 1 --quiet"), @r"
    exit 6
    --- stderr
    error: the engine shows no progress for 1 s while starting
    hint: a slow disk needs a longer --engine-timeout; -v shows the log of the engine
    ");
}

#[test]
fn a_target_that_cannot_be_written() {
    let folder = Folder::new();
    folder.model("m.gguf", "demo", FileType::Q4_K_M);
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let mut text = String::new();
    for target in ["nowhere/plan.toml", "folder", "/proc/plan.toml"] {
        let output = folder.output(&format!("plan m.gguf --quiet --machine ram=8GiB,cores=4 -o {target}"));
        assert_eq!(output.status.code(), Some(7), "{target}");
        text.push_str(&folder.show(&std::process::Output { stdout: Vec::new(), ..output }));
    }
    assert_snapshot!(text, @r#"
    exit 7
    --- stderr
    error: cannot write nowhere/plan.toml: No such file or directory (os error 2)
    hint: its folder does not exist: create it first
    exit 7
    --- stderr
    error: cannot write folder: is a directory
    exit 7
    --- stderr
    error: cannot write /proc/plan.toml: No such file or directory (os error 2)
    hint: its folder does not exist: create it first
    "#);
}

#[test]
fn a_result_that_cannot_be_written() {
    let folder = Folder::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = folder.command("detect --json").stdout(full).stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output();
    assert_snapshot!(folder.show(&output.unwrap()), @r"
    exit 7
    --- stderr
    error: cannot write the result: No space left on device (os error 28)
    ");
}

/// A file system of its own, or nothing where one cannot be mounted: that takes root.
struct Mount<'a>(&'a std::path::Path);

impl<'a> Mount<'a> {
    fn tmpfs(at: &'a std::path::Path, options: &str) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        let done = mounted.is_ok_and(|output| output.status.success());
        if !done {
            println!("SKIPPED: a tmpfs cannot be mounted here; run as root to test full disks and read-only mounts");
        }
        done.then_some(Self(at))
    }

    fn read_only(&self) {
        assert!(std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(self.0).status().unwrap().success());
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_and_a_read_only_mount() {
    let folder = Folder::new();
    folder.model("m.gguf", "demo", FileType::Q4_K_M);
    let at = folder.path().join("small");
    let Some(mount) = Mount::tmpfs(&at, "size=8k") else { return };
    let mut demo = folder.command("run --dry-run --quiet");
    demo.env("XDG_CACHE_HOME", &at);
    let text = folder.run("detect --capture small/here.json --quiet") + &folder.show(&common::finish(demo, "run"));
    std::fs::remove_dir_all(at.join("loadmaster")).unwrap();
    let left: Vec<_> = std::fs::read_dir(&at).unwrap().collect();
    assert!(left.is_empty(), "something was left behind: {left:?}");
    mount.read_only();
    let text = text + &folder.run("detect --capture small/here.json --quiet");
    assert_snapshot!(text, @r#"
    exit 7
    --- stderr
    error: cannot write small/here.json: No space left on device (os error 28)
    hint: free some space there, or name a file on another disk
    exit 7
    --- stderr
    error: cannot write small/loadmaster/demo/loadmaster-demo-q4_k_m.gguf: No space left on device (os error 28)
    hint: free some space there, or name a file on another disk
    exit 7
    --- stderr
    error: cannot write small/here.json: Read-only file system (os error 30)
    hint: that file system is mounted read-only: name a file elsewhere
    "#);
}

/// A model of the Hugging Face hub: its figures, and a header of safetensors with as much of nothing behind it.
fn hub(folder: &Folder, class: &str) {
    let config = format!(
        r#"{{"architectures":["{class}"],"hidden_size":64,"num_hidden_layers":1,"num_attention_heads":4,
        "num_key_value_heads":2,"intermediate_size":128,"vocab_size":100,"max_position_embeddings":512}}"#
    );
    let mut header = String::from("{");
    let (mut end, layer) = (0, "model.layers.0.");
    for (name, rows, columns) in [
        ("model.embed_tokens", 100, 64),
        ("model.norm", 1, 64),
        ("input_layernorm", 1, 64),
        ("post_attention_layernorm", 1, 64),
        ("self_attn.q_proj", 64, 64),
        ("self_attn.k_proj", 32, 64),
        ("self_attn.v_proj", 32, 64),
        ("self_attn.o_proj", 64, 64),
        ("mlp.gate_proj", 128, 64),
        ("mlp.up_proj", 128, 64),
        ("mlp.down_proj", 64, 128),
    ] {
        let prefix = if name.starts_with("model.") { "" } else { layer };
        let shape = if rows == 1 { format!("[{columns}]") } else { format!("[{rows},{columns}]") };
        let comma = if end == 0 { "" } else { "," };
        let start = end;
        end += rows * columns * 2;
        header += &format!(r#"{comma}"{prefix}{name}.weight":{{"dtype":"BF16","shape":{shape},"data_offsets":[{start},{end}]}}"#);
    }
    header.push('}');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.resize(bytes.len() + end, 0);
    folder.file("config.json", config).file("model.safetensors", bytes);
}

#[test]
fn weights_that_are_not_converted_yet_are_counted_and_not_run() {
    let folder = Folder::new();
    hub(&folder, "LlamaForCausalLM");
    let total = |line: &str| {
        let output = folder.command(line).output().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        json["devices"][0]["load"]["weights"].as_u64().unwrap()
    };
    let machine = "--machine ram=8GiB,cores=4 --json";
    let (half, eight) = (total(&format!("memory . {machine} --no-repack")), total(&format!("memory . --quant Q8_0 {machine} --no-repack")));
    assert!(eight < half && eight > half / 2, "{eight} of {half}");
    assert_snapshot!(folder.run("run . --dry-run --engine bundled --machine ram=8GiB,cores=4"), @r"
    exit 7
    --- stderr
    error: .: not a GGUF file yet
    hint: make one with llama.cpp's convert_hf_to_gguf.py, and llama-quantize for another type; `memory` and `plan` work without
    ");
    hub(&folder, "RotaryTransformer");
    let told = folder.run("memory . --machine ram=8GiB,cores=4");
    assert!(told.contains("architecture not known here: RotaryTransformer; there are LlamaForCausalLM"), "{told}");
}

#[test]
fn what_is_no_file_says_what_it_could_be() {
    let folder = Folder::new();
    folder.model("demo.gguf", "demo", FileType::Q4_K_M);
    assert_snapshot!(folder.run("inspect -"), @r"
    exit 2
    --- stderr
    error: a model cannot be read from standard input: its tensors are checked against the length of the file, which a pipe does not tell
    hint: write it to a file first, or name its URL
    ");
    assert_snapshot!(folder.run("memory ollama:../x"), @r"
    exit 2
    --- stderr
    error: no name of a model of Ollama: ../x
    hint: `ollama list` shows the names, such as ollama:llama3.2:1b
    ");
    assert_snapshot!(folder.run("memory demo.gguf --quant Q4_K_M"), @r"
    exit 2
    --- stderr
    error: demo.gguf: --quant Q4_K_M plans a file that does not exist yet, and this is a GGUF file already
    hint: leave --quant out; `llama-quantize --dry-run` tells the size of another type
    ");
}

#[test]
fn a_prediction_of_nothing_or_of_two_things() {
    let folder = Folder::new();
    folder.file("t.csv", "device,model,test,tokens_per_s\n");
    let refused = |line: &str, exit: &str, says: &str| {
        let told = folder.run(line);
        assert!(told.starts_with(exit) && told.contains(says), "{line}: {told}");
    };
    refused("predict", "exit 2", "<MODEL>");
    refused("predict --table t.csv", "exit 2", "--output <CSV>");
    refused("predict qwen3-8b --output o.csv", "exit 2", "cannot be used with");
    refused("predict qwen3-8b --table t.csv --output o.csv", "exit 2", "cannot be used with");
    refused("predict qwen3-8b --users 0", "exit 2", "--users");
    refused("predict nowhere.gguf", "exit 7", "no such file");
    refused("predict qwen3-8b --machine ram=16GiB,cores=4 --svg nowhere/s.svg", "exit 7", "nowhere");
    refused("predict llama-3.1-405b --machine ram=1GiB,cores=4 --disk never", "exit 3", "");
    assert!(!folder.path().join("o.csv").exists());
}
