//! Where the two bits of a weight lie. A code is the weight plus one: 0, 1, 2.

/// How `I2_S` interleaves codes. Nothing in a file says which; files are in [`Layout::Blocks128`] unless they were quantised on
/// ARM by builds of the BitNet fork since November 2025 (commit 112f853).
///
/// In both a block of `4·n` consecutive weights takes `n` bytes, and byte `p` holds the weights `p`, `n + p`, `2n + p`, `3n + p` from
/// its highest bits to its lowest (microsoft/BitNet 16da220, `src/ggml-bitnet-mad.cpp`, `quantize_i2_s`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Blocks of 128 weights in 32 bytes.
    #[default]
    Blocks128,
    /// Blocks of 64 weights in 16 bytes.
    Blocks64,
}

/// Weights in a block of the layout that kernels read.
pub(crate) const BLOCK: usize = 128;
/// Its bytes.
pub(crate) const BLOCK_BYTES: usize = BLOCK / 4;

impl Layout {
    /// Weights of a block.
    pub const fn block(self) -> usize {
        match self {
            Self::Blocks128 => 128,
            Self::Blocks64 => 64,
        }
    }

    /// Byte and shift of the weight at `index` of a flattened tensor.
    const fn place(self, index: usize) -> (usize, usize) {
        let group = self.block() / 4;
        let (block, within) = (index / self.block(), index % self.block());
        (block * group + within % group, 6 - 2 * (within / group))
    }

    /// The code at `index` of a flattened tensor; 0 beyond its end.
    pub fn code(self, packed: &[u8], index: usize) -> u8 {
        let (byte, shift) = self.place(index);
        packed.get(byte).map_or(0, |packed| packed >> shift & 3)
    }

    /// Packs weights of −1, 0, 1 (of others only the sign counts). The last block is filled up with zeros.
    ///
    /// ```
    /// use kernels::Layout;
    /// let packed = Layout::Blocks128.pack([1, -1, 0].into_iter());
    /// assert_eq!(packed.len(), 32);
    /// assert_eq!(Layout::Blocks128.code(&packed, 0), 2);
    /// assert_eq!(packed[0] >> 6, 2);
    /// ```
    pub fn pack(self, weights: impl Iterator<Item = i8>) -> Vec<u8> {
        let mut packed = Vec::new();
        for (index, weight) in weights.enumerate() {
            let (byte, shift) = self.place(index);
            if index % self.block() == 0 {
                // Four codes of 1: weights of zero.
                packed.resize(packed.len() + self.block() / 4, 0b0101_0101);
            }
            packed[byte] = packed[byte] & !(3 << shift) | ((weight.signum() + 1) as u8) << shift;
        }
        packed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_lie_where_the_fork_puts_them() {
        // Weight 33 is in the second group of 32: byte 1, bits 5 and 4.
        let mut weights = [0; 128];
        weights[33] = 1;
        let packed = Layout::Blocks128.pack(weights.into_iter());
        assert_eq!(packed[1], 0b0110_0101);
        // In blocks of 64 it is in the third group of 16: byte 1, bits 3 and 2.
        let packed = Layout::Blocks64.pack(weights.into_iter());
        assert_eq!(packed[1], 0b0101_1001);
    }

    #[test]
    fn the_two_layouts_differ_and_both_come_back() {
        let weights: Vec<i8> = (0..640_i32).map(|i| ((i * 7 + i / 11) % 3 - 1) as i8).collect();
        let back = |layout: Layout, packed: &[u8]| (0..640).map(|i| layout.code(packed, i) as i8 - 1).collect::<Vec<_>>();
        for layout in [Layout::Blocks128, Layout::Blocks64] {
            assert_eq!(back(layout, &layout.pack(weights.iter().copied())), weights);
        }
        assert_ne!(back(Layout::Blocks64, &Layout::Blocks128.pack(weights.iter().copied())), weights);
    }
}
