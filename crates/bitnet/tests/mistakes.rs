//! The mistakes that BitNet engines make, each in a plain forward pass of its own: without them it is transformers', with any one of
//! them it is not. So the recorded logits tell them apart, and the engine, which equals them, makes none. (Sums that wrap in 16 bits need longer rows: see
//! the tests of `kernels`.)
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod models;

use models::plain::{Mistake, Plain};
use models::{Case, cases};

const ALL: [Mistake; 9] = [
    Mistake::Activation,
    Mistake::RopeOrder,
    Mistake::AttentionSubNorm,
    Mistake::FeedForwardSubNorm,
    Mistake::Scale,
    Mistake::BitOrder,
    Mistake::Blocks64,
    Mistake::Mean,
    Mistake::Floats,
];

fn worst(case: &Case, mistake: Mistake) -> f64 {
    let found = Plain { case, mistake }.logits();
    let pairs = found.iter().flatten().zip(case.logits.iter().flatten());
    pairs.map(|(found, expected)| (found - f64::from(*expected)).abs()).fold(0.0, f64::max)
}

#[test]
fn the_plain_pass_is_that_of_transformers() {
    for case in cases() {
        assert!(worst(&case, Mistake::None) < 1e-5, "seed {}: {}", case.seed, worst(&case, Mistake::None));
    }
}

#[test]
fn every_mistake_shows() {
    for case in cases() {
        for mistake in ALL {
            // A thousand times what the engine is allowed.
            assert!(worst(&case, mistake) > 1e-2, "{mistake:?}, seed {}: {}", case.seed, worst(&case, mistake));
        }
    }
}
