//! Ranking: over described machines, known models and files.

use super::*;
use crate::advise::{EngineChoice, Request, newest_server};
use crate::machine::MachineSource;

fn recommended(machine: &str, use_case: UseCase, candidates: &[Candidate]) -> Recommendations {
    let facts = Request {
        machine: MachineSource::Description(machine.into()),
        engine: EngineChoice::Assumed(Box::new(newest_server())),
        ..Request::new("")
    };
    let request = planner::Request { use_case, ..planner::Request::default() };
    recommend(&Ground::of(&facts).unwrap(), &request, candidates)
}

fn named(names: &[&str]) -> Vec<Candidate> {
    names.iter().map(|name| Candidate { name: name.into(), quant: None }).collect()
}

fn order(found: &Recommendations) -> Vec<String> {
    let line = |ranked: &Ranked| {
        let outcome = match &ranked.outcome {
            Outcome::Planned(figures) if figures.in_full => "fits",
            Outcome::Planned(_) => "after a downgrade",
            Outcome::Refused { .. } => "refused",
        };
        format!("{} {} {outcome}", ranked.model, ranked.file_type.as_deref().unwrap_or("-"))
    };
    found.ranked.iter().map(line).collect()
}

#[test]
fn the_best_model_that_is_fast_enough_comes_first() {
    let candidates = named(&["llama-3.2-1b", "deepseek-v3", "qwen3-8b", "llama-3.1-70b", "qwen3-14b"]);
    let machine = "ram=64GiB,free=60GiB,cores=8,bandwidth=60GB/s,gpu=24GiB";
    let found = recommended(machine, UseCase::General, &candidates);
    let order = order(&found);
    assert!(order[0].starts_with("qwen3-14b "), "{order:?}");
    assert!(order.iter().position(|line| line.starts_with("qwen3-8b ")) < order.iter().position(|line| line.starts_with("llama-3.2-1b ")));
    assert!(order.last().unwrap().starts_with("deepseek-v3 "), "{order:?}");
    assert!(found.skipped.is_empty());
    assert_eq!(recommended(machine, UseCase::General, &candidates), found);
}

#[test]
fn one_model_is_ranked_in_every_type() {
    let found = recommended("ram=16GiB,free=14GiB,cores=8,bandwidth=60GB/s", UseCase::Quality, &quantisations("qwen3-8b".as_ref()));
    assert_eq!(found.ranked.len(), QUANTISATIONS.len());
    let types: Vec<_> = found.ranked.iter().filter_map(|ranked| ranked.file_type.clone()).collect();
    let at = |name: &str| types.iter().position(|ty| ty == name).unwrap();
    assert!(at("Q6_K") < at("BF16"), "16 GB of weights do not stay in 14 GiB: {types:?}");
}

#[test]
fn what_cannot_be_opened_is_named_and_the_rest_is_ranked() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.gguf");
    std::fs::write(&broken, "GGUF\u{3}").unwrap();
    let mut candidates = named(&["qwen3-0.6b", "no-such-model-at-all"]);
    candidates.push(Candidate { name: broken.clone(), quant: None });
    let found = recommended("ram=16GiB,cores=4", UseCase::General, &candidates);
    assert_eq!(found.ranked.len(), 1);
    let skipped: Vec<_> = found.skipped.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(skipped, [PathBuf::from("no-such-model-at-all"), broken]);
    assert!(found.skipped[0].1.contains("no known model"), "{:?}", found.skipped);
}

#[test]
fn every_use_case_has_a_rate() {
    let needs = |use_case| needed(&planner::Request { use_case, ..planner::Request::default() });
    for &use_case in UseCase::ALL {
        assert!((0.0..=30.0).contains(&needs(use_case)), "{use_case}");
    }
    assert_eq!((needs(UseCase::Batch), needs(UseCase::CodeCompletion)), (0.0, 20.0));
    let asked = planner::Asked { min_tps: Some(12.0), ..planner::Asked::default() };
    assert_eq!(needed(&planner::Request { asked, ..planner::Request::default() }), 12.0);
}
