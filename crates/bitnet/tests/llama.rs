//! Models of llama.cpp's architecture `bitnet` (SiLU) in `TQ2_0` against llama.cpp itself: recorded log-probabilities
//! (`oracle/record_llama.py`).
//!
//! llama.cpp rounds activations to eight bits by blocks of 256, the model's owner by the whole token, and neither is nearer to what floats
//! would give. So the plain pass with llama.cpp's rounding is compared to the digit, and the engine within what that rounding makes.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod models;

use bitnet::{CacheType, LoadOptions, Options, Sampler, Sampling, Session, Weights};
use models::plain::{Mistake, Plain};
use models::{Case, Written};
use serde::Deserialize;
use spec::QuantType;
use std::sync::Arc;

/// Largest difference of a log-probability, which are from −6 to −2, with the same rounding: llama.cpp sums in 32 bits.
const EXACT: f64 = 1e-3;

/// The same with the other rounding.
const BOUND: f64 = 0.08;

#[derive(Deserialize)]
struct Recorded {
    cases: Vec<FromLlama>,
}

#[derive(Clone, Deserialize)]
struct FromLlama {
    #[serde(flatten)]
    case: Case,
    /// After each token.
    log_probabilities: Vec<Vec<f64>>,
}

fn recorded() -> Vec<FromLlama> {
    serde_json::from_str::<Recorded>(include_str!("oracle/llama.json")).unwrap().cases
}

fn log_softmax(logits: impl Iterator<Item = f64> + Clone) -> Vec<f64> {
    let largest = logits.clone().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.clone().map(|logit| (logit - largest).exp()).sum();
    logits.map(|logit| logit - largest - sum.ln()).collect()
}

/// Our log-probabilities after each token.
fn ours(case: &Case) -> Vec<Vec<f64>> {
    let built = case.build(Written { ternary: QuantType::TQ2_0, embedding: QuantType::F16, ..Written::default() });
    let weights = Arc::new(Weights::load(&built.model, &[built.data], &LoadOptions::default()).unwrap());
    let mut session = Session::new(weights, Options { n_ctx: 40, n_ubatch: 5, cache: CacheType::F32, threads: 1 }).unwrap();
    let mut after = |token: &u32| log_softmax(session.extend(&[*token]).unwrap().iter().map(|logit| f64::from(*logit)));
    case.tokens.iter().map(&mut after).collect()
}

fn worst(of: &FromLlama, ours: &[Vec<f64>]) -> f64 {
    assert_eq!(ours.len(), of.log_probabilities.len());
    let pairs = ours.iter().flatten().zip(of.log_probabilities.iter().flatten());
    pairs.map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f64::max)
}

fn argmax(row: &[f64]) -> u32 {
    let row: Vec<f32> = row.iter().map(|x| *x as f32).collect();
    Sampler::new(Sampling::default()).next(&row).unwrap()
}

#[test]
fn the_plain_pass_with_llama_cpps_rounding_is_llama_cpp() {
    for of in recorded() {
        let with = |mistake| -> f64 {
            let plain = Plain { case: &of.case, mistake }.logits();
            worst(&of, &plain.iter().map(|logits| log_softmax(logits.iter().copied())).collect::<Vec<_>>())
        };
        let (exact, owner) = (with(Mistake::Blocks256), with(Mistake::None));
        assert!(exact <= EXACT && owner <= BOUND, "seed {}: {exact}, and {owner} with the owner's rounding", of.case.seed);
    }
}

#[test]
fn log_probabilities_are_those_of_llama_cpp_but_for_its_rounding_of_activations() {
    for of in recorded() {
        let ours = ours(&of.case);
        let worst = worst(&of, &ours);
        assert!(worst <= BOUND, "seed {}: {worst}", of.case.seed);
        for (ours, theirs) in ours.iter().zip(&of.log_probabilities) {
            let (ours, theirs, likely) = (argmax(ours), argmax(theirs), theirs);
            // Two tokens that llama.cpp finds as likely as it is exact may change places.
            assert!(likely[theirs as usize] - likely[ours as usize] <= BOUND, "seed {}: {ours} instead of {theirs}", of.case.seed);
        }
    }
}

/// ReLU² for SiLU: what llama.cpp's architecture must not be computed with, and our test would show.
#[test]
fn the_other_activation_shows() {
    for mut of in recorded() {
        of.case.hidden_act = "relu2".into();
        let worst = worst(&of, &ours(&of.case));
        assert!(worst > 6.0 * BOUND, "seed {}: {worst}", of.case.seed);
    }
}
