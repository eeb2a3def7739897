//! Tokens in 8 bits.

use crate::kernel::Kernel;
use crate::layout::BLOCK;
use crate::pool::{Pool, Table};
use crate::simd::floats::rounded;

/// Vectors of tokens, each quantised to 8 bits with a scale of its own, as BitNet's `ActQuant` does: `a = 127 / max(|x|, 1e-5)`,
/// `q = round(a·x)` with halves to even (transformers 5.23.0, `integrations/bitnet.py`).
///
/// Made for a largest number of tokens and columns; quantising allocates nothing.
#[derive(Clone, Debug)]
pub struct Activations {
    /// Tokens of `stride` values.
    values: Vec<i8>,
    marks: Vec<Mark>,
    tokens: usize,
    columns: usize,
}

/// What stands beside a token's integers.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// 1 / a.
    scale: f32,
    /// Sum of the integers.
    sum: i32,
}

impl Activations {
    /// Room for so many tokens of so many columns.
    pub fn with_room(tokens: usize, columns: usize) -> Self {
        let values = vec![0; tokens.saturating_mul(columns.next_multiple_of(BLOCK))];
        Self { values, marks: vec![Mark::default(); tokens], tokens: 0, columns: 0 }
    }

    /// Bytes that room for so many tokens of so many columns takes: a byte per value, rows filled up to 128, and 8 bytes per token.
    pub const fn bytes(tokens: usize, columns: usize) -> usize {
        tokens.saturating_mul(columns.next_multiple_of(BLOCK) + size_of::<Mark>())
    }

    /// Replaces the tokens by those of `x`, each of `columns` values. Values that are no numbers become 0.
    ///
    /// # Panics
    /// More tokens or columns than there is room for, or a part of a token: the caller's sizes are wrong.
    pub fn quantize(&mut self, x: &[f32], columns: usize) {
        let stride = self.resize(x.len(), columns);
        for ((mark, values), x) in self.marks.iter_mut().zip(self.values.chunks_exact_mut(stride)).zip(x.chunks_exact(columns)) {
            let a = factor(x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs())));
            values.iter_mut().zip(x).for_each(|(value, x)| *value = rounded(x * a));
            values[columns..].fill(0);
            *mark = Mark { scale: 1.0 / a, sum: values.iter().map(|value| i32::from(*value)).sum() };
        }
    }

    /// Replaces the tokens by those of `x` after an RMS norm with these weights, one per column ([`Kernel::rms_norm`]).
    ///
    /// # Panics
    /// As [`Activations::quantize`].
    pub fn quantize_norm(&mut self, x: &[f32], weight: &[f32], eps: f32, kernel: Kernel, pool: &mut Pool) {
        let columns = weight.len();
        let stride = self.resize(x.len(), columns);
        let floats = kernel.functions().floats;
        let tokens = self.tokens;
        let tables = (Table::new(&mut self.values[..tokens * stride], stride), Table::new(&mut self.marks[..tokens], 1));
        pool.each_row(tables, |token, (values, mark)| {
            let x = &x[token * columns..][..columns];
            let rms = kernel.rms_factor(x, eps);
            let a = factor((floats.largest)(x, weight, rms));
            let sum = (floats.quantize)(x, weight, rms, a, values);
            values[columns..].fill(0);
            mark.fill(Mark { scale: 1.0 / a, sum });
        });
    }

    /// Takes note of tokens of `length` values in all, and returns how far apart they are.
    fn resize(&mut self, length: usize, columns: usize) -> usize {
        let (tokens, stride) = (length / columns.max(1), columns.next_multiple_of(BLOCK));
        let fits = tokens * columns == length && tokens <= self.marks.len() && tokens * stride <= self.values.len();
        assert!(columns > 0 && fits, "no room");
        (self.tokens, self.columns) = (tokens, columns);
        stride
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
        self.marks[token].scale
    }

    /// The sum of the token's integers.
    pub fn sum(&self, token: usize) -> i32 {
        self.marks[token].sum
    }

    /// Integers of tokens from `first` on, each filled up with zeros to a multiple of 128.
    pub fn values(&self, first: usize, count: usize) -> &[i8] {
        let stride = self.columns.next_multiple_of(BLOCK);
        &self.values[first * stride..(first + count) * stride]
    }
}

/// What a token whose largest magnitude is `largest` is multiplied with.
fn factor(largest: f32) -> f32 {
    127.0 / largest.max(1e-5)
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
