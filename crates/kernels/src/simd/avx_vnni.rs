//! AVX-VNNI: 32 products of 8 bits per instruction, summed in 32 bits. The dense head is AVX2's.

use super::avx2::{FLOATS, checked_halves, checked_q8_0, checked_widen, has, load_group, reduce, unpack};
use crate::kernel::Functions;
use crate::layout::{BLOCK, BLOCK_BYTES};
use std::arch::x86_64::*;

static FUNCTIONS: Functions = Functions {
    name: "avx-vnni",
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
    (has() && is_x86_feature_detected!("avxvnni")).then_some(&FUNCTIONS)
}

fn checked<const R: usize, const T: usize>(codes: [&[u8]; R], values: [&[i8]; T]) -> [[i32; T]; R] {
    let (codes, values) = (codes.map(|codes| codes.as_chunks().0), values.map(|values| values.as_chunks().0));
    // SAFETY: FUNCTIONS leaves this module only through `detected`, which has found the features.
    unsafe { tile(codes, values) }
}

/// Several tokens take two rows at a time: their sums, a group of codes of each and one of values fit the sixteen registers.
#[target_feature(enable = "avx2,avxvnni")]
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
#[target_feature(enable = "avx2,avxvnni")]
fn rows<const R: usize, const T: usize>(codes: [&[[u8; BLOCK_BYTES]]; R], values: [&[[i8; BLOCK]]; T]) -> [[i32; T]; R] {
    let two_bits = _mm256_set1_epi8(3);
    let mut sums = [[_mm256_setzero_si256(); T]; R];
    for block in 0..codes[0].len() {
        super::prefetch_for::<T, R>(codes, block);
        for group in 0..4 {
            let mut unpacked = [_mm256_setzero_si256(); R];
            for (unpacked, codes) in unpacked.iter_mut().zip(codes) {
                *unpacked = unpack(&codes[block], group, two_bits);
            }
            for (t, values) in values.iter().enumerate() {
                let values = load_group(&values[block], group);
                for (sums, codes) in sums.iter_mut().zip(unpacked) {
                    sums[t] = _mm256_dpbusd_avx_epi32(sums[t], codes, values);
                }
            }
        }
    }
    let mut totals = [[0; T]; R];
    for (total, sum) in totals.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        *total = reduce(*sum);
    }
    totals
}
