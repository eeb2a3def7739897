//! What every backend is held to: the shapes at which tiles, panels and blocks end, and the layer in plain arithmetic.
#![allow(clippy::unwrap_used, dead_code, reason = "a test that cannot be set up has failed; each test uses its part")]

use kernels::{Activations, TernaryMatrix};

/// Rows at the edges of tiles.
pub const ROWS: [usize; 8] = [1, 3, 4, 5, 63, 64, 65, 128];
/// Tokens at the edges of tiles.
pub const TOKENS: [usize; 8] = [1, 3, 4, 5, 15, 16, 17, 33];
/// Columns at the edges of blocks.
pub const COLUMNS: [usize; 6] = [1, 127, 128, 129, 256, 384];
/// Columns, weight and sign of the activations whose sums of 16 bits would wrap: 4096 products of 2 and 127 (microsoft/BitNet issue 629).
pub const LARGEST: [(usize, i8, f32); 3] = [(4096, 1, 1.0), (4096, 1, -1.0), (8192, -1, 1.0)];

/// A sequence that repeats for nobody: xorshift.
pub struct Noise(pub u64);

impl Noise {
    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    /// From -1 to 1.
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
    /// -1, 0 or 1.
    pub fn weight(&mut self) -> i8 {
        (self.next() % 3) as i8 - 1
    }
}

/// A matrix of these weights.
pub fn matrix(weights: &[i8], rows: usize, columns: usize, scale: f32) -> TernaryMatrix {
    TernaryMatrix::from_codes(rows, columns, scale, |r, c| (weights[r * columns + c] + 1) as u8).unwrap()
}

/// Weights and floats of a shape.
pub fn drawn(rows: usize, columns: usize, tokens: usize, seed: u64) -> (Vec<i8>, Vec<f32>) {
    let mut noise = Noise(seed | 1);
    let weights = (0..rows * columns).map(|_| noise.weight()).collect();
    (weights, (0..tokens * columns).map(|_| noise.float()).collect())
}

/// Those floats as tokens in 8 bits.
pub fn quantized(x: &[f32], columns: usize) -> Activations {
    let mut activations = Activations::with_room(x.len() / columns, columns);
    activations.quantize(x, columns);
    activations
}

/// Codes of 3, which are no weights: all of a matrix of 5 rows and 4096 columns.
pub fn codes_of_three() -> TernaryMatrix {
    let mut tensor = vec![0xFF; 5 * 4096 / 4];
    tensor.extend(1.0_f32.to_le_bytes());
    tensor.extend([0; 28]);
    TernaryMatrix::from_i2_s(&tensor.into(), 5, 4096, kernels::Layout::Blocks128).unwrap()
}

/// The layer in plain arithmetic over integers.
pub fn plain(weights: &[i8], rows: usize, columns: usize, scale: f32, activations: &Activations) -> Vec<f32> {
    let stride = columns.next_multiple_of(128);
    let value = |token: usize, row: usize| {
        let values = &activations.values(token, 1)[..columns];
        assert_eq!(activations.values(token, 1).len(), stride);
        let sum: i32 = weights[row * columns..][..columns].iter().zip(values).map(|(w, q)| i32::from(*w) * i32::from(*q)).sum();
        sum as f32 * (activations.scale(token) * scale)
    };
    (0..activations.tokens()).flat_map(|token| (0..rows).map(move |row| (token, row))).map(|(token, row)| value(token, row)).collect()
}
