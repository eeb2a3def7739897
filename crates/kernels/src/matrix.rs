//! A matrix of ternary weights with one scale.

use crate::layout::{BLOCK, BLOCK_BYTES, Layout};
use bytes::Bytes;

/// Weights of −1, 0, 1 times a scale: `rows` outputs of `columns` inputs each.
///
/// Weights in [`Layout::Blocks128`] whose rows are whole blocks are used where they are; others are copied into that layout, each row
/// filled up with zeros to a whole block. [`TernaryMatrix::copied_bytes`] says how much memory that took.
#[derive(Clone, Debug)]
pub struct TernaryMatrix {
    /// Rows of `stride / 4` bytes.
    codes: Bytes,
    rows: usize,
    columns: usize,
    scale: f32,
    copied: bool,
}

/// Weights that are no matrix.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MatrixError {
    /// No rows or no columns, or more than memory can hold.
    #[error("a matrix of {rows} rows and {columns} columns cannot be")]
    Shape {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
    },
    /// Fewer or more bytes than the shape needs.
    #[error("{rows} rows of {columns} weights take {needed} bytes, not {found}")]
    Length {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
        /// Bytes that the shape needs.
        needed: usize,
        /// Bytes there are.
        found: usize,
    },
    /// Rows so short that filling them up to whole blocks would take many times their memory.
    #[error("rows of {columns} weights, which copying fills up to {BLOCK}: {NARROWEST} is the least that this engine takes")]
    Narrow {
        /// Columns.
        columns: usize,
    },
    /// Tiles of tables that do not divide the shape.
    #[error("tiles of {} rows ({} at once) and {} columns do not divide a matrix of {rows} rows and {columns} columns", tiles.bm, tiles.bmm, tiles.bk)]
    Tiles {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
        /// The tiles.
        tiles: crate::Tiles,
    },
    /// A scale that is infinite or no number.
    #[error("the scale of the weights is no finite number: {0}")]
    Scale(f32),
    /// Block scales that differ, so that there is no scale of the whole matrix.
    #[error("blocks of one matrix have different scales, {first} and {other} at row {row}: not a BitNet matrix")]
    Scales {
        /// The first block's.
        first: f32,
        /// Another's.
        other: f32,
        /// Row of that other.
        row: usize,
    },
}

/// Bytes after the codes of an `I2_S` tensor: the scale and padding.
const TAIL: usize = 32;

const _: () =
    assert!(BLOCK_BYTES == 32 && BLOCK == 4 * BLOCK_BYTES && Layout::Blocks128.block() == BLOCK && Layout::Blocks64.block() == 64);

/// Fewest weights of a row of a tensor that is copied: a copy never takes more than twice the bytes of its codes. No model has rows that
/// are so short, but a broken file may claim any.
pub const NARROWEST: usize = BLOCK / 2;

/// Weights per row of a copy with those that fill it up.
fn stride_of_copy(columns: usize) -> Result<usize, MatrixError> {
    let stride = columns.checked_next_multiple_of(BLOCK).ok_or(MatrixError::Narrow { columns })?;
    if columns < NARROWEST { Err(MatrixError::Narrow { columns }) } else { Ok(stride) }
}

/// Up to 128 codes, each two bits of a byte at `shift`, into a block of the kernels' layout; 3, which stands for no weight, becomes 2.
fn interleave(packed: &[u8], shift: u32, block: &mut [u8; BLOCK_BYTES]) {
    let mut codes = [1_u8; BLOCK];
    codes.iter_mut().zip(packed).for_each(|(code, byte)| *code = (byte >> shift & 3).min(2));
    let groups = codes.as_chunks::<BLOCK_BYTES>().0;
    for (p, byte) in block.iter_mut().enumerate() {
        *byte = groups.iter().fold(0, |byte, group| byte << 2 | group[p]);
    }
}

impl TernaryMatrix {
    /// From a tensor of type `I2_S`: codes of the flattened matrix, then the scale as a little-endian `f32`, then 28 bytes that mean
    /// nothing.
    ///
    /// # Errors
    /// A shape, length or scale that cannot be, or rows below [`NARROWEST`] that would have to be copied.
    pub fn from_i2_s(tensor: &Bytes, rows: usize, columns: usize, layout: Layout) -> Result<Self, MatrixError> {
        let codes = rows.checked_mul(columns).filter(|&weights| weights > 0 && weights % 4 == 0).map(|weights| weights / 4);
        let codes = codes.ok_or(MatrixError::Shape { rows, columns })?;
        let needed = codes.checked_add(TAIL).ok_or(MatrixError::Shape { rows, columns })?;
        if tensor.len() != needed {
            return Err(MatrixError::Length { rows, columns, needed, found: tensor.len() });
        }
        let scale = tensor[codes..].first_chunk().map_or(f32::NAN, |bytes| f32::from_le_bytes(*bytes));
        if columns.is_multiple_of(BLOCK) && layout == Layout::Blocks128 {
            return Self::in_place(tensor.slice(..codes), rows, columns, scale);
        }
        stride_of_copy(columns)?;
        Self::from_codes(rows, columns, scale, |row, column| layout.code(&tensor[..codes], row * columns + column))
    }

    /// From codes (weight plus one; 3 counts as 2) by row and column, copied.
    ///
    /// # Errors
    /// A shape or scale that cannot be.
    pub fn from_codes(rows: usize, columns: usize, scale: f32, code: impl Fn(usize, usize) -> u8) -> Result<Self, MatrixError> {
        Self::from_rows(rows, columns, scale, |row, codes| {
            codes.iter_mut().enumerate().for_each(|(column, out)| *out = code(row, column));
        })
    }

    /// From codes (weight plus one; 3 counts as 2), which `fill` writes row by row.
    pub(crate) fn from_rows(rows: usize, columns: usize, scale: f32, mut fill: impl FnMut(usize, &mut [u8])) -> Result<Self, MatrixError> {
        let shape = MatrixError::Shape { rows, columns };
        let stride = columns.checked_next_multiple_of(BLOCK).ok_or(shape.clone())?;
        let bytes = rows.checked_mul(stride / 4).filter(|&bytes| bytes > 0 && columns > 0).ok_or(shape)?;
        let mut codes = vec![0; bytes];
        let mut unpacked = vec![1; stride];
        for (row, out) in codes.chunks_exact_mut(stride / 4).enumerate() {
            fill(row, &mut unpacked[..columns]);
            for (block, unpacked) in out.as_chunks_mut::<BLOCK_BYTES>().0.iter_mut().zip(unpacked.chunks_exact(BLOCK)) {
                interleave(unpacked, 0, block);
            }
        }
        Ok(Self { copied: true, ..Self::in_place(codes.into(), rows, columns, scale)? })
    }

    /// From blocks of `TQ2_0`: 256 weights in 64 bytes, of which byte `32h + m` holds the weights `128h + 32l + m` from its lowest bits to
    /// its highest, and a scale in 16 bits (llama.cpp `ggml-quants.c:dequantize_row_tq2_0`). Copied.
    ///
    /// # Errors
    /// A shape or length that cannot be, or scales that differ between blocks.
    pub fn from_tq2_0(tensor: &Bytes, rows: usize, columns: usize) -> Result<Self, MatrixError> {
        Self::from_blocks::<66>(tensor, rows, columns, [64, 65], |block, i| {
            let (half, l, m) = (i / 128, i % 128 / 32, i % 32);
            block[32 * half + m] >> (2 * l) & 3
        })
    }

    /// From blocks of `TQ1_0`: 256 weights in 52 bytes of five and four to a byte, and a scale in 16 bits (llama.cpp
    /// `ggml-quants.c:dequantize_row_tq1_0`). Copied.
    ///
    /// # Errors
    /// A shape or length that cannot be, or scales that differ between blocks.
    pub fn from_tq1_0(tensor: &Bytes, rows: usize, columns: usize) -> Result<Self, MatrixError> {
        const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
        Self::from_blocks::<54>(tensor, rows, columns, [52, 53], |block, i| {
            let (byte, digit) = match i {
                0..160 => (i % 32, i / 32),
                160..240 => (32 + (i - 160) % 16, (i - 160) / 16),
                _ => (48 + (i - 240) % 4, (i - 240) / 4),
            };
            // A byte is a fraction of 256 in base three: shifted by its digits, its whole part is the next one.
            let shifted = block[byte].wrapping_mul(POWERS[digit]);
            ((u16::from(shifted) * 3) >> 8) as u8
        })
    }

    /// From Hugging Face's packed bytes: `rows / 4` rows of `columns`, of which byte `(r, c)` holds the weights of the rows `r`, `r + rows/4`,
    /// `r + rows/2` and `r + 3·rows/4` from its lowest bits to its highest (transformers 5.23.0 `integrations/bitnet.py:unpack_weights`).
    /// `scale` multiplies: that of `bitlinear` layers, which divides there, is to be inverted first. Copied.
    ///
    /// # Errors
    /// A shape, length or scale that cannot be, or rows below [`NARROWEST`].
    pub fn from_huggingface(packed: &[u8], rows: usize, columns: usize, scale: f32) -> Result<Self, MatrixError> {
        let shape = MatrixError::Shape { rows, columns };
        let needed = (rows / 4).checked_mul(columns).filter(|&bytes| bytes > 0 && rows.is_multiple_of(4)).ok_or(shape.clone())?;
        if packed.len() != needed {
            return Err(MatrixError::Length { rows, columns, needed, found: packed.len() });
        }
        let row_bytes = stride_of_copy(columns)? / 4;
        // Four codes of 1: weights of zero, which fill rows up.
        let mut codes = vec![0b0101_0101; rows.checked_mul(row_bytes).ok_or(shape)?];
        for (row, out) in codes.chunks_exact_mut(row_bytes).enumerate() {
            let (quarter, packed) = (row / (rows / 4), &packed[row % (rows / 4) * columns..][..columns]);
            for (block, packed) in out.as_chunks_mut::<BLOCK_BYTES>().0.iter_mut().zip(packed.chunks(BLOCK)) {
                interleave(packed, 2 * quarter as u32, block);
            }
        }
        Ok(Self { copied: true, ..Self::in_place(codes.into(), rows, columns, scale)? })
    }

    /// From blocks of 256 weights in `N` bytes with a scale in 16 bits at `scale`.
    fn from_blocks<const N: usize>(
        tensor: &Bytes,
        rows: usize,
        columns: usize,
        scale: [usize; 2],
        code: impl Fn(&[u8; N], usize) -> u8,
    ) -> Result<Self, MatrixError> {
        let needed = rows.checked_mul(columns / 256).and_then(|blocks| blocks.checked_mul(N));
        let needed = needed.filter(|_| columns.is_multiple_of(256)).ok_or(MatrixError::Shape { rows, columns })?;
        if tensor.len() != needed {
            return Err(MatrixError::Length { rows, columns, needed, found: tensor.len() });
        }
        let blocks = tensor.as_chunks::<N>().0;
        let scale = |block: &[u8; N]| half::f16::from_le_bytes(scale.map(|place| block[place])).to_f32();
        let first = blocks.iter().map(scale).find(|&scale| scale != 0.0).unwrap_or(0.0);
        // A block of zeros has a scale of zero.
        let other = blocks.iter().position(|block| scale(block) != 0.0 && scale(block) != first);
        if let Some(place) = other.filter(|_| first.is_finite()) {
            return Err(MatrixError::Scales { first, other: scale(&blocks[place]), row: place * 256 / columns });
        }
        Self::from_codes(rows, columns, first, |row, column| {
            let block = &blocks[row * (columns / 256) + column / 256];
            if scale(block) == 0.0 { 1 } else { code(block, column % 256) }
        })
    }

    /// The same weights with another scale, which replaces theirs.
    #[must_use]
    pub fn with_scale(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    fn in_place(codes: Bytes, rows: usize, columns: usize, scale: f32) -> Result<Self, MatrixError> {
        if !scale.is_finite() {
            return Err(MatrixError::Scale(scale));
        }
        Ok(Self { codes, rows, columns, scale, copied: false })
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Weights per row with those that fill it up: a multiple of 128.
    pub fn stride(&self) -> usize {
        self.columns.next_multiple_of(BLOCK)
    }

    /// What every weight is multiplied with.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Bytes of codes.
    pub fn code_bytes(&self) -> usize {
        self.codes.len()
    }

    /// Bytes of memory beyond the tensor that it was made from: 0 where it is used in place.
    pub fn copied_bytes(&self) -> usize {
        if self.copied { self.codes.len() } else { 0 }
    }

    /// The weight at a row and column: −1, 0 or 1 (2 for a code that no writer makes).
    pub fn weight(&self, row: usize, column: usize) -> i8 {
        Layout::Blocks128.code(&self.codes, row * self.stride() + column) as i8 - 1
    }

    /// Codes of 3, which stand for no weight. Reads all of the matrix.
    pub fn invalid_codes(&self) -> usize {
        self.codes.iter().map(|byte| (byte & byte >> 1 & 0b0101_0101).count_ones() as usize).sum()
    }

    /// Packed rows from `first` on, `count` of them: [`Layout::Blocks128`], each row filled up to [`TernaryMatrix::stride`] weights.
    ///
    /// # Panics
    /// Rows that are not there.
    pub fn packed(&self, first: usize, count: usize) -> &[u8] {
        let bytes = self.stride() / 4;
        &self.codes[first * bytes..(first + count) * bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(rows: usize, columns: usize) -> Vec<i8> {
        (0..rows * columns).map(|i| ((i * 5 + i / 7 + i / 131) % 3) as i8 - 1).collect()
    }

    fn tensor(weights: &[i8], scale: f32, layout: Layout) -> Bytes {
        let mut bytes = layout.pack(weights.iter().copied());
        bytes.truncate(weights.len() / 4);
        bytes.extend(scale.to_le_bytes());
        bytes.extend([0xAA; 28]);
        bytes.into()
    }

    #[test]
    fn whole_blocks_are_used_in_place_and_others_are_copied() {
        for (rows, columns, layout, in_place) in
            [(3, 256, Layout::Blocks128, true), (4, 192, Layout::Blocks128, false), (3, 256, Layout::Blocks64, false)]
        {
            let weights = weights(rows, columns);
            let tensor = tensor(&weights, 0.5, layout);
            let matrix = TernaryMatrix::from_i2_s(&tensor, rows, columns, layout).unwrap();
            assert_eq!(matrix.copied_bytes() == 0, in_place);
            assert_eq!(matrix.scale(), 0.5);
            assert_eq!(matrix.invalid_codes(), 0);
            let back: Vec<i8> = (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))).map(|(r, c)| matrix.weight(r, c)).collect();
            assert_eq!(back, weights, "{rows}x{columns}");
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        let bytes = Bytes::from(vec![0; 31]);
        let error = TernaryMatrix::from_i2_s(&bytes, 2, 128, Layout::Blocks128).unwrap_err();
        assert_eq!(error.to_string(), "2 rows of 128 weights take 96 bytes, not 31");
        let error = TernaryMatrix::from_i2_s(&bytes, usize::MAX, 128, Layout::Blocks128).unwrap_err();
        assert_eq!(error, MatrixError::Shape { rows: usize::MAX, columns: 128 });
        let tensor = tensor(&weights(1, 128), f32::INFINITY, Layout::Blocks128);
        assert_eq!(TernaryMatrix::from_i2_s(&tensor, 1, 128, Layout::Blocks128).unwrap_err(), MatrixError::Scale(f32::INFINITY));
        assert_eq!(TernaryMatrix::from_codes(0, 128, 1.0, |_, _| 1).unwrap_err(), MatrixError::Shape { rows: 0, columns: 128 });
    }

    /// Packed as the formats say, by plain loops over their digits.
    #[test]
    fn ternary_blocks_of_llama_cpp_are_read() {
        let weights = weights(2, 512);
        let scale = half::f16::from_f32(0.25).to_le_bytes();
        let (mut tq2, mut tq1) = (Vec::new(), Vec::new());
        for block in weights.as_chunks::<256>().0 {
            let code = |i: usize| (block[i] + 1) as u8;
            tq2.extend((0..64).map(|byte| (0..4).map(|l| code(128 * (byte / 32) + 32 * l + byte % 32) << (2 * l)).sum::<u8>()));
            tq2.extend(scale);
            let packed = |digits: &[u8]| {
                let number = digits.iter().fold(0_u32, |number, digit| number * 3 + u32::from(*digit));
                // Four digits stand in the upper four of five places.
                let number = number * 3_u32.pow(5 - digits.len() as u32);
                (number * 256).div_ceil(243) as u8
            };
            tq1.extend((0..32).map(|m| packed(&[0, 1, 2, 3, 4].map(|n| code(32 * n + m)))));
            tq1.extend((0..16).map(|m| packed(&[0, 1, 2, 3, 4].map(|n| code(160 + 16 * n + m)))));
            tq1.extend((0..4).map(|m| packed(&[0, 1, 2, 3].map(|n| code(240 + 4 * n + m)))));
            tq1.extend(scale);
        }
        let (tq2, tq1) = (Bytes::from(tq2), Bytes::from(tq1));
        for matrix in [TernaryMatrix::from_tq2_0(&tq2, 2, 512), TernaryMatrix::from_tq1_0(&tq1, 2, 512)] {
            let matrix = matrix.unwrap();
            assert_eq!(matrix.scale(), 0.25);
            let back: Vec<i8> = (0..1024).map(|i| matrix.weight(i / 512, i % 512)).collect();
            assert_eq!(back, weights);
        }
        let mut mixed = tq2.to_vec();
        mixed[3 * 66 + 64..4 * 66].copy_from_slice(&half::f16::from_f32(0.5).to_le_bytes());
        let error = TernaryMatrix::from_tq2_0(&mixed.into(), 2, 512).unwrap_err();
        assert_eq!(error, MatrixError::Scales { first: 0.25, other: 0.5, row: 1 });
    }

    proptest::proptest! {
        /// Packed as transformers' `pack_weights` does it: quarters of the rows, from the lowest bits up.
        #[test]
        fn packed_safetensors_are_read(quarter in 1..9_usize, columns in NARROWEST..400, seed: u64) {
            let code = |row: usize, column: usize| (seed.wrapping_mul(2 * (row * columns + column) as u64 + 1) >> 40) as u8 % 3;
            let byte = |i: usize| (0..4).map(|part| code(part * quarter + i / columns, i % columns) << (2 * part)).sum::<u8>();
            let packed: Vec<u8> = (0..quarter * columns).map(byte).collect();
            let matrix = TernaryMatrix::from_huggingface(&packed, 4 * quarter, columns, 0.5).unwrap();
            let plain = TernaryMatrix::from_codes(4 * quarter, columns, 0.5, code).unwrap();
            proptest::prop_assert_eq!(&matrix.codes, &plain.codes);
            proptest::prop_assert_eq!(matrix.copied_bytes(), matrix.code_bytes());
        }
    }

    #[test]
    fn packed_safetensors_that_cannot_be_are_named() {
        let error =
            |length, rows, columns| TernaryMatrix::from_huggingface(&vec![0xff; length], rows, columns, 1.0).map(|m| m.invalid_codes());
        assert_eq!(error(127, 4, 128), Err(MatrixError::Length { rows: 4, columns: 128, needed: 128, found: 127 }));
        assert_eq!(error(128, 6, 128), Err(MatrixError::Shape { rows: 6, columns: 128 }));
        assert_eq!(error(0, usize::MAX - 3, usize::MAX), Err(MatrixError::Shape { rows: usize::MAX - 3, columns: usize::MAX }));
        // Codes of 3, which no writer makes, count as 2 as everywhere.
        assert_eq!(error(128, 4, 128), Ok(0));
    }

    #[test]
    fn a_copy_is_at_most_twice_its_codes() {
        let tensor = |rows: usize, columns: usize| Bytes::from(vec![0; rows * columns / 4 + TAIL]);
        let narrow = TernaryMatrix::from_i2_s(&tensor(4096, 1), 4096, 1, Layout::Blocks128).unwrap_err();
        assert_eq!(narrow.to_string(), "rows of 1 weights, which copying fills up to 128: 64 is the least that this engine takes");
        assert_eq!(TernaryMatrix::from_huggingface(&[0; 63], 4, 63, 1.0).unwrap_err(), MatrixError::Narrow { columns: 63 });
        for columns in [64, 65, 127, 129, 192] {
            let matrix = TernaryMatrix::from_i2_s(&tensor(4, columns), 4, columns, Layout::Blocks128).unwrap();
            assert!(matrix.copied_bytes() <= 2 * columns, "{columns}");
        }
    }

    #[test]
    fn codes_of_three_are_counted() {
        let mut bytes = vec![0b0101_0101; 32];
        bytes[7] = 0b1101_1011;
        bytes.extend(1.0_f32.to_le_bytes());
        bytes.extend([0; 28]);
        let matrix = TernaryMatrix::from_i2_s(&bytes.into(), 1, 128, Layout::Blocks128).unwrap();
        assert_eq!(matrix.invalid_codes(), 2);
    }
}
