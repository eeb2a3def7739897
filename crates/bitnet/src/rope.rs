//! Rotary positions in halves (NeoX order): elements `j` and `j + d/2` of a head turn by `position · base^(−2j/d)`.

use kernels::Kernel;

/// Cosines and sines of the angles of one position after another, for a whole context.
#[derive(Clone, Debug)]
pub struct Rope {
    /// Per position: cosines, then sines, of half a head each.
    table: Vec<f32>,
    half: usize,
}

impl Rope {
    /// For positions below `n_ctx`.
    pub fn new(n_ctx: usize, head_dim: usize, base: f32) -> Self {
        let half = head_dim / 2;
        let frequencies: Vec<f32> = (0..half).map(|j| 1.0 / base.powf(2.0 * j as f32 / head_dim as f32)).collect();
        let mut table = Vec::with_capacity(n_ctx * head_dim);
        for position in 0..n_ctx {
            table.extend(frequencies.iter().map(|frequency| (position as f32 * frequency).cos()));
            table.extend(frequencies.iter().map(|frequency| (position as f32 * frequency).sin()));
        }
        Self { table, half }
    }

    /// Per position, cosines and then sines of half a head each.
    pub fn angles(&self) -> &[f32] {
        &self.table
    }

    /// Turns all heads of one token.
    pub(crate) fn turn(&self, heads: &mut [f32], position: usize, kernel: Kernel) {
        let (cos, sin) = self.table[position * 2 * self.half..][..2 * self.half].split_at(self.half);
        for head in heads.chunks_exact_mut(2 * self.half) {
            let (first, second) = head.split_at_mut(self.half);
            kernel.rotate(first, second, cos, sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_turn_together_and_lengths_stay() {
        let rope = Rope::new(8, 4, 10_000.0);
        let mut head = [1.0, 2.0, 0.0, 0.0];
        rope.turn(&mut head, 3, Kernel::best());
        let angle = 3.0_f32;
        assert!((head[0] - angle.cos()).abs() < 1e-6 && (head[2] - angle.sin()).abs() < 1e-6);
        // The second pair turns a hundred times slower.
        let slow = 0.03_f32;
        assert!((head[1] - 2.0 * slow.cos()).abs() < 1e-6 && (head[3] - 2.0 * slow.sin()).abs() < 1e-6);
    }
}
