//! What a plan has chosen, pinned: the plan is no slower for it, and no faster.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{machine, native};
use planner::emit::flags::{flags, value_text};
use planner::{Plan, Request, UseCase, plan};
use spec::settings::Pins;
use spec::{Machine, Model};

/// Settings that win less are left as the engine has them, and a pinned one is no change any more.
const SETTLED: f64 = 1.02;

/// Where a pin was once better than the plan, though the plan had the same choice: micro-batches of other sizes without copies of experts,
/// a smaller one with which everything fits, and layers that are not loaded among the sums.
const ONCE_BEATEN: [(&str, &str, &str, UseCase); 6] = [
    ("gpt-oss-120b", "Q8_0", "rtx4090x2,ram=128GiB,cpu=ryzen-9-7950x", UseCase::Batch),
    ("gpt-oss-120b", "Q4_K_M", "rtx4090x2,ram=128GiB,cpu=ryzen-9-7950x", UseCase::Batch),
    ("gpt-oss-120b", "Q8_0", "rtx3090,gpu=8GiB,ram=128GiB,cores=12", UseCase::Batch),
    ("gpt-oss-120b", "Q4_K_M", "gpu=24GiB,gpu=12GiB,ram=64GiB,cores=16", UseCase::General),
    ("qwen3-32b", "Q8_0", "rtx4090x2,ram=128GiB,cpu=ryzen-9-7950x", UseCase::Agent),
    ("glm-4.5-air", "Q4_K_M", "rtx-3060-12gb", UseCase::Agent),
];

const MODELS: [(&str, &str); 5] = [
    ("gpt-oss-20b", "MXFP4_MOE"),
    ("qwen3-30b-a3b", "Q4_K_M"),
    ("glm-4.5-air", "Q4_K_M"),
    ("llama-3.1-8b", "Q8_0"),
    ("llama-3.1-70b", "Q4_K_M"),
];

const MACHINES: [&str; 4] = [
    "rtx3060-12gb,ram=64GiB,cores=8",
    "gpu=24GiB,gpu=12GiB,ram=64GiB,cores=16",
    "rtx4060-8gb,ram=32GiB,cpu=i9-13900k",
    "ram=64GiB,cores=12",
];

fn described(name: &str, ty: &str) -> Model {
    let Some(outline) = synthetic::outline(name) else { return common::model(name, ty) };
    let options = synthetic::Options { vocabulary: synthetic::Vocabulary::None, ..synthetic::Options::default() };
    let file = synthetic::outline_file(&outline, ty.parse().unwrap(), &options).unwrap();
    formats::describe(&[formats::gguf::read(&file.header, file.size).unwrap()]).unwrap()
}

fn planned(machine: &Machine, model: &Model, use_case: UseCase, pins: Pins) -> Plan {
    plan(machine, model, &native(machine), &Request { use_case, pins, ..Request::default() }).unwrap()
}

/// The plan's settings, each as a pin of its own.
fn pins(plan: &Plan) -> Vec<Pins> {
    let settings = &plan.settings;
    let parts = !settings.tensor_overrides.is_empty();
    let open = |setting: &str| match setting {
        // What a number leaves to the host stays there: no parts of it are on devices.
        "n_cpu_moe" => !parts,
        "n_gpu_layers" => !parts || plan.requirement.layer_devices.iter().all(Option::is_some),
        // They decide what is asked for, not how it is computed.
        "n_ctx" | "n_parallel" | "kv_unified" | "cache_type_k" | "cache_type_v" => false,
        _ => true,
    };
    let pin = |setting: &str| {
        let mut pins = Pins::default();
        let flag = flags().iter().find(|flag| flag.setting == setting)?;
        flag.read(&value_text(settings, setting), &mut pins).ok()?;
        (!pins.names().is_empty()).then_some(pins)
    };
    flags().iter().map(|flag| flag.setting).filter(|setting| open(setting)).filter_map(pin).collect()
}

/// Pins that plans are free to choose: each of them by itself.
fn others(plan: &Plan) -> Vec<Pins> {
    let sizes = [256, 1024, 2048, 4096].into_iter().filter(|&size| size <= plan.settings.n_ctx);
    let sized = sizes.map(|size| Pins { n_ubatch: Some(size), ..Pins::default() });
    sized.chain([Pins { op_offload: Some(false), ..Pins::default() }]).collect()
}

/// What of the law is broken, if anything is.
fn broken(name: &str, ty: &str, words: &str, use_case: UseCase) -> Vec<String> {
    let (machine, model) = (machine(words), described(name, ty));
    let free = planned(&machine, &model, use_case, Pins::default());
    let mut broken = Vec::new();
    for (chosen, pins) in pins(&free).into_iter().map(|pins| (true, pins)).chain(others(&free).into_iter().map(|pins| (false, pins))) {
        let pinned = planned(&machine, &model, use_case, pins.clone());
        let (before, after) = (&free.settings, &pinned.settings);
        if (before.n_ctx, before.cache_type_k) != (after.n_ctx, after.cache_type_k) {
            continue;
        }
        // With a pin the engine's own choice is another, and that is kept unless a plan is better by the gate's margin.
        let margin = |plan: &Plan| plan.gate.as_ref().filter(|gate| gate.places()).map_or(0.0, |gate| gate.margin);
        let longer = pinned.worth.seconds / free.worth.seconds;
        let faster = longer * (1.0 + margin(&free)) * SETTLED < 1.0;
        let slower = chosen && longer > (1.0 + margin(&pinned)) * SETTLED;
        if pinned.worth.behind <= free.worth.behind && (faster || slower) {
            let values: Vec<String> = pins.names().iter().map(|name| format!("{name} {}", value_text(after, name))).collect();
            broken.push(format!("{longer:.3} times as long with {}: {name} {ty} on {words} for {use_case}", values.join(", ")));
        }
    }
    broken
}

#[test]
fn no_pin_is_better_than_the_plan_where_one_was_once() {
    let all: Vec<String> = ONCE_BEATEN.into_iter().flat_map(|(name, ty, words, use_case)| broken(name, ty, words, use_case)).collect();
    assert!(all.is_empty(), "{}:\n{}", all.len(), all.join("\n"));
}

#[test]
fn a_plan_is_as_good_with_what_it_chose_pinned() {
    let use_cases = [UseCase::General, UseCase::Batch, UseCase::Agent];
    let cases = MODELS.iter().flat_map(|model| MACHINES.iter().map(move |machine| (model, machine)));
    let of_case = |(number, ((name, ty), words)): (usize, (&(&str, &str), &&str))| broken(name, ty, words, use_cases[number % 3]);
    let all: Vec<String> = cases.enumerate().flat_map(of_case).collect();
    assert!(all.is_empty(), "{}:\n{}", all.len(), all.join("\n"));
}

/// Sums do not see what a rule by hand moves: what is left is placed by what is exact.
#[test]
fn a_rule_by_hand_leaves_the_rest_to_the_plan() {
    let cases = [
        ("qwen3-30b-a3b", "gpu=12GiB,ram=64GiB,cores=8", r"blk\.2\.ffn_.*_exps\.=CUDA0"),
        ("qwen3-30b-a3b", "gpu=12GiB,ram=64GiB,cores=8", r"blk\.40\.ffn_.*_exps\.=CPU"),
        ("llama-3.1-70b", "gpu=24GiB,ram=64GiB,cores=8", r"blk\.2\.(ffn_down|ffn_gate|ffn_up)=CUDA0"),
        ("llama-3.1-70b", "gpu=24GiB,gpu=12GiB,ram=64GiB,cores=8", r"blk\.2\.(ffn_down|ffn_gate|ffn_up)=CUDA1"),
    ];
    for (name, words, rule) in cases {
        let (machine, model) = (machine(words), described(name, "Q4_K_M"));
        let free = planned(&machine, &model, UseCase::General, Pins::default());
        let mut pins = Pins::default();
        flags().iter().find(|flag| flag.setting == "tensor_overrides").unwrap().read(rule, &mut pins).unwrap();
        let ruled = planned(&machine, &model, UseCase::General, pins);
        let longer = ruled.worth.seconds / free.worth.seconds;
        assert!(longer < 1.25, "{name} on {words} with {rule}: {longer} times as long, {:?}", ruled.settings);
    }
}
