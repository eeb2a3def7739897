//! Rotary positions in halves (NeoX order): elements `j` and `j + d/2` of a head turn by `position · base^(−2j/d)`.

use kernels::Kernel;

/// Cosines and sines of the angles of a micro-batch.
#[derive(Clone, Debug)]
pub struct Rope {
    /// Of half a head, by how much each pair turns from one position to the next.
    frequencies: Vec<f32>,
    /// Per token: cosines, then sines, of half a head each.
    table: Vec<f32>,
}

impl Rope {
    /// For micro-batches of so many tokens at most.
    pub fn new(n_ubatch: usize, head_dim: usize, base: f32) -> Self {
        let half = head_dim / 2;
        let frequencies: Vec<f32> = (0..half).map(|j| 1.0 / base.powf(2.0 * j as f32 / head_dim as f32)).collect();
        Self { frequencies, table: vec![0.0; n_ubatch * 2 * half] }
    }

    /// Per token of the micro-batch, cosines and then sines of half a head each.
    pub fn angles(&self) -> &[f32] {
        &self.table
    }

    /// Goes to the positions from `first` on, as many as a micro-batch may have tokens.
    pub fn go_to(&mut self, first: usize, tokens: usize) {
        let half = self.frequencies.len();
        for (token, row) in self.table.chunks_exact_mut((2 * half).max(1)).take(tokens).enumerate() {
            let (cos, sin) = row.split_at_mut(half);
            let position = (first + token) as f32;
            for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(&self.frequencies) {
                (*cos, *sin) = ((position * frequency).cos(), (position * frequency).sin());
            }
        }
    }

    /// Turns all heads of a token of the micro-batch.
    pub(crate) fn turn(&self, heads: &mut [f32], token: usize, kernel: Kernel) {
        let half = self.frequencies.len();
        let (cos, sin) = self.table[token * 2 * half..][..2 * half].split_at(half);
        for head in heads.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            kernel.rotate(first, second, cos, sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_turn_together_and_lengths_stay() {
        let mut rope = Rope::new(2, 4, 10_000.0);
        rope.go_to(2, 2);
        let mut head = [1.0, 2.0, 0.0, 0.0];
        rope.turn(&mut head, 1, Kernel::best());
        let angle = 3.0_f32;
        assert!((head[0] - angle.cos()).abs() < 1e-6 && (head[2] - angle.sin()).abs() < 1e-6);
        // The second pair turns a hundred times slower.
        let slow = 0.03_f32;
        assert!((head[1] - 2.0 * slow.cos()).abs() < 1e-6 && (head[3] - 2.0 * slow.sin()).abs() < 1e-6);
    }
}
