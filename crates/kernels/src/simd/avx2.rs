//! AVX2: 32 products of 8 bits per instruction, summed in 16 bits and then in 32.

use super::floats::Chunks;
use crate::block16::Block16;
use crate::dense::{LANES, LANES_Q8_0, total, total_q8_0};
use crate::kernel::{Functions, Half, Q8};
use crate::layout::{BLOCK, BLOCK_BYTES};
use crate::vector;
use std::arch::x86_64::*;

super::floats::compiled!("avx2");
pub(super) use compiled::FLOATS;

static FUNCTIONS: Functions = Functions {
    name: "avx2",
    wide: checked,
    tall: checked,
    one: checked,
    panel: None,
    f16: checked_halves::<false, _>,
    bf16: checked_halves::<true, _>,
    q8_0: checked_q8_0,
    dots: None,
    widen: checked_widen,
    floats: &compiled::FLOATS,
};

/// The functions, where the processor has what they were compiled for.
pub(super) fn detected() -> Option<&'static Functions> {
    has().then_some(&FUNCTIONS)
}

/// True where the processor has what this file is compiled for.
pub(super) fn has() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")
}

/// Blocks whose sums 16 bits hold: each adds 4 groups of 2 products of at most 3 · 128 to a lane, and 10 · 3072 < 2¹⁵.
const FOLD: usize = 10;

fn checked<const R: usize, const T: usize>(codes: [&[u8]; R], values: [&[i8]; T]) -> [[i32; T]; R] {
    let (codes, values) = (codes.map(|codes| codes.as_chunks().0), values.map(|values| values.as_chunks().0));
    // SAFETY: FUNCTIONS leaves this module only through `detected`, which has found the features.
    unsafe { tile(codes, values) }
}

pub(super) fn checked_halves<const BF16: bool, const R: usize>(rows: [&[Half]; R], x: &[f32]) -> [f32; R] {
    // SAFETY: as above; `avx_vnni` hands it out where `has` is true too.
    unsafe { dots_halves::<BF16, R>(rows, x) }
}

pub(super) fn checked_q8_0<const R: usize>(rows: [&[Q8]; R], x: &[Block16]) -> [f32; R] {
    // SAFETY: as above.
    unsafe { dots_q8_0(rows, x) }
}

pub(super) fn checked_widen(halves: &[Half], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { widen(halves, out) }
}

/// As in [`super::avx_vnni`], two rows at a time for several tokens.
#[target_feature(enable = "avx2")]
fn tile<const R: usize, const T: usize>(codes: [&[[u8; BLOCK_BYTES]]; R], values: [&[[i8; BLOCK]]; T]) -> [[i32; T]; R] {
    if T == 1 {
        return rows(codes, values);
    }
    let mut totals = [[0; T]; R];
    for (totals, codes) in totals.chunks_mut(2).zip(codes.chunks(2)) {
        match *codes {
            [first, second] => totals.copy_from_slice(&rows([first, second], values)),
            [only] => totals.copy_from_slice(&rows([only], values)),
            _ => {}
        }
    }
    totals
}

#[inline]
#[target_feature(enable = "avx2")]
fn rows<const R: usize, const T: usize>(codes: [&[[u8; BLOCK_BYTES]]; R], values: [&[[i8; BLOCK]]; T]) -> [[i32; T]; R] {
    let (two_bits, ones) = (_mm256_set1_epi8(3), _mm256_set1_epi16(1));
    let mut sums = [[_mm256_setzero_si256(); T]; R];
    let blocks = codes[0].len();
    for start in (0..blocks).step_by(FOLD) {
        let mut narrow = [[_mm256_setzero_si256(); T]; R];
        for block in start..blocks.min(start + FOLD) {
            super::prefetch_for::<T, R>(codes, block);
            for group in 0..4 {
                let mut unpacked = [_mm256_setzero_si256(); R];
                for (unpacked, codes) in unpacked.iter_mut().zip(codes) {
                    *unpacked = unpack(&codes[block], group, two_bits);
                }
                for (t, values) in values.iter().enumerate() {
                    let values = load_group(&values[block], group);
                    for (narrow, codes) in narrow.iter_mut().zip(unpacked) {
                        narrow[t] = _mm256_add_epi16(narrow[t], _mm256_maddubs_epi16(codes, values));
                    }
                }
            }
        }
        for (sums, narrow) in sums.as_flattened_mut().iter_mut().zip(narrow.as_flattened()) {
            *sums = _mm256_add_epi32(*sums, _mm256_madd_epi16(*narrow, ones));
        }
    }
    let mut totals = [[0; T]; R];
    for (total, sum) in totals.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        *total = reduce(*sum);
    }
    totals
}

/// One of the four groups of codes of a block.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn unpack(bytes: &[u8; BLOCK_BYTES], group: usize, two_bits: __m256i) -> __m256i {
    // SAFETY: 32 bytes are there; the load needs no alignment.
    let bytes = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
    let shifted = match group {
        0 => _mm256_srli_epi16::<6>(bytes),
        1 => _mm256_srli_epi16::<4>(bytes),
        2 => _mm256_srli_epi16::<2>(bytes),
        _ => bytes,
    };
    _mm256_and_si256(shifted, two_bits)
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_group(values: &[i8; BLOCK], group: usize) -> __m256i {
    let values: &[i8; 32] = &values.as_chunks().0[group];
    // SAFETY: 32 bytes are there; the load needs no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

/// The sum of eight integers.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn reduce(sum: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
}

/// Lanes 0 to 7 and 8 to 15.
#[target_feature(enable = "avx2,f16c")]
fn dots_halves<const BF16: bool, const R: usize>(rows: [&[Half]; R], x: &[f32]) -> [f32; R] {
    let (x, rest) = x.as_chunks::<LANES>();
    let chunks = rows.map(|row| row.as_chunks::<LANES>());
    let steps = chunks.map(|(steps, _)| steps);
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    for (place, x) in x.iter().enumerate() {
        super::prefetch(steps, place);
        let x = [load_8_floats(&x[..8]), load_8_floats(&x[8..])];
        for (sums, row) in sums.iter_mut().zip(steps) {
            let bytes = row[place].as_flattened();
            for ((sum, x), bytes) in sums.iter_mut().zip(x).zip(bytes.chunks(16)) {
                let weights = if BF16 { widened_bf16(load_16(bytes)) } else { _mm256_cvtph_ps(load_16(bytes)) };
                *sum = _mm256_add_ps(*sum, _mm256_mul_ps(weights, x));
            }
        }
    }
    let mut totals = [0.0; R];
    for ((total_of, sums), (_, row)) in totals.iter_mut().zip(sums).zip(chunks) {
        *total_of = total(super::with_rest::<BF16>(lanes(sums), row, rest));
    }
    totals
}

/// A `bf16` is the upper half of a float.
#[inline]
#[target_feature(enable = "avx2")]
fn widened_bf16(halves: __m128i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
}

#[target_feature(enable = "avx2,f16c")]
fn dots_q8_0<const R: usize>(rows: [&[Q8]; R], x: &[Block16]) -> [f32; R] {
    let mut sums = [_mm256_setzero_ps(); R];
    for (place, x) in x.iter().enumerate() {
        super::prefetch(rows, place);
        let (front, back) = load_32_words(&x.values);
        let scales = scales(rows, place, x.scale);
        for ((sum, row), scale) in sums.iter_mut().zip(rows).zip(scales) {
            let (first, second) = load_32_bytes(&row[place]);
            let products = _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_madd_epi16(first, front), _mm256_madd_epi16(second, back)));
            *sum = _mm256_add_ps(*sum, _mm256_mul_ps(products, _mm256_set1_ps(scale)));
        }
    }
    let mut totals = [0.0; R];
    for (total_of, sum) in totals.iter_mut().zip(sums) {
        *total_of = total_q8_0(eight(sum));
    }
    totals
}

/// The integers of a block in 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_32_bytes(block: &Q8) -> (__m256i, __m256i) {
    (_mm256_cvtepi8_epi16(load_16(&block[2..])), _mm256_cvtepi8_epi16(load_16(&block[18..])))
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_32_words(values: &[i16; 32]) -> (__m256i, __m256i) {
    let start: *const __m256i = values.as_ptr().cast();
    // SAFETY: twice 32 bytes are there; the loads need no alignment.
    unsafe { (_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1))) }
}

/// The scales of the blocks of rows at `place` times `scale`: one conversion for all of them, for conversions take as long as four products.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn scales<const R: usize>(rows: [&[Q8]; R], place: usize, scale: f32) -> [f32; 4] {
    const { assert!(R <= 4, "half a register of scales") };
    let mut halves = [0; 4];
    for (half, row) in halves.iter_mut().zip(rows) {
        *half = i16::from_le_bytes([row[place][0], row[place][1]]);
    }
    let [a, b, c, d] = halves;
    let mut scales = [0.0; 4];
    let products = _mm_mul_ps(_mm_cvtph_ps(_mm_setr_epi16(a, b, c, d, 0, 0, 0, 0)), _mm_set1_ps(scale));
    // SAFETY: the array has the 16 bytes that are written.
    unsafe { _mm_storeu_ps(scales.as_mut_ptr(), products) };
    scales
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn eight(sum: __m256) -> [f32; LANES_Q8_0] {
    let mut lanes = [0.0; LANES_Q8_0];
    // SAFETY: the array has the 32 bytes that are written.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
    lanes
}

#[target_feature(enable = "avx2,f16c")]
fn widen(halves: &[Half], out: &mut [f32]) {
    let ((halves, halves_rest), (out, out_rest)) = (halves.as_chunks::<8>(), out.as_chunks_mut::<8>());
    for (halves, out) in halves.iter().zip(out) {
        // SAFETY: the chunk has the 32 bytes that are written.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(load_16(halves.as_flattened()))) };
    }
    vector::widen(halves_rest, out_rest);
}

#[inline]
#[target_feature(enable = "avx2")]
fn lane_products(a: &[[f32; LANES]], b: &[[f32; LANES]]) -> [f32; LANES] {
    let mut sums = [_mm256_setzero_ps(); 2];
    for (a, b) in a.iter().zip(b) {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = _mm256_add_ps(*sum, _mm256_mul_ps(load_8_floats(&a[8 * i..]), load_8_floats(&b[8 * i..])));
        }
    }
    lanes(sums)
}

/// Four sums at a time, each in two registers: two queries with two rows, or one with four.
#[inline]
#[target_feature(enable = "avx2")]
fn dots_floats<const Q: usize, const R: usize>(queries: [&[f32]; Q], rows: [&[f32]; R]) -> [[f32; R]; Q] {
    let mut totals = [[0.0; R]; Q];
    for (totals, queries) in totals.chunks_mut(2).zip(queries.chunks(2)) {
        match (totals, queries) {
            ([first, second], &[one, two]) => {
                let pairs = rows.as_chunks::<2>().0.iter().zip(first.as_chunks_mut::<2>().0).zip(second.as_chunks_mut::<2>().0);
                for ((rows, first), second) in pairs {
                    [[first[0], first[1]], [second[0], second[1]]] = four_dots([one, two], *rows);
                }
            }
            ([totals], &[query]) => {
                for (rows, totals) in rows.as_chunks::<4>().0.iter().zip(totals.as_chunks_mut::<4>().0) {
                    [*totals] = four_dots([query], *rows);
                }
            }
            _ => {}
        }
    }
    totals
}

#[inline]
#[target_feature(enable = "avx2")]
fn four_dots<const Q: usize, const R: usize>(queries: [&[f32]; Q], rows: [&[f32]; R]) -> [[f32; R]; Q] {
    const { assert!(Q * R == 4, "sums in eight registers") };
    let (queries, rows) = (queries.map(<[f32]>::as_chunks::<LANES>), rows.map(<[f32]>::as_chunks::<LANES>));
    let steps = queries[0].0.len();
    assert!(queries.iter().chain(&rows).all(|(whole, _)| whole.len() == steps));
    let mut sums = [[_mm256_setzero_ps(); 2]; 4];
    for step in 0..steps {
        add_products(&mut sums, queries.map(|(whole, _)| &whole[step]), rows.map(|(whole, _)| &whole[step]));
    }
    if !queries[0].1.is_empty() {
        let (queries, rows) = (queries.map(|(_, rest)| super::filled(rest)), rows.map(|(_, rest)| super::filled(rest)));
        add_products(&mut sums, queries.each_ref(), rows.each_ref());
    }
    let mut totals = [[0.0; R]; Q];
    totals.as_flattened_mut().copy_from_slice(&totals_of(sums));
    totals
}

#[inline]
#[target_feature(enable = "avx2")]
fn add_products<const Q: usize, const R: usize>(sums: &mut [[__m256; 2]; 4], queries: [&[f32; LANES]; Q], rows: [&[f32; LANES]; R]) {
    for half in 0..2 {
        let mut loaded = [_mm256_setzero_ps(); Q];
        for (loaded, query) in loaded.iter_mut().zip(queries) {
            *loaded = load_8_floats(&query[8 * half..]);
        }
        for (r, row) in rows.into_iter().enumerate() {
            let row = load_8_floats(&row[8 * half..]);
            for (q, query) in loaded.into_iter().enumerate() {
                let sum = &mut sums[q * R + r][half];
                *sum = _mm256_add_ps(*sum, _mm256_mul_ps(query, row));
            }
        }
    }
}

/// What `total` makes of four times sixteen lanes, which are added while they are transposed.
#[inline]
#[target_feature(enable = "avx2")]
fn totals_of(sums: [[__m256; 2]; 4]) -> [f32; 4] {
    let mut eight = [_mm256_setzero_ps(); 4];
    for (eight, [low, high]) in eight.iter_mut().zip(sums) {
        *eight = _mm256_add_ps(low, high);
    }
    let [a, b, c, d] = eight;
    let ac = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, c), _mm256_permute2f128_ps::<0x31>(a, c));
    let bd = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(b, d), _mm256_permute2f128_ps::<0x31>(b, d));
    // a and b in the lower half, c and d in the upper.
    let two = _mm256_add_ps(_mm256_shuffle_ps::<0b01_00_01_00>(ac, bd), _mm256_shuffle_ps::<0b11_10_11_10>(ac, bd));
    let one = _mm256_add_ps(_mm256_shuffle_ps::<0b10_00_10_00>(two, two), _mm256_shuffle_ps::<0b11_01_11_01>(two, two));
    let mut totals = [0.0; 8];
    // SAFETY: the array has the 32 bytes that are written.
    unsafe { _mm256_storeu_ps(totals.as_mut_ptr(), one) };
    [totals[0], totals[1], totals[4], totals[5]]
}

/// Registers of each output that are summed at a time: of four outputs, of two and of one.
const COLUMNS: [usize; 3] = [2, 4, 8];

/// `V` registers of each of `Q` outputs, or one where fewer are left.
#[inline]
#[target_feature(enable = "avx2")]
fn some_columns<const Q: usize, const V: usize>(weights: [&[f32]; Q], rows: Chunks<'_>, from: usize, out: [&mut [f32]; Q]) -> usize {
    if out[0].len() >= from + V * 8 { add_columns::<Q, V>(weights, rows, from, out) } else { add_columns::<Q, 1>(weights, rows, from, out) }
}

/// `V` registers of each of `Q` outputs.
#[inline]
#[target_feature(enable = "avx2")]
fn add_columns<const Q: usize, const V: usize>(weights: [&[f32]; Q], rows: Chunks<'_>, from: usize, out: [&mut [f32]; Q]) -> usize {
    let mut sums = [[_mm256_setzero_ps(); V]; Q];
    for (sums, out) in sums.iter_mut().zip(&out) {
        let Some(out) = out.get(from..from + V * 8) else { return 0 };
        for (sum, out) in sums.iter_mut().zip(out.as_chunks::<8>().0) {
            *sum = load_8_floats(out);
        }
    }
    assert!(weights.iter().all(|weights| weights.len() == rows.len()));
    for (place, row) in rows.enumerate() {
        let row = row[from..from + V * 8].as_chunks::<8>().0;
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let weight = _mm256_set1_ps(weights[place]);
            for (sum, row) in sums.iter_mut().zip(row) {
                *sum = _mm256_add_ps(*sum, _mm256_mul_ps(weight, load_8_floats(row)));
            }
        }
    }
    for (out, sums) in out.into_iter().zip(sums) {
        for (out, sum) in out[from..].as_chunks_mut::<8>().0.iter_mut().zip(sums) {
            // SAFETY: the chunk has the 32 bytes that are written.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sum) };
        }
    }
    V * 8
}

#[inline]
#[target_feature(enable = "avx2")]
fn lanes(sums: [__m256; 2]) -> [f32; LANES] {
    let mut lanes = [[0.0; 8]; 2];
    for (lanes, sum) in lanes.iter_mut().zip(sums) {
        // SAFETY: the array has the 32 bytes that are written.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
    }
    std::array::from_fn(|lane| lanes[lane / 8][lane % 8])
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_8_floats(x: &[f32]) -> __m256 {
    assert!(x.len() >= 8);
    // SAFETY: 32 bytes are there; the load needs no alignment.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_16(bytes: &[u8]) -> __m128i {
    assert!(bytes.len() >= 16);
    // SAFETY: 16 bytes are there; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}
