//! NEON with the dot products of ARMv8.2: 16 products of 8 bits per instruction, summed in 32 bits.

use super::floats::FLOATS;
use crate::dense::{LANES, total};
use crate::kernel::{Functions, Half, Q8, float};
use crate::layout::{BLOCK, BLOCK_BYTES};
use crate::vector::widen;
use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

static FUNCTIONS: Functions = Functions {
    name: "neon-dot",
    wide: checked,
    tall: checked,
    one: checked,
    f16: checked_halves::<false, _>,
    bf16: checked_halves::<true, _>,
    q8_0: checked_q8_0,
    dots: None,
    widen,
    floats: &FLOATS,
};

/// The functions, where the processor has what they were compiled for.
pub(super) fn detected() -> Option<&'static Functions> {
    (is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod")).then_some(&FUNCTIONS)
}

fn checked<const R: usize, const T: usize>(codes: [&[u8]; R], values: [&[i8]; T]) -> [[i32; T]; R] {
    // SAFETY: FUNCTIONS leaves this module only through `detected`, which has found the features.
    unsafe { tile(codes, values) }
}

fn checked_halves<const BF16: bool, const R: usize>(rows: [&[Half]; R], x: &[f32]) -> [f32; R] {
    // SAFETY: as above.
    unsafe { dots_halves::<BF16, R>(rows, x) }
}

fn checked_q8_0<const R: usize>(rows: [&[Q8]; R], x: &[f32]) -> [f32; R] {
    // SAFETY: as above.
    unsafe { dots_q8_0(rows, x) }
}

#[target_feature(enable = "neon,dotprod")]
fn tile<const R: usize, const T: usize>(codes: [&[u8]; R], values: [&[i8]; T]) -> [[i32; T]; R] {
    let codes = codes.map(|codes| codes.as_chunks::<BLOCK_BYTES>().0);
    let values = values.map(|values| values.as_chunks::<BLOCK>().0);
    let two_bits = vdupq_n_u8(3);
    let mut sums = [[vdupq_n_s32(0); T]; R];
    for block in 0..codes[0].len() {
        for (sums, codes) in sums.iter_mut().zip(codes) {
            let groups = unpack(&codes[block], two_bits);
            for (sum, values) in sums.iter_mut().zip(values) {
                for (codes, values) in groups.into_iter().zip(values[block].as_chunks().0) {
                    *sum = dot(*sum, codes, load_16(values));
                }
            }
        }
    }
    sums.map(|sums| sums.map(|sum| vaddvq_s32(sum)))
}

/// The codes of a block, 16 by 16 in the order of its values.
#[inline]
#[target_feature(enable = "neon")]
fn unpack(bytes: &[u8; BLOCK_BYTES], two_bits: uint8x16_t) -> [int8x16_t; 8] {
    // SAFETY: twice 16 bytes are there; the loads need no alignment.
    let (low, high) = unsafe { (vld1q_u8(bytes.as_ptr()), vld1q_u8(bytes.as_ptr().add(16))) };
    let at = |shifted: uint8x16_t| vreinterpretq_s8_u8(vandq_u8(shifted, two_bits));
    [
        at(vshrq_n_u8::<6>(low)),
        at(vshrq_n_u8::<6>(high)),
        at(vshrq_n_u8::<4>(low)),
        at(vshrq_n_u8::<4>(high)),
        at(vshrq_n_u8::<2>(low)),
        at(vshrq_n_u8::<2>(high)),
        at(low),
        at(high),
    ]
}

/// `sdot`, whose intrinsic is not stable in Rust 1.95.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot(sum: int32x4_t, codes: int8x16_t, values: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: the instruction reads and writes the named registers only, and the function's features include it.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {codes:v}.16b, {values:v}.16b",
            sum = inout(vreg) sum,
            codes = in(vreg) codes,
            values = in(vreg) values,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15. Conversion of `f16` is left to the `half` crate, whose instruction for it is not stable here.
#[target_feature(enable = "neon")]
fn dots_halves<const BF16: bool, const R: usize>(rows: [&[Half]; R], x: &[f32]) -> [f32; R] {
    let (x, rest) = x.as_chunks::<LANES>();
    let chunks = rows.map(|row| row.as_chunks::<LANES>());
    let mut sums = [[vdupq_n_f32(0.0); 4]; R];
    for (place, x) in x.iter().enumerate() {
        for (sums, (row, _)) in sums.iter_mut().zip(chunks) {
            let weights: [f32; LANES] = row[place].map(float::<BF16>);
            for ((sum, x), weights) in sums.iter_mut().zip(x.as_chunks().0).zip(weights.as_chunks().0) {
                *sum = vaddq_f32(*sum, vmulq_f32(load_4_floats(weights), load_4_floats(x)));
            }
        }
    }
    let mut totals = [0.0; R];
    for ((total_of, sums), (_, row)) in totals.iter_mut().zip(sums).zip(chunks) {
        *total_of = total(super::with_rest::<BF16>(lanes(sums), row, rest));
    }
    totals
}

#[target_feature(enable = "neon")]
fn dots_q8_0<const R: usize>(rows: [&[Q8]; R], x: &[f32]) -> [f32; R] {
    let mut sums = [[vdupq_n_f32(0.0); 4]; R];
    for (place, x) in x.as_chunks::<32>().0.iter().enumerate() {
        let x = x.as_chunks::<4>().0;
        for (sums, row) in sums.iter_mut().zip(rows) {
            let (scale, integers) = row[place].split_at(2);
            let scale = vdupq_n_f32(half::f16::from_le_bytes([scale[0], scale[1]]).to_f32());
            let integers = integers.as_chunks::<4>().0;
            let product = |i: usize| {
                let weights = integers[i].map(|weight| f32::from(weight as i8));
                vmulq_f32(load_4_floats(&weights), load_4_floats(&x[i]))
            };
            for (quarter, sum) in sums.iter_mut().enumerate() {
                *sum = vaddq_f32(*sum, vmulq_f32(scale, vaddq_f32(product(quarter), product(quarter + 4))));
            }
        }
    }
    let mut totals = [0.0; R];
    for (total_of, sums) in totals.iter_mut().zip(sums) {
        *total_of = total(lanes(sums));
    }
    totals
}

#[inline]
#[target_feature(enable = "neon")]
fn lanes(sums: [float32x4_t; 4]) -> [f32; LANES] {
    let mut lanes = [[0.0; 4]; 4];
    for (lanes, sum) in lanes.iter_mut().zip(sums) {
        // SAFETY: the array has the 16 bytes that are written.
        unsafe { vst1q_f32(lanes.as_mut_ptr(), sum) };
    }
    std::array::from_fn(|lane| lanes[lane / 4][lane % 4])
}

#[inline]
#[target_feature(enable = "neon")]
fn load_16(values: &[i8; 16]) -> int8x16_t {
    // SAFETY: 16 bytes are there; the load needs no alignment.
    unsafe { vld1q_s8(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_4_floats(x: &[f32; 4]) -> float32x4_t {
    // SAFETY: 16 bytes are there; the load needs no alignment.
    unsafe { vld1q_f32(x.as_ptr()) }
}
