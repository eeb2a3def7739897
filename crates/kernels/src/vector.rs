//! Sums over 32-bit floats, for attention.

use crate::kernel::Kernel;

/// Partial sums of a product: place `i` is added to lane `i mod 8`, and the lanes are summed from first to last. Products and sums are
/// rounded one after the other, never fused, so every kernel gives the same bits.
pub(crate) const LANES: usize = 8;

impl Kernel {
    /// `Σ a · b` over the shorter of both.
    ///
    /// ```
    /// use kernels::Kernel;
    /// assert_eq!(Kernel::best().dot(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]), 32.0);
    /// ```
    pub fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        (self.functions().dot)(a, b)
    }

    /// `out += weight · x` over the shorter of both.
    ///
    /// ```
    /// use kernels::Kernel;
    /// let mut out = [1.0, 1.0];
    /// Kernel::best().add_scaled(0.5, &[2.0, 4.0], &mut out);
    /// assert_eq!(out, [2.0, 3.0]);
    /// ```
    pub fn add_scaled(self, weight: f32, x: &[f32], out: &mut [f32]) {
        (self.functions().add_scaled)(weight, x, out);
    }
}
