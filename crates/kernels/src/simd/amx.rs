//! AMX with 8-bit integers: 16,384 products per instruction, of 16 tokens with 16 rows, summed in 32 bits. For prompts alone; one token
//! and what is dense are AVX-512's.
//!
//! Of the product C += A × B the tokens are A, as they lie, and the weights B, whose rows are groups of four columns: sixteen rows of
//! packed weights are transposed while four codes are still in one byte, and then unpacked into memory, a piece of the columns at a time.
//! All tokens are multiplied with a piece before the next. Instructions: Intel 64 and IA-32 Architectures Software Developer's Manual,
//! volume 1, chapter 18, and volume 2, `TDPBSUD`.

mod offer;

use super::avx512::{self, load_32};
use crate::kernel::{Functions, Panel, ROW_PANEL, Sums};
use crate::layout::{BLOCK, BLOCK_BYTES};
use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

pub(super) use offer::offered;

static FUNCTIONS: Functions =
    Functions { name: "amx-int8", panel: Some(Panel { fewest: SIDE, multiply }), dots: Some(dots), ..avx512::FUNCTIONS };

/// Rows of a tile: tokens, weights' rows, and groups of four columns. Fewer tokens are AVX-512's: those left over from whole tiles need others
/// before them.
const SIDE: usize = 16;
/// Columns of an instruction, two to a block of weights.
const STEP: usize = 4 * SIDE;
/// Columns that are unpacked at a time: 32 KiB of codes, beside which the tokens' values and sums fit a first cache of 48 KiB.
const PIECE: usize = 512;
/// Tiles of a panel's rows.
const TILES: usize = ROW_PANEL / SIDE;

const _: () =
    assert!(BLOCK == 2 * STEP && PIECE.is_multiple_of(BLOCK) && TILES == 4 && size_of::<Sums>() == 256 && size_of::<Step>() == 4096);

/// Codes of a panel's rows for the columns of one instruction: tiles of sixteen groups of columns, each four codes of sixteen rows.
#[repr(align(64))]
struct Step([[MaybeUninit<[u8; 4 * SIDE]>; SIDE]; TILES]);

impl Step {
    const UNWRITTEN: Self = Self([[MaybeUninit::uninit(); SIDE]; TILES]);
}

/// What sums begin with.
static ZERO: Sums = Sums::ZERO;

/// What LDTILECFG reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

/// All eight tiles are sixteen rows of 64 bytes.
static WHOLE: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_per_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// This thread's tiles, configured as [`WHOLE`] for as long as this lives.
struct Tiles(PhantomData<*const ()>);

impl Tiles {
    fn configure() -> Self {
        // SAFETY: FUNCTIONS leaves this module through `offered` alone, which has found the instructions and the system's leave to use them,
        // or by the promise of who calls `Kernel::amx_int8_assumed`. The configuration is one that palette 1 has, 64 bytes are there, and
        // the tiles, which it clears, are named as changed.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _,
                out("tmm5") _, out("tmm6") _, out("tmm7") _, options(nostack, preserves_flags, readonly));
        }
        Self(PhantomData)
    }
}

impl Drop for Tiles {
    /// Gives the registers back, so that the system need not save them.
    fn drop(&mut self) {
        // SAFETY: as in `configure`, without which there is no value of this type.
        unsafe {
            asm!("tilerelease", out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
                out("tmm7") _, options(nomem, nostack, preserves_flags));
        }
    }
}

/// As [`crate::kernel::PanelProduct`] says.
fn multiply(codes: &[u8], next: &[u8], values: &[i8], sums: &mut [Sums]) {
    let columns = values.len() / sums.len();
    assert!(sums.len() >= SIDE && columns >= BLOCK && columns.is_multiple_of(BLOCK), "no tokens of whole blocks");
    let tiles = codes.len().div_ceil(SIDE * columns / 4);
    assert!((1..=TILES).contains(&tiles), "no rows of a panel");
    match tiles {
        1 => multiply_tiles::<1>(codes, next, columns, values, sums),
        2 => multiply_tiles::<2>(codes, next, columns, values, sums),
        3 => multiply_tiles::<3>(codes, next, columns, values, sums),
        _ => multiply_tiles::<TILES>(codes, next, columns, values, sums),
    }
}

/// `N` tiles of rows with all tokens. Tokens that are left over from tiles of sixteen are multiplied as the last sixteen, with sums of their own.
fn multiply_tiles<const N: usize>(codes: &[u8], next: &[u8], columns: usize, values: &[i8], sums: &mut [Sums]) {
    let (whole, rest) = sums.as_chunks_mut::<SIDE>();
    let (mut last, mut unpacked) = ([Sums::ZERO; SIDE], [Step::UNWRITTEN; PIECE / STEP]);
    let pieces = columns.div_ceil(PIECE);
    let mut next = next.chunks(next.len().div_ceil(pieces * (whole.len() + 1)).max(1));
    let tiles = Tiles::configure();
    for first in (0..columns).step_by(PIECE) {
        let piece = first..columns.min(first + PIECE);
        let unpacked = &mut unpacked[..piece.len() / STEP];
        // SAFETY: as in `configure`: both ways to FUNCTIONS ask `avx512::detected` too.
        unsafe { unpack::<N>(codes, columns / 4, piece.start / BLOCK..piece.end / BLOCK, unpacked) };
        let starts = (0..).step_by(SIDE * columns);
        for (start, sums) in starts.zip(&mut *whole) {
            super::expect(next.next().unwrap_or_default());
            accumulate::<N>(&tiles, &values[start + first..], columns, unpacked, first == 0, sums);
        }
        if !rest.is_empty() {
            super::expect(next.next().unwrap_or_default());
            accumulate::<N>(&tiles, &values[values.len() - SIDE * columns + first..], columns, unpacked, first == 0, &mut last);
        }
    }
    rest.copy_from_slice(&last[SIDE - rest.len()..]);
}

/// Adds the products of sixteen tokens, each `stride` behind the one before, with `N` tiles of rows to their sums, or to nothing where
/// `is_first`. What `unpacked` has of these tiles was written by [`unpack`].
fn accumulate<const N: usize>(_: &Tiles, values: &[i8], stride: usize, unpacked: &[Step], is_first: bool, sums: &mut [Sums; SIDE]) {
    const { assert!(1 <= N && N <= TILES) };
    assert!(!unpacked.is_empty() && values.len() >= (SIDE - 1) * stride + unpacked.len() * STEP, "tokens of other columns");
    let (before, apart) = if is_first { (&raw const ZERO, 0) } else { (sums.as_ptr(), size_of::<Sums>()) };
    // SAFETY: `Tiles` says that there are such instructions and that all tiles are 16 × 64 bytes. A tile of sums is 64 bytes in each of
    // sixteen `Sums`, `N` of them side by side, or sixteen times the same zeros; each turn reads 64 columns of sixteen tokens, which are
    // there, and `N` tiles of one `Step`, each in one piece; there are as many turns as steps, one at least. What is written is borrowed as
    // such, and no other register or memory is changed.
    unsafe {
        asm!(
            "tileloadd tmm0, [{before} + {apart}*1]",
            ".if {n} > 1",
            "tileloadd tmm1, [{before} + {apart}*1 + 64]",
            ".endif",
            ".if {n} > 2",
            "tileloadd tmm2, [{before} + {apart}*1 + 128]",
            ".endif",
            ".if {n} > 3",
            "tileloadd tmm3, [{before} + {apart}*1 + 192]",
            ".endif",
            "2:",
            "tileloadd tmm4, [{values} + {stride}*1]",
            "tileloadd tmm5, [{codes} + {line}*1]",
            "tdpbsud tmm0, tmm4, tmm5",
            ".if {n} > 1",
            "tileloadd tmm6, [{codes} + {line}*1 + 1024]",
            "tdpbsud tmm1, tmm4, tmm6",
            ".endif",
            ".if {n} > 2",
            "tileloadd tmm7, [{codes} + {line}*1 + 2048]",
            "tdpbsud tmm2, tmm4, tmm7",
            ".endif",
            ".if {n} > 3",
            "tileloadd tmm5, [{codes} + {line}*1 + 3072]",
            "tdpbsud tmm3, tmm4, tmm5",
            ".endif",
            "add {values}, 64",
            "add {codes}, 4096",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {wide}*1], tmm0",
            ".if {n} > 1",
            "tilestored [{sums} + {wide}*1 + 64], tmm1",
            ".endif",
            ".if {n} > 2",
            "tilestored [{sums} + {wide}*1 + 128], tmm2",
            ".endif",
            ".if {n} > 3",
            "tilestored [{sums} + {wide}*1 + 192], tmm3",
            ".endif",
            n = const N,
            before = in(reg) before,
            apart = in(reg) apart,
            sums = in(reg) sums.as_mut_ptr(),
            wide = in(reg) size_of::<Sums>(),
            values = inout(reg) values.as_ptr() => _,
            stride = in(reg) stride,
            codes = inout(reg) unpacked.as_ptr() => _,
            line = in(reg) 4 * SIDE,
            steps = inout(reg) unpacked.len() => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Codes of some blocks of the rows, each of `bytes`, for `N` tiles. Rows that are not there are the last one once more.
#[target_feature(enable = "avx512f,avx512bw")]
fn unpack<const N: usize>(codes: &[u8], bytes: usize, blocks: Range<usize>, steps: &mut [Step]) {
    let two_bits = _mm512_set1_epi8(3);
    let last = codes.len() / bytes - 1;
    for tile in 0..N {
        let row = |place: usize| &codes[last.min(tile * SIDE + place) * bytes..][..bytes].as_chunks().0[blocks.clone()];
        let rows: [&[[u8; BLOCK_BYTES]]; SIDE] = std::array::from_fn(row);
        for (block, [front, back]) in steps.as_chunks_mut().0.iter_mut().enumerate() {
            let (front, back) = (&mut front.0[tile], &mut back.0[tile]);
            let groups = transposed(rows, block);
            for (group, packed) in groups.into_iter().enumerate() {
                // Groups of columns of a step: those of the first 32 columns, then those of the others.
                store_64(&mut front[group], _mm512_and_si512(_mm512_srli_epi16::<6>(packed), two_bits));
                store_64(&mut front[8 + group], _mm512_and_si512(_mm512_srli_epi16::<4>(packed), two_bits));
                store_64(&mut back[group], _mm512_and_si512(_mm512_srli_epi16::<2>(packed), two_bits));
                store_64(&mut back[8 + group], _mm512_and_si512(packed, two_bits));
            }
        }
    }
}

/// Four bytes of a block of sixteen rows to a register, from the block's first four to its last.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(rows: [&[[u8; BLOCK_BYTES]]; SIDE], block: usize) -> [__m512i; 8] {
    // A register has a row and that eight further; where a name has rows, those eight further are in its upper half.
    let (low, high) = rows.split_at(SIDE / 2);
    let mut pairs = [_mm512_setzero_si512(); 8];
    for (pair, (low, high)) in pairs.iter_mut().zip(low.iter().zip(high)) {
        *pair = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(load_32(&low[block])), load_32(&high[block]));
    }
    // Of each lane of 128 bits the fours 0, 1, 2 and 3 of four rows.
    let mut fours = [[_mm512_setzero_si512(); 4]; 2];
    for (fours, [a, b, c, d]) in fours.iter_mut().zip(pairs.as_chunks::<4>().0) {
        let (ab_low, ab_high) = (_mm512_unpacklo_epi32(*a, *b), _mm512_unpackhi_epi32(*a, *b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi32(*c, *d), _mm512_unpackhi_epi32(*c, *d));
        *fours = [
            _mm512_unpacklo_epi64(ab_low, cd_low),
            _mm512_unpackhi_epi64(ab_low, cd_low),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ];
    }
    let [low_rows, high_rows] = fours;
    let first_lanes = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    let second_lanes = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    let mut groups = [_mm512_setzero_si512(); 8];
    for (i, (low, high)) in low_rows.into_iter().zip(high_rows).enumerate() {
        groups[i] = _mm512_permutex2var_epi64(low, first_lanes, high);
        groups[4 + i] = _mm512_permutex2var_epi64(low, second_lanes, high);
    }
    groups
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_64(bytes: &mut MaybeUninit<[u8; 64]>, codes: __m512i) {
    // SAFETY: the array has the 64 bytes that are written; the store needs no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), codes) };
}

/// Four products of tiles per turn, each with sums of its own, as many as are under way at once.
fn dots(turns: u64) -> u64 {
    let tiles = Tiles::configure();
    for _ in 0..turns {
        // SAFETY: as in `accumulate`; it changes tiles alone.
        unsafe {
            asm!("tdpbsud tmm0, tmm4, tmm5", "tdpbsud tmm1, tmm4, tmm5", "tdpbsud tmm2, tmm4, tmm5", "tdpbsud tmm3, tmm4, tmm5",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
                options(nomem, nostack, preserves_flags));
        }
    }
    drop(tiles);
    turns.saturating_mul((4 * SIDE * SIDE * STEP) as u64)
}
