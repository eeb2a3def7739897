//! TL1 and TL2: ternary weights as indices into tables of sums (microsoft/BitNet 16da220, `utils/convert-hf-to-gguf-bitnet.py`,
//! `preprocess_weights_tl1` and `preprocess_weights_tl2`).
//!
//! A file does not say how its weights are tiled: that stands in the `kernel_config.ini` of the build that it was made for, and has to be
//! given. The scale is a tensor of its own, `NAME_scale`.

use crate::matrix::{MatrixError, TernaryMatrix};

/// The tiles of a build for one shape, as a section of its `kernel_config.ini` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Rows of a tile: `bm`.
    pub bm: usize,
    /// Columns of a tile: `bk`.
    pub bk: usize,
    /// Rows that one pass of the kernel takes: `bmm`, 32 or 64 for TL1 and 32 for TL2.
    pub bmm: usize,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookUp {
    /// Two weights in four bits, for ARM.
    Tl1,
    /// Three weights in four bits and a sign for whole tiles, two in four for the columns that are left, for x86.
    Tl2,
}

/// A group of weights of one row that share an index.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The first of its columns.
    column: usize,
    /// How many there are.
    count: usize,
    /// Where the four bits of its index lie: byte and shift.
    index: (usize, u32),
    /// Where its sign lies.
    sign: Option<(usize, u32)>,
}

/// A shape and its tiles, which fit together.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    kind: LookUp,
    tiles: Tiles,
    rows: usize,
    columns: usize,
}

/// TL2's rows of a pass, and its columns: of indices, of signs, and of a tile of pairs.
const PASS: usize = 32;
const SIX: usize = 6;
const SIGNS: usize = 24;
const PAIRS: usize = 32;
/// Columns that TL2's size reserves two weights per index for.
const RESERVED: usize = 256;

impl Geometry {
    fn new(kind: LookUp, tiles: Tiles, rows: usize, columns: usize) -> Result<Self, MatrixError> {
        let Tiles { bm, bk, bmm } = tiles;
        let whole = bm > 0 && bk > 0 && bmm > 0 && rows > 0 && columns > 0 && rows.is_multiple_of(bm) && bm.is_multiple_of(bmm);
        let fits = whole
            && rows.checked_mul(columns).is_some_and(|weights| weights < isize::MAX as usize / 8)
            && match kind {
                LookUp::Tl1 => matches!(bmm, 32 | 64) && columns.is_multiple_of(bk) && bk.is_multiple_of(256 / bmm),
                LookUp::Tl2 => {
                    let left = columns % bk;
                    bmm == PASS && bk.is_multiple_of(SIGNS) && left.is_multiple_of(PAIRS) && left <= RESERVED && columns >= RESERVED
                }
            };
        match fits {
            true => Ok(Self { kind, tiles, rows, columns }),
            false => Err(MatrixError::Tiles { rows, columns, tiles }),
        }
    }

    /// Bytes of weights: what the packers write, without scale and padding.
    fn bytes(&self) -> usize {
        let weights = self.rows * self.columns;
        match self.kind {
            LookUp::Tl1 => weights / 4,
            // Rounded down at each step, as the packer does.
            LookUp::Tl2 => (self.columns - RESERVED) * self.rows / 3 * 5 / 8 + RESERVED * self.rows / 2 * 4 / 8,
        }
    }

    fn place(&self, row: usize, column: usize) -> Place {
        match self.kind {
            LookUp::Tl1 => self.tl1(row, column),
            LookUp::Tl2 => self.tl2(row, column),
        }
    }

    /// The groups of a row, from its first column on.
    fn groups(&self, row: usize) -> impl Iterator<Item = Place> {
        let next = move |column: usize| (column < self.columns).then(|| self.place(row, column));
        std::iter::successors(next(0), move |place| next(place.column + place.count))
    }

    fn tl1(&self, row: usize, column: usize) -> Place {
        let Tiles { bm, bk, bmm } = self.tiles;
        let (pair, by) = (column / 2, 256 / bmm);
        let (within, r) = (pair % (bk / 2), row % bm);
        let tile = (row / bm * (self.columns / bk) + pair / (bk / 2)) * (bm / bmm) + r / bmm;
        let step = (tile * (bk / by) + within / (by / 2)) * (bmm / 16) + r % bmm / 16;
        let byte = (step * (by / 4) + within % (by / 2) / 2) * 16 + row % 16;
        Place { column: 2 * pair, count: 2, index: (byte, if pair.is_multiple_of(2) { 4 } else { 0 }), sign: None }
    }

    fn tl2(&self, row: usize, column: usize) -> Place {
        let Tiles { bm, bk, .. } = self.tiles;
        let threes = self.columns - self.columns % bk;
        let (r, lane) = (row % bm / PASS, row % PASS);
        let tile = |tiles: usize, tile: usize| (row / bm * tiles + tile) * (bm / PASS) + r;
        let high = |number: usize| if number.is_multiple_of(2) { 4 } else { 0 };
        if column < threes {
            let triplet = column / 3;
            let (tile, within) = (tile(threes / bk, triplet / (bk / 3)), triplet % (bk / 3));
            let index = (tile * (bk / SIX) + within / 2) * PASS + in_order(lane);
            // Sixteen bits per row and eight triplets of it and of the row sixteen below, from the highest down.
            let signs = ((tile * (bk / SIGNS) + within / 8) * 16 + lane % 16) * 2;
            let bit = 15 - (2 * (within % 8) + lane / 16);
            let sign = self.rows * threes / 6 + signs + bit / 8;
            return Place { column: 3 * triplet, count: 3, index: (index, high(within)), sign: Some((sign, bit as u32 % 8)) };
        }
        let pair = (column - threes) / 2;
        let tile = tile((self.columns - threes) / PAIRS, pair / (PAIRS / 2));
        let start = self.rows * threes / 6 + self.rows * threes / SIGNS;
        let byte = start + (tile * (PAIRS / 4) + pair % (PAIRS / 2) / 2) * PASS + in_order(lane);
        Place { column: threes + 2 * pair, count: 2, index: (byte, high(pair)), sign: None }
    }
}

/// Where a row of a pass lies: the second eight and the third are exchanged, as AVX2 interleaves them.
const fn in_order(lane: usize) -> usize {
    match lane / 8 {
        1 => lane + 8,
        2 => lane - 8,
        _ => lane,
    }
}

impl LookUp {
    /// Packs weights of −1, 0, 1 (of others only the sign counts) by row and column.
    ///
    /// # Errors
    /// Tiles that do not divide the shape.
    pub fn pack(self, tiles: Tiles, rows: usize, columns: usize, weight: impl Fn(usize, usize) -> i8) -> Result<Vec<u8>, MatrixError> {
        let geometry = Geometry::new(self, tiles, rows, columns)?;
        let mut packed = vec![0; geometry.bytes()];
        for row in 0..rows {
            for place in geometry.groups(row) {
                let value = (0..place.count).fold(0, |value, i| value * 3 + i32::from(weight(row, place.column + i).signum()));
                let (byte, shift) = place.index;
                let index = match place.sign {
                    Some((byte, bit)) => {
                        packed[byte] |= u8::from(value < 0) << bit;
                        value.unsigned_abs()
                    }
                    None => value.abs_diff(-4),
                };
                packed[byte] |= (index as u8) << shift;
            }
        }
        Ok(packed)
    }
}

impl TernaryMatrix {
    /// From a tensor of type `TL1` or `TL2` for these tiles; what follows its weights (padding, and a scale that is given here) does not
    /// count. Copied.
    ///
    /// # Errors
    /// Tiles that do not divide the shape, fewer bytes than it needs, or a scale that cannot be.
    pub fn from_lookup(tensor: &[u8], kind: LookUp, tiles: Tiles, rows: usize, columns: usize, scale: f32) -> Result<Self, MatrixError> {
        let geometry = Geometry::new(kind, tiles, rows, columns)?;
        let needed = geometry.bytes();
        if tensor.len() < needed {
            return Err(MatrixError::Length { rows, columns, needed, found: tensor.len() });
        }
        let first: Vec<Place> = geometry.groups(0).collect();
        Self::from_rows(rows, columns, scale, |row, codes| {
            // Groups of a kind are as far from those of the first row as the first of them is.
            let moved = |count: usize| {
                first.iter().find(|place| place.count == count).map(|of_first| (*of_first, geometry.place(row, of_first.column)))
            };
            let moved = [2, 3].map(|count| moved(count).map_or(Moved::default(), |(from, to)| Moved::between(from, to)));
            for place in &first {
                let Moved { index, sign, bit } = moved[place.count - 2];
                let packed = tensor[place.index.0 + index] >> place.index.1 & 15;
                // Digits of base three, each a weight plus one: 13 and 4 are three and two zeros.
                let number = match place.sign {
                    Some((byte, shift)) if tensor[byte + sign] >> (shift - bit) & 1 == 1 => 13_u8.saturating_sub(packed),
                    Some(_) => 13 + packed,
                    None => packed,
                };
                let digits = [number / 9 % 3, number / 3 % 3, number % 3];
                codes[place.column..][..place.count].copy_from_slice(&digits[3 - place.count..]);
            }
        })
    }
}

/// How far the groups of a row lie from those of the first row: bytes of indices, bytes of signs, and bits of signs, which go down.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    index: usize,
    sign: usize,
    bit: u32,
}

impl Moved {
    fn between(first: Place, row: Place) -> Self {
        let (sign, bit) = first.sign.zip(row.sign).map_or((0, 0), |(first, row)| (row.0 - first.0, first.1 - row.1));
        Self { index: row.index.0 - first.index.0, sign, bit }
    }
}
