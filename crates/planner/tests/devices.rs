//! Which devices a plan is for, which pins the engine would refuse, and what parts of layers fill.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{model, planned};
use planner::Request;
use planner::plan::{NearestChange, Origin, Rejection, Strategy};
use spec::Bytes;
use spec::settings::{Devices, Pins, SplitMode};

#[test]
fn gpus_too_small_for_their_own_driver_are_left_out() {
    let model = model("qwen3-0.6b", "Q8_0");
    let plan = planned("cores=8,ram=16GiB,gpu=900MiB,gpu=700MiB", &model, &Request::default()).unwrap();
    assert_eq!((&plan.settings.devices, plan.strategy), (&Devices::Only(Vec::new()), Strategy::CpuOnly));
    let choice = plan.choices.iter().find(|choice| choice.setting == "devices").unwrap();
    assert_eq!(choice.origin, Origin::Searched);
    assert!(choice.because.contains("CUDA0") && choice.because.contains("its driver takes up to"), "{}", choice.because);
    // Of two, the one that can hold it is enough.
    let plan = planned("cores=8,ram=16GiB,gpu=700MiB,gpu=6GiB", &model, &Request::default()).unwrap();
    assert_eq!((plan.settings.split_mode, plan.settings.main_gpu, plan.strategy), (SplitMode::None, 1, Strategy::GpuOnly));
}

#[test]
fn of_three_gpus_the_one_without_room_is_left_out() {
    let model = model("llama-3.1-70b", "Q4_K_M");
    let plan = planned("cores=8,ram=64GiB,rtx4090,gpu=600MiB,rtx4090", &model, &Request::default()).unwrap();
    assert_eq!(plan.settings.devices, Devices::Only(vec!["CUDA0".into(), "CUDA2".into()]));
    assert_eq!(plan.budgets.len(), 3);
}

#[test]
fn a_refusal_names_every_device_that_has_too_little() {
    let model = model("qwen3-0.6b", "Q8_0");
    // Whatever lies on them, copies of weights do.
    let request = Request { pins: Pins { n_gpu_layers: Some(0), op_offload: Some(true), ..Pins::default() }, ..Request::default() };
    let refusal = planned("cores=8,ram=16GiB,gpu=700MiB,gpu=600MiB", &model, &request).unwrap_err();
    let named = |rejection: &Rejection| rejection.to_string().contains("CUDA0") && rejection.to_string().contains("CUDA1");
    assert!(refusal.tried.iter().any(|tried| named(&tried.rejection)), "{refusal:#?}");
}

#[test]
fn pins_that_the_engine_refuses_are_refused_by_name() {
    let model = model("llama-3.1-8b", "Q4_K_M");
    let main = Pins { main_gpu: Some(3), ..Pins::default() };
    let split = Pins { tensor_split: Some(vec![1.0, 2.0, 3.0]), ..Pins::default() };
    for (pins, name) in [(main, "main_gpu"), (split, "tensor_split")] {
        let refusal = planned("cores=8,ram=32GiB,gpu=24GiB,gpu=24GiB", &model, &Request { pins, ..Request::default() }).unwrap_err();
        assert_eq!(refusal.pins, [name]);
        let unpin = |change: &NearestChange| matches!(change, NearestChange::Unpin { setting, .. } if *setting == name);
        assert!(refusal.nearest.iter().any(unpin), "{refusal}");
        assert!(refusal.tried.iter().any(|tried| tried.rejection.to_string().contains(name)), "{refusal}");
    }
}

#[test]
fn a_card_slower_than_the_host_is_no_reason_to_use_it() {
    let model = model("llama-3.1-70b", "Q8_0");
    let few = planned("cores=64,ram=256GiB,bandwidth=400GB/s,rtx-a6000,gpu=6GiB@60GB/s", &model, &Request::default()).unwrap();
    let more = planned("cores=64,ram=256GiB,bandwidth=400GB/s,rtx-a6000,gpu=48GiB@60GB/s", &model, &Request::default()).unwrap();
    assert!(more.worth.seconds <= few.worth.seconds * 1.02, "{:?} {:?}", more.worth, few.worth);
}

#[test]
fn parts_of_layers_fill_what_whole_ones_leave() {
    // Experts of a layer are 1.6 GiB, in three matrices.
    let model = model("gpt-oss-120b", "MXFP4_MOE");
    let plan = planned("cores=8,ram=32GiB,gpu=8GiB", &model, &Request::default()).unwrap();
    let rules = &plan.settings.tensor_overrides;
    assert!(!rules.is_empty() && rules.iter().all(|rule| rule.buffer == "CUDA0" && rule.pattern.contains("_exps")), "{rules:?}");
    assert!(plan.budgets[0].left().unwrap() < Bytes::from_mib(600), "{:#?}", plan.budgets);
    let choice = plan.choices.iter().find(|choice| choice.setting == "tensor_overrides").unwrap();
    assert_eq!(choice.origin, Origin::Searched);
}

/// A small card takes parts of layers only if its driver and buffers leave room for one; where they do not, the others keep their own parts.
#[test]
fn a_card_with_too_little_for_a_part_costs_the_others_none() {
    let model = model("qwen3-30b-a3b", "BF16");
    // The second card has no whole layers, and much room for parts.
    let pins = Pins { tensor_split: Some(vec![1.0, 0.0, 0.0]), ..Pins::default() };
    let request = Request { pins, ..Request::default() };
    let mut before: Option<(u32, f64)> = None;
    for mib in (640..=2000).step_by(16) {
        // With less than its driver takes there is no plan, as the split is pinned.
        let machine = format!("cores=8,ram=96GiB,gpu=24GiB@900GB/s,gpu=24GiB@800GB/s,gpu={mib}MiB@200GB/s");
        let Ok(plan) = planned(&machine, &model, &request) else {
            assert!(before.is_none(), "{mib} MiB");
            continue;
        };
        let (seconds, rules) = (plan.worth.seconds, &plan.settings.tensor_overrides);
        assert!(rules.iter().any(|rule| rule.buffer == "CUDA1"), "{mib} MiB: {rules:?}");
        if let Some((less, faster)) = before {
            assert!(seconds <= faster * 1.04, "{mib} MiB: {seconds:.2} s, {less} MiB: {faster:.2} s");
        }
        before = Some((mib, seconds));
    }
    assert!(before.is_some());
}
