//! A token in 16 bits, as weights in `q8_0` are multiplied with it.

/// Values of a block, as many as a block of `q8_0` has.
pub(crate) const WIDTH: usize = 32;

/// 32 values as integers of 16 bits with a scale: `x ≈ scale · value` within half a scale, a 65,534th of the block's largest magnitude, far
/// below what 8 bits leave of the weights.
///
/// A sum of products with 32 integers of 8 bits stays below 2²⁸, so that integers hold it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Block16 {
    pub(crate) values: [i16; WIDTH],
    pub(crate) scale: f32,
}

impl Block16 {
    pub(crate) const ZERO: Self = Self { values: [0; WIDTH], scale: 0.0 };

    /// `x` with the scale max|x| / 32767, halves to even. A block with a value that is no number, or infinite, is no numbers.
    fn of(x: &[f32; WIDTH]) -> Self {
        const LARGEST: f32 = 32767.0;
        let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        // 0 · x is no number for just these, and a sum of such products none if one is.
        if x.iter().map(|x| 0.0 * x).sum::<f32>().is_nan() {
            return Self { values: [0; WIDTH], scale: f32::NAN };
        }
        let scale = largest / LARGEST;
        // Magnitudes so small that their scale has no inverse are zeros.
        let inverse = Some(1.0 / scale).filter(|inverse| inverse.is_finite()).unwrap_or(0.0);
        let mut block = Self { scale, ..Self::ZERO };
        for (value, x) in block.values.iter_mut().zip(x) {
            *value = rounded(x * inverse);
        }
        block
    }
}

/// The nearest integer, halves to even, of magnitudes up to 32767 and a rounding.
fn rounded(x: f32) -> i16 {
    /// Floats of this size are whole numbers.
    const ROUND: f32 = 12_582_912.0;
    (x + ROUND - ROUND) as i16
}

/// Replaces the blocks by those of `x`.
///
/// # Panics
/// Another number of blocks than `x` has.
pub(crate) fn quantize(x: &[f32], blocks: &mut [Block16]) {
    let (x, rest) = x.as_chunks();
    assert!(x.len() == blocks.len() && rest.is_empty(), "blocks of another width");
    blocks.iter_mut().zip(x).for_each(|(block, x)| *block = Block16::of(x));
}

const _: () = assert!(size_of::<Block16>() == 68);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_within_half_a_scale() {
        let x: [f32; WIDTH] = std::array::from_fn(|i| (i as f32 - 15.3) * 0.37);
        let block = Block16::of(&x);
        assert_eq!(block.values[WIDTH - 1], 32767);
        for (value, x) in block.values.iter().zip(x) {
            assert!((f32::from(*value) * block.scale - x).abs() <= 0.5001 * block.scale, "{value} for {x}");
        }
    }

    #[test]
    fn halves_go_to_even() {
        assert_eq!([0.5, 1.5, -0.5, -1.5, 32766.5, -32767.0].map(rounded), [0, 2, 0, -2, 32766, -32767]);
    }

    #[test]
    fn nothing_is_zeros_and_no_number_stays_none() {
        for tiny in [0.0, -0.0, f32::from_bits(1), -1e-40] {
            assert_eq!(Block16::of(&[tiny; WIDTH]).values, [0; WIDTH]);
        }
        for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; WIDTH];
            x[7] = strange;
            assert!(Block16::of(&x).scale.is_nan());
        }
        let largest = Block16::of(&[f32::MAX; WIDTH]);
        assert!(largest.values == [32767; WIDTH] && largest.scale.is_finite());
    }
}
