//! The next token from logits.

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token; otherwise logits are divided by it.
    pub temperature: f32,
    /// So many of the most likely tokens are considered; 0 for all.
    pub top_k: usize,
    /// Of those, the fewest whose probabilities add up to this.
    pub top_p: f32,
    /// The same seed gives the same text.
    pub seed: u64,
}

impl Default for Sampling {
    /// The most likely token.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 40, top_p: 0.95, seed: 0 }
    }
}

/// Chooses tokens, one after another.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    state: u64,
    /// Tokens that are considered, with their logits.
    candidates: Vec<(f32, u32)>,
}

impl Sampler {
    /// Begins with the seed.
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, state: sampling.seed, candidates: Vec::new() }
    }

    /// The next token; of equal logits the first. `None` where no logit is a number.
    pub fn next(&mut self, logits: &[f32]) -> Option<u32> {
        self.candidates.clear();
        self.candidates.extend(logits.iter().copied().zip(0..).filter(|(logit, _)| !logit.is_nan()));
        let most_likely = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if self.sampling.temperature <= 0.0 {
            return self.candidates.iter().min_by(|a, b| most_likely(a, b)).map(|(_, token)| *token);
        }
        let keep = if self.sampling.top_k == 0 { self.candidates.len() } else { self.sampling.top_k.min(self.candidates.len()) };
        if keep < self.candidates.len() {
            self.candidates.select_nth_unstable_by(keep, most_likely);
            self.candidates.truncate(keep);
        }
        self.candidates.sort_unstable_by(most_likely);
        let largest = self.candidates.first()?.0;
        let temperature = self.sampling.temperature;
        let weight = |logit: f32| f64::from((logit - largest) / temperature).exp();
        let total: f64 = self.candidates.iter().map(|(logit, _)| weight(*logit)).sum();
        let mut kept = 0.0;
        let within = f64::from(self.sampling.top_p) * total;
        let count = self.candidates.iter().take_while(|(logit, _)| {
            let before = kept;
            kept += weight(*logit);
            before < within
        });
        let count = count.count().max(1);
        let kept: f64 = self.candidates[..count].iter().map(|(logit, _)| weight(*logit)).sum();
        let mut goal = self.uniform() * kept;
        let chosen = self.candidates[..count].iter().find(|(logit, _)| {
            goal -= weight(*logit);
            goal < 0.0
        });
        chosen.or(self.candidates[..count].last()).map(|(_, token)| *token)
    }

    /// From 0 to 1, 1 excluded: SplitMix64 (Steele, Lea, Flood 2014).
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ z >> 31) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_temperature_the_most_likely_token_is_taken() {
        let mut sampler = Sampler::new(Sampling::default());
        assert_eq!(sampler.next(&[0.5, 2.0, f32::NAN, 2.0]), Some(1));
        assert_eq!(sampler.next(&[f32::NAN]), None);
        assert_eq!(sampler.next(&[]), None);
    }

    #[test]
    fn frequencies_are_those_of_the_probabilities_that_are_kept() {
        let logits = [1.0_f32, 0.0, -1.0, -9.0].map(|logit| logit * 0.7);
        let count = |top_k, top_p| {
            let mut sampler = Sampler::new(Sampling { temperature: 0.7, top_k, top_p, seed: 3 });
            let mut counts = [0_u32; 4];
            (0..20_000).for_each(|_| counts[sampler.next(&logits).unwrap() as usize] += 1);
            counts.map(|count| f64::from(count) / 20_000.0)
        };
        let near = |found: [f64; 4], expected: [f64; 4]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.015);
        assert!(near(count(0, 1.0), [0.665, 0.245, 0.090, 0.000]), "{:?}", count(0, 1.0));
        assert!(near(count(2, 1.0), [0.731, 0.269, 0.0, 0.0]));
        assert!(near(count(0, 0.7), [0.731, 0.269, 0.0, 0.0]));
        assert_eq!(count(0, 0.1), [1.0, 0.0, 0.0, 0.0]);
    }
}
