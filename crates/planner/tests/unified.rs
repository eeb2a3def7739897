//! Machines whose GPU computes in the host's memory: one memory, two limits.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{machine, model, native, planned, seconds, text};
use planner::emit::Program;
use planner::plan::{Budget, DevicePreference, Pool, Preferences, Strategy};
use planner::{
    Context, EngineRules, GpuSupport, ListedDevice, Request, Tool, UseCase, Verdict, check, emit, plan, predict, target, validate,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use spec::settings::{LoadMode, Pins};
use spec::{Bytes, Known, Model, Settings};
use std::sync::LazyLock;

fn gpu_only(preference: DevicePreference) -> Request {
    Request { preferences: Preferences { device: preference, ..Preferences::default() }, ..Request::default() }
}

#[test]
fn a_mac_of_64_gib_runs_seventy_billion_on_its_gpu() {
    insta::assert_snapshot!(text(&planned("m4-max-40c-64gb", &model("llama-3.1-70b", "Q4_K_M"), &Request::default())));
}

#[test]
fn a_mac_whose_working_set_is_too_small_is_told_how_to_raise_it() {
    let (description, model) = ("m2-max-38c-96gb", model("llama-3.1-70b", "Q8_0"));
    let plan = planned(description, &model, &Request::default());
    insta::assert_snapshot!(text(&plan));
    // With that limit it is as the plan says.
    let mut raised = machine(description);
    let plan = plan.unwrap();
    let limit = plan.changes[0].what.split_once("iogpu.wired_limit_mb=").unwrap().1.split(':').next().unwrap();
    let limit = Known::exact(Bytes::from_mib(limit.parse().unwrap()), "sysctl iogpu.wired_limit_mb");
    raised.facts.gpus[0].memory_total = limit.clone();
    raised.free.gpu_memory[0] = limit;
    let then = planner::plan(&raised, &model, &native(&raised), &Request::default()).unwrap();
    assert_eq!((then.strategy, then.prediction.decode), (Strategy::GpuOnly, plan.changes[0].decode.clone()));
}

#[test]
fn a_mac_with_too_little_memory_reads_from_disk() {
    insta::assert_snapshot!(text(&planned("m3-max-40c-48gb", &model("llama-3.1-70b", "Q4_K_M"), &Request::default())));
}

#[test]
fn a_spark_runs_a_hundred_and_twenty_billion() {
    insta::assert_snapshot!(text(&planned("gb10", &model("gpt-oss-120b", "MXFP4_MOE"), &Request::default())));
}

#[test]
fn a_jetson_of_8_gib_runs_eight_billion() {
    insta::assert_snapshot!(text(&planned("jetson-orin-nano-8gb", &model("llama-3.1-8b", "Q4_K_M"), &Request::default())));
}

#[test]
fn a_strix_halo_of_128_gib() {
    insta::assert_snapshot!(text(&planned("strix-halo-128gb", &model("gpt-oss-120b", "MXFP4_MOE"), &Request::default())));
}

#[test]
fn integrated_graphics_are_used_where_the_request_is_shorter_so() {
    let model = model("llama-3.1-8b", "Q4_K_M");
    let of = |description: &str, use_case| {
        let plan = planned(description, &model, &Request { use_case, ..Request::default() }).unwrap();
        let devices = plan.choices.iter().find(|choice| choice.setting == "devices").unwrap();
        format!("{description}, {use_case}: {}, devices {}: {}", plan.strategy, devices.value, devices.because)
    };
    let text = [
        of("arc-140v,cores=8,ram=32GiB", UseCase::LongContext),
        of("arc-140v,cores=8,ram=32GiB", UseCase::Speed),
        of("radeon-780m,cores=8,ram=32GiB,bandwidth=90GB/s", UseCase::General),
        of("radeon-780m,cores=8,ram=32GiB,bandwidth=90GB/s", UseCase::Speed),
        of("uhd-770,cores=16,ram=64GiB,bandwidth=90GB/s", UseCase::LongContext),
    ];
    insta::assert_snapshot!(text.join("\n"));
}

/// The file of a quantised model has its output matrix first: with it on the GPU all of the file is mapped there.
#[test]
fn a_partly_offloaded_mac_reads_its_weights_instead_of_mapping_the_whole_file() {
    let (machine, model) = (machine("m2-max-38c-96gb"), model("llama-3.1-70b", "Q8_0"));
    let target = native(&machine);
    let plan = plan(&machine, &model, &target, &Request::default()).unwrap();
    let layers = plan.settings.n_gpu_layers;
    let need = |load_mode| {
        let settings = Settings { load_mode, ..plan.settings.clone() };
        footprint::require(&model, &settings, &target, &plan.request.profile).unwrap()
    };
    let (mapped, read) = (need(LoadMode::Auto), need(LoadMode::None));
    let metal = &mapped.devices[0];
    assert_eq!(metal.weights, metal.weights_mapped);
    assert!(layers < 81 && metal.weights.get() > read.devices[0].weights.get(), "{layers} layers");
    // Pages that both use count once: never more than the file.
    let pages = metal.weights_mapped.plus(&mapped.mapped()).get().unwrap();
    assert!(pages <= model.tensor_bytes() + Bytes::from_mib(1), "{pages}");
    assert!(read.mapped().get() == Some(Bytes::ZERO) && read.devices[0].weights_mapped.get() == Some(Bytes::ZERO));
}

#[test]
fn a_gpu_with_memory_of_its_own_is_planned_for_alone() {
    let both = machine("rtx4090,radeon-780m,cores=16,ram=64GiB");
    let alone = machine("rtx4090,cores=16,ram=64GiB");
    assert_eq!((native(&both).devices, native(&both).idle.len()), (native(&alone).devices, 1));
    let model = model("llama-3.1-70b", "Q4_K_M");
    let plan_of = |machine: &spec::Machine| plan(machine, &model, &native(machine), &Request::default()).unwrap();
    assert_eq!(plan_of(&both), plan_of(&alone));
    // Named, it is used.
    let pins = Pins { devices: Some("Vulkan0".parse().unwrap()), ..Pins::default() };
    let asked = plan(&both, &model, &native(&both), &Request { pins, ..Request::default() }).unwrap();
    let shared: Vec<_> = asked.budgets.iter().map(|budget| (budget.pool.to_string(), budget.shares_host)).collect();
    assert_eq!(shared, [("Vulkan0".to_owned(), true), ("host".to_owned(), false)]);
    assert!(asked.settings.n_gpu_layers > 0 && asked.budgets[1].of_devices == asked.budgets[0].needed);
    // The engine lists both; the integrated one is left out there, too.
    let listed = |name: &str, description: &str, gib| {
        let memory = Known::exact(Bytes::from_gib(gib), "--list-devices");
        ListedDevice { name: name.into(), description: description.into(), total: memory.clone(), free: memory }
    };
    let names = |listed: Vec<ListedDevice>| {
        let target = target(&both, &GpuSupport::Listed(listed));
        target.devices.iter().map(|device| (device.name.clone(), device.shares_host)).collect::<Vec<_>>()
    };
    let (card, graphics) = (listed("CUDA0", "NVIDIA GeForce RTX 4090", 24), listed("Vulkan0", "AMD Radeon 780M (RADV PHOENIX)", 31));
    assert_eq!(names(vec![card, graphics.clone()]), [("CUDA0".to_owned(), false)]);
    assert_eq!(names(vec![graphics]), [("Vulkan0".to_owned(), true)]);
}

#[test]
fn what_is_left_out_is_told_to_the_engine() {
    let (machine, model) = (machine("gb10"), model("llama-3.2-1b", "Q4_0"));
    let target = native(&machine);
    let engine = EngineRules { tool: Tool::Server, ..EngineRules::bundled() };
    let context = Context { machine: &machine, model: &model, target: &target, engine: &engine };
    let line = |preference| {
        let plan = plan(&machine, &model, &target, &gpu_only(preference)).unwrap();
        let program = Program { path: "llama-server".into(), model: "m.gguf".into(), listen: None, extra: Vec::new() };
        emit(&validate(plan, &context).unwrap(), &program).to_string()
    };
    assert!(line(DevicePreference::Cpu).contains("--n-gpu-layers 0") && line(DevicePreference::Cpu).contains("--device none"));
    assert!(line(DevicePreference::Auto).contains("--n-gpu-layers 17") && !line(DevicePreference::Auto).contains("--device"));
}

#[test]
fn settings_that_pass_the_hosts_memory_are_an_error_though_the_gpu_holds_them() {
    let (machine, model) = (machine("gb10"), model("llama-3.1-70b", "Q8_0"));
    let target = native(&machine);
    let engine = EngineRules::bundled();
    let context = Context { machine: &machine, model: &model, target: &target, engine: &engine };
    // Repacked or read, the other half of the weights lies in the same memory.
    let settings = Settings { n_gpu_layers: 81, n_ctx: 131_072, n_parallel: 1, ..Settings::default() };
    let report = check(&context, &settings);
    assert!(report.errors().any(|error| error.rule == "memory-over-limit" && error.message.starts_with("host needs")), "{report}");
}

static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| {
    [
        ("llama-3.2-1b", "Q4_0"),
        ("gemma3-1b", "Q4_K_M"),
        ("llama-3.1-8b", "Q4_K_M"),
        ("qwen3-30b-a3b", "Q4_K_M"),
        ("llama-3.1-70b", "Q4_K_M"),
    ]
    .map(|(name, ty)| model(name, ty))
    .into()
});

const MACHINES: [&str; 5] = ["m4-max-40c-64gb", "gb10", "jetson-agx-orin-64gb", "strix-halo-128gb", "arc-140v,cores=8"];

fn config() -> ProptestConfig {
    ProptestConfig { cases: 100, rng_seed: RngSeed::Fixed(11), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn neither_limit_is_passed(which in 0..5_usize, ram in 4_u32..160, of in 0..5_usize, layers in proptest::option::of(0_u32..90),
                               use_case in proptest::sample::select(UseCase::ALL)) {
        let (machine, model) = (machine(&format!("{},ram={ram}GiB", MACHINES[which])), &MODELS[of]);
        let target = native(&machine);
        prop_assert!(target.devices.iter().all(|device| device.shares_host) && target.devices.len() == 1);
        let request = Request { use_case, pins: Pins { n_gpu_layers: layers, ..Pins::default() }, ..Request::default() };
        let Ok(plan) = plan(&machine, model, &target, &request) else { return Ok(()) };
        prop_assert!(plan.budgets.iter().all(Budget::holds), "{:?}", plan.budgets);
        // All bytes of all devices, and those of the host, in what the host has.
        let host = plan.budgets.iter().find(|budget| budget.pool == Pool::Host).unwrap();
        let devices: Bytes = plan.requirement.devices.iter().map(|device| *device.total().high().unwrap()).sum();
        let all = devices + *plan.requirement.host.anonymous().high().unwrap();
        prop_assert_eq!(host.needed.high(), Some(&all));
        prop_assert!(all <= host.limit.unwrap());
        let rest = plan.target(&target);
        let exact = footprint::require(model, &plan.settings, &rest, &request.profile).unwrap();
        prop_assert_eq!(&exact, &plan.requirement);
        let depth = plan.prediction.depth;
        prop_assert_eq!(predict(&machine, model, &rest, &plan.settings, &plan.requirement, depth).decode.is_unknown(), false);
        let engine = EngineRules { tool: Tool::Server, ..EngineRules::bundled() };
        let context = Context { machine: &machine, model, target: &target, engine: &engine };
        validate(plan, &context).map_err(|report| TestCaseError::fail(report.to_string()))?;
    }

    #[test]
    fn more_memory_is_never_worse(which in 0..5_usize, ram in 8_u32..120, more in 0_u32..64, of in 0..5_usize) {
        let of_size = |ram: u32| machine(&format!("{},ram={ram}GiB", MACHINES[which]));
        let (small, large) = (of_size(ram), of_size(ram + more));
        let model = &MODELS[of];
        let Ok(before) = plan(&small, model, &native(&small), &Request::default()) else { return Ok(()) };
        let after = plan(&large, model, &native(&large), &Request::default()).map_err(|refusal| TestCaseError::fail(refusal.to_string()))?;
        prop_assert!(before.verdict != Verdict::Fits || after.verdict == Verdict::Fits, "{:?}", after.verdict);
        if after.settings.n_ctx == before.settings.n_ctx {
            prop_assert!(seconds(&after) <= seconds(&before) * 1.06, "{} s, {} s before", seconds(&after), seconds(&before));
        }
        prop_assert!(before.strategy != Strategy::GpuOnly || after.strategy == Strategy::GpuOnly || after.settings.n_ctx > before.settings.n_ctx);
    }
}
