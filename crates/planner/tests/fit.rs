//! The steps of `--fit` against what `llama-fit-params` answered over pretended GPUs (`tests/fit/cases.csv`, recorded by
//! `examples/record_fit.rs`).
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test reads its recording, and without it has failed")]

#[path = "fit/mod.rs"]
mod cases;
#[path = "../../footprint/tests/recorded/model.rs"]
#[allow(dead_code, reason = "footprint's tests use all of it")]
mod recorded;

use cases::{Case, profile};
use planner::fit::{FitEnd, fit};
use std::collections::BTreeMap;
use std::path::Path;

fn recorded_cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fit/cases.csv");
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}

/// What differs between the program's answer and ours, if anything does.
fn difference(case: &Case, model: &spec::Model) -> Option<String> {
    let (settings, goal) = case.question();
    let ours = match fit(model, &settings, &case.target(), &profile(), &goal) {
        Ok(ours) => ours,
        Err(error) => return Some(format!("we refuse: {error}; it says {}", case.answer)),
    };
    match (case.answered(), ours.end) {
        (Ok(theirs), FitEnd::Fits) if theirs == ours.settings => None,
        (Err(theirs), FitEnd::GaveUp(reason)) if theirs.starts_with(&reason) => None,
        (_, end) => {
            let s = &ours.settings;
            let rules: Vec<_> = s.tensor_overrides.iter().map(|rule| format!("{}={}", rule.pattern, rule.buffer)).collect();
            Some(format!(
                "it says {}; we {end:?} -c {} -ngl {} -ts {:?} -ot {}",
                case.answer,
                s.n_ctx,
                s.n_gpu_layers,
                s.tensor_split,
                rules.join(",")
            ))
        }
    }
}

#[test]
fn every_recorded_fit_is_followed() {
    let cases = recorded_cases();
    assert!(cases.len() >= 200, "only {} cases", cases.len());
    let mut models = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in &cases {
        let model = models.entry(case.model.clone()).or_insert_with(|| recorded::model(&case.model));
        let Some(difference) = difference(case, model) else { continue };
        wrong.push(format!("{} | {} - {} | {}: {difference}", case.model, case.gpus, case.used, case.flags));
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
