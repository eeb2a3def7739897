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

/// The first primes past the powers of two from 1024 on.
const PRIMES: [u64; 22] = [
    1031,
    2053,
    4099,
    8209,
    16_411,
    32_771,
    65_537,
    131_101,
    262_147,
    524_309,
    1_048_583,
    2_097_169,
    4_194_319,
    8_388_617,
    16_777_259,
    33_554_467,
    67_108_879,
    134_217_757,
    268_435_459,
    536_870_923,
    1_073_741_827,
    2_147_483_659,
];

/// The first of these primes that is `least` or more; more than 2^31 tensors are granted as they are.
fn first_prime_past_a_power(least: u64) -> u64 {
    PRIMES.into_iter().find(|&prime| prime >= least).unwrap_or(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_engines_sizes() {
        let is_prime = |n: u64| (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
        for (exponent, prime) in (10..).zip(PRIMES) {
            assert_eq!((1_u64 << exponent..).skip(1).find(|&n| is_prime(n)), Some(prime));
        }
        let sizes = [1024, 1031, 1032, 1944, 2053, 2054, 4099, 30_000].map(first_prime_past_a_power);
        assert_eq!(sizes, [1031, 1031, 2053, 2053, 2053, 4099, 4099, 32_771]);
    }
}
