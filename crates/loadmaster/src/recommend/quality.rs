//! A proxy for the quality of a model's text, from its size and its bits per weight alone.
//!
//! ```text
//! loss = 1.69 + 406.4 / G^0.34 + ln(1 + d / 6.2332) * (8.03e9 / N)^0.34
//! N = parameters
//! G = N; of a model with experts, the geometric mean of N and of the parameters at work
//! d = what the file type adds to the perplexity of Llama 3 8B
//! ```
//!
//! The first two terms are the loss in nats per token that Hoffmann et al. fitted over training runs, without the term of data
//! ("Training Compute-Optimal Large Language Models", arXiv:2203.15556, equation 10). The third is llama.cpp's own table
//! (`QUANT_OPTIONS` in `tools/quantize/quantize.cpp`, perplexities of Llama 3 8B) over the perplexity in F16 (6.2332,
//! `tools/perplexity/README.md`); a type that is not in it lies on the line between its neighbours by bits per weight. Large models lose less
//! to few bits: with a power of N whose exponent is about 0.34 in the scaling laws for precision of Kumar et al. (arXiv:2411.04330,
//! post-training quantisation), taken here as the 0.34 of the second term. The geometric mean is a rule of thumb. What the proxy does not
//! see: how and on what a model was trained, its language, its age. It orders sizes and types, and says nothing of two models of one size.

use formats::FileType;

/// Exponent of the number of parameters.
const EXPONENT: f64 = 0.34;

/// Parameters of Llama 3 8B, on which the perplexities were measured.
const MEASURED: f64 = 8.03e9;

/// Perplexity of Llama 3 8B in F16.
const UNQUANTISED: f64 = 6.2332;

/// Bits per weight of Llama 3.1 8B (`tools/quantize/README.md`) and what the type adds to the perplexity of Llama 3 8B; fewest bits first.
const ADDED: &[(FileType, f64, f64)] = &[
    (FileType::Q2_K, 3.1593, 3.5199),
    (FileType::Q3_K_S, 3.6429, 1.6321),
    (FileType::Q3_K_M, 3.9960, 0.6569),
    (FileType::Q3_K_L, 4.2979, 0.5562),
    (FileType::Q4_K_S, 4.6672, 0.2689),
    (FileType::Q4_K_M, 4.8944, 0.1754),
    (FileType::Q5_K_S, 5.5704, 0.1049),
    (FileType::Q5_K_M, 5.7036, 0.0569),
    (FileType::Q6_K, 6.5633, 0.0217),
    (FileType::Q8_0, 8.5008, 0.0026),
];

/// Types with more bits than this add nothing that was measured.
const FULL: f64 = 15.0;

/// The proxy, in nats per token: lower is better. `native` is true where the model was published in this type, so that nothing was lost.
///
/// ```
/// use loadmaster::recommend::quality::loss;
/// let large = loss(70_553_706_560, 70_553_706_560, Some("Q3_K_M"), 3.9, false);
/// let small = loss(8_030_261_248, 8_030_261_248, Some("Q8_0"), 8.5, false);
/// assert!(large < small, "more weights in fewer bits");
/// ```
pub fn loss(parameters: u64, active: u64, file_type: Option<&str>, bits_per_weight: f64, native: bool) -> f64 {
    let all = parameters.max(1) as f64;
    let mean = (all * active.clamp(1, parameters.max(1)) as f64).sqrt();
    let added = if native { 0.0 } else { added(file_type, bits_per_weight) };
    1.69 + 406.4 / mean.powf(EXPONENT) + (1.0 + added / UNQUANTISED).ln() * (MEASURED / all).powf(EXPONENT)
}

/// What a type adds to the perplexity.
fn added(file_type: Option<&str>, bits: f64) -> f64 {
    if let Some((_, _, added)) = ADDED.iter().find(|(known, ..)| Some(known.name()) == file_type) {
        return *added;
    }
    if bits >= FULL {
        return 0.0;
    }
    // The line through the two neighbours, or through the last two, in the logarithm of what is added.
    let pairs = ADDED.iter().zip(ADDED.iter().skip(1));
    let below = pairs.clone().rfind(|((_, from, _), _)| *from <= bits).or_else(|| pairs.clone().next());
    below.map_or(0.0, |((_, from, high), (_, to, low))| {
        let along = (bits - from) / (to - from);
        (high.ln() + (low.ln() - high.ln()) * along.min(2.0)).exp()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_weights_and_more_bits_are_better() {
        let of = |parameters: u64, bits: f64| loss(parameters, parameters, None, bits, false);
        let mut last = f64::INFINITY;
        for tenths in 15..170 {
            let now = of(8_000_000_000, f64::from(tenths) / 10.0);
            assert!(now <= last && now.is_finite(), "{tenths}");
            last = now;
        }
        assert!(of(70_000_000_000, 4.0) < of(8_000_000_000, 16.0));
        assert!(loss(30_000_000_000, 3_000_000_000, None, 4.9, false) > of(30_000_000_000, 4.9));
    }

    #[test]
    fn types_of_the_table_are_those_of_the_table() {
        let eight = |file_type: &str, bits| loss(8_030_261_248, 8_030_261_248, Some(file_type), bits, false);
        let f16 = loss(8_030_261_248, 8_030_261_248, Some("F16"), 16.0, false);
        assert!((eight("Q4_K_M", 4.9).exp() / f16.exp() - (1.0 + 0.1754 / UNQUANTISED)).abs() < 1e-4);
        assert_eq!(loss(20, 4, Some("MXFP4_MOE"), 4.5, true), loss(20, 4, Some("F16"), 16.0, false));
    }

    #[test]
    fn nothing_breaks_it() {
        for (parameters, active, bits) in [(0, 0, 0.0), (u64::MAX, u64::MAX, f64::MAX), (1, u64::MAX, 0.0), (5, 0, 2.0)] {
            assert!(loss(parameters, active, None, bits, false).is_finite(), "{parameters} {active} {bits}");
        }
    }
}
