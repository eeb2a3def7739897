//! Whether plans draft tokens ahead, and how many.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{machine, model, native};
use footprint::{Companions, Draft};
use planner::plan::{Drafting, Origin, explain};
use planner::{Plan, Request, UseCase, plan};
use spec::{Machine, Model};
use std::sync::Arc;

const LARGE: (&str, &str) = ("llama-3.1-70b", "Q4_K_M");
const MIDDLE: (&str, &str) = ("llama-3.1-8b", "Q4_K_M");
const SMALL: (&str, &str) = ("llama-3.2-1b", "Q4_0");

fn request(draft: Option<Draft>, drafting: Drafting) -> Request {
    let companions = Arc::new(Companions { draft, ..Companions::default() });
    Request { use_case: UseCase::Chat, companions, drafting, ..Request::default() }
}

fn with(machine: &Machine, model: &Model, draft: Draft, drafting: Drafting) -> Plan {
    plan(machine, model, &native(machine), &request(Some(draft), drafting)).unwrap()
}

fn draft_of((name, ty): (&str, &str)) -> Draft {
    Draft::new(Some(model(name, ty)))
}

#[test]
fn a_small_draft_of_a_large_model_on_a_fast_gpu_pays() {
    let (machine, large) = (machine("h100-sxm-80gb,ram=128GiB,cores=16"), model(LARGE.0, LARGE.1));
    let plan = with(&machine, &large, draft_of(SMALL), Drafting::Chosen);
    let ahead = plan.ahead.as_ref().unwrap();
    let draft = plan.request.companions.draft.as_ref().unwrap();
    assert!(ahead.n_max >= 2 && draft.n_max == ahead.n_max, "{}", ahead.because);
    assert_eq!(ahead.acceptance.get(), Some(0.6));
    let choice = plan.choices.iter().find(|choice| choice.setting == "draft_max").unwrap();
    assert_eq!((choice.origin, choice.value.clone()), (Origin::Searched, ahead.n_max.to_string()));
    assert!(choice.because.contains("60 % (35 to 85)"), "{}", choice.because);
    assert!(plan.changes.iter().any(|change| change.what == "the draft left out"));
    // None and the neighbours, none of which is better.
    let knobs = explain(&machine, &large, &native(&machine), &plan);
    let others = &knobs.iter().find(|knob| knob.setting == "draft_max").unwrap().others;
    assert_eq!(others.first().unwrap().value, "0");
    assert!(others.iter().all(|other| other.cost.as_ref().unwrap().time >= 1.0), "{others:?}");
    assert!(others[0].cost.as_ref().unwrap().time > 1.1);
}

#[test]
fn a_draft_as_large_as_its_model_is_left_out() {
    let (machine, middle) = (machine("rtx4090,ram=64GiB,cores=16"), model(MIDDLE.0, MIDDLE.1));
    let plan = with(&machine, &middle, draft_of(MIDDLE), Drafting::Chosen);
    let ahead = plan.ahead.as_ref().unwrap();
    assert_eq!((ahead.n_max, &plan.request.companions.draft), (0, &None));
    assert!(ahead.because.starts_with("left out: with "), "{}", ahead.because);
    assert_eq!(ahead.others.len(), 1);
    let bare = planner::plan(&machine, &middle, &native(&machine), &request(None, Drafting::AsGiven)).unwrap();
    assert_eq!((plan.settings, plan.requirement), (bare.settings, bare.requirement));
}

#[test]
fn a_draft_that_takes_the_place_of_layers_is_weighed_with_them() {
    let middle = model(MIDDLE.0, MIDDLE.1);
    for (gib, host) in [(4, 64), (5, 64), (6, 16), (8, 32), (12, 32)] {
        let machine = machine(&format!("gpu={gib}GiB@450GB/s,ram={host}GiB,cores=8,bandwidth=60GB/s"));
        let bare = planner::plan(&machine, &middle, &native(&machine), &request(None, Drafting::AsGiven)).unwrap();
        let plan = with(&machine, &middle, draft_of(SMALL), Drafting::Chosen);
        let ahead = plan.ahead.as_ref().unwrap();
        if ahead.n_max == 0 {
            assert_eq!(plan.settings, bare.settings, "{gib} GiB: {}", ahead.because);
            continue;
        }
        let draft = plan.request.companions.draft.as_ref().unwrap();
        assert!(plan.settings.n_gpu_layers <= bare.settings.n_gpu_layers || draft.n_gpu_layers == Some(0), "{gib} GiB");
        assert!(plan.verdict.downgrades().len() <= bare.verdict.downgrades().len(), "{gib} GiB");
        assert!(ahead.others[0].cost.as_ref().unwrap().time > 1.1, "{gib} GiB: {}", ahead.because);
    }
}

#[test]
fn what_is_pinned_of_a_draft_is_kept() {
    let (machine, large) = (machine("h100-sxm-80gb,ram=128GiB,cores=16"), model(LARGE.0, LARGE.1));
    let given = Draft { n_max: 7, ..draft_of(SMALL) };
    let plan = with(&machine, &large, given.clone(), Drafting::AsGiven);
    assert_eq!(plan.ahead, None);
    assert_eq!(plan.request.companions.draft.as_ref().map(|draft| draft.n_max), Some(7));
    // On which side it lies may be said, too.
    let on_host = Draft { n_gpu_layers: Some(0), ..given };
    let plan = with(&machine, &large, on_host, Drafting::Number);
    assert!(plan.request.companions.draft.as_ref().is_none_or(|draft| draft.n_gpu_layers == Some(0)));
}

#[test]
fn the_choice_is_the_same_every_time() {
    let (machine, middle) = (machine("gpu=8GiB@450GB/s,ram=32GiB,cores=8"), model(MIDDLE.0, MIDDLE.1));
    let once = with(&machine, &middle, draft_of(SMALL), Drafting::Chosen);
    let again = with(&machine, &middle, draft_of(SMALL), Drafting::Chosen);
    assert_eq!(format!("{once:?}"), format!("{again:?}"));
}
