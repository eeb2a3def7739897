//! Which CPUs plans hold threads to.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{machine, model, native};
use planner::plan::{DevicePreference, Origin, Preferences, explain};
use planner::{Plan, Request, UseCase, plan};
use spec::machine::NumaNode;
use spec::settings::{CpuMask, Numa, Pins};
use spec::{Bytes, Known, Machine};

/// Eight fast cores of two threads each and sixteen slow ones, numbered by a system.
fn hybrid(rest: &str) -> Machine {
    let mut machine = machine(&format!("cpu=i9-13900k,ram=64GiB{rest}"));
    machine.facts.platform.version = Known::exact("6.8.0".to_owned(), "test");
    machine
}

/// A plan for short prompts and long answers.
fn planned(machine: &Machine, pins: Pins) -> Plan {
    let request = Request { use_case: UseCase::Chat, pins, ..Request::default() };
    plan(machine, &model("llama-3.1-8b", "Q4_K_M"), &native(machine), &request).unwrap()
}

fn because(plan: &Plan, setting: &str) -> (Origin, String) {
    plan.choices.iter().find(|choice| choice.setting == setting).map(|choice| (choice.origin, choice.because.clone())).unwrap()
}

fn mask(text: &str) -> CpuMask {
    text.parse().unwrap()
}

#[test]
fn threads_of_decode_are_held_to_fast_cores_where_slow_ones_are_beside_them() {
    let machine = hybrid("");
    let plan = planned(&machine, Pins::default());
    assert_eq!((plan.settings.threads, plan.settings.cpu_mask.ranges()), (8, "0-15".to_owned()));
    assert!(plan.settings.cpu_mask_batch.is_empty(), "prompts are read by all cores");
    let (origin, why) = because(&plan, "cpu_mask");
    assert_eq!(origin, Origin::Searched);
    assert!(why.starts_with("the fast cores, CPUs 0-15"), "{why}");
    assert!(plan.prediction.assumptions.iter().any(|assumed| assumed.contains("10 % less time in decode (3 to 20 %")));
    let gate = plan.gate.as_ref().unwrap();
    assert!(gate.deviations.iter().any(|deviation| deviation.setting == "cpu_mask" && deviation.default == "none"), "{gate}");
    let model = model("llama-3.1-8b", "Q4_K_M");
    let knobs = explain(&machine, &model, &native(&machine), &plan);
    let without = knobs.iter().find(|knob| knob.setting == "cpu_mask").unwrap().others.first().unwrap();
    assert_eq!(without.value, "none");
    assert!(without.cost.as_ref().is_ok_and(|cost| cost.time > 1.02), "{without:?}");
}

#[test]
fn what_is_not_shown_to_help_is_left_to_the_system() {
    let none = |machine: &Machine| {
        let plan = planned(machine, Pins::default());
        assert!(plan.settings.cpu_mask.is_empty(), "{}", plan.settings.cpu_mask);
        because(&plan, "cpu_mask").1
    };
    // Numbers that nobody has given.
    let described = machine("cpu=i9-13900k,ram=64GiB");
    assert!(none(&described).contains("numbers are not known"));
    // One kind of core.
    assert!(none(&machine("cpu=ryzen-9-7950x,ram=64GiB")).contains("no core is faster"));
    // Only fast cores may be used.
    let mut bound = hybrid("");
    bound.limits.allowed_cpus = Known::exact((0..16).collect(), "test");
    bound.limits.allowed_physical_cores = Known::exact(8, "test");
    none(&bound);
    // No runs of such processors are known.
    let mut arm = hybrid("");
    arm.facts.platform.arch = "aarch64".to_owned();
    none(&arm);
    // All is on the GPU.
    assert!(none(&hybrid(",rtx4090")).contains("not faster by 2 %"));
}

#[test]
fn only_fast_cores_that_may_be_used_are_named() {
    let mut machine = hybrid("");
    machine.limits.allowed_cpus = Known::exact((4..32).collect(), "test");
    machine.limits.allowed_physical_cores = Known::exact(22, "test");
    let plan = planned(&machine, Pins::default());
    assert_eq!((plan.settings.threads, plan.settings.cpu_mask.ranges()), (6, "4-15".to_owned()));
}

#[test]
fn what_is_pinned_is_kept_and_prefill_follows_it() {
    let machine = hybrid("");
    let pinned = planned(&machine, Pins { cpu_mask: Some(mask("0-3")), cpu_strict: Some(true), ..Pins::default() });
    let settings = &pinned.settings;
    assert_eq!((settings.cpu_mask.ranges(), settings.cpu_strict), ("0-3".to_owned(), true));
    assert_eq!((settings.cpu_mask_batch.ranges(), settings.cpu_strict_batch), ("0-3".to_owned(), true));
    let nothing = planned(&machine, Pins { cpu_mask: Some(CpuMask::default()), ..Pins::default() });
    assert!(nothing.settings.cpu_mask.is_empty());
    let all = planned(&machine, Pins { threads: Some(24), ..Pins::default() });
    assert!(all.settings.cpu_mask.is_empty());
    assert!(because(&all, "cpu_mask").1.contains("more of them than fast cores"));
}

#[test]
fn no_more_threads_than_the_cpus_of_a_given_mask() {
    let threads = |machine: &Machine, cpu_mask: Option<&str>, cpu_mask_batch: Option<&str>| {
        let plan = planned(machine, Pins { cpu_mask: cpu_mask.map(mask), cpu_mask_batch: cpu_mask_batch.map(mask), ..Pins::default() });
        (plan.settings.threads, plan.settings.threads_batch)
    };
    let desktop = machine("cpu=ryzen-9-7950x,ram=64GiB");
    assert_eq!(threads(&desktop, None, None), (16, 16));
    assert_eq!(threads(&desktop, Some("0-3"), None), (4, 4));
    assert_eq!(threads(&desktop, Some("0-3"), Some("0-7")), (4, 8));
    assert_eq!(threads(&desktop, None, Some("0-7")), (16, 8));
    assert_eq!(threads(&desktop, Some("0-31"), None), (16, 16), "no more than there are cores");
    let pinned = planned(&desktop, Pins { cpu_mask: Some(mask("0-3")), ..Pins::default() });
    assert!(because(&pinned, "threads").1.contains("held to by hand"));
    assert!(!pinned.warnings.iter().any(|warning| warning.contains("wait for each other")), "{:?}", pinned.warnings);
    let own = planned(&desktop, Pins { cpu_mask: Some(mask("0-3")), threads: Some(6), ..Pins::default() });
    assert_eq!((own.settings.threads, own.settings.threads_batch), (6, 4));
    // Of two kinds: the fast ones of the mask, and all of it for prompts.
    let hybrid = hybrid("");
    assert_eq!(threads(&hybrid, Some("12-19"), None), (4, 8));
    assert_eq!(threads(&hybrid, Some("16-23"), None), (8, 8));
}

#[test]
fn power_is_saved_on_fast_cores_too() {
    let machine = hybrid("");
    let preferences = Preferences { device: DevicePreference::Cpu, power: planner::plan::Power::Saver, ..Preferences::default() };
    let request = Request { use_case: UseCase::Chat, preferences, ..Request::default() };
    let plan = plan(&machine, &model("llama-3.1-8b", "Q4_K_M"), &native(&machine), &request).unwrap();
    assert_eq!((plan.settings.threads, plan.settings.cpu_mask.ranges()), (4, "0-15".to_owned()));
}

#[test]
fn nodes_are_left_to_the_system_and_the_reports_are_told() {
    let mut machine = machine("cpu=epyc-9654x2,ram=768GiB");
    let node = |id: u32, cpus: std::ops::Range<u32>| NumaNode {
        id,
        cpus: cpus.collect(),
        memory: Known::exact(Bytes::from_gib(384), "test"),
        distances: Vec::new(),
        of_gpu: false,
    };
    machine.facts.numa = vec![node(0, 0..192), node(1, 192..384)];
    let of = |machine: &Machine, numa| planned(machine, Pins { numa, ..Pins::default() });
    let plan = of(&machine, None);
    assert_eq!(plan.settings.numa, Numa::None);
    assert!(because(&plan, "numa").1.starts_with("2 NUMA nodes: not predicted: 0.6 to 2 times the speed"));
    let model = model("llama-3.1-8b", "Q4_K_M");
    let knobs = explain(&machine, &model, &native(&machine), &plan);
    let others = &knobs.iter().find(|knob| knob.setting == "numa").unwrap().others;
    assert_eq!(others.iter().map(|other| other.value.as_str()).collect::<Vec<_>>(), ["distribute", "isolate"]);
    assert!(others.iter().all(|other| other.cost.as_ref().is_err_and(|why| why.starts_with("not predicted"))));
    // Asked for, it is kept, and the speed is less certain.
    let spread = of(&machine, Some(Numa::Distribute));
    assert_eq!(spread.settings.numa, Numa::Distribute);
    let width = |plan: &Plan| plan.prediction.decode.high().unwrap().get() / plan.prediction.decode.low().unwrap().get();
    assert!(width(&spread) > 2.0 * width(&plan));
    assert!(spread.prediction.assumptions.iter().any(|assumed| assumed.contains("--numa distribute")));
    // One node, and a GPU with everything.
    machine.facts.numa.truncate(1);
    assert!(because(&of(&machine, None), "numa").1.contains("one NUMA node"));
}
