//! The forward pass against transformers: recorded logits and greedy continuations of tiny models (`oracle/record.py`).
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod models;

use bitnet::{CacheType, HeadType, LoadOptions, Options, Sampler, Sampling, Session, Weights};
use kernels::{Kernel, Layout};
use models::{Built, Case, Written, cases};
use spec::QuantType;
use std::sync::Arc;

/// Largest difference of a logit: the bar of the issue, for logits of the size of one.
const BOUND: f32 = 1e-5;

fn load(built: &Built, options: &LoadOptions<'_>) -> Arc<Weights> {
    Arc::new(Weights::load(&built.model, std::slice::from_ref(&built.data), options).unwrap())
}

fn options() -> Options {
    Options { n_ctx: 40, n_ubatch: 5, cache: CacheType::F32, threads: 2 }
}

/// Logits after each token, one token at a time.
fn logits(weights: &Arc<Weights>, tokens: &[u32], options: Options) -> Vec<Vec<f32>> {
    let mut session = Session::new(Arc::clone(weights), options).unwrap();
    tokens.iter().map(|token| session.extend(&[*token]).unwrap().to_vec()).collect()
}

fn worst(found: &[Vec<f32>], case: &Case) -> f32 {
    assert_eq!(found.len(), case.logits.len());
    let pairs = found.iter().flatten().zip(case.logits.iter().flatten());
    pairs.map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max)
}

fn argmax(logits: &[f32]) -> u32 {
    Sampler::new(Sampling::default()).next(logits).unwrap()
}

#[test]
fn logits_are_those_of_transformers_with_every_kernel() {
    for case in cases() {
        let built = case.build(Written::default());
        for kernel in Kernel::available() {
            let weights = load(&built, &LoadOptions { kernel, ..LoadOptions::default() });
            let found = logits(&weights, &case.tokens, options());
            assert!(worst(&found, &case) <= BOUND, "{kernel}, seed {}: {}", case.seed, worst(&found, &case));
            for (found, expected) in found.iter().zip(&case.logits) {
                assert_eq!(argmax(found), argmax(expected));
            }
        }
    }
}

#[test]
fn prompts_in_micro_batches_give_what_single_tokens_give() {
    for case in cases() {
        let weights = load(&case.build(Written::default()), &LoadOptions::default());
        let single = logits(&weights, &case.tokens, options());
        for n_ubatch in [1, 3, 5, 64] {
            for length in [1, 5, 6, case.tokens.len()] {
                let mut session = Session::new(Arc::clone(&weights), Options { n_ubatch, ..options() }).unwrap();
                let found = session.extend(&case.tokens[..length]).unwrap();
                let worst = found.iter().zip(&single[length - 1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= BOUND, "seed {}, {length} tokens by {n_ubatch}: {worst}", case.seed);
            }
        }
    }
}

#[test]
fn greedy_continuations_are_equal() {
    for case in cases() {
        let weights = load(&case.build(Written::default()), &LoadOptions::default());
        let mut session = Session::new(weights, options()).unwrap();
        let mut next = argmax(session.extend(&case.tokens).unwrap());
        let mut found = Vec::new();
        for _ in &case.greedy {
            found.push(next);
            next = argmax(session.extend(&[next]).unwrap());
        }
        assert_eq!(found, case.greedy, "seed {}", case.seed);
    }
}

/// A rewound context computes as if nothing had come after.
#[test]
fn rewinding_forgets() {
    let case = &cases()[0];
    let weights = load(&case.build(Written::default()), &LoadOptions::default());
    let mut session = Session::new(weights, options()).unwrap();
    session.extend(&case.tokens).unwrap();
    session.rewind(3);
    let found = session.extend(&case.tokens[3..6]).unwrap();
    let worst = found.iter().zip(&case.logits[5]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= BOUND, "{worst}");
}

/// Other ways of writing the same weights; types that round are off by what they round.
#[test]
fn other_files_and_caches_are_near() {
    let close = |case: &Case, written: Written, load_options: LoadOptions<'_>, options: Options, bound: f32| {
        let weights = load(&case.build(written), &load_options);
        let worst = worst(&logits(&weights, &case.tokens, options), case);
        assert!(worst <= bound, "seed {}, {written:?}, {load_options:?}, {options:?}: {worst}", case.seed);
    };
    for case in cases() {
        let f32 = Written::default();
        let same = LoadOptions::default();
        let by_64 = Written { layout: Layout::Blocks64, ..f32 };
        close(&case, by_64, LoadOptions { layout: Layout::Blocks64, ..same }, options(), BOUND);
        // Embeddings of 11 bits: f16 holds them.
        close(&case, Written { embedding: QuantType::F16, ..f32 }, same, options(), BOUND);
        close(&case, f32, LoadOptions { head: HeadType::Q8_0, ..same }, options(), 0.05);
        close(&case, f32, same, Options { cache: CacheType::F16, ..options() }, 0.2);
        close(&case, f32, same, Options { cache: CacheType::Q8_0, ..options() }, 0.6);
        if case.n_embd % 256 == 0 && case.n_ff % 256 == 0 {
            close(&case, Written { ternary: QuantType::TQ2_0, ..f32 }, same, options(), BOUND);
        }
    }
}
