//! RMS norms: `x / sqrt(mean(x²) + ε) · w`, without a mean and without a bias.

/// Normalises tokens of the width of `weight` from `x` into `out`.
pub(crate) fn rms(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        let factor = factor(x, eps);
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = weight * (x * factor);
        }
    }
}

/// The same in place.
pub(crate) fn rms_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
    for x in x.chunks_exact_mut(weight.len()) {
        let factor = factor(x, eps);
        x.iter_mut().zip(weight).for_each(|(x, weight)| *x = weight * (*x * factor));
    }
}

/// Sums of eight lanes, so that compilers use vectors, and small numbers do not drown in large sums.
fn factor(x: &[f32], eps: f32) -> f32 {
    let mut lanes = [0.0_f32; 8];
    for chunk in x.chunks(8) {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane += x * x);
    }
    let mean = lanes.iter().sum::<f32>() / x.len() as f32;
    1.0 / (mean + eps).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_square_becomes_one() {
        let x = [3.0, -4.0, 0.0, 0.0];
        let mut out = [0.0; 4];
        rms(&x, &[1.0, 1.0, 2.0, 2.0], 0.0, &mut out);
        // The root of the mean square is 2.5.
        assert_eq!(out, [1.2, -1.6, 0.0, 0.0]);
        let mut same = x;
        rms_in_place(&mut same, &[1.0; 4], 0.0);
        assert_eq!(same[..2], out[..2]);
    }
}
