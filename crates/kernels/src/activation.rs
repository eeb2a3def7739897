//! Tokens in 8 bits.

use crate::layout::BLOCK;

/// Vectors of tokens, each quantised to 8 bits with a scale of its own, as BitNet's `ActQuant` does: `a = 127 / max(|x|, 1e-5)`,
/// `q = round(a·x)` with halves to even (transformers 5.23.0, `integrations/bitnet.py`).
///
/// Made for a largest number of tokens and columns; quantising allocates nothing.
#[derive(Clone, Debug)]
pub struct Activations {
    /// Tokens of `stride` values.
    values: Vec<i8>,
    /// 1 / a by token.
    scales: Vec<f32>,
    /// Sums of values by token.
    sums: Vec<i32>,
    tokens: usize,
    columns: usize,
}

impl Activations {
    /// Room for so many tokens of so many columns.
    pub fn with_room(tokens: usize, columns: usize) -> Self {
        let values = vec![0; tokens.saturating_mul(columns.next_multiple_of(BLOCK))];
        Self { values, scales: vec![0.0; tokens], sums: vec![0; tokens], tokens: 0, columns: 0 }
    }

    /// Bytes that room for so many tokens of so many columns takes: a byte per value, rows filled up to 128, and 8 bytes per token.
    pub const fn bytes(tokens: usize, columns: usize) -> usize {
        tokens.saturating_mul(columns.next_multiple_of(BLOCK) + 8)
    }

    /// Replaces the tokens by those of `x`, each of `columns` values. Values that are no numbers become 0.
    ///
    /// # Panics
    /// More tokens or columns than there is room for, or a part of a token: the caller's sizes are wrong.
    pub fn quantize(&mut self, x: &[f32], columns: usize) {
        let tokens = x.len() / columns.max(1);
        let stride = columns.next_multiple_of(BLOCK);
        assert!(tokens * columns == x.len() && tokens <= self.scales.len() && tokens * stride <= self.values.len(), "no room");
        (self.tokens, self.columns) = (tokens, columns);
        for (token, x) in x.chunks_exact(columns.max(1)).enumerate() {
            let values = &mut self.values[token * stride..(token + 1) * stride];
            (self.scales[token], self.sums[token]) = quantize(x, values);
        }
    }

    /// Tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Values per token.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// What an integer stands for: `x ≈ scale · q`.
    pub fn scale(&self, token: usize) -> f32 {
        self.scales[token]
    }

    /// The sum of the token's integers.
    pub fn sum(&self, token: usize) -> i32 {
        self.sums[token]
    }

    /// Integers of tokens from `first` on, each filled up with zeros to a multiple of 128.
    pub fn values(&self, first: usize, count: usize) -> &[i8] {
        let stride = self.columns.next_multiple_of(BLOCK);
        &self.values[first * stride..(first + count) * stride]
    }
}

/// Adding and taking away 1.5·2²³ rounds a float of magnitude below 2²² to a whole number, halves to even, in every
/// instruction set without a call.
const ROUND: f32 = 12_582_912.0;

/// One token; its scale and its sum.
fn quantize(x: &[f32], values: &mut [i8]) -> (f32, i32) {
    let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let factor = 127.0 / largest.max(1e-5);
    let mut sum = 0_i32;
    for (value, x) in values.iter_mut().zip(x) {
        let rounded = ((x * factor).clamp(-128.0, 127.0) + ROUND) - ROUND;
        *value = rounded as i8;
        sum += i32::from(*value);
    }
    values[x.len()..].fill(0);
    (1.0 / factor, sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_to_even_and_the_largest_to_127() {
        let x = [127.0, 0.5, 1.5, -0.5, -1.5, -127.0, 2.5];
        let mut activations = Activations::with_room(1, 7);
        activations.quantize(&x, 7);
        assert_eq!(activations.values(0, 1)[..8], [127, 0, 2, 0, -2, -127, 2, 0]);
        assert_eq!((activations.scale(0), activations.sum(0)), (1.0, 2));
    }

    #[test]
    fn nothing_and_no_numbers_become_zero() {
        let mut activations = Activations::with_room(2, 2);
        activations.quantize(&[0.0, 0.0, f32::NAN, 1.0], 2);
        assert_eq!(activations.values(0, 1)[..2], [0, 0]);
        assert_eq!(activations.values(1, 1)[..2], [0, 127]);
        // The floor of 1e-5 keeps tiny values tiny.
        activations.quantize(&[1e-6, -1e-6], 2);
        assert_eq!(activations.values(0, 1)[..2], [13, -13]);
    }

    proptest::proptest! {
        #[test]
        fn rounding_is_that_of_the_standard_library(x in proptest::collection::vec(-1e3..1e3f32, 1..300)) {
            let mut activations = Activations::with_room(1, x.len());
            activations.quantize(&x, x.len());
            let factor = 127.0 / x.iter().fold(1e-5_f32, |largest, x| largest.max(x.abs()));
            let plain: Vec<i8> = x.iter().map(|x| (x * factor).round_ties_even() as i8).collect();
            proptest::prop_assert_eq!(&activations.values(0, 1)[..x.len()], &plain[..]);
            proptest::prop_assert_eq!(activations.sum(0), plain.iter().map(|&q| i32::from(q)).sum::<i32>());
            let padding_is_zero = activations.values(0, 1)[x.len()..].iter().all(|&q| q == 0);
            proptest::prop_assert!(padding_is_zero);
        }
    }
}
