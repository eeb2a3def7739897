//! The search against trying everything, over random machines and small models.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::native;
use planner::plan::{DevicePreference, DiskPolicy, Preferences, Priority, exhaustive, searched};
use planner::{Request, UseCase};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use spec::Model;
use std::sync::LazyLock;

/// Well-known shapes with few layers.
static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| {
    [
        ("llama-3.1-8b", "Q4_K_M", 6),
        ("llama-3.2-1b", "Q8_0", 5),
        ("qwen3-0.6b", "F16", 7),
        ("gemma3-1b", "Q4_0", 8),
        ("qwen3-30b-a3b", "Q4_K_M", 5),
        ("gpt-oss-20b", "MXFP4_MOE", 4),
        ("mamba-130m", "F16", 6),
        ("deepseek-v3", "Q4_K_M", 4),
    ]
    .into_iter()
    .filter_map(|(name, ty, layers)| {
        let mut shape = synthetic::preset(name)?;
        shape.set("n_layer", &layers.to_string()).unwrap();
        Some(common::model_of(&shape, ty))
    })
    .collect()
});

fn machines() -> impl Strategy<Value = String> {
    let gpus = proptest::collection::vec(300_u32..5000, 0..3);
    (1_u32..17, 600_u32..9000, gpus).prop_map(|(cores, ram, gpus)| {
        let gpus: String = gpus.iter().map(|mib| format!(",gpu={mib}MiB")).collect();
        format!("cores={cores},ram={ram}MiB{gpus}")
    })
}

fn requests() -> impl Strategy<Value = Request> {
    let preferences = (proptest::sample::select(DevicePreference::ALL), proptest::sample::select(Priority::ALL));
    (proptest::sample::select(UseCase::ALL), preferences).prop_map(|(use_case, (device, priority))| Request {
        use_case,
        preferences: Preferences { device, priority, disk: DiskPolicy::Never, ..Preferences::default() },
        ..Request::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, rng_seed: RngSeed::Fixed(11), failure_persistence: None, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_search_finds_what_trying_everything_finds(machine in machines(), which in 0..8_usize, request in requests()) {
        let (machine, model) = (common::machine(&machine), &MODELS[which % MODELS.len()]);
        let target = native(&machine);
        let found = searched(&machine, model, &target, &request);
        let best = exhaustive(&machine, model, &target, &request);
        match (&found, &best) {
            (Some(found), Some(best)) => {
                prop_assert!(found.behind <= best.behind * 1.0001, "{found:#?}\n{best:#?}");
                let as_far = (found.behind / best.behind - 1.0).abs() < 1e-4;
                prop_assert!(!as_far || found.seconds <= best.seconds * 1.0001, "{} s, {} s at best: {found:#?}\n{best:#?}", found.seconds, best.seconds);
            }
            (None, None) => {}
            _ => prop_assert!(false, "{found:#?}\n{best:#?}"),
        }
    }
}
