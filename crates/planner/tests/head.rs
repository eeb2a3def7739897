//! The output head of the BitNet engine: when a plan keeps the file's, and when a copy in eight bits.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use common::{native, planned};
use footprint::EngineProfile;
use footprint::bitnet::{BitNet, Head};
use planner::plan::{Aspect, Choice, Origin, Request, explain, pareto};
use planner::{Asked, Plan, UseCase};
use spec::{Model, QuantType};

fn model() -> Model {
    let file = synthetic::bitnet("bitnet-b1.58-2b-4t").unwrap().unwrap();
    formats::describe(&[formats::gguf::read(&file.header, file.size).unwrap()]).unwrap()
}

fn request(engine: BitNet) -> Request {
    Request { profile: EngineProfile::bitnet(engine), ..Request::default() }
}

fn choice(plan: &Plan) -> &Choice {
    plan.choices.iter().find(|choice| choice.setting == "head_type").unwrap()
}

const MACHINE: &str = "ram=16GiB,cores=8";

#[test]
fn a_copy_in_eight_bits_is_taken_where_it_is_faster_and_allowed() {
    let (model, machine) = (model(), common::machine(MACHINE));
    let plan = planned(MACHINE, &model, &request(BitNet::default())).unwrap();
    let whole = planned(MACHINE, &model, &request(BitNet::default().with_head(Head::File))).unwrap();
    assert_eq!((choice(&plan).value.as_str(), choice(&plan).origin), ("q8_0", Origin::Searched), "{}", choice(&plan).because);
    assert_eq!((plan.requirement.head, whole.requirement.head), (Some(QuantType::Q8_0), None));
    // 521.0 MB of codes and 656.7 MB of head, or 348.9 MB; not all of a token's time is reading.
    let faster = plan.prediction.decode.get().unwrap().get() / whole.prediction.decode.get().unwrap().get();
    assert!((1.05..1.36).contains(&faster), "{faster}");
    assert!(plan.reasons.iter().any(|reason| reason.starts_with("output head in q8_0: ")), "{:#?}", plan.reasons);
    // Its cost, in both directions.
    for (plan, other) in [(&plan, "f16"), (&planned(MACHINE, &model, &quality()).unwrap(), "")] {
        let knobs = explain(&machine, &model, &native(&machine), plan);
        let knob = knobs.iter().find(|knob| knob.setting == "head_type").unwrap();
        let others: Vec<&str> = knob.others.iter().map(|other| other.value.as_str()).collect();
        assert_eq!(others, if other.is_empty() { Vec::new() } else { vec![other] });
        for other in &knob.others {
            let cost = other.cost.as_ref().unwrap();
            assert!(cost.time > 1.01, "{cost}");
            // The copy is gone, and with it the token's 80 blocks of 68 bytes for its products; the table that is now read stays.
            assert_eq!(cost.memory.iter().map(|(_, bytes)| bytes).sum::<i64>(), 656_670_720 - 348_856_320 - 80 * 68);
        }
    }
    let others = pareto(&machine, &model, &native(&machine), &plan).others;
    let other = others.iter().find(|other| other.what.ends_with("output head in f16")).unwrap();
    assert!(other.better.contains(&Aspect::Quality) && other.worse.contains(&Aspect::Speed), "{other:?}");
    assert!(other.why_not.contains("output head in f16 instead of q8_0"), "{}", other.why_not);
}

fn quality() -> Request {
    Request { use_case: UseCase::Quality, ..request(BitNet::default()) }
}

#[test]
fn floors_pins_and_small_heads_keep_the_files_own() {
    let model = model();
    let asked = Asked { quality_floor: Some(QuantType::F16), ..Asked::default() };
    for request in [quality(), Request { asked, ..request(BitNet::default()) }] {
        let plan = planned(MACHINE, &model, &request).unwrap();
        assert_eq!((choice(&plan).value.as_str(), choice(&plan).origin), ("f16", Origin::Rule));
    }
    for (head, value) in [(Head::File, "f16"), (Head::Q8_0, "q8_0")] {
        let plan = planned(MACHINE, &model, &request(BitNet::default().with_head(head))).unwrap();
        assert_eq!((choice(&plan).value.as_str(), choice(&plan).origin), (value, Origin::Pinned));
    }
    let mut small = model.clone();
    let head = small.tensors.iter_mut().find(|tensor| tensor.name == "token_embd.weight").unwrap();
    (head.ty, head.bytes) = (QuantType::Q8_0, QuantType::Q8_0.tensor_bytes(head.shape).unwrap());
    let plan = planned(MACHINE, &small, &request(BitNet::default())).unwrap();
    assert_eq!((choice(&plan).value.as_str(), choice(&plan).origin, plan.requirement.head), ("q8_0", Origin::Rule, None));
}

/// From machines that cannot run it to such that have plenty: a chosen head never gives up more than one that is pinned, nor is it slower
/// by more than what a copy must win.
#[test]
fn the_choice_is_no_worse_than_either_head() {
    let model = model();
    let mut heads = std::collections::BTreeSet::new();
    for mib in (768..=2560).step_by(128) {
        let machine = format!("ram={mib}MiB,cores=4");
        let plan = planned(&machine, &model, &request(BitNet::default()));
        for head in [Head::File, Head::Q8_0] {
            let Ok(pinned) = planned(&machine, &model, &request(BitNet::default().with_head(head))) else { continue };
            let plan = plan.as_ref().unwrap();
            let given_up = |plan: &Plan| plan.verdict.downgrades().len();
            assert!(given_up(plan) <= given_up(&pinned), "{machine}: {:?} and {:?}", plan.verdict, pinned.verdict);
            if given_up(plan) == given_up(&pinned) {
                assert!(
                    plan.worth.seconds <= pinned.worth.seconds * 1.05 || plan.worth.behind < pinned.worth.behind,
                    "{machine}, {head:?}"
                );
            }
        }
        heads.extend(plan.ok().map(|plan| choice(&plan).because.split(':').next().unwrap().to_owned()));
    }
    assert!(heads.len() > 1, "{heads:?}");
}
