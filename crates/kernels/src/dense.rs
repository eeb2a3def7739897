//! Dense matrices times one token: the output head, and the rows of the embedding table.

use crate::block16::{self, Block16};
use crate::kernel::{Half, Kernel, Q8, ROWS};
use crate::linear::distant;
use crate::pool::{Pool, Table};
use crate::simd::floats::widen_q8_0;
use crate::vector::widen;
use bytes::Bytes;
use half::{bf16, f16};

/// Partial sums of a row of floats: column `i` is added to lane `i mod 16`, and the lanes are then summed pairwise. Products and sums are
/// rounded one after the other, never fused. So a row has one result, whatever computes it.
pub(crate) const LANES: usize = 16;

/// Partial sums of a row in `q8_0`. Of each block lane `i` takes the products of columns `2i`, `2i + 1`, `16 + 2i` and `17 + 2i`, whose sum
/// is an exact integer, times what both scales are together; the lanes are then summed pairwise as [`total`] sums sixteen.
pub(crate) const LANES_Q8_0: usize = LANES / 2;

/// The sum of the lanes, in pairs that are eight, four, two and one apart.
#[inline(always)]
pub(crate) fn total(mut lanes: [f32; LANES]) -> f32 {
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

/// The same of the lanes of a row in `q8_0`.
#[inline(always)]
pub(crate) fn total_q8_0(mut lanes: [f32; LANES_Q8_0]) -> f32 {
    for width in [4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

/// How the weights of a dense matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenseType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Floats with 8 bits of exponent and 7 of mantissa.
    Bf16,
    /// Blocks of 32 integers of 8 bits with a scale in 16 bits.
    Q8_0,
}

impl DenseType {
    /// Weights per block and bytes per block.
    pub const fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q8_0 => (32, 34),
        }
    }

    /// Blocks that a token of so many columns is converted into.
    const fn blocks16(self, columns: usize) -> usize {
        match self {
            Self::Q8_0 => columns / block16::WIDTH,
            Self::F32 | Self::F16 | Self::Bf16 => 0,
        }
    }
}

/// `rows` outputs of `columns` inputs each, with weights in place.
#[derive(Clone, Debug)]
pub struct DenseMatrix {
    data: Bytes,
    ty: DenseType,
    rows: usize,
    columns: usize,
}

/// What a token is converted into for a matrix, from [`DenseMatrix::scratch`].
#[derive(Clone, Debug)]
pub struct DenseScratch {
    blocks: Vec<Block16>,
}

impl DenseScratch {
    /// Bytes that it takes for a matrix of this type with so many columns: 68 per block of 32 for `q8_0`, else none.
    pub const fn bytes(ty: DenseType, columns: usize) -> usize {
        ty.blocks16(columns).saturating_mul(size_of::<Block16>())
    }
}

/// Weights that are no dense matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rows} rows of {columns} weights in {ty:?} do not take {found} bytes")]
pub struct DenseError {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Type of the weights.
    pub ty: DenseType,
    /// Bytes there are.
    pub found: usize,
}

impl DenseMatrix {
    /// From the bytes of a tensor.
    ///
    /// # Errors
    /// A length that is not that of the shape, or rows that are no whole blocks.
    pub fn new(data: Bytes, ty: DenseType, rows: usize, columns: usize) -> Result<Self, DenseError> {
        let (weights, bytes) = ty.block();
        let needed = rows.checked_mul(columns / weights).and_then(|blocks| blocks.checked_mul(bytes));
        if columns == 0 || rows == 0 || !columns.is_multiple_of(weights) || needed != Some(data.len()) {
            return Err(DenseError { rows, columns, ty, found: data.len() });
        }
        Ok(Self { data, ty, rows, columns })
    }

    /// In `q8_0`: per block of 32 the scale max|w| / 127 in 16 bits and round(w / scale), halves away from zero (llama.cpp
    /// `ggml-quants.c:quantize_row_q8_0_ref`). Each thread of the pool copies some rows.
    ///
    /// # Errors
    /// Columns that are no whole blocks.
    pub fn to_q8_0(&self, kernel: Kernel, pool: &mut Pool) -> Result<Self, DenseError> {
        const BLOCK: usize = 32;
        let found = self.data.len();
        if !self.columns.is_multiple_of(BLOCK) {
            return Err(DenseError { rows: self.rows, columns: self.columns, ty: DenseType::Q8_0, found });
        }
        let width = self.columns / BLOCK * size_of::<Q8>();
        let mut data = vec![0; self.rows * width];
        pool.each_row(Table::new(&mut data, width), |row, out: &mut [u8]| {
            for (place, out) in out.as_chunks_mut::<{ size_of::<Q8>() }>().0.iter_mut().enumerate() {
                let mut block = [0.0; BLOCK];
                self.part(row, place * BLOCK, &mut block, |halves, out| kernel.widen(halves, out));
                let scale = block.iter().fold(0.0_f32, |largest, w| largest.max(w.abs())) / 127.0;
                // Weights so small that their scale has no inverse in floats have none in 16 bits either: such a block is zeros.
                let inverse = Some(1.0 / scale).filter(|inverse| inverse.is_finite()).unwrap_or(0.0);
                let (head, integers) = out.split_at_mut(2);
                head.copy_from_slice(&f16::from_f32(scale).to_le_bytes());
                integers.iter_mut().zip(block).for_each(|(out, w)| *out = away(w * inverse) as u8);
            }
        });
        Self::new(data.into(), DenseType::Q8_0, self.rows, self.columns)
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How the weights are stored.
    pub fn ty(&self) -> DenseType {
        self.ty
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    pub(crate) fn row_bytes(&self, first: usize, count: usize) -> &[u8] {
        let bytes = self.data.len() / self.rows;
        &self.data[first * bytes..(first + count) * bytes]
    }

    /// The weights of a row as floats: an embedding.
    ///
    /// # Panics
    /// `row` is beyond the matrix.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        self.part(row, 0, out, widen);
    }

    /// The weights of a row from `first` on, which begins a block.
    fn part(&self, row: usize, first: usize, out: &mut [f32], widen: impl Fn(&[Half], &mut [f32])) {
        let (weights, bytes) = self.ty.block();
        let bytes = &self.row_bytes(row, 1)[first / weights * bytes..];
        match self.ty {
            DenseType::F32 => out.iter_mut().zip(bytes.as_chunks().0).for_each(|(out, bytes)| *out = f32::from_le_bytes(*bytes)),
            DenseType::F16 => widen(bytes.as_chunks().0, out),
            DenseType::Bf16 => out.iter_mut().zip(bytes.as_chunks().0).for_each(|(out, bytes)| *out = bf16::from_le_bytes(*bytes).to_f32()),
            DenseType::Q8_0 => widen_q8_0(bytes.as_chunks().0, out),
        }
    }

    /// Room for what [`DenseMatrix::multiply`] makes of a token.
    pub fn scratch(&self) -> DenseScratch {
        DenseScratch { blocks: vec![Block16::ZERO; self.ty.blocks16(self.columns)] }
    }

    /// All rows times `x`: `out[row] = Σ weight · x`. Weights in `q8_0` take `x` in blocks of 32 integers of 16 bits, within a 65,534th of the
    /// largest of each block; a value that is no number, or infinite, makes all of `out` none.
    ///
    /// ```
    /// use kernels::{DenseMatrix, DenseType, Kernel, Pool};
    /// let weights: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|w| w.to_le_bytes()).collect();
    /// let matrix = DenseMatrix::new(weights.into(), DenseType::F32, 2, 2)?;
    /// let mut out = [0.0; 2];
    /// matrix.multiply(&[10.0, 1.0], &mut matrix.scratch(), Kernel::best(), &mut Pool::new(1)?, &mut out);
    /// assert_eq!(out, [12.0, 34.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// `x` or `out` has another length than the matrix asks for, or `scratch` is that of a matrix of other columns or another type.
    pub fn multiply(&self, x: &[f32], scratch: &mut DenseScratch, kernel: Kernel, pool: &mut Pool, out: &mut [f32]) {
        assert!(x.len() == self.columns && out.len() == self.rows, "lengths of another matrix");
        if self.ty == DenseType::Q8_0 {
            block16::quantize(x, &mut scratch.blocks);
        }
        pool.split(out, ROWS, |first, out| self.multiply_rows(first, x, &scratch.blocks, kernel, out));
    }

    fn multiply_rows(&self, first: usize, x: &[f32], blocks: &[Block16], kernel: Kernel, out: &mut [f32]) {
        let bytes = self.row_bytes(first, out.len());
        let functions = kernel.functions();
        match self.ty {
            DenseType::F16 => walk(bytes.as_chunks::<2>().0, x, out, functions.f16),
            DenseType::Q8_0 => walk(bytes.as_chunks::<34>().0, blocks, out, functions.q8_0),
            DenseType::F32 => walk(bytes.as_chunks::<4>().0, x, out, |rows, x| rows.map(|row| plain(row, x, f32::from_le_bytes))),
            DenseType::Bf16 => walk(bytes.as_chunks::<2>().0, x, out, functions.bf16),
        }
    }
}

/// The nearest integer, halves away from zero, of magnitudes up to 127 and a half: `f32::round` in what compilers put into vectors.
fn away(x: f32) -> i8 {
    let whole = x as i32;
    let rest = x - whole as f32;
    (whole + i32::from(rest >= 0.5) - i32::from(rest <= -0.5)) as i8
}

/// Rows in tiles of distant ones.
fn walk<T, X>(weights: &[T], x: &[X], out: &mut [f32], dots: impl Fn([&[T]; ROWS], &[X]) -> [f32; ROWS]) {
    let length = weights.len() / out.len().max(1);
    for tile in 0..out.len().div_ceil(ROWS) {
        let rows = distant(out.len(), tile);
        let sums = dots(rows.map(|row| &weights[row * length..][..length]), x);
        for (row, sum) in rows.into_iter().zip(sums) {
            out[row] = sum;
        }
    }
}

/// A row of floats, in the order of [`LANES`].
fn plain<T: Copy>(row: &[T], x: &[f32], float: impl Fn(T) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    for (weights, x) in row.chunks(LANES).zip(x.chunks(LANES)) {
        for ((lane, weight), x) in lanes.iter_mut().zip(weights).zip(x) {
            *lane += float(*weight) * x;
        }
    }
    total(lanes)
}

const _: () = assert!(size_of::<Q8>() == 34 && size_of::<Half>() == 2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_away_from_zero() {
        let near = |x: f32| [x, f32::from_bits(x.to_bits() + 1), f32::from_bits(x.to_bits().saturating_sub(1))];
        let edges = (0..127).flat_map(|i| near(i as f32 + 0.5)).chain((0..=127).flat_map(|i| near(i as f32)));
        for x in edges.flat_map(|x| [x, -x]).filter(|x| x.abs() < 127.5) {
            assert_eq!(away(x), x.round() as i8, "{x}");
        }
    }
}
