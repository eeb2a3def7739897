//! Validation: every rule with settings that break it, and what emission makes of old builds.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{machine, model, native};
use planner::emit::{Listen, Program};
use planner::{Context, EngineRules, Request, Severity, Tool, check, emit, plan, validate};
use spec::settings::{FlashAttention, LoadMode, SplitMode, TensorOverride};
use spec::{Known, QuantType, Settings};
use std::collections::BTreeSet;
use std::ffi::OsStr;

/// Rules that `settings` break on two GPUs of 24 GiB, as `severity rule`.
fn broken(name: &str, file_type: &str, change: impl FnOnce(&mut Settings)) -> Vec<String> {
    broken_on("cores=8,ram=64GiB,gpu=24GiB,gpu=24GiB", name, file_type, change)
}

fn broken_on(machine: &str, name: &str, file_type: &str, change: impl FnOnce(&mut Settings)) -> Vec<String> {
    let (machine, model) = (common::machine(machine), model(name, file_type));
    let target = native(&machine);
    let context = Context { machine: &machine, model: &model, target: &target, engine: &EngineRules::bundled() };
    let mut settings = Settings { threads: 8, threads_batch: 8, ..Settings::default() };
    change(&mut settings);
    check(&context, &settings).violations.iter().map(|violation| format!("{} {}", violation.severity, violation.rule)).collect()
}

#[test]
fn nothing_is_wrong_with_the_defaults() {
    assert!(dense(|_| ()).is_empty());
}

fn dense(change: impl FnOnce(&mut Settings)) -> Vec<String> {
    broken("qwen3-0.6b", "Q4_K_M", change)
}

#[test]
fn numbers_that_no_engine_takes() {
    assert_eq!(dense(|s| s.n_ubatch = 4096), ["error ubatch-above-batch"]);
    assert_eq!(dense(|s| s.threads = 0), ["error zero"]);
    assert!(dense(|s| s.n_batch = 0).contains(&"error zero".to_owned()));
    assert!(dense(|s| s.n_parallel = 257).contains(&"error too-many-slots".to_owned()));
}

#[test]
fn context_and_slots() {
    assert_eq!(dense(|s| s.n_ctx = 65536), ["warning context-above-trained"]);
    assert_eq!(dense(|s| s.n_parallel = 8), ["warning slot-context-small"]);
    assert!(dense(|s| (s.n_parallel, s.kv_unified) = (8, true)).is_empty());
}

#[test]
fn a_context_that_the_engine_rounds_is_told_with_what_it_becomes() {
    assert_eq!(dense(|s| s.n_ctx = 1000), ["warning context-rounded"]);
    assert_eq!(dense(|s| (s.n_ctx, s.n_parallel) = (2, 4)), ["warning context-rounded", "warning slot-context-small"]);
    // A multiple of 256 whose quarters are none.
    assert_eq!(dense(|s| (s.n_ctx, s.n_parallel) = (4352, 4)), ["warning context-rounded"]);
    let mut request = Request::default();
    (request.pins.n_ctx, request.pins.n_parallel) = (Some(2), Some(4));
    let (machine, model) = (machine("cores=8,ram=64GiB"), model("qwen3-0.6b", "Q4_K_M"));
    let (target, engine) = (native(&machine), rules(Tool::Server, None));
    let context = Context { machine: &machine, model: &model, target: &target, engine: &engine };
    let valid = validate(plan(&machine, &model, &target, &request).unwrap(), &context).unwrap();
    let told: Vec<String> = valid.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "warning [context-rounded] n_ctx: 2 tokens become 1024: the engine rounds up to a multiple of 256 for each of 4 slots; take -c 1024",
            "warning [slot-context-small] n_ctx: 1024 tokens over 4 slots leave 256 for each; take -c 4096 or --kv-unified",
            "warning [request-longer-than-context] n_ctx: requests of 2048 tokens in and 256 out do not fit into the 256 of a slot: the engine refuses or cuts them; take -c 9216, or plan for shorter ones (--prompt-tokens, --output-tokens)"
        ]
    );
}

#[test]
fn what_is_asked_of_gpus_that_are_not_there() {
    let cpu = |change: fn(&mut Settings)| broken_on("cores=8,ram=64GiB", "qwen3-0.6b", "Q4_K_M", change);
    assert_eq!(cpu(|s| s.n_gpu_layers = 20), ["warning no-device"]);
    assert_eq!(cpu(|s| s.tensor_split = vec![1.0, 2.0]), ["warning no-device"]);
    assert_eq!(cpu(|s| s.main_gpu = 1), ["warning no-device"]);
    let mut request = Request::default();
    request.pins.n_gpu_layers = Some(20);
    let (machine, model) = (machine("cores=8,ram=64GiB"), model("qwen3-0.6b", "Q4_K_M"));
    let plan = plan(&machine, &model, &native(&machine), &request).unwrap();
    assert_eq!(plan.strategy, planner::plan::Strategy::CpuOnly);
}

#[test]
fn devices_by_name() {
    let only = |names: &[&str]| spec::settings::Devices::Only(names.iter().map(|&name| name.to_owned()).collect());
    assert_eq!(dense(|s| s.devices = only(&["CUDA2"])), ["error engine-refuses"]);
    assert_eq!(dense(|s| (s.devices, s.n_gpu_layers, s.main_gpu) = (only(&["CUDA1"]), 29, 1)), ["error main-gpu-range"]);
    assert_eq!(dense(|s| (s.devices, s.tensor_split) = (only(&["CUDA1"]), vec![1.0, 1.0])), ["error tensor-split-length"]);
    assert_eq!(dense(|s| (s.devices, s.n_gpu_layers) = (only(&[]), 29)), ["warning no-device"]);
}

#[test]
fn the_types_of_the_cache() {
    let no_flash = |s: &mut Settings| (s.cache_type_v, s.flash_attn) = (QuantType::Q8_0, FlashAttention::Off);
    assert!(dense(no_flash).contains(&"error quantised-v-without-flash-attention".to_owned()));
    assert_eq!(dense(|s| s.cache_type_k = QuantType::Q4_0), ["warning coarse-cache"]);
    let latent = broken("deepseek-v3", "Q4_K_M", |s| s.cache_type_k = QuantType::Q8_0);
    assert!(latent.contains(&"error latent-cache-types-differ".to_owned()), "{latent:?}");
}

#[test]
fn placement() {
    assert_eq!(dense(|s| s.n_gpu_layers = 99), ["warning gpu-layers-clamped"]);
    assert_eq!(dense(|s| (s.n_gpu_layers, s.tensor_split) = (29, vec![1.0, 1.0, 1.0])), ["error tensor-split-length"]);
    assert_eq!(dense(|s| (s.n_gpu_layers, s.tensor_split) = (29, vec![1.0])), ["warning tensor-split-length"]);
    assert!(dense(|s| s.tensor_split = vec![0.0, 0.0]).contains(&"error tensor-split-empty".to_owned()));
    assert!(dense(|s| (s.split_mode, s.main_gpu) = (SplitMode::None, 2)).contains(&"error main-gpu-range".to_owned()));
    assert_eq!(dense(|s| s.main_gpu = 2), ["error main-gpu-range"]);
    let none = |s: &mut Settings| (s.split_mode, s.tensor_split) = (SplitMode::None, vec![1.0, 1.0]);
    assert_eq!(dense(none), ["warning tensor-split-unused"]);
    assert_eq!(dense(|s| s.n_cpu_moe = 3), ["warning no-experts"]);
}

#[test]
fn tensor_overrides() {
    let rule = |pattern: &str, buffer: &str| vec![TensorOverride { pattern: pattern.into(), buffer: buffer.into() }];
    assert!(dense(|s| s.tensor_overrides = rule("ffn_(up", "CPU")).contains(&"error override-pattern".to_owned()));
    assert!(dense(|s| s.tensor_overrides = rule("ffn_up", "CUDA7")).contains(&"error override-buffer".to_owned()));
    assert!(dense(|s| s.tensor_overrides = rule("a{1,2}", "CPU")).contains(&"error override-separator".to_owned()));
    assert_eq!(dense(|s| s.tensor_overrides = rule("no_such_tensor", "CPU")), ["warning override-matches-nothing"]);
    assert!(dense(|s| (s.n_gpu_layers, s.tensor_overrides) = (29, rule("ffn_up", "CPU"))).is_empty());
}

#[test]
fn threads() {
    assert_eq!(dense(|s| s.threads = 9), ["warning threads-above-cpus"]);
    assert_eq!(dense(|s| s.threads_batch = 64), ["warning threads-above-cpus"]);
}

#[test]
fn memory() {
    let over = broken("llama-3.1-70b", "Q4_K_M", |s| (s.n_gpu_layers, s.tensor_split) = (81, vec![1.0, 0.0]));
    assert!(over.contains(&"error memory-over-limit".to_owned()), "{over:?}");
    let locked = dense(|s| s.load_mode = LoadMode::MmapMlock);
    assert_eq!(locked, ["warning lock-limit"]);
}

#[test]
fn weights_that_do_not_stay_in_memory_are_a_warning_with_its_cost() {
    let (machine, model) = (machine("cores=8,ram=32GiB"), model("llama-3.1-70b", "Q4_K_M"));
    let target = native(&machine);
    let context = Context { machine: &machine, model: &model, target: &target, engine: &EngineRules::bundled() };
    let settings = Settings { threads: 8, threads_batch: 8, repack: false, ..Settings::default() };
    let report = check(&context, &settings);
    assert!(report.is_valid(), "{report}");
    assert!(report.warnings().any(|violation| violation.rule == "weights-not-resident"), "{report}");
}

fn rules(tool: Tool, accepted: Option<&[&str]>) -> EngineRules {
    let accepted = accepted.map(|flags| flags.iter().map(|&flag| flag.to_owned()).collect::<BTreeSet<_>>());
    EngineRules { tool, version: Some("b4000".into()), accepted, ..EngineRules::bundled() }
}

/// The command for a small model on one GPU; errors as text.
fn command(engine: &EngineRules, request: &Request) -> Result<String, String> {
    let (machine, model) = (machine("cores=8,ram=64GiB,gpu=24GiB"), model("qwen3-30b-a3b", "Q4_K_M"));
    let target = native(&machine);
    let plan = plan(&machine, &model, &target, request).map_err(|refusal| refusal.to_string())?;
    let context = Context { machine: &machine, model: &model, target: &target, engine };
    let valid = validate(plan, &context).map_err(|report| report.to_string())?;
    let listen = Some(Listen { host: "127.0.0.1".into(), port: 8080 });
    let program =
        Program { path: engine.tool.to_string().into(), model: "my model.gguf".into(), listen, extra: vec!["-p".into(), "it's".into()] };
    Ok(emit(&valid, &program).to_string())
}

#[test]
fn a_server_gets_every_setting_in_its_newest_spelling() {
    insta::assert_snapshot!(command(&rules(Tool::Server, None), &Request::default()).unwrap());
}

#[test]
fn a_bench_has_spellings_of_its_own() {
    insta::assert_snapshot!(command(&rules(Tool::Bench, None), &Request::default()).unwrap());
}

const OLD: &[&str] = &[
    "-m",
    "--model",
    "-c",
    "--ctx-size",
    "-b",
    "--batch-size",
    "-ub",
    "--ubatch-size",
    "-np",
    "--parallel",
    "-ctk",
    "--cache-type-k",
    "-ctv",
    "--cache-type-v",
    "-fa",
    "--flash-attn",
    "-ngl",
    "--gpu-layers",
    "--n-gpu-layers",
    "-sm",
    "--split-mode",
    "-ts",
    "--tensor-split",
    "-mg",
    "--main-gpu",
    "-ot",
    "--override-tensor",
    "-nkvo",
    "--no-kv-offload",
    "--mlock",
    "--no-mmap",
    "-t",
    "--threads",
    "-tb",
    "--threads-batch",
    "--host",
    "--port",
];

#[test]
fn an_old_server_gets_old_spellings() {
    let mut request = Request::default();
    request.pins.load_mode = Some(LoadMode::None);
    request.pins.n_cpu_moe = Some(2);
    insta::assert_snapshot!(command(&rules(Tool::Server, Some(OLD)), &request).unwrap());
}

#[test]
fn what_an_old_server_cannot_be_told_is_refused_before_it_starts() {
    let mut request = Request::default();
    request.pins.repack = Some(false);
    let report = command(&rules(Tool::Server, Some(OLD)), &request).unwrap_err();
    insta::assert_snapshot!(report);
}

#[test]
fn an_unpinned_context_above_the_trained_one_is_an_error() {
    let (machine, model) = (machine("cores=8,ram=64GiB"), model("qwen3-0.6b", "Q4_K_M"));
    let target = native(&machine);
    let engine = EngineRules::bundled();
    let context = Context { machine: &machine, model: &model, target: &target, engine: &engine };
    let mut plan = plan(&machine, &model, &target, &Request::default()).unwrap();
    plan.settings.n_ctx = 1 << 20;
    let report = validate(plan, &context).unwrap_err();
    let first = report.errors().next().unwrap();
    assert_eq!((first.severity, first.rule), (Severity::Error, "context-above-trained"));
}

#[test]
fn a_command_prints_as_a_shell_reads_it_and_removes_what_interferes() {
    let (machine, model) = (machine("cores=8,ram=64GiB"), model("qwen3-0.6b", "Q4_K_M"));
    let target = native(&machine);
    let engine = rules(Tool::Cli, None);
    let context = Context { machine: &machine, model: &model, target: &target, engine: &engine };
    let plan = plan(&machine, &model, &target, &Request::default()).unwrap();
    let valid = validate(plan, &context).unwrap();
    let program = Program { path: "/opt/my tools/llama-cli".into(), model: "m.gguf".into(), listen: None, extra: Vec::new() };
    let invocation = emit(&valid, &program);
    let words = shlex_split(&invocation.to_string());
    assert_eq!(words.first().map(String::as_str), Some("/opt/my tools/llama-cli"));
    assert!(words[1..].iter().map(OsStr::new).eq(invocation.args.iter().map(|arg| arg.as_os_str())));
    assert!(invocation.env_remove.iter().any(|name| name == "LLAMA_ARG_OVERRIDE_TENSOR"));
}

fn shlex_split(line: &str) -> Vec<String> {
    shlex::split(line).unwrap()
}

/// Rules that settings break on a machine whose state was changed.
fn in_a_state(machine: &str, name: &str, change: impl FnOnce(&mut spec::Machine, &mut Settings)) -> Vec<String> {
    let (mut machine, model) = (common::machine(machine), model(name, "Q4_K_M"));
    let mut settings = Settings { threads: 4, threads_batch: 4, ..Settings::default() };
    change(&mut machine, &mut settings);
    let target = native(&machine);
    let context = Context { machine: &machine, model: &model, target: &target, engine: &EngineRules::bundled() };
    check(&context, &settings).violations.iter().map(|violation| violation.rule.to_owned()).collect()
}

const DESKTOP: &str = "cores=8,ram=64GiB,free=60GiB,gpu=24GiB";

#[test]
fn every_rule_that_is_broken_stands_in_the_table_with_a_severity() {
    use planner::validate::{RULES, rule};
    assert!(RULES.len() >= 45, "{}", RULES.len());
    assert_eq!(rule("memory-tight").unwrap().severity, Severity::Warning);
    assert_eq!(rule("no-such-rule"), None);
    // What emission and exit codes go by.
    assert_eq!(rule("memory-over-limit").unwrap().severity, Severity::Error);
}

#[test]
fn power_and_heat_of_the_processor_count_where_it_computes() {
    use spec::machine::PowerSource;
    let ill = |machine: &mut spec::Machine| {
        machine.conditions.power = Known::exact(PowerSource::Battery(40), "test");
        machine.conditions.power_profile = Known::exact("power-saver".to_owned(), "test");
        machine.conditions.cpu_temperature_c = Known::exact(97.0, "test");
    };
    assert_eq!(in_a_state("cores=8,ram=64GiB", "qwen3-0.6b", |machine, _| ill(machine)), ["on-battery", "saving-power", "host-throttled"]);
    let on_gpu = in_a_state(DESKTOP, "qwen3-0.6b", |machine, settings| {
        ill(machine);
        settings.n_gpu_layers = 99;
    });
    assert!(on_gpu.contains(&"on-battery".to_owned()) && !on_gpu.contains(&"host-throttled".to_owned()), "{on_gpu:?}");
    let phone = |threads| {
        in_a_state("cores=8,ram=12GiB", "qwen3-0.6b", |machine, settings| {
            machine.facts.platform.os = "android".to_owned();
            settings.threads = threads;
        })
    };
    assert_eq!(phone(8), ["sustained-heat"]);
    assert!(phone(4).is_empty());
}

#[test]
fn links_count_where_weights_of_the_host_pass_them() {
    use spec::machine::{GpuCondition, PcieLink};
    let of = |layers: u32, now: PcieLink, best: PcieLink| {
        in_a_state(DESKTOP, "llama-3.1-8b", |machine, settings| {
            machine.facts.gpus[0].pcie = Known::exact(best, "test");
            machine.facts.gpus[0].host_visible = Known::exact(spec::Bytes::from_mib(256), "test");
            machine.conditions.gpus = vec![GpuCondition { link: Known::exact(now, "test"), ..GpuCondition::unknown("test") }];
            settings.n_gpu_layers = layers;
        })
    };
    let (x4, x16) = (PcieLink { generation: 4, lanes: 4 }, PcieLink { generation: 4, lanes: 16 });
    assert_eq!(of(20, x4, x16), ["link-narrow", "bar-small"]);
    assert_eq!(of(20, x4, x4), ["link-narrow", "bar-small"], "a riser of four lanes");
    assert_eq!(of(20, x16, x16), ["bar-small"]);
    assert!(of(33, x4, x16).is_empty(), "nothing of the host passes");
}

#[test]
fn a_throttled_gpu_counts_where_it_computes() {
    use spec::machine::GpuCondition;
    let of = |layers: u32| {
        in_a_state(DESKTOP, "qwen3-0.6b", |machine, settings| {
            machine.conditions.gpus =
                vec![GpuCondition { throttled: Known::exact("thermal".to_owned(), "test"), ..GpuCondition::unknown("test") }];
            settings.n_gpu_layers = layers;
        })
    };
    assert_eq!(of(29), ["gpu-throttled"]);
    assert!(of(0).is_empty());
}

#[test]
fn mapped_weights_and_swap_are_told_before_they_hurt() {
    // 4.6 GiB of weights and little else.
    let tight = in_a_state("cores=8,ram=16GiB,free=5.1GiB", "llama-3.1-8b", |_, settings| (settings.n_ctx, settings.repack) = (512, false));
    assert!(tight.contains(&"mapped-tight".to_owned()) && !tight.contains(&"weights-not-resident".to_owned()), "{tight:?}");
    let swapped = in_a_state("cores=8,ram=16GiB,free=5.6GiB", "llama-3.1-8b", |machine, settings| {
        machine.facts.memory.swap_total = Known::exact(spec::Bytes::from_gib(8), "test");
        machine.free.swap = Known::exact(spec::Bytes::from_gib(6), "test");
        (settings.n_ctx, settings.repack) = (512, false);
    });
    assert!(swapped.contains(&"swap-in-use".to_owned()), "{swapped:?}");
}

#[test]
fn cores_that_are_masked_out_are_not_counted() {
    use spec::machine::CoreKind;
    let kinds = || {
        let kind =
            |name: &str, cpus: std::ops::Range<u32>, cores| CoreKind { name: name.to_owned(), cpus: cpus.collect(), physical_cores: cores };
        vec![kind("performance", 0..8, 4), kind("efficiency", 8..16, 8)]
    };
    let of = |allowed: std::ops::Range<u32>, threads: u32| {
        in_a_state("cores=12,threads=16,ram=64GiB", "qwen3-0.6b", |machine, settings| {
            machine.facts.cpu.core_kinds = kinds();
            machine.limits.allowed_cpus = Known::exact(allowed.collect(), "test");
            settings.threads = threads;
            settings.threads_batch = threads;
        })
    };
    assert!(of(0..16, 4).is_empty());
    assert_eq!(of(0..16, 6), ["threads-on-slow-cores"]);
    assert_eq!(of(4..16, 3), ["threads-on-slow-cores"], "two fast cores are left");
    assert_eq!(of(8..16, 4), ["cpus-of-slow-cores-only"]);
}

#[test]
fn a_mask_decides_which_cores_are_counted() {
    use spec::machine::CoreKind;
    let kind =
        |name: &str, cpus: std::ops::Range<u32>, cores| CoreKind { name: name.to_owned(), cpus: cpus.collect(), physical_cores: cores };
    let of = |mask: &str, threads: u32| {
        in_a_state("cores=12,threads=16,ram=64GiB", "qwen3-0.6b", |machine, settings| {
            machine.facts.cpu.core_kinds = vec![kind("performance", 0..8, 4), kind("efficiency", 8..16, 8)];
            machine.limits.allowed_cpus = Known::exact((0..16).collect(), "test");
            (settings.threads, settings.threads_batch, settings.cpu_mask) = (threads, 4, mask.parse().unwrap());
        })
    };
    assert!(of("0-7", 4).is_empty());
    assert_eq!(of("0-7", 6), Vec::<String>::new(), "two on a core, which nobody can tell from the mask");
    assert_eq!(of("0,2,4,6", 4), Vec::<String>::new());
    assert_eq!(of("0-3", 6), ["threads-above-cpus"]);
    assert_eq!(of("0-11", 6), ["threads-on-slow-cores"]);
    assert_eq!(of("0-11", 4), ["slow-cores-in-mask"]);
    assert_eq!(of("8-15", 4), ["cpus-of-slow-cores-only"]);
    assert_eq!(of("0-19", 4), ["cpu-mask-forbidden", "slow-cores-in-mask"]);
}

#[test]
fn a_gpu_at_the_limit_of_what_it_may_have_is_told_how_to_get_more() {
    let apple = common::machine("m3-max-40c-64gb");
    let model = model("llama-3.1-70b", "Q4_K_M");
    let target = native(&apple);
    let context = Context { machine: &apple, model: &model, target: &target, engine: &EngineRules::bundled() };
    let settings = Settings { threads: 8, threads_batch: 8, n_gpu_layers: 81, n_ctx: 28672, ..Settings::default() };
    let report = check(&context, &settings);
    let shared = report.warnings().find(|violation| violation.rule == "shared-limit");
    assert!(shared.is_some_and(|violation| violation.fix.contains("iogpu.wired_limit_mb")), "{report}");
}
