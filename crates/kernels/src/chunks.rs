//! Dense weights as kernels on other devices read them: whole chunks at a time.

use crate::dense::{DenseMatrix, DenseType};

/// Bytes of a chunk: rows begin at whole multiples of them.
pub const CHUNK: usize = 16;

impl DenseMatrix {
    /// Bytes of a row in whole chunks.
    pub fn chunked_row(&self) -> usize {
        (self.bytes() / self.rows()).next_multiple_of(CHUNK)
    }

    /// Chunks of a row, and how many of them are weights: the others of a row of blocks are scales.
    pub fn chunks(&self) -> (usize, usize) {
        let (block, bytes) = self.ty().block();
        // Of blocks, only the integers: a byte for each weight.
        let weights = if block > 1 { self.columns() } else { self.columns() * bytes };
        (self.chunked_row() / CHUNK, weights.div_ceil(CHUNK))
    }

    /// Rows in whole chunks, filled up with zeros: floats as they are; of `q8_0` the integers of all blocks first and their scales behind
    /// them, so that a chunk holds integers of one block.
    ///
    /// ```
    /// use kernels::{DenseMatrix, DenseType};
    /// let weights: Vec<u8> = [1.0_f32, 2.0].iter().flat_map(|w| w.to_le_bytes()).collect();
    /// let matrix = DenseMatrix::new(weights.into(), DenseType::F32, 2, 1)?;
    /// assert_eq!(matrix.chunked(1, 1), [0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    /// # Ok::<(), kernels::DenseError>(())
    /// ```
    ///
    /// # Panics
    /// Rows beyond the matrix.
    pub fn chunked(&self, first: usize, count: usize) -> Vec<u8> {
        let (from, to) = (self.bytes() / self.rows(), self.chunked_row());
        let mut out = vec![0; count * to];
        for (row, out) in self.row_bytes(first, count).chunks_exact(from).zip(out.chunks_exact_mut(to)) {
            if self.ty() == DenseType::Q8_0 {
                let (integers, scales) = out.split_at_mut(self.columns());
                let parts = integers.as_chunks_mut::<32>().0.iter_mut().zip(scales.as_chunks_mut::<2>().0);
                for (block, (integers, scale)) in row.as_chunks::<34>().0.iter().zip(parts) {
                    let (head, tail) = block.split_at(2);
                    scale.copy_from_slice(head);
                    integers.copy_from_slice(tail);
                }
            } else {
                out[..from].copy_from_slice(row);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lie_as_integers_and_then_scales() {
        let row = |base: u8| [[base, 1].to_vec(), vec![base; 32], [base + 1, 2].to_vec(), vec![base + 1; 32]].concat();
        let matrix = DenseMatrix::new([row(10), row(20)].concat().into(), DenseType::Q8_0, 2, 64).unwrap();
        assert_eq!((matrix.chunked_row(), matrix.chunks()), (80, (5, 4)));
        let expected = |base: u8| [vec![base; 32], vec![base + 1; 32], vec![base, 1, base + 1, 2], vec![0; 12]].concat();
        assert_eq!(matrix.chunked(0, 2), [expected(10), expected(20)].concat());
        assert_eq!(matrix.chunked(1, 1), expected(20));
        assert_eq!(matrix.chunked(2, 0), [] as [u8; 0]);
    }
}
