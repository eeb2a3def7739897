//! How many tensors a graph may have.

use crate::ResolvedContext;
use spec::Model;

/// Architectures whose graphs repeat much per token or per tensor: tensors granted for each token of the micro-batch and for
/// each weight (`src/llama-context.cpp:2398-2420`). All others are granted 8 per weight and 1024 at least.
const GENEROUS: &[(&str, u64, u64)] = &[
    ("kimi-k3", 160, 64),
    ("glm5-next", 160, 64),
    ("hrm-text", 80, 64),
    ("qwen3next", 40, 32),
    ("kimi-linear", 40, 32),
    ("bailingmoe3", 40, 32),
    ("qwen35", 40, 32),
    ("qwen35moe", 40, 32),
    ("clef", 40, 32),
    ("qwen4exp", 40, 32),
    ("deepseek4", 40, 32),
    ("dflash", 40, 32),
    ("nanbeige", 40, 32),
    ("minimax-01", 40, 32),
    ("minimax-m3", 40, 32),
    ("hy-v4", 40, 32),
];

/// Entries of the scheduler's table of tensors, with this many for weights: what is granted, rounded up to the first prime past a power of two
/// (`ggml/src/ggml-backend.cpp:2032`, `ggml/src/ggml.c:6640-6664`).
pub(crate) fn room(model: &Model, loaded: usize, context: &ResolvedContext) -> u64 {
    let weights = loaded as u64;
    let tokens = u64::from(context.n_ubatch.min(context.n_ctx));
    let granted = match GENEROUS.iter().find(|(name, ..)| *name == model.architecture) {
        Some(&(_, per_token, per_weight)) => (tokens * per_token).max(weights.saturating_mul(per_weight)),
        None => weights.saturating_mul(8).max(1024),
    };
    first_prime_past_a_power(granted)
}

/// The first prime after the smallest power of two for which that prime is `least` or more.
fn first_prime_past_a_power(least: u64) -> u64 {
    // That of the largest power up to `least`, or else that of the next.
    let mut power = 1 << least.max(1024).ilog2();
    loop {
        let prime = (power + 1..).step_by(2).find(|&n| is_prime(n)).unwrap_or(u64::MAX);
        if prime >= least || power > 1 << 31 {
            return prime.max(least);
        }
        power *= 2;
    }
}

fn is_prime(n: u64) -> bool {
    (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_engines_sizes() {
        let sizes = [1024, 1031, 1032, 1944, 2053, 2054, 4099, 30_000].map(first_prime_past_a_power);
        assert_eq!(sizes, [1031, 1031, 2053, 2053, 2053, 4099, 4099, 32_771]);
    }
}
