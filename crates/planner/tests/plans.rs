//! Plans as text: what is chosen on which machine, for whom, and why.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{machine, model, native, planned, text};
use planner::plan::{DevicePreference, DiskPolicy, NearestChange, Origin, Preferences, Priority, Strategy};
use planner::{Asked, Context, EngineRules, NoPlan, Plan, Request, UseCase, Verdict, plan, validate};
use spec::machine::MemoryLimit;
use spec::settings::Pins;
use spec::{Bytes, Known, QuantType};

fn on(machine: &str, name: &str, file_type: &str, request: &Request) -> String {
    text(&planned(machine, &model(name, file_type), request))
}

#[test]
fn eight_billion_on_a_desktop_without_gpu() {
    insta::assert_snapshot!(on("cores=8,ram=16GiB", "llama-3.1-8b", "Q4_K_M", &Request::default()));
}

#[test]
fn eight_billion_on_a_gpu_that_almost_holds_it() {
    insta::assert_snapshot!(on("cores=8,ram=32GiB,gpu=8GiB", "llama-3.1-8b", "Q4_K_M", &Request::default()));
}

#[test]
fn two_unequal_gpus_and_a_model_that_one_holds() {
    insta::assert_snapshot!(on("cores=8,ram=64GiB,gpu=12GiB,gpu=24GiB", "llama-3.1-8b", "Q4_K_M", &Request::default()));
}

#[test]
fn experts_leave_the_gpu_before_layers_do() {
    insta::assert_snapshot!(on("cores=8,ram=32GiB,gpu=12GiB", "qwen3-30b-a3b", "Q4_K_M", &Request::default()));
}

#[test]
fn use_cases_differ_on_one_machine() {
    let model = model("llama-3.1-8b", "Q4_K_M");
    let line = |&use_case: &UseCase| {
        let request = Request { use_case, ..Request::default() };
        let plan = planned("cores=8,ram=32GiB,gpu=8GiB", &model, &request).unwrap();
        let s = &plan.settings;
        let settings = format!("-c {} -ngl {} -ctk {} -ub {}", s.n_ctx, s.n_gpu_layers, s.cache_type_k, s.n_ubatch);
        format!("{use_case:12} {} {settings}: decode {}", plan.verdict, plan.prediction.decode)
    };
    insta::assert_snapshot!(UseCase::ALL.iter().map(line).collect::<Vec<_>>().join("\n"));
}

#[test]
fn many_users_share_a_context() {
    let preferences = Preferences { priority: Priority::Throughput, ..Preferences::default() };
    let request = Request { preferences, ..Request::default() };
    let plan = planned("cores=8,ram=64GiB,gpu=24GiB", &model("llama-3.1-8b", "Q4_K_M"), &request).unwrap();
    assert_eq!((plan.settings.n_parallel, plan.settings.kv_unified), (4, true));
}

#[test]
fn the_gpu_alone_is_a_wish_that_may_cost_precision() {
    let preferences = Preferences { device: DevicePreference::Gpu, ..Preferences::default() };
    let request = Request { preferences, ..Request::default() };
    insta::assert_snapshot!(on("cores=8,ram=64GiB,gpu=6GiB", "llama-3.1-8b", "Q4_K_M", &request));
}

#[test]
fn a_container_of_four_gib_and_one_cpu_is_obeyed() {
    let mut machine = machine("cores=16,ram=64GiB");
    machine.limits.cpu_quota = Known::exact(1.0, "cpu.max");
    machine.limits.memory = vec![MemoryLimit {
        source: "/sys/fs/cgroup/memory.max".into(),
        limit: Bytes::from_gib(4),
        used: Known::exact(Bytes::from_mib(100), "memory.current"),
        swap: Known::unknown("test"),
        mapped_files: true,
        reclaimable: Known::exact(Bytes::from_mib(60), "memory.stat"),
    }];
    let target = native(&machine);
    for (name, file_type) in [("llama-3.2-1b", "Q4_0"), ("qwen3-0.6b", "Q4_K_M"), ("gemma3-1b", "Q4_K_M")] {
        let plan = plan(&machine, &model(name, file_type), &target, &Request::default()).unwrap();
        assert_eq!((plan.settings.threads, plan.settings.threads_batch), (1, 1));
        assert!(*plan.requirement.host.resident().high().unwrap() <= Bytes::from_gib(4).saturating_sub(Bytes::from_mib(512)));
    }
    insta::assert_snapshot!(text(&plan(&machine, &model("llama-3.1-8b", "Q4_K_M"), &target, &Request::default())));
}

#[test]
fn a_pin_that_makes_it_impossible_is_named() {
    let model = model("llama-3.1-8b", "Q4_K_M");
    let request = Request { pins: Pins { n_gpu_layers: Some(33), ..Pins::default() }, ..Request::default() };
    let refusal = planned("cores=8,ram=32GiB,gpu=4GiB", &model, &request).unwrap_err();
    assert_eq!(refusal.pins, ["n_gpu_layers"]);
    assert!(matches!(refusal.nearest.as_slice(), [NearestChange::Unpin { setting: "n_gpu_layers", .. }]), "{refusal}");
    insta::assert_snapshot!(text(&Err(refusal)));
}

#[test]
fn a_refused_pin_is_moved_no_further_than_it_must() {
    let model = model("llama-3.1-8b", "Q4_K_M");
    let layers = Pins { n_gpu_layers: Some(33), ..Pins::default() };
    let context = Pins { n_ctx: Some(131_072), ..layers.clone() };
    for (machine, setting, step, pins) in
        [("cores=8,ram=8GiB,gpu=8GiB", "n_ctx", 1024, context), ("cores=8,ram=32GiB,gpu=4GiB", "n_gpu_layers", 1, layers)]
    {
        let preferences = Preferences { disk: DiskPolicy::Never, ..Preferences::default() };
        let asked = |pins: &Pins| planned(machine, &model, &Request { pins: pins.clone(), preferences, ..Request::default() });
        let refusal = asked(&pins).unwrap_err();
        let instead = |change: &NearestChange| match change {
            NearestChange::Unpin { setting: name, instead, .. } if *name == setting => instead.parse::<u32>().ok(),
            _ => None,
        };
        let Some(nearest) = refusal.nearest.iter().find_map(instead) else { panic!("{setting}: {refusal}") };
        for (value, has_plan) in [(nearest, true), (nearest + step, false)] {
            let mut moved = pins.clone();
            planner::emit::flags::flag(setting).unwrap().read(&value.to_string(), &mut moved).unwrap();
            assert_eq!(asked(&moved).is_ok(), has_plan, "{setting} {value}: {refusal}");
        }
    }
}

#[test]
fn a_pinned_context_keeps_its_place_and_the_layers_move() {
    let model = model("llama-3.1-8b", "Q4_K_M");
    let asked = |kv_offload| {
        let request = Request { pins: Pins { n_ctx: Some(65536), kv_offload, ..Pins::default() }, ..Request::default() };
        planned("cores=8,ram=32GiB,gpu=8GiB", &model, &request).unwrap()
    };
    // The cache of so many tokens is as large as the GPU: it leaves, or layers do.
    let either = asked(None);
    assert!(
        either.settings.n_ctx == 65536 && (!either.settings.kv_offload || either.strategy == Strategy::Hybrid),
        "{:?}",
        either.settings
    );
    let plan = asked(Some(true));
    assert_eq!(plan.settings.n_ctx, 65536);
    assert_eq!((plan.strategy, &plan.verdict), (Strategy::Hybrid, &Verdict::Fits));
    let origin = plan.choices.iter().find(|choice| choice.setting == "n_ctx").map(|choice| choice.origin);
    assert_eq!(origin, Some(Origin::Pinned));
}

#[test]
fn all_layers_and_the_trained_context_by_their_short_names() {
    let model = model("qwen3-0.6b", "Q4_K_M");
    let mut pins = Pins::default();
    for (setting, value) in [("n_gpu_layers", "all"), ("n_ctx", "0")] {
        planner::emit::flags::flag(setting).unwrap().read(value, &mut pins).unwrap();
    }
    let plan = planned("cores=8,ram=32GiB,gpu=24GiB", &model, &Request { pins, ..Request::default() }).unwrap();
    assert_eq!((plan.settings.n_gpu_layers, Some(plan.settings.n_ctx)), (model.n_layer_all() + 1, model.n_ctx_train));
}

#[test]
fn a_quantised_cache_is_never_coarser_than_q8_0_and_never_for_quality() {
    let model = model("llama-3.1-8b", "Q4_K_M");
    for ram in ["6.5GiB", "7GiB", "7.5GiB", "8GiB"] {
        for use_case in UseCase::ALL {
            let request = Request { use_case: *use_case, ..Request::default() };
            let Ok(plan) = planned(&format!("cores=8,ram={ram}"), &model, &request) else { continue };
            let cache = plan.settings.cache_type_k;
            assert!(cache == QuantType::F16 || (cache == QuantType::Q8_0 && *use_case != UseCase::Quality), "{ram} {use_case}: {cache}");
        }
    }
}

#[test]
fn disk_is_a_choice_of_the_user() {
    let model = model("llama-3.1-70b", "Q4_K_M");
    let ask = |disk| {
        let preferences = Preferences { disk, ..Preferences::default() };
        planned("cores=8,ram=32GiB,gpu=8GiB", &model, &Request { preferences, ..Request::default() })
    };
    let plan = ask(DiskPolicy::Allow).unwrap();
    assert!(plan.verdict.downgrades().iter().any(|step| step.setting == "residency"));
    let refusal = ask(DiskPolicy::Never).unwrap_err();
    assert!(refusal.nearest.iter().any(|change| matches!(change, NearestChange::FromDisk { .. })), "{refusal}");
}

#[test]
fn unknown_memory_is_said_and_not_enforced() {
    let mut machine = machine("cores=8,ram=16GiB");
    machine.facts.memory.total = Known::unknown("not told");
    machine.free.memory = Known::unknown("not told");
    let plan = plan(&machine, &model("qwen3-0.6b", "Q4_K_M"), &native(&machine), &Request::default()).unwrap();
    assert!(plan.warnings.iter().any(|warning| warning.contains("free memory of host is not known")), "{:?}", plan.warnings);
}

#[test]
fn under_windows_mapped_weights_lie_beside_a_limit_on_what_is_promised() {
    // A job object of 4 GiB, of which 3 are left, on a machine with 20 GB free: the weights' pages belong to the file.
    let recording = include_str!("../../probe/tests/machines/windows-job.json");
    let job = probe::detect(&probe::Recording::parse(recording).unwrap()).unwrap();
    let (model, target) = (model("llama-3.1-8b", "Q4_K_M"), native(&job));
    let mut container = job.clone();
    container.limits.memory.iter_mut().for_each(|limit| limit.mapped_files = true);
    let [beside, inside] = [&job, &container].map(|machine| plan(machine, &model, &target, &Request::default()).unwrap());
    let held = *beside.requirement.held().high().unwrap();
    let from_disk = |plan: &planner::Plan| plan.verdict.downgrades().iter().any(|step| step.setting == "residency");
    assert!(!from_disk(&beside), "{:?}", beside.verdict);
    assert!(held < Bytes::from_gib(3) && *beside.requirement.resident().high().unwrap() > Bytes::from_gib(4), "{held}");
    // The same limit over files as well: the weights come from the disk.
    assert!(from_disk(&inside), "{:?}", inside.verdict);
    assert!(inside.prediction.decode.get() < beside.prediction.decode.get());
}

#[test]
fn every_step_down_tells_what_it_saves_and_what_it_costs() {
    let mut told = std::collections::BTreeSet::new();
    for (machine, name) in [
        ("cores=8,ram=8GiB,gpu=16GiB", "qwen3-32b"),
        ("cores=4,ram=6GiB", "llama-3.1-8b"),
        ("cores=8,ram=64GiB,gpu=6GiB", "llama-3.1-8b"),
        ("cores=8,ram=32GiB", "llama-3.1-70b"),
    ] {
        let mut request = Request::default();
        request.preferences.device = DevicePreference::Gpu;
        let Ok(plan) = planned(machine, &model(name, "Q4_K_M"), &request) else { continue };
        for step in plan.verdict.downgrades() {
            told.insert(step.setting);
            // Of a GPU that is not there nothing is known.
            let known = !step.to.starts_with("none");
            assert_eq!((step.costs.is_some(), step.saves.is_some()), (known, known), "{machine} {name}: {step}");
        }
    }
    assert!(told.len() >= 3, "{told:?}");
}

#[test]
fn where_nothing_fits_on_any_gpu_the_engines_own_choice_has_no_shares_of_nothing() {
    let model = model("llama-3.1-8b", "Q4_K_M");
    for gpus in ["gpu=900MiB,gpu=900MiB", "gpu=600MiB,gpu=1100MiB", "gpu=1GiB,gpu=700MiB,gpu=700MiB"] {
        let plan = planned(&format!("cores=8,ram=32GiB,{gpus}"), &model, &Request::default()).unwrap();
        let gate = plan.gate.unwrap();
        assert_eq!(gate.settings.n_gpu_layers, 0, "{gpus}: {gate}");
        for split in [&gate.settings.tensor_split, &plan.settings.tensor_split] {
            assert!(split.is_empty() || split.iter().any(|&share| share > 0.0), "{gpus}: {split:?}");
        }
    }
}

#[test]
fn what_would_fit_has_a_plan_that_breaks_no_rule() {
    let model = model("qwen3-8b", "Q4_K_M");
    let machine = "cores=8,ram=64GiB,gpu=24GiB";
    let pins = Pins { n_batch: Some(128), n_ubatch: Some(512), ..Pins::default() };
    let refusal = planned(machine, &model, &Request { pins: pins.clone(), ..Request::default() }).unwrap_err();
    assert!(refusal.is_of_settings(), "{refusal}");
    let [NearestChange::Unpin { setting: "n_ubatch", instead, .. }] = refusal.nearest.as_slice() else { panic!("{refusal}") };
    let moved = Pins { n_ubatch: instead.parse().ok(), ..pins };
    assert_eq!(moved.n_ubatch, Some(128));
    planned(machine, &model, &Request { pins: moved, ..Request::default() }).unwrap();
}

#[test]
fn a_smaller_file_helps_only_where_weights_are_in_the_way() {
    let model = model("qwen3-8b", "Q4_K_M");
    let never = Preferences { disk: DiskPolicy::Never, ..Preferences::default() };
    let smaller = |machine: &str| {
        let refusal = planned(machine, &model, &Request { preferences: never, ..Request::default() }).unwrap_err();
        refusal.nearest.iter().any(|change| matches!(change, NearestChange::SmallerFile { .. }))
    };
    assert!(smaller("cores=8,ram=5GiB"));
    assert!(!smaller("cores=8,ram=64GiB,free=100MiB,gpu=24GiB"));
}

#[test]
fn a_floor_above_the_trained_context_is_refused_with_the_ways_out() {
    let model = model("qwen3-8b", "Q4_K_M");
    let asked = |asked: Asked, n_ctx: Option<u32>| {
        let pins = Pins { n_ctx, ..Pins::default() };
        planned("cores=8,ram=64GiB,free=60GiB,gpu=24GiB", &model, &Request { asked, pins, ..Request::default() })
    };
    let floor = |min_context| Asked { min_context: Some(min_context), ..Asked::default() };
    let told = |result: Result<Plan, Box<NoPlan>>| {
        let refusal = result.unwrap_err();
        assert!(!refusal.is_of_settings());
        text(&Err(refusal))
    };
    insta::assert_snapshot!(told(asked(floor(100_000), None)), @r#"
    refused
      tried a context of 100000 tokens: more than the 40960 that the model was trained for
      nearest: a floor of 40960 tokens under the context instead of 100000
      nearest: a pinned context of 100096, past the trained one, where text degrades
      pins: []
    "#);
    insta::assert_snapshot!(told(asked(floor(u32::MAX), None)), @r#"
    refused
      tried a context of 4294967295 tokens: more than the 40960 that the model was trained for
      nearest: a floor of 40960 tokens under the context instead of 4294967295
      pins: []
    "#);
    insta::assert_snapshot!(told(asked(floor(8192), Some(4096))), @r#"
    refused
      tried a context of 8192 tokens: more than the 4096 that the pinned context has for each sequence
      nearest: n_ctx 8192 instead of the pinned 4096
      nearest: a floor of 4096 tokens under the context instead of 8192
      pins: ["n_ctx"]
    "#);
    assert_eq!(asked(floor(40_960), None).unwrap().settings.n_ctx, 40_960);
    assert_eq!(asked(floor(100_000), Some(100_096)).unwrap().settings.n_ctx, 100_096);
    assert!(asked(floor(10_000), None).unwrap().settings.n_ctx >= 10_000);
    let prompt = |tokens| Asked { prompt_tokens: Some(tokens), ..Asked::default() };
    insta::assert_snapshot!(told(asked(prompt(4_000_000_000), None)), @r#"
    refused
      tried requests of 4000000256 tokens: more than the 40960 that the model was trained for
      nearest: prompts of 40704 tokens instead of 4000000000
      pins: []
    "#);
    insta::assert_snapshot!(told(asked(prompt(60_000), None)), @r#"
    refused
      tried requests of 60256 tokens: more than the 40960 that the model was trained for
      nearest: prompts of 40704 tokens instead of 60000
      nearest: a pinned context of 60416, past the trained one, where text degrades
      pins: []
    "#);
    assert!(asked(prompt(3000), None).unwrap().settings.n_ctx >= 3256);
}

#[test]
fn requests_longer_than_the_context_are_told_and_no_alternative_is_for_shorter_ones() {
    let (model, machine) = (model("qwen3-8b", "Q4_K_M"), machine("cores=8,ram=64GiB,free=60GiB,gpu=24GiB"));
    let (target, engine) = (native(&machine), EngineRules::bundled());
    let context = Context { machine: &machine, model: &model, target: &target, engine: &engine };
    let told = |n_ctx, asked| {
        let request = Request { pins: Pins { n_ctx, ..Pins::default() }, asked, ..Request::default() };
        let valid = validate(plan(&machine, &model, &target, &request).unwrap(), &context).unwrap();
        let long = valid.warnings().iter().find(|violation| violation.rule == "request-longer-than-context");
        long.map(|violation| format!("{}; {}", violation.message, violation.fix))
    };
    let long = Asked { prompt_tokens: Some(60_000), ..Asked::default() };
    insta::assert_snapshot!(told(Some(1024), Asked::default()).unwrap(), @"requests of 2048 tokens in and 256 out do not fit into the 1024 of a slot: the engine refuses or cuts them; take -c 2304, or plan for shorter ones (--prompt-tokens, --output-tokens)");
    insta::assert_snapshot!(told(Some(8192), long).unwrap(), @"requests of 60000 tokens in and 256 out do not fit into the 8192 of a slot: the engine refuses or cuts them; plan for shorter ones (--prompt-tokens, --output-tokens): the model was trained for 40960");
    assert_eq!(told(Some(2304), Asked::default()), None);
    assert_eq!(told(None, Asked::default()), None);
    let chosen = plan(&machine, &model, &target, &Request::default()).unwrap();
    let others = planner::plan::pareto(&machine, &model, &target, &chosen).others;
    assert!(!others.is_empty() && others.iter().all(|other| other.settings.n_ctx >= 2304), "{others:?}");
}
