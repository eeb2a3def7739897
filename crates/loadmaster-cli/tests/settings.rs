//! What may be set, as a user sets it: devices, servers of remote ones, what is loaded beside a model.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails panics")]

mod common;

use common::Folder;
use insta::assert_snapshot;
use serde_json::Value;
use synthetic::FileType;

const DUAL: &str = "--machine ram=64GiB,free=60GiB,cores=8,threads=16,bandwidth=60GB/s,features=avx2+fma+f16c,gpu=24GiB,gpu=12GiB";

fn model() -> Folder {
    let folder = Folder::new();
    folder.model("m.gguf", "qwen3-0.6b", FileType::Q4_K_M);
    folder
}

fn json(folder: &Folder, line: &str) -> Value {
    let output = folder.output(&format!("{line} --json"));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}: {output:?}"))
}

/// Ids of the devices of a requirement with the weights of each.
fn weights(folder: &Folder, line: &str) -> Vec<(String, bool)> {
    let view = json(folder, line);
    let devices = view["devices"].as_array().unwrap().iter();
    devices.map(|device| (device["id"].as_str().unwrap().to_owned(), device["load"]["weights"] != 0)).collect()
}

fn command(folder: &Folder, line: &str) -> String {
    json(folder, line)["command"]["line"].as_str().unwrap().to_owned()
}

#[test]
fn devices_by_name_are_all_there_is() {
    let folder = model();
    let of = |line: &str| weights(&folder, &format!("memory m.gguf {line} {DUAL}"));
    let named = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), true)).collect::<Vec<_>>();
    assert_eq!(of(""), named(&["cpu", "CUDA0", "CUDA1"]));
    assert_eq!(of("-dev CUDA1"), named(&["cpu", "CUDA1"]));
    assert_eq!(of("--device CUDA1,CUDA0"), named(&["cpu", "CUDA1", "CUDA0"]));
    assert_eq!(of("-dev none"), named(&["cpu"]));
    // Declared devices are named after their backends; of several lists of names the last counts, as in llama-server.
    assert_eq!(of("-dev CUDA:8GiB,CUDA:16GiB -dev CUDA0 -dev CUDA1"), named(&["cpu", "CUDA1"]));
    let planned = command(&folder, &format!("plan m.gguf -dev CUDA1 {DUAL}"));
    assert!(planned.contains("--device CUDA1 "), "{planned}");
    let planned = command(&folder, &format!("plan m.gguf {DUAL}"));
    assert!(!planned.contains("--device"), "{planned}");
    let text =
        ["memory m.gguf -dev CUDA7", "plan m.gguf -dev CUDA0,CUDA0", "plan m.gguf -dev CUDA0,", "run m.gguf --dry-run -dev CUDA:8GiB"];
    assert_snapshot!(text.map(|line| folder.run(&format!("{line} {DUAL}"))).concat(), @r#"
    exit 2
    --- stderr
    error: no device is called "CUDA7"; there are CUDA0, CUDA1
    exit 2
    --- stderr
    error: device "CUDA0" is named twice
    exit 2
    --- stderr
    error: invalid value 'CUDA0,' for '--device <NAME,...>': "CUDA0," is not a list of devices by name: CUDA0,CUDA1, or none
    
    For more information, try '--help'.
    exit 2
    --- stderr
    error: run goes by the devices of the machine: --device takes their names, not sizes
    hint: memory, plan and verify take devices that are not there
    "#);
}

#[test]
fn servers_of_remote_devices_are_named_before_the_devices() {
    let folder = model();
    let declared = "-dev RPC[CUDA]:24GiB,CUDA:12GiB -dev RPC0";
    let planned = command(&folder, &format!("plan m.gguf {declared} --rpc 10.0.0.2:50052 {DUAL}"));
    assert!(planned.contains("--rpc 10.0.0.2:50052 --device RPC0 "), "{planned}");
    let warned = folder.run(&format!("plan m.gguf {declared} {DUAL}"));
    assert!(warned.contains("RPC0 is a device of an rpc-server, and none is named"), "{warned}");
    let lines = ["plan m.gguf --rpc 10.0.0.2", "memory m.gguf --rpc 10.0.0.2:50052", "plan m.gguf --rpc 10.0.0.2:1 --engine bundled"];
    assert_snapshot!(lines.map(|line| folder.run(&format!("{line} {DUAL}"))).concat(), @r#"
    exit 2
    --- stderr
    error: invalid value '10.0.0.2' for '--rpc <HOST:PORT,...>': "10.0.0.2" is not HOST:PORT
    
    For more information, try '--help'.
    exit 2
    --- stderr
    error: no device of these servers is known here: 10.0.0.2:50052
    hint: the engine sees them on this machine only; elsewhere say what they have: --device RPC[CUDA]:24GiB
    exit 2
    --- stderr
    error: the bundled engine uses no remote devices: 10.0.0.2:1
    hint: name a llama-server with --engine
    "#);
}

/// A llama-server that sees a device of its own, and one more where a server of remote devices is named.
const SERVER: &str = r#"case "$*" in
--version) echo 'version: 0.7.0 (build 11669, commit Debian)' >&2; echo 'built with GNU 16.2.0 for Linux x86_64' >&2 ;;
--help) printf '%s\n' '-m,    --model FNAME                    model' '--rpc SERVERS                           servers' \
  '-dev,  --device <dev1,dev2,..>          devices' '-c,    --ctx-size N                     context' \
  '-ngl,  --gpu-layers, --n-gpu-layers N   layers' '-t,    --threads N                      threads' \
  '-b,    --batch-size N                   batch' '-ub,   --ubatch-size N                  micro-batch' \
  '-tb,   --threads-batch N                threads' '-fa,   --flash-attn [on|off|auto]        attention' \
  '--cache-ram N                           cache' '--list-devices                          devices' ;;
--list-devices) printf 'Available devices:\n  CUDA0: one (12288 MiB, 12000 MiB free)\n' ;;
'--rpc 10.0.0.2:50052 --list-devices') printf 'Available devices:\n  CUDA0: one (12288 MiB, 12000 MiB free)\n  RPC0: far (24576 MiB, 24000 MiB free)\n' ;;
*) echo "Failed to connect to $2" >&2; kill -ABRT $$ ;;
esac"#;

#[test]
fn the_engine_is_asked_for_remote_devices() {
    let mut folder = model();
    folder.script("llama-server", SERVER);
    let of = |line: &str| weights(&folder, &format!("memory m.gguf {line}")).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(of(""), ["cpu", "CUDA0"]);
    assert_eq!(of("--rpc 10.0.0.2:50052"), ["cpu", "RPC0", "CUDA0"]);
    assert_eq!(of("--rpc 10.0.0.2:50052 -dev CUDA0"), ["cpu", "CUDA0"]);
    let planned = command(&folder, "serve m.gguf --dry-run --rpc 10.0.0.2:50052 -dev RPC0");
    assert!(planned.contains("--rpc 10.0.0.2:50052 --device RPC0 "), "{planned}");
    assert_snapshot!(folder.run("memory m.gguf --rpc 10.0.0.3:1"), @r"
    exit 5
    --- stderr
    error: llama-server --list-devices failed, killed by SIGABRT: Failed to connect to 10.0.0.3:1
    hint: run it by hand to see what is wrong, or name another with --engine
    ");
}

#[test]
fn a_configuration_keeps_devices_and_servers() {
    let folder = model();
    let line = format!("plan m.gguf -dev RPC[CUDA]:24GiB,CUDA:12GiB -dev RPC0 --rpc 10.0.0.2:50052,10.0.0.3:50052 -o c.toml {DUAL}");
    assert!(folder.run(&line).starts_with("exit 0\n"));
    let text = std::fs::read_to_string(folder.path().join("c.toml")).unwrap();
    assert!(
        text.contains("rpc_servers = [\n    \"10.0.0.2:50052\",\n    \"10.0.0.3:50052\",\n]")
            || text.contains("rpc_servers = [\"10.0.0.2:50052\", \"10.0.0.3:50052\"]"),
        "{text}"
    );
    assert!(text.contains("devices = [\"RPC0\"]"), "{text}");
    folder.file("d.toml", "loadmaster = 1\nmodel = \"m.gguf\"\n[settings]\ndevices = [\"CUDA1\"]\n");
    folder.file("e.toml", "loadmaster = 1\nmodel = \"m.gguf\"\n[settings]\ndevices = [\"CUDA9\"]\n");
    folder.file("f.toml", "loadmaster = 1\nmodel = \"m.gguf\"\n[settings]\ndevices = [1]\n");
    folder.file("g.toml", "loadmaster = 1\nmodel = \"m.gguf\"\n[settings]\ndevices = []\nrpc_servers = []\n");
    assert!(folder.run(&format!("validate d.toml {DUAL}")).starts_with("exit 0\n"));
    assert!(folder.run(&format!("validate g.toml {DUAL}")).starts_with("exit 0\n"));
    assert_snapshot!(folder.run(&format!("validate e.toml {DUAL}")) + &folder.run(&format!("validate f.toml {DUAL}")), @r#"
    exit 2
    --- stderr
    error: no device is called "CUDA9"; there are CUDA0, CUDA1
    exit 2
    --- stderr
    error: f.toml: line 4: settings.devices: [1] is no list of names
    "#);
}

fn lora(folder: &Folder, architecture: &str) {
    let texts = [("general.architecture", architecture), ("general.type", "adapter"), ("adapter.type", "lora")];
    folder.attachment("lora.gguf", &texts, &[], &[("blk.0.attn_q.weight.lora_a", [1024, 16]), ("blk.0.attn_q.weight.lora_b", [16, 2048])]);
}

#[test]
fn a_configuration_keeps_what_is_loaded_beside_the_model() {
    let folder = model();
    folder.model("draft.gguf", "qwen3-0.6b", FileType::Q8_0);
    lora(&folder, "qwen3");
    let plan = folder.run(&format!("plan m.gguf --lora lora.gguf -md draft.gguf --draft-max 4 -ngld 5 -ctkd q8_0 -o sub.toml {DUAL}"));
    assert!(plan.starts_with("exit 0\n"), "{plan}");
    let text = std::fs::read_to_string(folder.path().join("sub.toml")).unwrap();
    let (_, beside) = text.split_once("[beside]\n").unwrap();
    assert_snapshot!(beside.split("\n\n").next().unwrap(), @r#"
    lora = ["lora.gguf"]
    model_draft = "draft.gguf"
    draft_max = 4
    n_gpu_layers_draft = 5
    cache_type_k_draft = "q8_0"
    "#);
    // It is counted, passed on, and validated; from another folder the files are the same.
    let run = command(&folder, &format!("serve m.gguf --dry-run --config sub.toml {DUAL}"));
    for part in ["--lora", "lora.gguf", "--model-draft", "draft.gguf", "--n-gpu-layers-draft 5", "--cache-type-k-draft q8_0"] {
        assert!(run.contains(part), "{part}: {run}");
    }
    assert!(folder.run(&format!("validate sub.toml {DUAL}")).starts_with("exit 0\n"));
    // As large as the model it is left out where that is open, and a configuration says so by not naming it.
    assert!(folder.run(&format!("plan m.gguf -md draft.gguf -o sub.toml {DUAL}")).starts_with("exit 0\n"));
    assert!(!std::fs::read_to_string(folder.path().join("sub.toml")).unwrap().contains("draft"));
}

#[test]
fn a_configuration_that_names_the_wrong_files() {
    let folder = model();
    folder.model("other.gguf", "smollm2-135m", FileType::Q8_0);
    lora(&folder, "llama");
    let mut text = String::new();
    for beside in [
        "lora = [\"gone.gguf\"]",
        "lora = [\"lora.gguf\"]",
        "lora = [\"m.gguf\"]",
        "lora = \"lora.gguf\"",
        "model_draft = \"other.gguf\"",
        "model_draft = \"other.gguf\"\nspec_type = \"draft-mtp\"",
        "draft_max = 5",
        "mmproj_offload = false",
        "cache_type_k_draft = \"q6_K\"",
        "model_drafts = \"other.gguf\"",
    ] {
        folder.file("c.toml", format!("loadmaster = 1\nmodel = \"m.gguf\"\n[beside]\n{beside}\n"));
        text.push_str(&folder.run(&format!("validate c.toml {DUAL}")));
    }
    assert_snapshot!(text, @r#"
    exit 7
    --- stderr
    error: gone.gguf: no such file
    hint: check the spelling of the path
    exit 2
    --- stdout
    not valid  c.toml for synthetic qwen3-0.6b Q4_K_M
    on 8 cores, 64.00 GiB, GPU 24.00 GiB, GPU 12.00 GiB with llama-server 0.7.0
    
      error memory [engine-refuses]: LoRA adapter: it is made for "llama", the model is "qwen3"
        fix change the setting it names
    exit 7
    --- stderr
    error: m.gguf: the file holds no lora: a model of architecture qwen3
    exit 2
    --- stderr
    error: c.toml: line 4: beside.lora: "lora.gguf" is no list of paths
    exit 2
    --- stdout
    not valid  c.toml for synthetic qwen3-0.6b Q4_K_M
    on 8 cores, 64.00 GiB, GPU 24.00 GiB, GPU 12.00 GiB with llama-server 0.7.0
    
      error memory [engine-refuses]: the draft's vocabulary does not go with the model's: it has 49152 tokens, the
            model's 151936
        fix change the setting it names
    exit 2
    --- stderr
    error: c.toml: line 3: beside: two drafts: --model-draft and --spec-type draft-mtp; one of them
    exit 2
    --- stderr
    error: c.toml: line 3: beside: --spec-draft-n-max is for a draft, and nothing drafts: --model-draft names a model
    exit 2
    --- stderr
    error: c.toml: line 3: beside: where the projector lies is said, and none is loaded: --mmproj names one
    exit 2
    --- stderr
    error: c.toml: line 4: beside.cache_type_k_draft: "q6_K" is not one of f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0, q5_1
    exit 2
    --- stderr
    error: c.toml: line 4: unknown key beside.model_drafts, did you mean beside.model_draft?
    "#);
}

/// Every value is taken as the engine takes it, refused, or told to have no effect; the first line that is said of each.
#[test]
fn odd_values() {
    let folder = model();
    folder.model("moe.gguf", "qwen3-30b-a3b", FileType::Q4_K_M);
    let mut text = String::new();
    for (command, line) in ODD {
        let said = folder.run(&format!("{command} {line} {DUAL}"));
        let exit = said.lines().next().unwrap();
        let told: Vec<&str> = said.lines().filter(|line| line.starts_with("error:") || line.starts_with("warning:")).collect();
        text.push_str(&format!("{line}\n  {exit}  {}\n", told.join("\n          ")));
    }
    assert_snapshot!("odd_values", text);
}

const ODD: &[(&str, &str)] = &[
    ("memory m.gguf", "-c 4294967295"),
    ("memory m.gguf", "-c 2147483647"),
    ("memory m.gguf", "-c 1 -np 8"),
    ("memory m.gguf", "-np 64 -c 32"),
    ("memory m.gguf", "-np 0"),
    ("memory m.gguf", "-np 300"),
    ("memory m.gguf", "-b 0"),
    ("memory m.gguf", "-b 1 -ub 512"),
    ("memory m.gguf", "-ub 0"),
    ("memory m.gguf", "-ngl -5"),
    ("memory m.gguf", "-ngl 2147483647"),
    ("memory m.gguf", "-ngl 99 -ngl 3"),
    ("memory m.gguf", "-t 0"),
    ("memory m.gguf", "-ot nothing=CUDA0"),
    ("memory m.gguf", "-ot .*=CUDA9"),
    ("memory m.gguf", "-ot .*=CUDA1 -dev CUDA0"),
    ("memory m.gguf", "-ot (=CPU"),
    ("memory m.gguf", "-ot =CPU"),
    ("memory m.gguf", "-ts 1,1,1"),
    ("memory m.gguf", "-ts 1"),
    ("memory m.gguf", "-ts 1e300,1"),
    ("memory m.gguf", "-ts 1e-300,1e-300"),
    ("memory m.gguf", "-ts 1,1 -sm none"),
    ("memory m.gguf", "-ts -1,1"),
    ("memory m.gguf", "-mg 5"),
    ("memory m.gguf", "-mg 2 -sm none"),
    ("memory m.gguf", "-mg 1 -sm none -dev CUDA1"),
    ("memory m.gguf", "-sm tensor -fa off"),
    ("memory m.gguf", "-sm tensor -ts 1,0"),
    ("memory m.gguf", "-sm tensor -dev none"),
    ("memory m.gguf", "-ctv q8_0 -fa off"),
    ("memory m.gguf", "-ctk q8_0 -fa off"),
    ("memory m.gguf", "-fa maybe"),
    ("memory m.gguf", "-ncmoe 5"),
    ("memory moe.gguf", "-ncmoe 999999"),
    ("memory m.gguf", "-cram -2"),
    ("memory m.gguf", "-dev CUDA:0GiB"),
    ("memory m.gguf", "-dev CUDA:1MiB"),
    ("memory m.gguf", "-dev CUDA:1e30GiB"),
    ("memory m.gguf", "-dev none -ngl 99"),
    ("memory m.gguf", "-dev CUDA0,none"),
    ("memory m.gguf", "-dev RPC:8GiB"),
    ("memory m.gguf", "-dev RPC[TPU]:8GiB"),
    ("memory m.gguf", "-dev RPC[CUDA]:8GiB"),
    ("memory m.gguf", "--rpc 10.0.0.2:0"),
    ("memory m.gguf", "--pooling mean"),
    ("memory m.gguf", "--draft-max 5"),
    ("memory m.gguf", "--spec-type draft-mtp"),
    ("memory m.gguf", "-md m.gguf --draft-max 4000000000"),
    ("memory m.gguf", "-md m.gguf --draft-max -1"),
    ("memory m.gguf", "-md m.gguf -ngld 2000000000 --draft-max 2000000000"),
    ("memory m.gguf", "-md m.gguf -ngld auto"),
    ("memory m.gguf", "-md m.gguf -ngld all"),
    ("memory m.gguf", "-md m.gguf -ngld most"),
    ("memory m.gguf", "-md m.gguf --spec-draft-n-ubatch 0"),
    ("memory m.gguf", "-mmdev CUDA1"),
    ("memory m.gguf", "--no-mmproj-offload"),
    ("memory m.gguf", "--gpu-memory 7=8GiB"),
    ("plan m.gguf", "-ngl 2147483647"),
    ("plan m.gguf", "-ts 1,1,1"),
    ("plan m.gguf", "-mg 7 -sm none"),
    ("plan m.gguf", "-np 300"),
    ("plan m.gguf", "-b 0"),
    ("plan m.gguf", "-c 4294967295"),
    ("plan m.gguf", "-ot (=CPU"),
    ("plan m.gguf", "-ctv q8_0 -fa off"),
    ("plan m.gguf", "-dev none -ngl 99"),
    ("plan m.gguf", "-dev CUDA:1MiB"),
    ("plan m.gguf", "--margin -5%"),
    ("plan m.gguf", "--margin 999TiB"),
    ("plan m.gguf", "--users 5000"),
    ("plan m.gguf", "-sm tensor"),
    ("verify m.gguf", "--engine nowhere"),
];

/// What the engine refuses has one exit code in every command, and is told once.
#[test]
fn settings_that_the_engine_refuses_are_no_lack_of_memory() {
    let folder = model();
    let said = |line: &str| folder.run(line);
    for line in
        ["-ctv q8_0 -fa off", "-b 0", "-b 128 -ub 512", "-ub 0", "-np 0", "-t 0", "-mg 5", "-ts 1,1,1", "-ot (=CPU", "--engine bitnet"]
    {
        for command in ["plan", "predict", "validate", "memory"] {
            // `memory` looks at what is asked for, and at none of the rules for it.
            let text = said(&format!("{command} m.gguf {line} {DUAL}"));
            let refused = text.starts_with("exit 2\n");
            assert!(refused || command == "memory" && !text.starts_with("exit 3\n"), "{command} {line}: {text}");
        }
    }
    let text = said(&format!("plan m.gguf -ot (=CPU {DUAL}"));
    assert_eq!(text.matches("cannot be searched").count() + text.matches("unclosed").count(), 1, "{text}");
    let text = said("plan m.gguf -ngl all -c 40960 -b 512 --machine cores=8,ram=32GiB,gpu=1GiB");
    assert!(text.starts_with("exit 3\n"), "{text}");
}
