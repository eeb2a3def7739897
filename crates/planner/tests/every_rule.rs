//! Every rule of the table: a case that breaks it, and one close by that does not.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{machine, model, native};
use footprint::{EngineProfile, Target};
use planner::validate::RULES;
use planner::{Context, EngineRules, Request, Tool, check, check_for};
use spec::machine::{CoreKind, GpuCondition, MemoryLimit, NumaNode, PcieLink, PowerSource};
use spec::model::Mixer;
use spec::settings::{CpuMask, Devices, FlashAttention, LoadMode, Numa, Pooling, SplitMode, TensorOverride};
use spec::{Bytes, Known, Machine, Model, QuantType, Settings};
use std::collections::BTreeSet;

/// Everything that settings are checked against, to be changed by a case.
struct World {
    machine: Machine,
    model: Model,
    settings: Settings,
    engine: EngineRules,
    /// The first device is an rpc-server's.
    remote: bool,
    /// What the settings are for, where that is known.
    request: Option<Request>,
}

impl World {
    fn new(machine_text: &str, name: &str) -> Self {
        Self {
            machine: machine(machine_text),
            model: model(name, "Q4_K_M"),
            settings: Settings { threads: 4, threads_batch: 4, ..Settings::default() },
            engine: EngineRules::bundled(),
            remote: false,
            request: None,
        }
    }

    fn broken(&self) -> BTreeSet<&'static str> {
        let mut target: Target = native(&self.machine);
        if let (true, Some(device)) = (self.remote, target.devices.first_mut()) {
            device.backend.name = "RPC".to_owned();
        }
        let context = Context { machine: &self.machine, model: &self.model, target: &target, engine: &self.engine };
        let report = match &self.request {
            Some(request) => check_for(&context, &self.settings, request),
            None => check(&context, &self.settings),
        };
        report.violations.iter().map(|violation| violation.rule).collect()
    }
}

/// A rule with what breaks it and what does not, on a machine and with a model.
struct Case {
    rule: &'static str,
    machine: &'static str,
    model: &'static str,
    broken: fn(&mut World),
    kept: fn(&mut World),
}

const CPU: &str = "cores=8,ram=64GiB,free=60GiB";
const DESKTOP: &str = "cores=8,ram=64GiB,free=60GiB,gpu=24GiB";
const TWO: &str = "cores=8,ram=64GiB,free=60GiB,gpu=24GiB,gpu=24GiB";
const SMALL: &str = "qwen3-0.6b";
const EIGHT: &str = "llama-3.1-8b";

const fn case(rule: &'static str, machine: &'static str, model: &'static str, broken: fn(&mut World), kept: fn(&mut World)) -> Case {
    Case { rule, machine, model, broken, kept }
}

fn overrides(pattern: &str, buffer: &str) -> Vec<TensorOverride> {
    vec![TensorOverride { pattern: pattern.to_owned(), buffer: buffer.to_owned() }]
}

fn known<T>(value: T) -> Known<T> {
    Known::exact(value, "test")
}

/// Four fast cores of two threads each, and eight slow ones; `allowed` may be used.
fn kinds(world: &mut World, allowed: std::ops::Range<u32>) {
    let kind =
        |name: &str, cpus: std::ops::Range<u32>, cores| CoreKind { name: name.to_owned(), cpus: cpus.collect(), physical_cores: cores };
    world.machine.facts.cpu.core_kinds = vec![kind("performance", 0..8, 4), kind("efficiency", 8..16, 8)];
    world.machine.limits.allowed_cpus = known(allowed.collect());
    (world.settings.threads, world.settings.threads_batch) = (4, 4);
}

fn mask(text: &str) -> CpuMask {
    text.parse().unwrap()
}

/// Four threads on such a machine, held to these CPUs.
fn masked(world: &mut World, cpus: &str) {
    kinds(world, 0..16);
    world.settings.cpu_mask = mask(cpus);
}

/// A GPU whose link, driver or BAR says this, with 20 layers on it.
fn gpu(world: &mut World, now: u32, best: u32, visible: Bytes) {
    let link = |lanes| known(PcieLink { generation: 4, lanes });
    world.machine.facts.gpus[0].pcie = link(best);
    world.machine.facts.gpus[0].host_visible = known(visible);
    world.machine.conditions.gpus = vec![GpuCondition { link: link(now), ..GpuCondition::unknown("test") }];
    world.settings.n_gpu_layers = 20;
}

fn throttled(world: &mut World, why: &str) {
    world.machine.conditions.gpus = vec![GpuCondition { throttled: known(why.to_owned()), ..GpuCondition::unknown("test") }];
    world.settings.n_gpu_layers = 99;
}

/// 6 GiB of 8 in swap, and little beside 4.6 GiB of weights.
fn swapped(world: &mut World, free: Bytes) {
    world.machine.facts.memory.swap_total = known(Bytes::from_gib(8));
    world.machine.free.swap = known(Bytes::from_gib(2));
    world.machine.free.memory = known(free);
    (world.settings.n_ctx, world.settings.repack) = (512, false);
}

/// Served, where old conversations are kept.
fn server(world: &mut World) {
    world.engine = EngineRules { tool: Tool::Server, profile: EngineProfile::server_0_7(), ..EngineRules::bundled() };
    world.settings.repack = false;
}

fn mapped(world: &mut World, free_mib: u64) {
    world.machine.free.memory = known(Bytes::from_mib(free_mib));
    (world.settings.n_ctx, world.settings.repack, world.settings.cache_ram_mib) = (512, false, 0);
}

fn cases() -> Vec<Case> {
    [numbers(), placement(), tensors_and_threads(), strategies(), memory(), state()].into_iter().flatten().collect()
}

fn numbers() -> Vec<Case> {
    vec![
        case("zero", CPU, SMALL, |w| w.settings.threads = 0, |w| w.settings.threads = 1),
        case("ubatch-above-batch", CPU, SMALL, |w| w.settings.n_ubatch = 4096, |w| w.settings.n_ubatch = 2048),
        case(
            "pooling-of-nothing",
            CPU,
            SMALL,
            |w| w.settings.pooling = Pooling::Mean,
            |w| (w.settings.pooling, w.settings.embeddings) = (Pooling::Mean, true),
        ),
        case("too-many-slots", CPU, SMALL, |w| w.settings.n_parallel = 257, |w| w.settings.n_parallel = 256),
        case("context-above-trained", CPU, SMALL, |w| w.settings.n_ctx = 41_216, |w| w.settings.n_ctx = 40_960),
        case("context-unknown", CPU, SMALL, |w| (w.model.n_ctx_train, w.settings.n_ctx) = (None, 0), |w| w.model.n_ctx_train = None),
        case("context-rounded", CPU, SMALL, |w| w.settings.n_ctx = 1000, |w| w.settings.n_ctx = 1024),
        case("slot-context-small", CPU, SMALL, |w| w.settings.n_parallel = 8, |w| w.settings.n_parallel = 4),
        case(
            "request-longer-than-context",
            CPU,
            SMALL,
            |w| (w.request, w.settings.n_ctx) = (Some(Request::default()), 2048),
            |w| (w.request, w.settings.n_ctx) = (Some(Request::default()), 2304),
        ),
        case(
            "quantised-v-without-flash-attention",
            CPU,
            SMALL,
            |w| (w.settings.cache_type_v, w.settings.flash_attn) = (QuantType::Q8_0, FlashAttention::Off),
            |w| w.settings.cache_type_v = QuantType::Q8_0,
        ),
        case(
            "latent-cache-types-differ",
            "cores=8,ram=1024GiB",
            "deepseek-v3",
            |w| w.settings.cache_type_k = QuantType::Q8_0,
            |w| (w.settings.cache_type_k, w.settings.cache_type_v) = (QuantType::Q8_0, QuantType::Q8_0),
        ),
        case("coarse-cache", CPU, SMALL, |w| w.settings.cache_type_k = QuantType::Q4_0, |w| w.settings.cache_type_k = QuantType::Q8_0),
        case(
            "cache-block-and-head",
            CPU,
            SMALL,
            |w| {
                for layer in &mut w.model.layers {
                    if let Mixer::Attention(attention) = &mut layer.mixer {
                        (attention.head_dim_k, attention.head_dim_v) = (80, 80);
                    }
                }
                w.settings.cache_type_k = QuantType::Q8_0;
            },
            |w| w.settings.cache_type_k = QuantType::Q8_0,
        ),
        case(
            "engine-cannot-express",
            CPU,
            SMALL,
            |w| {
                let flags = ["-m", "--model", "-c", "--ctx-size", "--host", "--port"].map(str::to_owned);
                w.engine = EngineRules { tool: Tool::Server, accepted: Some(flags.into()), ..EngineRules::bundled() };
                w.settings.repack = false;
            },
            |w| w.settings.repack = false,
        ),
        case(
            "engine-refuses",
            TWO,
            SMALL,
            |w| w.settings.devices = Devices::Only(vec!["CUDA2".to_owned()]),
            |w| w.settings.devices = Devices::Only(vec!["CUDA1".to_owned()]),
        ),
    ]
}

fn placement() -> Vec<Case> {
    vec![
        case("gpu-layers-clamped", DESKTOP, SMALL, |w| w.settings.n_gpu_layers = 99, |w| w.settings.n_gpu_layers = 29),
        case("main-gpu-range", TWO, SMALL, |w| w.settings.main_gpu = 2, |w| w.settings.main_gpu = 1),
        case("split-mode-row", TWO, SMALL, |w| w.settings.split_mode = SplitMode::Row, |w| w.settings.split_mode = SplitMode::Layer),
        case("split-mode-tensor", TWO, SMALL, |w| w.settings.split_mode = SplitMode::Tensor, |w| w.settings.split_mode = SplitMode::None),
        case("no-experts", DESKTOP, SMALL, |w| w.settings.n_cpu_moe = 3, |w| w.settings.n_cpu_moe = 0),
        case(
            "rpc-server-unnamed",
            DESKTOP,
            SMALL,
            |w| w.remote = true,
            |w| (w.remote, w.settings.rpc_servers) = (true, vec!["10.0.0.2:50052".to_owned()]),
        ),
        case("no-device", CPU, SMALL, |w| w.settings.n_gpu_layers = 20, |w| w.settings.n_gpu_layers = 0),
        case("tensor-split-empty", TWO, SMALL, |w| w.settings.tensor_split = vec![0.0, 0.0], |w| w.settings.tensor_split = vec![0.0, 1.0]),
        case(
            "tensor-split-unused",
            TWO,
            SMALL,
            |w| (w.settings.split_mode, w.settings.tensor_split) = (SplitMode::None, vec![1.0, 1.0]),
            |w| w.settings.tensor_split = vec![1.0, 1.0],
        ),
        case(
            "tensor-split-length",
            TWO,
            SMALL,
            |w| w.settings.tensor_split = vec![1.0, 1.0, 1.0],
            |w| w.settings.tensor_split = vec![1.0, 1.0],
        ),
    ]
}

fn tensors_and_threads() -> Vec<Case> {
    vec![
        case(
            "override-buffer",
            DESKTOP,
            SMALL,
            |w| w.settings.tensor_overrides = overrides("ffn_up", "CUDA7"),
            |w| w.settings.tensor_overrides = overrides("ffn_up", "CUDA0"),
        ),
        case(
            "override-separator",
            DESKTOP,
            SMALL,
            |w| w.settings.tensor_overrides = overrides("ffn_u{1,2}p", "CPU"),
            |w| w.settings.tensor_overrides = overrides("ffn_u{1}p", "CPU"),
        ),
        case(
            "override-pattern",
            DESKTOP,
            SMALL,
            |w| w.settings.tensor_overrides = overrides("ffn_(up", "CPU"),
            |w| w.settings.tensor_overrides = overrides("ffn_(up)", "CPU"),
        ),
        case(
            "override-matches-nothing",
            DESKTOP,
            SMALL,
            |w| w.settings.tensor_overrides = overrides("no_such_tensor", "CPU"),
            |w| w.settings.tensor_overrides = overrides("ffn_down", "CPU"),
        ),
        case("threads-above-cpus", CPU, SMALL, |w| w.settings.threads = 9, |w| w.settings.threads = 8),
        case("threads-above-cores", "cores=8,threads=16,ram=64GiB", SMALL, |w| w.settings.threads = 9, |w| w.settings.threads = 8),
        case(
            "threads-on-slow-cores",
            "cores=12,threads=16,ram=64GiB",
            SMALL,
            // Of the four fast cores the mask leaves two.
            |w| kinds(w, 4..16),
            |w| kinds(w, 0..16),
        ),
        case("slow-cores-in-mask", "cores=12,threads=16,ram=64GiB", SMALL, |w| masked(w, "0-9"), |w| masked(w, "0-7")),
        case("cpu-mask-forbidden", CPU, SMALL, |w| w.settings.cpu_mask = mask("4-11"), |w| w.settings.cpu_mask = mask("4-7")),
        case(
            "cpu-mask-ignored",
            CPU,
            SMALL,
            |w| (w.machine.facts.platform.os, w.settings.cpu_mask_batch) = ("macos".to_owned(), mask("0-3")),
            |w| w.settings.cpu_mask_batch = mask("0-3"),
        ),
        case(
            "cpu-strict-without-mask",
            CPU,
            SMALL,
            |w| w.settings.cpu_strict_batch = true,
            |w| (w.settings.cpu_strict_batch, w.settings.cpu_mask_batch) = (true, mask("0-3")),
        ),
        case("cpus-of-slow-cores-only", "cores=12,threads=16,ram=64GiB", SMALL, |w| kinds(w, 8..16), |w| kinds(w, 0..16)),
    ]
}

/// Nodes of these CPUs and of so much memory, threads spread over them so.
fn nodes(world: &mut World, cpus: &[std::ops::Range<u32>], gib: u64, numa: Numa) {
    let node = |(id, cpus): (u32, &std::ops::Range<u32>)| NumaNode {
        id,
        cpus: cpus.clone().collect(),
        memory: known(Bytes::from_gib(gib)),
        distances: Vec::new(),
        of_gpu: false,
    };
    world.machine.facts.numa = (0..).zip(cpus).map(node).collect();
    (world.settings.numa, world.settings.repack) = (numa, false);
}

const HALVES: [std::ops::Range<u32>; 2] = [0..4, 4..8];

fn strategies() -> Vec<Case> {
    vec![
        case("numa-of-one-node", CPU, SMALL, |w| w.settings.numa = Numa::Distribute, |w| nodes(w, &HALVES, 32, Numa::Distribute)),
        case(
            "numa-over-mask",
            CPU,
            SMALL,
            |w| {
                nodes(w, &HALVES, 32, Numa::Numactl);
                w.settings.cpu_mask_batch = mask("0-3");
            },
            |w| w.settings.cpu_mask_batch = mask("0-3"),
        ),
        case(
            "numa-nodes-left-out",
            CPU,
            SMALL,
            |w| nodes(w, &[0..4, 4..8, 8..8], 32, Numa::Distribute),
            |w| nodes(w, &[0..4, 4..8, 8..8], 32, Numa::Isolate),
        ),
        case(
            "numa-beyond-affinity",
            CPU,
            SMALL,
            |w| {
                nodes(w, &HALVES, 32, Numa::Isolate);
                w.machine.limits.allowed_cpus = known((0..6).collect());
            },
            |w| {
                nodes(w, &HALVES, 32, Numa::Numactl);
                w.machine.limits.allowed_cpus = known((0..6).collect());
            },
        ),
        case(
            "numa-isolated-threads",
            CPU,
            SMALL,
            |w| {
                nodes(w, &HALVES, 32, Numa::Isolate);
                w.settings.threads_batch = 5;
            },
            |w| nodes(w, &HALVES, 32, Numa::Isolate),
        ),
        case("numa-isolated-memory", CPU, EIGHT, |w| nodes(w, &HALVES, 4, Numa::Isolate), |w| nodes(w, &HALVES, 8, Numa::Isolate)),
        case(
            "numa-on-one-node",
            CPU,
            EIGHT,
            |w| {
                nodes(w, &HALVES, 32, Numa::Distribute);
                w.settings.load_mode = LoadMode::None;
            },
            |w| nodes(w, &HALVES, 32, Numa::Distribute),
        ),
    ]
}

fn memory() -> Vec<Case> {
    vec![
        case("memory-over-limit", DESKTOP, "llama-3.1-70b", |w| w.settings.n_gpu_layers = 81, |w| w.settings.n_gpu_layers = 20),
        case(
            "memory-tight",
            DESKTOP,
            EIGHT,
            |w| {
                w.settings.n_gpu_layers = 33;
                w.machine.free.gpu_memory = vec![known(Bytes::from_mib(6000))];
            },
            |w| w.settings.n_gpu_layers = 33,
        ),
        case(
            "shared-limit",
            "m3-max-40c-64gb",
            "llama-3.1-70b",
            |w| (w.settings.n_gpu_layers, w.settings.n_ctx) = (81, 28_672),
            |w| (w.settings.n_gpu_layers, w.settings.n_ctx) = (81, 4096),
        ),
        case(
            "weights-not-resident",
            "cores=8,ram=32GiB",
            "llama-3.1-70b",
            |w| w.settings.repack = false,
            |w| {
                w.settings.repack = false;
                w.machine = machine("cores=8,ram=64GiB");
            },
        ),
        case("mapped-tight", CPU, EIGHT, |w| mapped(w, 5200), |w| mapped(w, 8000)),
        case("prompt-cache-may-grow", "cores=8,ram=16GiB,free=12GiB", EIGHT, server, |w| {
            server(w);
            w.settings.cache_ram_mib = 256;
        }),
        case(
            "lock-over-memory",
            "cores=8,ram=32GiB",
            "llama-3.1-70b",
            |w| (w.settings.load_mode, w.settings.repack) = (LoadMode::MmapMlock, false),
            |w| (w.settings.load_mode, w.settings.repack) = (LoadMode::Auto, false),
        ),
        case("lock-limit", CPU, SMALL, |w| w.settings.load_mode = LoadMode::Mlock, |w| w.settings.load_mode = LoadMode::Mmap),
        case("swap-in-use", CPU, EIGHT, |w| swapped(w, Bytes::from_mib(5700)), |w| swapped(w, Bytes::from_gib(12))),
    ]
}

fn state() -> Vec<Case> {
    const BAR: Bytes = Bytes::from_gib(24);
    vec![
        case(
            "on-battery",
            CPU,
            SMALL,
            |w| w.machine.conditions.power = known(PowerSource::Battery(40)),
            |w| w.machine.conditions.power = known(PowerSource::Mains),
        ),
        case(
            "saving-power",
            CPU,
            SMALL,
            |w| w.machine.conditions.power_profile = known("power-saver".to_owned()),
            |w| w.machine.conditions.power_profile = known("performance".to_owned()),
        ),
        case(
            "host-throttled",
            CPU,
            SMALL,
            |w| w.machine.conditions.cpu_temperature_c = known(97.0),
            |w| w.machine.conditions.cpu_temperature_c = known(70.0),
        ),
        case("gpu-throttled", DESKTOP, SMALL, |w| throttled(w, "thermal"), |w| throttled(w, "")),
        case(
            "sustained-heat",
            "cores=8,ram=12GiB",
            SMALL,
            |w| {
                w.machine.facts.platform.os = "android".to_owned();
                w.settings.threads = 8;
            },
            |w| w.machine.facts.platform.os = "android".to_owned(),
        ),
        case("link-narrow", DESKTOP, EIGHT, |w| gpu(w, 4, 16, BAR), |w| gpu(w, 16, 16, BAR)),
        case("bar-small", DESKTOP, EIGHT, |w| gpu(w, 16, 16, Bytes::from_mib(256)), |w| gpu(w, 16, 16, BAR)),
    ]
}

#[test]
fn every_rule_is_broken_by_one_case_and_kept_by_another() {
    let cases = cases();
    for Case { rule, machine, model, broken, kept } in &cases {
        let rules = |change: fn(&mut World)| {
            let mut world = World::new(machine, model);
            change(&mut world);
            world.broken()
        };
        let (fires, silent) = (rules(*broken), rules(*kept));
        assert!(fires.contains(rule), "{rule} is not told: {fires:?}");
        assert!(!silent.contains(rule), "{rule} is told without reason: {silent:?}");
    }
    let covered: BTreeSet<&str> = cases.iter().map(|case| case.rule).collect();
    let missing: Vec<&str> = RULES.iter().map(|rule| rule.id).filter(|id| !covered.contains(id)).collect();
    assert!(missing.is_empty(), "rules without a case: {missing:?}");
}

#[test]
fn files_that_a_limit_leaves_out_do_not_fill_it() {
    // A limit on what the process takes for itself is nearly full with the cache alone; the files lie beside it, where there is room.
    let swap = |mapped_files| {
        let mut world = World::new(CPU, EIGHT);
        swapped(&mut world, Bytes::from_gib(32));
        let (limit, none) = (Bytes::from_mib(5700), Known::unknown("test"));
        let limit =
            MemoryLimit { source: "test".to_owned(), limit, used: none.clone(), reclaimable: none.clone(), swap: none, mapped_files };
        world.machine.limits.memory = vec![limit];
        world.broken().contains("swap-in-use")
    };
    assert!(swap(true));
    assert!(!swap(false));
}
