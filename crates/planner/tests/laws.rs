//! Laws that every plan obeys, over random machines, models, requests and pins.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{machine, model, native, seconds};
use planner::emit::{Program, read_args};
use planner::plan::{Budget, DevicePreference, Power, Preferences, Priority};
use planner::{Context, EngineRules, Plan, Request, Tool, UseCase, Verdict, emit, plan, validate};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use spec::settings::{FlashAttention, Pins};
use spec::{Model, QuantType, Settings};
use std::sync::LazyLock;

static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| {
    [
        ("qwen3-0.6b", "Q4_K_M"),
        ("llama-3.2-1b", "Q4_0"),
        ("gemma3-1b", "Q4_K_M"),
        ("mamba-130m", "F16"),
        ("llama-3.1-8b", "Q4_K_M"),
        ("qwen3-30b-a3b", "Q4_K_M"),
        ("llama-3.1-70b", "Q4_K_M"),
        ("gpt-oss-120b", "MXFP4_MOE"),
        ("deepseek-v3", "Q4_K_M"),
    ]
    .map(|(name, ty)| model(name, ty))
    .into()
});

fn machines() -> impl Strategy<Value = (u32, u32, Vec<u32>)> {
    (1_u32..65, 2_u32..200, proptest::collection::vec(2_u32..90, 0..4))
}

fn described(cores: u32, ram: u32, gpus: &[u32]) -> String {
    let gpus: String = gpus.iter().map(|gib| format!(",gpu={gib}GiB")).collect();
    format!("cores={cores},ram={ram}GiB{gpus}")
}

fn pins() -> impl Strategy<Value = Pins> {
    let maybe = |low: u32, high: u32| prop_oneof![3 => Just(None), 1 => (low..high).prop_map(Some)];
    let cache = prop_oneof![4 => Just(None), 1 => Just(Some(QuantType::F16)), 1 => Just(Some(QuantType::Q8_0))];
    let flash = prop_oneof![4 => Just(None), 1 => Just(Some(FlashAttention::On)), 1 => Just(Some(FlashAttention::Auto))];
    (maybe(256, 40000), maybe(0, 100), maybe(0, 50), maybe(32, 1024), maybe(1, 5), cache, flash, maybe(1, 9)).prop_map(
        |(n_ctx, n_gpu_layers, n_cpu_moe, n_ubatch, n_parallel, cache, flash_attn, threads)| Pins {
            n_ctx,
            n_gpu_layers,
            n_cpu_moe,
            n_ubatch,
            n_parallel,
            cache_type_k: cache,
            cache_type_v: cache,
            flash_attn,
            threads,
            ..Pins::default()
        },
    )
}

fn requests() -> impl Strategy<Value = Request> {
    let preferences =
        (proptest::sample::select(DevicePreference::ALL), proptest::sample::select(Priority::ALL), proptest::sample::select(Power::ALL));
    let preferences = preferences.prop_map(|(device, priority, power)| Preferences { device, priority, power, ..Preferences::default() });
    (proptest::sample::select(UseCase::ALL), preferences).prop_map(|(use_case, preferences)| Request {
        use_case,
        preferences,
        ..Request::default()
    })
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 120, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_plan_is_deterministic_within_limits_and_valid((cores, ram, gpus) in machines(), which in 0..9_usize, request in requests()) {
        let (machine, model) = (machine(&described(cores, ram, &gpus)), &MODELS[which]);
        let target = native(&machine);
        let Ok(plan) = plan(&machine, model, &target, &request) else {
            let refusal = planner::plan(&machine, model, &target, &request).unwrap_err();
            prop_assert!(!refusal.tried.is_empty());
            return Ok(());
        };
        prop_assert_eq!(&planner::plan(&machine, model, &target, &request).unwrap(), &plan);
        prop_assert!(plan.budgets.iter().all(Budget::holds), "{:?}", plan.budgets);
        let exact = footprint::require(model, &plan.settings, &target, &request.profile).unwrap();
        prop_assert_eq!(&exact, &plan.requirement);
        let trained = model.n_ctx_train.unwrap_or(u32::MAX);
        prop_assert!(plan.settings.n_ctx <= trained.saturating_mul(plan.settings.n_parallel));
        prop_assert!(plan.settings.threads <= machine.effective_cpus() && plan.settings.threads_batch <= machine.effective_cpus());
        prop_assert!(plan.settings.threads >= 1 && plan.settings.n_ubatch <= plan.settings.n_batch);
        prop_assert!(plan.prediction.decode.low() <= plan.prediction.decode.high());
        prop_assert_eq!(plan.choices.len(), Pins::from(Settings::default()).names().len());
        if request.preferences.device == DevicePreference::Cpu {
            prop_assert_eq!(plan.settings.n_gpu_layers, 0);
        }
        if request.use_case == UseCase::Quality {
            prop_assert_eq!(plan.settings.cache_type_k, QuantType::F16);
        }

        let engine = EngineRules { tool: Tool::Server, ..EngineRules::bundled() };
        let context = Context { machine: &machine, model, target: &target, engine: &engine };
        let settings = plan.settings.clone();
        let valid = validate(plan, &context).map_err(|report| TestCaseError::fail(report.to_string()))?;
        let program = Program { path: "llama-server".into(), model: "m.gguf".into(), listen: None, extra: Vec::new() };
        let args: Vec<String> = emit(&valid, &program).args.into_iter().map(|arg| arg.into_string().unwrap()).collect();
        let (pins, rest) = read_args(&args).map_err(TestCaseError::fail)?;
        let mut back = Settings::default();
        pins.apply(&mut back);
        prop_assert_eq!(back, settings);
        prop_assert_eq!(rest, ["--model", "m.gguf", "--fit", "off"]);
    }

    #[test]
    fn pins_are_kept((cores, ram, gpus) in machines(), which in 0..9_usize, request in requests(), pins in pins()) {
        let (machine, model) = (machine(&described(cores, ram, &gpus)), &MODELS[which]);
        let request = Request { pins: pins.clone(), ..request };
        match plan(&machine, model, &native(&machine), &request) {
            Ok(plan) => {
                let mut kept = plan.settings.clone();
                pins.apply(&mut kept);
                prop_assert_eq!(&kept, &plan.settings);
                prop_assert!(plan.budgets.iter().all(Budget::holds), "{:?}", plan.budgets);
            }
            Err(refusal) => prop_assert!(!refusal.tried.is_empty()),
        }
    }

    #[test]
    fn more_memory_is_never_worse((cores, ram, gpus) in machines(), more_ram in 0_u32..64, more_gpu in 0_u32..24, which in 0..9_usize) {
        let model = &MODELS[which];
        let request = Request::default();
        let small = machine(&described(cores, ram, &gpus));
        let larger: Vec<u32> = gpus.iter().map(|gib| gib + more_gpu).collect();
        let large = machine(&described(cores, ram + more_ram, &larger));
        let Ok(before) = plan(&small, model, &native(&small), &request) else { return Ok(()) };
        let after = plan(&large, model, &native(&large), &request).map_err(|refusal| TestCaseError::fail(refusal.to_string()))?;
        let from_disk = |plan: &Plan| plan.verdict.downgrades().iter().any(|step| step.setting == "residency");
        prop_assert!(before.verdict != Verdict::Fits || after.verdict == Verdict::Fits);
        prop_assert!(from_disk(&before) || !from_disk(&after));
        // The bandwidth that is assumed for a GPU goes by its memory; only machines of one class compare.
        let class = |gpus: &[u32]| gpus.iter().map(|&gib| [10, 18, 30, 60].iter().filter(|&&step| gib > step).count()).collect::<Vec<_>>();
        if after.settings.n_ctx == before.settings.n_ctx && class(&gpus) == class(&larger) {
            prop_assert!(seconds(&after) <= seconds(&before) * 1.05, "{} s, {} s before", seconds(&after), seconds(&before));
        }
    }
}
