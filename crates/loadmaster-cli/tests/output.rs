//! What commands print: snapshots for described machines, published schemas, streams, help and completions.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use common::{Folder, finish};
use insta::assert_snapshot;
use serde_json::Value;
use std::path::Path;
use synthetic::FileType;

/// A machine whose every figure is given, so that the output is the same everywhere.
const WORKSTATION: &str = "--machine ram=64GiB,free=60GiB,cores=8,threads=16,bandwidth=60GB/s,features=avx2+fma+f16c,gpu=24GiB";

fn model(preset: &str, file_type: FileType) -> Folder {
    let folder = Folder::new();
    folder.model("m.gguf", preset, file_type);
    folder
}

#[test]
fn help_names_every_command_and_exit_code() {
    assert_snapshot!(Folder::new().run("--help"), @r"
    exit 0
    --- stdout
    Find the best way to run a GGUF model on a machine, and prove it

    Usage: loadmaster [OPTIONS] <COMMAND>

    Commands:
      detect       Show the machine: processors, memory, GPUs, and what of them this process may use
      doctor       Say what slows models down on the machine, what shows it, and what helps
      hardware     Show hardware profiles: settings and speeds of kinds of machine, and which of them a
                   machine is nearest to
      inspect      Show a model: layers, parameters, quantisation, and what it asks of this machine
      memory       Show how much memory a model needs, per device and component, at load and peak
      verify       Compare the computed memory with an engine's own dry run, buffer by buffer
      predict      Predict the speed of a model on a machine over the length of the context, and the
                   time of a request
      recommend    Rank models for the machine: files at hand, known models, or one model in every
                   quantisation
      plan         Choose the settings for a model on a machine, and say why
      validate     Check a configuration file against the machine and the engine's rules
      run          Run a model with settings that fit, and compare what happened with the plan
      serve        Serve a model through llama-server with settings that fit
      completions  Print a completion script for a shell
      help         Print this message or the help of the given subcommand(s)

    Options:
      -V, --version  Print version

    Options of every command:
          --json                 Print the result as JSON (schemas are in the project's `schemas`
                                 folder)
          --machine <FILE|TEXT>  Pretend another machine: a recording made by `detect --capture`, an id
                                 that `hardware list` shows, or a description such as
                                 `rtx4090x2,ram=64GiB,cpu=ryzen-9-7950x`, `m3-max-40c-64gb`,
                                 `ram=64GiB,cores=8,gpu=24GiB,gpu=24GiB`
          --ram <SIZE>           Pretend that the machine has this much memory
          --gpu-memory <N=SIZE>  Pretend that a GPU has this much memory, all of it free: `0=8GiB`; once
                                 per GPU
      -q, --quiet                Print results and errors only, nothing else
      -v, --verbose              Say where each value comes from, and what the engine logs
          --color <WHEN>         When to colour [default: auto] [possible values: auto, always, never]
      -h, --help                 Print help

    Exit codes:
      0  done, also after a downgrade that was reported
      2  wrong usage or configuration, or settings the engine refuses
      3  refused: the model does not fit
      4  fits only after a downgrade, with --strict
      5  no engine found that can run it
      6  the engine failed, or disagreed with the plan or a prediction
      7  a file is missing, broken, unreadable or cannot be written
      8  doctor: something costs speed or memory
    ");
}

#[test]
fn help_of_a_command_shows_the_pins() {
    assert_snapshot!(Folder::new().run("memory --help"), @r"
    exit 0
    --- stdout
    Show how much memory a model needs, per device and component, at load and peak

    Usage: loadmaster memory [OPTIONS] [MODEL]

    Arguments:
      [MODEL]  The model: a GGUF file, or the first of its shards; a folder of safetensors with its
               config.json; `ollama:NAME`; the URL of a GGUF file, of which only the header is fetched;
               or the name of a model that many people run, such as `qwen3-8b`, whose published shape is
               taken

    Options:
          --model-size <SIZE>      In place of a model, the shape that is typical of this size: `8B`,
                                   `350M`, with experts `30B-A3B`
          --quant <TYPE>           Plan weights that are not a GGUF file yet as the file of this type
                                   that llama-quantize would make of them: `Q4_K_M`, `Q8_0`, `BF16`,
                                   ...; without it, safetensors as converted, in 16 bits, and a name or
                                   size in Q4_K_M, of which `plan` takes the best type that meets the
                                   use case in full
          --engine <bundled|PATH>  The engine whose rules apply: `bundled`, `bitnet`, or the path of a
                                   llama-server; without it, for BitNet models our own, else the
                                   llama-server on PATH, or the newest one known
          --prove                  Ask the bundled engine for its own dry run on pretended GPUs of these
                                   sizes and compare to the byte; exit with 6 where they disagree
          --engine-profile <NAME>  Apply the rules of this engine and version instead: `server-0.7.0`,
                                   `bench-0.7.0`, `llama.cpp-2025-03`, `llama.cpp-b5192`,
                                   `ik_llama.cpp-2025-07` or `ik_llama.cpp-b3826` with that fork's own
                                   flags behind it (`ik_llama.cpp -mla 3 -amb 512 -fmoe -rtr
                                   GGML_SCHED_MAX_COPIES=1`), ...; a name that does not exist lists
                                   those that do
          --explain                Show for each number the rule that it follows, the line of llama.cpp
                                   that the rule mirrors, and the arithmetic
          --svg <FILE>             Write the picture as an SVG document
      -V, --version                Print version

    What is loaded beside the model, as llama-server spells it:
          --mmproj <FILE>              [-mm] projector of a multimodal model
          --no-mmproj-offload          Keep the projector on the host
          --mmproj-device <NAME>       [-mmdev] device of the projector, or none; without it, the first
          --lora <FILE>                LoRA adapter; may be repeated
          --control-vector <FILE>      Control vector; may be repeated
          --model-draft <FILE>         [-md] model that drafts tokens [alias: --spec-draft-model]
          --spec-type <TYPE>           Draft with the model's own prediction layers [possible values:
                                       draft-mtp]
          --draft-max <N>              Tokens drafted at once at most; without it, 3, or what a plan
                                       chooses [alias: --spec-draft-n-max]
          --n-gpu-layers-draft <N>     [-ngld] layers of the draft model on GPUs; without it, all, or
                                       none where a plan so chooses [aliases: --gpu-layers-draft,
                                       --spec-draft-ngl]
          --ctx-size-draft <N>         [-cd] context of the draft model; without it, that of the model
          --spec-draft-n-ubatch <N>    Micro-batch of the draft model; without it, that of the model
          --cache-type-k-draft <TYPE>  [-ctkd] type of the draft's K cache; without it, f16 [alias:
                                       --spec-draft-type-k]
          --cache-type-v-draft <TYPE>  [-ctvd] type of the draft's V cache; without it, f16 [alias:
                                       --spec-draft-type-v]

    Settings to keep fixed, as llama-server spells them:
      -c, --ctx-size <N>
              context in tokens over all slots; 0 takes the trained context
      -b, --batch-size <N>
              logical batch: tokens handed over per call
          --ubatch-size <N>
              [-ub] micro-batch: tokens computed at once
          --parallel <N>
              [-np] slots: sequences served in parallel; -1 leaves it to the plan
          --kv-unified
              [-kvu] one cache shared by all slots
          --no-kv-unified
              [-no-kvu] do not: one cache shared by all slots
          --cache-type-k <TYPE>
              [-ctk] type of the K cache
          --cache-type-v <TYPE>
              [-ctv] type of the V cache; a quantised one needs flash attention
          --flash-attn[=<on|off|auto>]
              [-fa] flash attention
          --n-gpu-layers <N>
              [-ngl] layers on GPUs, counted from the last, the output being one more; or all, or auto
              [alias: --gpu-layers]
          --rpc <HOST:PORT,...>
              servers of remote devices (rpc-server)
          --device <NAME,...>
              [-dev] devices to use, by the engine's names and in this order; or all, or none: the CPU
              alone. `memory`, `plan` and `verify` also take devices that are not there, each
              BACKEND:SIZE: `CUDA:24GiB`, `ROCm:16GiB`, `Vulkan:8GiB`, `Metal:64GiB`, `SYCL:16GiB`,
              `RPC[CUDA]:24GiB`
          --split-mode <MODE>
              [-sm] how layers are spread over several GPUs
          --tensor-split <N0,N1,...>
              [-ts] share of each GPU
          --main-gpu <INDEX>
              [-mg] the GPU that split mode none uses
          --override-tensor <PATTERN=BUFFER,...>
              [-ot] put tensors whose name matches into a buffer such as CPU or CUDA0
          --n-cpu-moe <N>
              [-ncmoe] layers, counted from the first, whose routed experts stay in host memory
          --cpu-moe
              [-cmoe] the same as --n-cpu-moe all
          --kv-offload
              [-kvo] keep the cache beside its layer's weights
          --no-kv-offload
              [-nkvo] do not: keep the cache beside its layer's weights
          --op-offload
              compute large batches over host weights on the GPU
          --no-op-offload
              do not: compute large batches over host weights on the GPU
          --swa-full
              full-size cache for layers that slide a window
          --repack
              repack weights for the CPU: a second copy of them in memory
          --no-repack
              [-nr] do not: repack weights for the CPU: a second copy of them in memory
          --load-mode <MODE>
              [-lm] how weights come into memory
          --mmap
              the same as --load-mode mmap
          --no-mmap
              the same as --load-mode none
          --mlock
              the same as --load-mode mmap+mlock
          --direct-io
              [-dio] the same as --load-mode dio
      -t, --threads <N>
              threads for decode; -1 leaves it to the plan
          --threads-batch <N>
              [-tb] threads for prefill; -1 leaves it to the plan
      -C, --cpu-mask <HEX|LO-HI>
              [-Cr] CPUs that threads of decode are held to: a hexadecimal mask, or ranges; of several
              all count [alias: --cpu-range]
          --cpu-strict <0|1>
              one CPU of the mask for each thread of decode
          --cpu-mask-batch <HEX|LO-HI>
              [-Cb, -Crb] CPUs that threads of prefill are held to; without it, those that decode was
              given by hand [alias: --cpu-range-batch]
          --cpu-strict-batch <0|1>
              one CPU of the mask for each thread of prefill
          --numa <TYPE>
              threads evenly over NUMA nodes, on one of them, or where numactl has put them
          --cache-ram <MIB>
              [-cram] limit of the server's prompt cache in host memory, in MiB; 0 disables it, -1 lifts
              it
          --ctx-checkpoints <N>
              [-ctxcp] context checkpoints per slot, for models with windows or state [alias:
              --swa-checkpoints]
          --embedding
              hand out embeddings and no text [alias: --embeddings]
          --pooling <TYPE>
              what is handed out of the embeddings; model: what the file says

    Options of every command:
          --json                 Print the result as JSON (schemas are in the project's `schemas`
                                 folder)
          --machine <FILE|TEXT>  Pretend another machine: a recording made by `detect --capture`, an id
                                 that `hardware list` shows, or a description such as
                                 `rtx4090x2,ram=64GiB,cpu=ryzen-9-7950x`, `m3-max-40c-64gb`,
                                 `ram=64GiB,cores=8,gpu=24GiB,gpu=24GiB`
          --ram <SIZE>           Pretend that the machine has this much memory
          --gpu-memory <N=SIZE>  Pretend that a GPU has this much memory, all of it free: `0=8GiB`; once
                                 per GPU
      -q, --quiet                Print results and errors only, nothing else
      -v, --verbose              Say where each value comes from, and what the engine logs
          --color <WHEN>         When to colour [default: auto] [possible values: auto, always, never]
      -h, --help                 Print help
    ");
}

#[test]
fn a_described_machine() {
    assert_snapshot!(Folder::new().run(&format!("detect {WORKSTATION}")), @r"
    exit 0
    --- stdout
    Processor (linux, x86_64)
      model             unknown (not in the description)
      cores             8 physical, 16 logical, unknown sockets
      usable here       8 cores, 16 CPUs
      caches            unknown
      SIMD              f16c fma avx2
      memory bandwidth  60.0 GB/s
      node 0  ████████ ████████

    Memory
      total        64.00 GiB
      available    60.00 GiB
      usable here  60.00 GiB
      swap         unknown free of unknown
      host   ██░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  60.00 GiB of 64.00 GiB usable
      GPU 0  ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  24.00 GiB of 24.00 GiB usable
             █ taken  ░ usable

    GPUs
         name        memory       free  bandwidth  compute  link
      0  unknown  24.00 GiB  24.00 GiB  unknown    unknown  unknown
    ");
}

#[test]
fn a_model() {
    assert_snapshot!("inspect", model("gemma3-270m", FileType::Q8_0).run(&format!("inspect m.gguf {WORKSTATION}")));
}

#[test]
fn memory_of_fixed_settings() {
    assert_snapshot!(
        "memory",
        model("qwen3-0.6b", FileType::Q4_K_M).run(&format!("memory m.gguf -c 8192 -ngl 20 -ub 256 -fa {WORKSTATION}"))
    );
}

#[test]
fn memory_of_a_mixture_of_experts_with_every_number_explained() {
    let folder = model("gpt-oss-20b", FileType::MXFP4_MOE);
    let shown = folder.run(&format!("memory m.gguf -c 32768 -np 4 --explain --svg m.svg {WORKSTATION}"));
    assert_snapshot!("memory_explained", shown);
    assert_snapshot!("memory_svg", std::fs::read_to_string(folder.path().join("m.svg")).unwrap());
    let nowhere = folder.run(&format!("memory m.gguf --svg none/m.svg --quiet --json {WORKSTATION}"));
    assert!(nowhere.starts_with("exit 7\n") && nowhere.contains("none/m.svg"), "{nowhere}");
}

#[test]
fn memory_by_the_rules_of_another_engine() {
    let folder = model("qwen3-0.6b", FileType::Q4_K_M);
    let output = |name: &str| {
        let output = folder.output(&format!("memory m.gguf -c 8192 --json --engine-profile {name} {WORKSTATION}"));
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|_| panic!("{}", folder.show(&output)))
    };
    let (server, bench) = (output("server-0.7.0"), output("bench-0.7.0"));
    assert_eq!((&server["engine_profile"], &bench["engine_profile"]), (&"llama-server 0.7.0".into(), &"llama-bench 0.7.0".into()));
    let compute = |memory: &Value| memory["devices"][1]["load"]["compute"].as_u64().unwrap();
    assert!(compute(&server) < compute(&bench), "one row of logits against one per token");
    assert_eq!((&server["devices"][0]["kind"], &server["devices"][1]["kind"]), (&"cpu".into(), &"gpu".into()));
    let refused = folder.run("memory m.gguf --engine-profile ollama");
    assert!(refused.starts_with("exit 2\n") && refused.contains("bundled, bitnet, server-0.7.0"), "{refused}");
}

#[test]
fn memory_of_what_is_loaded_beside_a_model() {
    let folder = model("qwen3-0.6b", FileType::Q4_K_M);
    folder.model("draft.gguf", "qwen3-0.6b", FileType::Q8_0);
    let lora = [("general.architecture", "qwen3"), ("general.type", "adapter"), ("adapter.type", "lora")];
    let pair = [("blk.0.attn_q.weight.lora_a", [1024, 16]), ("blk.0.attn_q.weight.lora_b", [16, 2048])];
    folder.attachment("lora.gguf", &lora, &[], &pair);
    let vision = [("clip.vision.embedding_length", 1152), ("clip.vision.image_size", 896), ("clip.vision.patch_size", 14)];
    folder.attachment("mmproj.gguf", &[("general.architecture", "clip")], &vision, &[("v.patch_embd.weight", [768, 1152])]);
    folder.attachment("cvec.gguf", &[("general.architecture", "controlvector")], &[], &[("direction.1", [1024, 1])]);
    let line = "memory m.gguf -c 8192 -md draft.gguf -ngld 4 --draft-max 8 --lora lora.gguf -mm mmproj.gguf --control-vector cvec.gguf";
    assert_snapshot!("memory_beside", folder.run(&format!("{line} {WORKSTATION}")));
    let output = folder.output(&format!("{line} --json {WORKSTATION}"));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", folder.show(&output)));
    check(&value, "memory", line);
    assert_eq!(value["devices"][1]["load"]["adapters"], 2 * (1024 * 16 + 16 * 2048));
    let planned = folder.run(&format!("plan m.gguf -md draft.gguf --draft-max 2 --lora lora.gguf {WORKSTATION}"));
    assert!(planned.starts_with("exit 0\n") && planned.contains("--model-draft draft.gguf --spec-draft-n-max 2"), "{planned}");
    // It is as large as the model: where that is open, it is left out.
    let chosen = folder.run(&format!("plan m.gguf -md draft.gguf --lora lora.gguf --explain {WORKSTATION}"));
    assert!(chosen.contains("--spec-draft-n-max  none") && chosen.contains("left out: with 1 token at a time"), "{chosen}");
    assert!(!chosen.contains("--model-draft"), "{chosen}");

    for (flags, says) in [
        ("--lora mmproj.gguf", "mmproj.gguf: the file holds no lora: a projector"),
        ("--mmproj m.gguf", "m.gguf: the file holds no projector: a model of architecture qwen3"),
        ("-md lora.gguf", "lora.gguf: the file holds no language model: a LoRA adapter"),
        ("--lora nowhere.gguf", "nowhere.gguf: no such file"),
    ] {
        let refused = folder.run(&format!("memory m.gguf {flags} {WORKSTATION}"));
        assert!(refused.starts_with("exit 7\n") && refused.contains(says), "{refused}");
    }
    let alone = folder.run(&format!("memory m.gguf --spec-type draft-mtp {WORKSTATION}"));
    assert!(alone.starts_with("exit 2\n") && alone.contains("no prediction layers"), "{alone}");
}

/// A dry run printed by a program that stands in for llama-fit-params, with the sizes that this settings' prediction has and
/// with another.
#[test]
fn a_verification_is_equal_or_says_what_differs() {
    let mut folder = model("qwen3-0.6b", FileType::Q4_K_M);
    const VERSION: &str =
        "case \"$1\" in --version) echo 'version: 0.7.0 (build 11669, commit Debian)'; echo 'built with GNU 16.2.0'; exit 0;; esac\n";
    let help = [
        "m,    --model FNAME",
        "c,    --ctx-size N",
        "ub,   --ubatch-size N",
        "nr,   --no-repack",
        "fa,   --flash-attn on",
        "lm,   --load-mode M",
    ];
    let help: String =
        help.iter().chain(&["fit,  --fit [on|off]", "fitp, --fit-print [on|off]"]).map(|flag| format!("-{flag}    x\n")).collect();
    let script = |compute: u32| {
        format!(
            "{VERSION}case \"$1\" in\n--help) cat <<'HELP'\n{help}HELP\n;;\n--list-devices) echo 'Available devices:';;\n\
             *) echo 'printing estimated memory'; echo 'Host 372 896 {compute} ';;\nesac"
        )
    };
    folder.script("llama-fit-params", &script(158));
    let line = "verify m.gguf -c 8192 -ub 256 -nr --engine llama-fit-params";
    let equal = folder.run(line);
    assert!(equal.starts_with("exit 0\n--- stdout\nequal  loadmaster"), "{equal}");
    let table = equal.split_once("difference").unwrap().1;
    assert_snapshot!(table, @r"
    host    weights   390,753,280  390,070,272           0  equal
    host    context   939,524,096  939,524,096           0  equal
    host    compute   166,078,464  165,675,008           0  equal
    - the engine prints whole MiB, rounded down, and leaves out repacked weights
    - a dry run maps nothing: weights that a launch uses in place count as read
    ");
    folder.script("llama-fit-params", &script(159));
    let output = folder.output(&format!("{line} --json"));
    assert_eq!(output.status.code(), Some(6));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", folder.show(&output)));
    check(&value, "verify", line);
    assert_eq!((&value["buffers"][2]["verdict"], &value["holds"]), (&"differs".into(), &false.into()));
    let elsewhere = folder.run(&format!("{line} {WORKSTATION}"));
    assert!(elsewhere.starts_with("exit 2\n") && elsewhere.contains("--machine needs --engine bundled"), "{elsewhere}");
    folder.script("llama-fit-params", &format!("{VERSION}echo '-m,    --model FNAME    x'"));
    let old = folder.run(line);
    assert!(old.starts_with("exit 5\n") && old.contains("it has no --fit-print"), "{old}");
}

#[test]
fn a_plan() {
    assert_snapshot!("plan", model("qwen3-30b-a3b", FileType::Q4_K_M).run(&format!("plan m.gguf {WORKSTATION}")));
}

#[test]
fn a_plan_that_gives_something_up() {
    let folder = model("llama-3.1-70b", FileType::Q4_K_M);
    let machine = "--machine ram=32GiB,free=30GiB,cores=8,bandwidth=60GB/s,features=avx2+fma+f16c,gpu=8GiB";
    assert_snapshot!("downgrade", folder.run(&format!("plan m.gguf --disk allow {machine}")));
    assert!(folder.run(&format!("plan m.gguf --disk allow --strict {machine}")).starts_with("exit 4\n"));
}

#[test]
fn a_refusal() {
    let folder = model("deepseek-v3", FileType::Q4_K_M);
    assert_snapshot!("refusal", folder.run(&format!("plan m.gguf {WORKSTATION}")));
    assert!(folder.run(&format!("run m.gguf --dry-run {WORKSTATION}")).starts_with("exit 3\n"));
}

#[test]
fn a_plan_written_as_a_configuration_is_valid_and_gives_the_same_plan() {
    let folder = model("qwen3-0.6b", FileType::Q4_K_M);
    let wrote = folder.run(&format!("plan m.gguf -o plan.toml --json {WORKSTATION}"));
    assert!(wrote.starts_with("exit 0\n") && wrote.contains("wrote plan.toml"), "{wrote}");
    let valid = folder.run(&format!("validate plan.toml {WORKSTATION}"));
    assert!(valid.starts_with("exit 0\n--- stdout\nvalid"), "{valid}");
    let written = std::fs::read_to_string(folder.path().join("plan.toml")).unwrap();
    let (settings, told) = written.split_once("\n[metadata]").unwrap();
    assert!(told.contains("file_type = \"Q4_K_M\"") && told.contains("[expected.decode_tokens_per_s]"), "{told}");
    assert_snapshot!(settings, @r#"
    loadmaster = 1
    model = "m.gguf"
    use_case = "general"

    [settings]
    n_ctx = 16384
    n_batch = 2048
    n_ubatch = 512
    n_parallel = 1
    kv_unified = false
    cache_type_k = "f16"
    cache_type_v = "f16"
    flash_attn = "auto"
    n_gpu_layers = 29
    rpc_servers = []
    devices = "all"
    split_mode = "layer"
    tensor_split = []
    main_gpu = 0
    tensor_overrides = []
    n_cpu_moe = 0
    kv_offload = true
    op_offload = true
    swa_full = false
    repack = true
    load_mode = "auto"
    threads = 8
    threads_batch = 8
    cpu_mask = "none"
    cpu_strict = false
    cpu_mask_batch = "none"
    cpu_strict_batch = false
    numa = "none"
    cache_ram_mib = 8192
    ctx_checkpoints = 32
    embeddings = false
    pooling = "model"
    "#);
}

#[test]
fn a_configuration_that_breaks_rules() {
    let folder = model("qwen3-0.6b", FileType::Q4_K_M);
    folder.file("c.toml", "loadmaster = 1\nmodel = \"m.gguf\"\n[settings]\nn_ubatch = 4096\nn_batch = 512\nthreads = 64\ncache_type_v = \"q8_0\"\nflash_attn = \"off\"\n");
    assert_snapshot!(folder.run(&format!("validate c.toml {WORKSTATION}")), @r"
    exit 2
    --- stdout
    not valid  c.toml for synthetic qwen3-0.6b Q4_K_M
    on 8 cores, 64.00 GiB, GPU 24.00 GiB with llama-server 0.7.0

      error n_ubatch [ubatch-above-batch]: micro-batch 4096 is above batch 512: the engine would cut it
        fix take -ub 512 or -b 4096
      error cache_type_v [quantised-v-without-flash-attention]: a V cache in q8_0 needs flash attention, which is
            off
        fix take -fa auto, or -ctv f16
      error memory [engine-refuses]: a quantised V cache needs flash attention: q8_0 with -fa off; use -fa on, or
            f16
        fix change the setting it names
      warning threads [threads-above-cpus]: 64 threads on 16 CPUs that may be used: they wait for each other
        fix take -t 8
    ");
}

/// Every output that can be had without an engine, by the schema that it must follow.
/// Two measurements, one of them of a device that no table knows.
const MEASURED: &str = "device,device_kind,memory_bandwidth_gbs,engine,backend,model,quant,test,tokens_per_s\n\
    NVIDIA GeForce RTX 4090,nvidia,1008,llama.cpp,CUDA,llama 8B,Q4_K_M,tg128,130\n\
    Unheard Of 1,,,llama.cpp,CUDA,llama 8B,Q4_K_M,tg128,20\n";

#[test]
fn predictions_stand_beside_the_rows_of_a_table() {
    let folder = Folder::new();
    folder.file("measured.csv", MEASURED).file("broken.csv", "device,model\nx,y\n");
    let told = folder.run("predict --table measured.csv --output predicted.csv");
    assert!(told.starts_with("exit 0"), "{told}");
    assert!(told.contains("1 of 2 rows predicted"), "{told}");
    let written = std::fs::read_to_string(folder.path().join("predicted.csv")).unwrap();
    let lines: Vec<&str> = written.lines().collect();
    assert!(lines[0].ends_with("tokens_per_s,p10,p50,p90,basis,error,anomaly"), "{written}");
    assert!(lines[1].contains(",this device,"), "{written}");
    assert!(lines[2].ends_with("not predicted: device not in the tables and its kind not given,,"), "{written}");
    let refused = folder.run("predict --table broken.csv --output none.csv");
    assert!(refused.starts_with("exit 7") && refused.contains("no column \"test\""), "{refused}");
    assert!(!folder.path().join("none.csv").exists());
}

#[test]
fn speed_is_predicted_over_the_context_and_of_a_request() {
    let folder = model("llama-3.1-8b", FileType::Q4_K_M);
    let line = format!("predict m.gguf {WORKSTATION} -c 8192 --prompt-tokens 4000 --output-tokens 500 --svg speed.svg --color never");
    assert_snapshot!("predict", folder.run(&line));
    let picture = std::fs::read_to_string(folder.path().join("speed.svg")).unwrap();
    assert!(picture.starts_with("<svg ") && picture.matches("<polyline").count() == 2, "{picture}");
}

#[test]
fn drafts_and_several_users_have_speeds_of_their_own() {
    let folder = model("llama-3.1-8b", FileType::Q4_K_M);
    folder.model("d.gguf", "llama-3.2-1b", FileType::Q4_0);
    let json = |line: &str| -> Value {
        let output = folder.output(&format!("predict {line} {WORKSTATION} --json"));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}: {output:?}"))
    };
    let (alone, four) = (json("m.gguf --users 1"), json("m.gguf --users 4"));
    let rate = |view: &Value, which: &str| view["request"][which]["value"].as_f64().unwrap();
    assert_eq!(rate(&alone, "together_tokens_per_s"), rate(&alone, "decode_tokens_per_s"));
    assert!(rate(&four, "together_tokens_per_s") > 2.0 * rate(&alone, "together_tokens_per_s"));
    assert!(rate(&four, "decode_tokens_per_s") <= rate(&alone, "decode_tokens_per_s"));
    assert!(alone.get("speculation").is_none());
    let drafted = &json("m.gguf --model-draft d.gguf")["speculation"];
    let per_step = drafted["tokens_per_step"]["value"].as_f64().unwrap();
    // Three drafted tokens, each accepted with a probability of 0.6: 1 + 0.6 + 0.36 + 0.216.
    assert_eq!(drafted["drafted"], 3);
    assert!((per_step - 2.176).abs() < 1e-9, "{drafted}");
}

#[test]
fn outputs_follow_the_published_schemas() {
    let folder = model("qwen3-0.6b", FileType::Q4_K_M);
    folder.model("large.gguf", "deepseek-v3", FileType::Q4_K_M).file("measured.csv", MEASURED);
    for (line, schema) in [
        ("predict --table measured.csv --output predicted.csv", "predict"),
        ("predict m.gguf", "predict"),
        ("predict m.gguf --machine rtx4090,ram=32GiB,cores=8 --users 4", "predict"),
        ("predict large.gguf --machine ram=64GiB,cores=8,gpu=24GiB", "refusal"),
        ("detect", "detect"),
        ("detect --machine ram=8GiB", "detect"),
        ("doctor --machine ram=8GiB,features=sse4_2", "doctor"),
        ("hardware list", "hardware-list"),
        ("hardware show laptop-16gb", "hardware-show"),
        ("hardware match", "hardware-match"),
        ("hardware match --machine rtx4070,ram=16GiB,cores=4", "hardware-match"),
        ("inspect m.gguf", "inspect"),
        ("inspect large.gguf", "inspect"),
        ("memory m.gguf -c 1024", "memory"),
        ("plan m.gguf", "plan"),
        ("plan m.gguf --machine ram=64GiB,cores=8,gpu=24GiB,gpu=8GiB", "plan"),
        ("plan large.gguf --machine ram=64GiB,cores=8,gpu=24GiB", "refusal"),
        ("validate m.gguf -t 500", "validate"),
    ] {
        let output = folder.output(&format!("{line} --json"));
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}: {output:?}"));
        check(&value, schema, line);
        match schema {
            "memory" => assert_eq!(value["schema"], "loadmaster.memory/1"),
            "detect" => assert_eq!(value["schema"], "loadmaster.machine/1"),
            "doctor" => assert_eq!(value["schema"], "loadmaster.doctor/1"),
            "predict" => assert_eq!(value["schema"], "loadmaster.predict/1"),
            _ => assert_eq!(value["schema_version"], 1, "{line}"),
        }
    }
    folder.run("plan m.gguf -o plan.json");
    let config: Value = serde_json::from_slice(&std::fs::read(folder.path().join("plan.json")).unwrap()).unwrap();
    check(&config, "config", "plan -o plan.json");
}

fn check(value: &Value, schema: &str, line: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas").join(format!("{schema}.json"));
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{line}: {errors:#?}");
}

#[test]
fn a_reader_that_has_gone_away_is_no_error() {
    let folder = model("qwen3-0.6b", FileType::Q4_K_M);
    for line in ["--help", "detect", "inspect m.gguf --json", "completions bash", "man"] {
        let mut child = folder.command(line).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{line}");
    }
}

#[test]
fn colours_only_where_they_are_wanted() {
    let folder = Folder::new();
    assert!(!folder.run("detect").contains('\u{1b}'));
    assert!(folder.run("detect --color always").contains('\u{1b}'));
    assert!(folder.run("inspect nowhere --color always").contains('\u{1b}'));
    assert!(!folder.run("detect --color always --json").contains('\u{1b}'));
}

#[test]
fn quiet_leaves_the_result_alone() {
    let folder = model("qwen3-0.6b", FileType::Q4_K_M);
    let line = format!("plan m.gguf -o plan.toml {WORKSTATION}");
    let (loud, quiet) = (folder.output(&line), folder.output(&format!("{line} --quiet")));
    assert_eq!(loud.stdout, quiet.stdout);
    assert!(!loud.stderr.is_empty() && quiet.stderr.is_empty());
}

#[test]
fn completions_of_every_shell_know_commands_and_pins() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = folder.run(&format!("completions {shell}"));
        for word in ["inspect", "ctx-size", "n-cpu-moe"] {
            assert!(script.starts_with("exit 0\n") && script.contains(word), "{shell}: no {word}");
        }
    }
    if Path::new("/bin/bash").exists() {
        let script = folder.output("completions bash").stdout;
        folder.file("complete.bash", script);
        let mut bash = std::process::Command::new("/bin/bash");
        bash.arg("-n").arg(folder.path().join("complete.bash"));
        assert!(finish(bash, "bash -n").status.success());
    }
}

#[test]
fn manual_pages_render() {
    let folder = Folder::new();
    let page = folder.run("man");
    assert!(page.contains(".TH loadmaster 1") && page.contains("Exit codes"), "{page}");
    let page = folder.run("man plan");
    assert!(page.contains(".TH loadmaster-plan 1") && page.contains("ctx\\-size"), "{page}");
    assert!(folder.run("man nothing").starts_with("exit 2\n"));
}

#[test]
fn llama_servers_spellings_are_taken() {
    let folder = model("qwen3-0.6b", FileType::Q4_K_M);
    let line = "plan m.gguf -c 4096 -b 1024 -ub 256 -np 2 -ngl 10 -ts 1,1 -sm layer -mg 0 -ctk q8_0 -ctv q8_0 -fa on -t 4 -tb 4 -kvu -nkvo --no-op-offload -nr -lm mmap -cram 0 -ctxcp 4";
    let output = folder.output(&format!("{line} --json --machine ram=64GiB,cores=8,gpu=24GiB,gpu=24GiB"));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", folder.show(&output)));
    let pinned: Vec<String> = plan["settings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|choice| choice["origin"] == "pinned")
        .map(|choice| format!("{}={}", choice["name"].as_str().unwrap(), choice["value"].as_str().unwrap()))
        .collect();
    assert_snapshot!(pinned.join("\n"), @r"
    n_ctx=4096
    n_batch=1024
    n_ubatch=256
    n_parallel=2
    kv_unified=on
    cache_type_k=q8_0
    cache_type_v=q8_0
    flash_attn=on
    n_gpu_layers=10
    split_mode=layer
    tensor_split=1,1
    main_gpu=0
    kv_offload=off
    op_offload=off
    repack=off
    load_mode=mmap
    threads=4
    threads_batch=4
    cache_ram_mib=0
    ctx_checkpoints=4
    ");
}

#[test]
fn a_plan_for_another_machine_is_not_started_here() {
    let folder = model("qwen3-0.6b", FileType::Q4_K_M);
    assert_snapshot!(folder.run(&format!("run m.gguf {WORKSTATION}")), @r"
    exit 2
    --- stderr
    error: run starts an engine on this machine as it is: --machine, --ram and --gpu-memory need --dry-run
    hint: `loadmaster plan` shows the plan for another machine
    ");
}

#[test]
fn a_machine_by_name_and_what_is_pretended_of_it() {
    let folder = model("qwen3-0.6b", FileType::Q4_K_M);
    let plan = |line: &str| {
        let output = folder.output(&format!("plan m.gguf --json {line}"));
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}: {output:?}"))
    };
    for machine in ["rtx4090x2,ram=64GiB,cpu=ryzen-9-7950x", "m3-max-40c-64gb", "jetson-agx-orin-64gb", "gb10"] {
        assert_eq!(plan(&format!("--machine {machine}"))["schema_version"], 1, "{machine}");
    }
    let mut told = Vec::new();
    for line in [
        "detect --machine rtx4091",
        "detect --machine rtx3060,ram=32GiB",
        "detect --machine ram=8GiB,cores=4 --gpu-memory 0=8GiB",
        "detect --machine ram=8GiB,cores=4 --threads 8",
        "detect --ram 16",
        "run m.gguf --machine gb10 --ram 64GiB",
    ] {
        told.push(format!("{line}\n{}", folder.run(line)));
    }
    assert_snapshot!("pretended", told.join("\n"));
}

#[test]
fn a_recorded_machine_is_the_machine() {
    let folder = model("qwen3-0.6b", FileType::Q4_K_M);
    assert!(folder.run("detect --capture here.json").starts_with("exit 0\n"));
    let (live, recorded) = (folder.output("detect --json").stdout, folder.output("detect --json --machine here.json").stdout);
    let [mut live, mut recorded] = [live, recorded].map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
    for machine in [&mut live, &mut recorded] {
        // What is free changes from moment to moment; the origin is what was asked for.
        for volatile in ["origin", "memory", "conditions", "sources"] {
            machine.as_object_mut().unwrap().remove(volatile);
        }
    }
    assert_eq!(live, recorded);
}
