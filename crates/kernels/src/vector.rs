//! What stands between the matrices, over slices of floats. Every kernel gives the same bits.

use crate::kernel::Kernel;
use half::f16;

impl Kernel {
    /// RMS norm of one token: `out = weight · x / sqrt(mean(x²) + eps)`, over the shortest of the three.
    ///
    /// ```
    /// use kernels::Kernel;
    /// let mut out = [0.0; 4];
    /// Kernel::best().rms_norm(&[3.0, -4.0, 0.0, 0.0], &[1.0, 1.0, 2.0, 2.0], 0.0, &mut out);
    /// // The root of the mean square is 2.5.
    /// assert_eq!(out, [1.2, -1.6, 0.0, 0.0]);
    /// ```
    pub fn rms_norm(self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        (self.floats().normalize)(x, weight, self.rms_factor(x, eps), out);
    }

    /// `1 / sqrt(mean(x²) + eps)`.
    pub(crate) fn rms_factor(self, x: &[f32], eps: f32) -> f32 {
        let mean = (self.floats().square_sum)(x) / x.len() as f32;
        1.0 / (mean + eps).sqrt()
    }

    /// `out[q · n + i] = scale · Σ query q · row i`, where queries and rows follow each other, `width` floats each, and `n` is how many scores
    /// `out` has for each query.
    ///
    /// ```
    /// use kernels::Kernel;
    /// let mut out = [0.0; 4];
    /// Kernel::best().scores(&[1.0, 2.0, 0.0, 3.0], &[4.0, 5.0, 1.0, 1.0], 2, 0.5, &mut out);
    /// assert_eq!(out, [7.0, 1.5, 7.5, 1.5]);
    /// ```
    ///
    /// # Panics
    /// A width of 0, or fewer rows than `n`.
    pub fn scores(self, queries: &[f32], rows: &[f32], width: usize, scale: f32, out: &mut [f32]) {
        (self.floats().scores)(queries, rows, width, scale, out);
    }

    /// `output q += Σ weights[q · n + i] · row i`, one row after the other, where rows and outputs follow each other, `width` floats each, and
    /// `n` is how many weights there are for each output.
    ///
    /// ```
    /// use kernels::Kernel;
    /// let mut out = [1.0, 1.0, 0.0, 0.0];
    /// Kernel::best().add_weighted(&[0.5, 2.0, 1.0, 1.0], &[2.0, 4.0, 1.0, 0.0], 2, &mut out);
    /// assert_eq!(out, [4.0, 3.0, 3.0, 4.0]);
    /// ```
    ///
    /// # Panics
    /// A width of 0, or fewer rows than `n`.
    pub fn add_weighted(self, weights: &[f32], rows: &[f32], width: usize, out: &mut [f32]) {
        (self.floats().add_weighted)(weights, rows, width, out);
    }

    /// The largest of all; what is no number is passed over, and where there is none, it is −∞.
    ///
    /// ```
    /// use kernels::Kernel;
    /// assert_eq!(Kernel::best().maximum(&[1.0, f32::NAN, 2.0]), 2.0);
    /// ```
    pub fn maximum(self, x: &[f32]) -> f32 {
        (self.floats().maximum)(x)
    }

    /// Replaces every `x` by `exp(x − largest)`, and returns their sum: within 3 parts in 10⁷ each for differences from −87 to 88, 0 below.
    ///
    /// ```
    /// use kernels::Kernel;
    /// let mut x = [1.0, f32::NEG_INFINITY];
    /// assert_eq!((Kernel::best().exponentials(&mut x, 1.0), x), (1.0, [1.0, 0.0]));
    /// ```
    pub fn exponentials(self, x: &mut [f32], largest: f32) -> f32 {
        (self.floats().exponentials)(x, largest)
    }

    /// `gate = max(gate, 0)² · up`, over the shorter of both.
    pub fn relu2_times(self, gate: &mut [f32], up: &[f32]) {
        (self.floats().relu2_times)(gate, up);
    }

    /// `gate = gate / (1 + exp(−gate)) · up`, over the shorter of both.
    pub fn silu_times(self, gate: &mut [f32], up: &[f32]) {
        (self.floats().silu_times)(gate, up);
    }

    /// Turns the points `(first, second)` by angles of these cosines and sines, over the shortest of the four.
    ///
    /// ```
    /// use kernels::Kernel;
    /// let (mut x, mut y) = ([1.0], [2.0]);
    /// Kernel::best().rotate(&mut x, &mut y, &[0.0], &[1.0]);
    /// assert_eq!((x, y), ([-2.0], [1.0]));
    /// ```
    pub fn rotate(self, first: &mut [f32], second: &mut [f32], cos: &[f32], sin: &[f32]) {
        (self.floats().rotate)(first, second, cos, sin);
    }

    /// Little-endian 16-bit floats as 32-bit ones, over the shorter of both.
    ///
    /// ```
    /// use kernels::Kernel;
    /// let mut out = [0.0];
    /// Kernel::best().widen(&[[0x00, 0x3E]], &mut out);
    /// assert_eq!(out, [1.5]);
    /// ```
    pub fn widen(self, halves: &[[u8; 2]], out: &mut [f32]) {
        (self.functions().widen)(halves, out);
    }

    /// Blocks of `q8_0`, a scale in 16 bits before 32 integers of 8 bits, as floats: over the shorter of both.
    ///
    /// ```
    /// use kernels::Kernel;
    /// let (mut block, mut out) = ([3; 34], [0.0; 32]);
    /// // A scale of 0.5.
    /// block[..2].copy_from_slice(&[0x00, 0x38]);
    /// Kernel::best().widen_q8_0(&[block], &mut out);
    /// assert_eq!(out, [1.5; 32]);
    /// ```
    pub fn widen_q8_0(self, blocks: &[[u8; 34]], out: &mut [f32]) {
        (self.floats().widen_q8_0)(blocks, out);
    }

    fn floats(self) -> &'static crate::simd::floats::Floats {
        self.functions().floats
    }
}

/// What [`Kernel::widen`] is, one after the other.
pub(crate) fn widen(halves: &[[u8; 2]], out: &mut [f32]) {
    out.iter_mut().zip(halves).for_each(|(out, half)| *out = f16::from_le_bytes(*half).to_f32());
}
