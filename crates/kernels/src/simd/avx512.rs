//! AVX-512 with VNNI: 64 products of 8 bits per instruction, summed in 32 bits.

use super::avx2::{eight, has, load_32_bytes, load_32_words, scales};
use super::floats::Chunks;
use crate::block16::Block16;
use crate::dense::{LANES, total, total_q8_0};
use crate::kernel::{Functions, Half, Q8};
use crate::layout::{BLOCK, BLOCK_BYTES};
use crate::vector;
use std::arch::x86_64::*;

super::floats::compiled!("avx512f,avx512bw,avx512vl,avx512dq");

pub(super) static FUNCTIONS: Functions = Functions {
    name: "avx512-vnni",
    wide: checked,
    tall: checked_tall,
    one: checked,
    panel: None,
    f16: checked_halves::<false, _>,
    bf16: checked_halves::<true, _>,
    q8_0: checked_q8_0,
    dots: Some(checked_dots),
    widen: checked_widen,
    floats: &compiled::FLOATS,
};

/// The functions, where the processor has what they were compiled for.
pub(super) fn detected() -> Option<&'static Functions> {
    let wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni");
    let narrow = is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512dq");
    (wide && narrow && has()).then_some(&FUNCTIONS)
}

fn checked<const R: usize, const T: usize>(codes: [&[u8]; R], values: [&[i8]; T]) -> [[i32; T]; R] {
    let (codes, values) = (codes.map(|codes| codes.as_chunks().0), values.map(|values| values.as_chunks().0));
    // SAFETY: FUNCTIONS leaves this module through `detected`, which has found the features, and to `amx`, which asks `detected` too.
    unsafe { tile(codes, values) }
}

fn checked_tall<const R: usize>(codes: [&[u8]; R], values: [&[i8]; 1]) -> [[i32; 1]; R] {
    let (codes, [values]) = (codes.map(|codes| codes.as_chunks().0), values);
    // SAFETY: as above.
    unsafe { tall(codes, values.as_chunks().0) }.map(|sum| [sum])
}

fn checked_halves<const BF16: bool, const R: usize>(rows: [&[Half]; R], x: &[f32]) -> [f32; R] {
    // SAFETY: as above.
    unsafe { dots_halves::<BF16, R>(rows, x) }
}

fn checked_q8_0<const R: usize>(rows: [&[Q8]; R], x: &[Block16]) -> [f32; R] {
    // SAFETY: as above.
    unsafe { dots_q8_0(rows, x) }
}

fn checked_dots(turns: u64) -> u64 {
    // SAFETY: as above.
    unsafe { dots(turns) }
}

/// Twelve sums at a time, more than are under way at once.
#[target_feature(enable = "avx512f,avx512vnni")]
fn dots(turns: u64) -> u64 {
    const SUMS: usize = 12;
    let (codes, values) = (std::hint::black_box(_mm512_set1_epi8(1)), std::hint::black_box(_mm512_set1_epi8(3)));
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for _ in 0..turns {
        sums.iter_mut().for_each(|sum| *sum = _mm512_dpbusd_epi32(*sum, codes, values));
    }
    std::hint::black_box(sums);
    turns.saturating_mul(64 * SUMS as u64)
}

fn checked_widen(halves: &[Half], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { widen(halves, out) }
}

#[target_feature(enable = "avx512f")]
fn widen(halves: &[Half], out: &mut [f32]) {
    let ((halves, halves_rest), (out, out_rest)) = (halves.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    for (halves, out) in halves.iter().zip(out) {
        // SAFETY: the chunk has the 64 bytes that are written.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), _mm512_cvtph_ps(load_32(halves.as_flattened()))) };
    }
    vector::widen(halves_rest, out_rest);
}

/// The 32 bytes of a block stand in both halves of a register, each half shifted to another group of codes: two registers hold the
/// block's 128 codes in the order of its values. Loops instead of `map`: the closures of a function with more features than its
/// callers are not inlined into `map`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile<const R: usize, const T: usize>(codes: [&[[u8; BLOCK_BYTES]]; R], values: [&[[i8; BLOCK]]; T]) -> [[i32; T]; R] {
    let both = |low: i16, high: i16| _mm512_inserti64x4::<1>(_mm512_set1_epi16(low), _mm256_set1_epi16(high));
    let (front, back, two_bits) = (both(6, 4), both(2, 0), _mm512_set1_epi8(3));
    let mut sums = [[_mm512_setzero_si512(); T]; R];
    for block in 0..codes[0].len() {
        super::prefetch_for::<T, R>(codes, block);
        let mut unpacked = [[_mm512_setzero_si512(); 2]; R];
        for (unpacked, codes) in unpacked.iter_mut().zip(codes) {
            let bytes = _mm512_broadcast_i64x4(load_32(&codes[block]));
            for (unpacked, shift) in unpacked.iter_mut().zip([front, back]) {
                *unpacked = _mm512_and_si512(_mm512_srlv_epi16(bytes, shift), two_bits);
            }
        }
        for (t, values) in values.iter().enumerate() {
            let (first, second) = load_128(&values[block]);
            for (sums, [front, back]) in sums.iter_mut().zip(unpacked) {
                sums[t] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sums[t], front, first), back, second);
            }
        }
    }
    let mut totals = [[0; T]; R];
    for (totals, sums) in totals.as_flattened_mut().chunks_mut(4).zip(sums.as_flattened().chunks(4)) {
        let mut four = [_mm512_setzero_si512(); 4];
        four[..sums.len()].copy_from_slice(sums);
        totals.copy_from_slice(&reduce(four)[..totals.len()]);
    }
    totals
}

/// Blocks of one token whose sums 32 bits hold: each adds at most 4 products of 192 and 128 to a lane.
const FOLD: usize = 16_384;

/// One token: codes stay where they are in their bytes, so that half as much is to be done per byte and memory sets the pace. Sums of
/// the four groups are then 64, 16, 4 and 1 times what they should be.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tall<const R: usize>(codes: [&[[u8; BLOCK_BYTES]]; R], values: &[[i8; BLOCK]]) -> [i32; R] {
    let both = |low: u8, high: u8| _mm512_inserti64x4::<1>(_mm512_set1_epi8(low as i8), _mm256_set1_epi8(high as i8));
    let (front, back) = (both(0xC0, 0x30), both(0x0C, 0x03));
    let (shift_front, shift_back) = (in_halves(6, 4), in_halves(2, 0));
    let mut totals = [0; R];
    for start in (0..values.len()).step_by(FOLD) {
        let mut sums = [[_mm512_setzero_si512(); 2]; R];
        for block in start..values.len().min(start + FOLD) {
            super::prefetch(codes, block);
            let (first, second) = load_128(&values[block]);
            for ([sum_front, sum_back], codes) in sums.iter_mut().zip(codes) {
                let bytes = _mm512_broadcast_i64x4(load_32(&codes[block]));
                *sum_front = _mm512_dpbusd_epi32(*sum_front, _mm512_and_si512(bytes, front), first);
                *sum_back = _mm512_dpbusd_epi32(*sum_back, _mm512_and_si512(bytes, back), second);
            }
        }
        for (totals, sums) in totals.chunks_mut(4).zip(sums.chunks(4)) {
            let mut four = [_mm512_setzero_si512(); 4];
            for (four, [sum_front, sum_back]) in four.iter_mut().zip(sums) {
                *four = _mm512_add_epi32(_mm512_srav_epi32(*sum_front, shift_front), _mm512_srav_epi32(*sum_back, shift_back));
            }
            totals.iter_mut().zip(reduce(four)).for_each(|(total, sum)| *total += sum);
        }
    }
    totals
}

#[inline]
#[target_feature(enable = "avx512f")]
fn in_halves(low: i32, high: i32) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_set1_epi32(low), _mm256_set1_epi32(high))
}

/// The sums of four registers of sixteen integers, which are added while they are transposed.
#[inline]
#[target_feature(enable = "avx512f")]
fn reduce([a, b, c, d]: [__m512i; 4]) -> [i32; 4] {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let half = _mm256_add_epi32(_mm512_castsi512_si256(abcd), _mm512_extracti64x4_epi64::<1>(abcd));
    let sums = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    let mut four = [0; 4];
    // SAFETY: the array has the 16 bytes that are written.
    unsafe { _mm_storeu_si128(four.as_mut_ptr().cast(), sums) };
    four
}

#[target_feature(enable = "avx512f")]
fn dots_halves<const BF16: bool, const R: usize>(rows: [&[Half]; R], x: &[f32]) -> [f32; R] {
    let (x, rest) = x.as_chunks::<LANES>();
    let chunks = rows.map(|row| row.as_chunks::<LANES>());
    let steps = chunks.map(|(steps, _)| steps);
    let mut sums = [_mm512_setzero_ps(); R];
    for (place, x) in x.iter().enumerate() {
        let x = load_16_floats(x);
        super::prefetch(steps, place);
        for (sum, row) in sums.iter_mut().zip(steps) {
            let halves = load_32(row[place].as_flattened());
            let weights = if BF16 { widened_bf16(halves) } else { _mm512_cvtph_ps(halves) };
            *sum = _mm512_add_ps(*sum, _mm512_mul_ps(weights, x));
        }
    }
    let mut totals = [0.0; R];
    for ((total_of, sum), (_, row)) in totals.iter_mut().zip(sums).zip(chunks) {
        *total_of = total(super::with_rest::<BF16>(lanes(sum), row, rest));
    }
    totals
}

/// A `bf16` is the upper half of a float.
#[inline]
#[target_feature(enable = "avx512f")]
fn widened_bf16(halves: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
}

/// Half a register: converting sums to floats and adding them takes as long as the products, and these are half as many.
#[target_feature(enable = "avx512f,avx512vl,avx512vnni,f16c")]
fn dots_q8_0<const R: usize>(rows: [&[Q8]; R], x: &[Block16]) -> [f32; R] {
    let mut sums = [_mm256_setzero_ps(); R];
    for (place, x) in x.iter().enumerate() {
        super::prefetch(rows, place);
        let (front, back) = load_32_words(&x.values);
        let scales = scales(rows, place, x.scale);
        for ((sum, row), scale) in sums.iter_mut().zip(rows).zip(scales) {
            let (first, second) = load_32_bytes(&row[place]);
            let products = _mm256_dpwssd_epi32(_mm256_setzero_si256(), first, front);
            let products = _mm256_cvtepi32_ps(_mm256_dpwssd_epi32(products, second, back));
            *sum = _mm256_add_ps(*sum, _mm256_mul_ps(products, _mm256_set1_ps(scale)));
        }
    }
    let mut totals = [0.0; R];
    for (total_of, sum) in totals.iter_mut().zip(sums) {
        *total_of = total_q8_0(eight(sum));
    }
    totals
}

#[inline]
#[target_feature(enable = "avx512f")]
fn lane_products(a: &[[f32; LANES]], b: &[[f32; LANES]]) -> [f32; LANES] {
    let mut sum = _mm512_setzero_ps();
    for (a, b) in a.iter().zip(b) {
        sum = _mm512_add_ps(sum, _mm512_mul_ps(load_16_floats(a), load_16_floats(b)));
    }
    lanes(sum)
}

/// Sixteen sums, of which each is computed in a register of its own.
#[inline]
#[target_feature(enable = "avx512f")]
fn dots_floats<const Q: usize, const R: usize>(queries: [&[f32]; Q], rows: [&[f32]; R]) -> [[f32; R]; Q] {
    const { assert!(Q * R == LANES, "a register of sums") };
    let (queries, rows) = (queries.map(<[f32]>::as_chunks::<LANES>), rows.map(<[f32]>::as_chunks::<LANES>));
    let steps = queries[0].0.len();
    assert!(queries.iter().chain(&rows).all(|(whole, _)| whole.len() == steps));
    let mut sums = [_mm512_setzero_ps(); LANES];
    for step in 0..steps {
        add_products(&mut sums, queries.map(|(whole, _)| &whole[step]), rows.map(|(whole, _)| &whole[step]));
    }
    if !queries[0].1.is_empty() {
        let (queries, rows) = (queries.map(|(_, rest)| super::filled(rest)), rows.map(|(_, rest)| super::filled(rest)));
        add_products(&mut sums, queries.each_ref(), rows.each_ref());
    }
    let mut totals = [[0.0; R]; Q];
    totals.as_flattened_mut().copy_from_slice(&lanes(totals_of(&sums)));
    totals
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_products<const Q: usize, const R: usize>(sums: &mut [__m512; LANES], queries: [&[f32; LANES]; Q], rows: [&[f32; LANES]; R]) {
    let mut loaded = [_mm512_setzero_ps(); R];
    for (loaded, row) in loaded.iter_mut().zip(rows) {
        *loaded = load_16_floats(row);
    }
    for (sums, query) in sums.chunks_exact_mut(R).zip(queries) {
        let query = load_16_floats(query);
        for (sum, row) in sums.iter_mut().zip(loaded) {
            *sum = _mm512_add_ps(*sum, _mm512_mul_ps(query, row));
        }
    }
}

/// What `total` makes of each register, sixteen at a time: registers are added while they are transposed.
#[inline]
#[target_feature(enable = "avx512f")]
fn totals_of(sums: &[__m512; LANES]) -> __m512 {
    let mut quarters = [_mm512_setzero_ps(); 4];
    for (i, quarter) in quarters.iter_mut().enumerate() {
        let (front, back) = (eight_apart(sums[i], sums[4 + i]), eight_apart(sums[8 + i], sums[12 + i]));
        *quarter = _mm512_add_ps(_mm512_shuffle_f32x4::<0b10_00_10_00>(front, back), _mm512_shuffle_f32x4::<0b11_01_11_01>(front, back));
    }
    let [a, b, c, d] = quarters;
    let ab = _mm512_add_ps(_mm512_shuffle_ps::<0b01_00_01_00>(a, b), _mm512_shuffle_ps::<0b11_10_11_10>(a, b));
    let cd = _mm512_add_ps(_mm512_shuffle_ps::<0b01_00_01_00>(c, d), _mm512_shuffle_ps::<0b11_10_11_10>(c, d));
    _mm512_add_ps(_mm512_shuffle_ps::<0b10_00_10_00>(ab, cd), _mm512_shuffle_ps::<0b11_01_11_01>(ab, cd))
}

/// Sums of lanes that are eight apart, of two registers.
#[inline]
#[target_feature(enable = "avx512f")]
fn eight_apart(a: __m512, b: __m512) -> __m512 {
    _mm512_add_ps(_mm512_shuffle_f32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b))
}

/// Registers of each output that are summed at a time: of four outputs, of two and of one.
const COLUMNS: [usize; 3] = [4, 4, 8];

/// `V` registers of each of `Q` outputs, or one where fewer are left.
#[inline]
#[target_feature(enable = "avx512f")]
fn some_columns<const Q: usize, const V: usize>(weights: [&[f32]; Q], rows: Chunks<'_>, from: usize, out: [&mut [f32]; Q]) -> usize {
    if out[0].len() >= from + V * LANES {
        add_columns::<Q, V>(weights, rows, from, out)
    } else {
        add_columns::<Q, 1>(weights, rows, from, out)
    }
}

/// `V` registers of each of `Q` outputs.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_columns<const Q: usize, const V: usize>(weights: [&[f32]; Q], rows: Chunks<'_>, from: usize, out: [&mut [f32]; Q]) -> usize {
    let mut sums = [[_mm512_setzero_ps(); V]; Q];
    for (sums, out) in sums.iter_mut().zip(&out) {
        let Some(out) = out.get(from..from + V * LANES) else { return 0 };
        for (sum, out) in sums.iter_mut().zip(out.as_chunks::<LANES>().0) {
            *sum = load_16_floats(out);
        }
    }
    assert!(weights.iter().all(|weights| weights.len() == rows.len()));
    for (place, row) in rows.enumerate() {
        let mut loaded = [_mm512_setzero_ps(); V];
        for (loaded, row) in loaded.iter_mut().zip(row[from..from + V * LANES].as_chunks::<LANES>().0) {
            *loaded = load_16_floats(row);
        }
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let weight = _mm512_set1_ps(weights[place]);
            for (sum, row) in sums.iter_mut().zip(loaded) {
                *sum = _mm512_add_ps(*sum, _mm512_mul_ps(weight, row));
            }
        }
    }
    for (out, sums) in out.into_iter().zip(sums) {
        for (out, sum) in out[from..].as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            // SAFETY: the chunk has the 64 bytes that are written.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
        }
    }
    V * LANES
}

#[inline]
#[target_feature(enable = "avx512f")]
fn lanes(sum: __m512) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    // SAFETY: the array has the 64 bytes that are written.
    unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), sum) };
    lanes
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_16_floats(x: &[f32]) -> __m512 {
    assert!(x.len() >= LANES);
    // SAFETY: 64 bytes are there; the load needs no alignment.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_32(bytes: &[u8]) -> __m256i {
    assert!(bytes.len() >= 32);
    // SAFETY: 32 bytes are there; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_128(values: &[i8; BLOCK]) -> (__m512i, __m512i) {
    let start: *const __m512i = values.as_ptr().cast();
    // SAFETY: twice 64 bytes are there; the loads need no alignment.
    unsafe { (_mm512_loadu_si512(start), _mm512_loadu_si512(start.add(1))) }
}
