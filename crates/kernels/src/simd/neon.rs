//! NEON with the dot products of ARMv8.2: 16 products of 8 bits per instruction, summed in 32 bits.

use super::floats::FLOATS;
use crate::block16::Block16;
use crate::dense::{LANES, LANES_Q8_0, total, total_q8_0};
use crate::kernel::{Functions, Half, Q8};
use crate::layout::{BLOCK, BLOCK_BYTES};
use crate::vector;
use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

static FUNCTIONS: Functions = Functions {
    name: "neon-dot",
    wide: checked,
    tall: checked,
    one: checked,
    panel: None,
    f16: checked_halves::<false, _>,
    bf16: checked_halves::<true, _>,
    q8_0: checked_q8_0,
    dots: None,
    widen: checked_widen,
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

fn checked_widen(halves: &[Half], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { widen(halves, out) }
}

fn checked_q8_0<const R: usize>(rows: [&[Q8]; R], x: &[Block16]) -> [f32; R] {
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

#[target_feature(enable = "neon")]
fn widen(halves: &[Half], out: &mut [f32]) {
    let ((halves, halves_rest), (out, out_rest)) = (halves.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    for (halves, out) in halves.iter().zip(out) {
        for (out, part) in out.as_chunks_mut::<4>().0.iter_mut().zip(widened::<false>(halves)) {
            // SAFETY: the chunk has the 16 bytes that are written.
            unsafe { vst1q_f32(out.as_mut_ptr(), part) };
        }
    }
    vector::widen(halves_rest, out_rest);
}

/// Sixteen 16-bit floats: lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
#[inline]
#[target_feature(enable = "neon")]
fn widened<const BF16: bool>(halves: &[Half; LANES]) -> [float32x4_t; 4] {
    let start: *const u16 = halves.as_ptr().cast();
    // SAFETY: twice 16 bytes are there; the loads need no alignment, and bytes lie in the order of a little-endian processor, which all
    // of Rust's targets with `neon` found at run time are.
    let (low, high) = unsafe { (vld1q_u16(start), vld1q_u16(start.add(8))) };
    let quarters = [vget_low_u16(low), vget_high_u16(low), vget_low_u16(high), vget_high_u16(high)];
    let mut floats = [vdupq_n_f32(0.0); 4];
    for (floats, halves) in floats.iter_mut().zip(quarters) {
        // A `bf16` is the upper half of a float.
        *floats = if BF16 { vreinterpretq_f32_u32(vshll_n_u16::<16>(halves)) } else { converted(halves) };
    }
    floats
}

/// `fcvtl`, whose intrinsic is not stable in Rust 1.95.
#[inline]
#[target_feature(enable = "neon")]
fn converted(halves: uint16x4_t) -> float32x4_t {
    let floats: float32x4_t;
    // SAFETY: the instruction reads and writes the named registers only, and every processor with NEON has it.
    unsafe {
        asm!(
            "fcvtl {floats:v}.4s, {halves:v}.4h",
            floats = lateout(vreg) floats,
            halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    floats
}

/// Lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
#[target_feature(enable = "neon")]
fn dots_halves<const BF16: bool, const R: usize>(rows: [&[Half]; R], x: &[f32]) -> [f32; R] {
    let (x, rest) = x.as_chunks::<LANES>();
    let chunks = rows.map(|row| row.as_chunks::<LANES>());
    let mut sums = [[vdupq_n_f32(0.0); 4]; R];
    for (place, x) in x.iter().enumerate() {
        for (sums, (row, _)) in sums.iter_mut().zip(chunks) {
            let weights = widened::<BF16>(&row[place]);
            for ((sum, x), weights) in sums.iter_mut().zip(x.as_chunks().0).zip(weights) {
                *sum = vaddq_f32(*sum, vmulq_f32(weights, load_4_floats(x)));
            }
        }
    }
    let mut totals = [0.0; R];
    for ((total_of, sums), (_, row)) in totals.iter_mut().zip(sums).zip(chunks) {
        *total_of = total(super::with_rest::<BF16>(lanes(sums), row, rest));
    }
    totals
}

/// Lanes 0 to 3 and 4 to 7.
#[target_feature(enable = "neon")]
fn dots_q8_0<const R: usize>(rows: [&[Q8]; R], x: &[Block16]) -> [f32; R] {
    let mut sums = [[vdupq_n_f32(0.0); 2]; R];
    for (place, x) in x.iter().enumerate() {
        let (front, back) = x.values.split_at(LANES);
        for (sums, row) in sums.iter_mut().zip(rows) {
            let (scale, integers) = row[place].split_at(2);
            let scale = vmulq_n_f32(converted(vdup_n_u16(u16::from_le_bytes([scale[0], scale[1]]))), x.scale);
            for (half, sum) in sums.iter_mut().enumerate() {
                let eight = |start: usize| load_8_words(&integers[start + 8 * half..]);
                let (first, second) = (eight(0), eight(LANES));
                let (x_first, x_second) = (load_8_shorts(&front[8 * half..]), load_8_shorts(&back[8 * half..]));
                let low = vmlal_s16(vmull_s16(vget_low_s16(first), vget_low_s16(x_first)), vget_low_s16(second), vget_low_s16(x_second));
                let high = vmlal_high_s16(vmull_high_s16(first, x_first), second, x_second);
                *sum = vaddq_f32(*sum, vmulq_f32(vcvtq_f32_s32(vpaddq_s32(low, high)), scale));
            }
        }
    }
    let mut totals = [0.0; R];
    for (total_of, sums) in totals.iter_mut().zip(sums) {
        let mut lanes = [0.0; LANES_Q8_0];
        for (lanes, sum) in lanes.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
            // SAFETY: the array has the 16 bytes that are written.
            unsafe { vst1q_f32(lanes.as_mut_ptr(), sum) };
        }
        *total_of = total_q8_0(lanes);
    }
    totals
}

/// Eight integers of 8 bits in 16.
#[inline]
#[target_feature(enable = "neon")]
fn load_8_words(bytes: &[u8]) -> int16x8_t {
    assert!(bytes.len() >= 8);
    // SAFETY: 8 bytes are there; the load needs no alignment.
    vmovl_s8(unsafe { vld1_s8(bytes.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "neon")]
fn load_8_shorts(values: &[i16]) -> int16x8_t {
    assert!(values.len() >= 8);
    // SAFETY: 16 bytes are there; the load needs no alignment.
    unsafe { vld1q_s16(values.as_ptr()) }
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
