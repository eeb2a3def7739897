//! AVX-VNNI: 32 products of 8 bits per instruction, summed in 32 bits. The dense head is AVX2's.

use super::avx2::{checked_f16, checked_q8_0, has, load_groups, reduce, unpack};
use crate::kernel::Functions;
use crate::layout::{BLOCK, BLOCK_BYTES};
use std::arch::x86_64::*;

static FUNCTIONS: Functions =
    Functions { name: "avx-vnni", wide: checked, tall: checked, one: checked, f16: checked_f16, q8_0: checked_q8_0 };

/// The functions, where the processor has what they were compiled for.
pub(super) fn detected() -> Option<&'static Functions> {
    (has() && is_x86_feature_detected!("avxvnni")).then_some(&FUNCTIONS)
}

fn checked<const R: usize, const T: usize>(codes: [&[u8]; R], values: [&[i8]; T]) -> [[i32; T]; R] {
    // SAFETY: FUNCTIONS leaves this module only through `detected`, which has found the features.
    unsafe { tile(codes, values) }
}

#[target_feature(enable = "avx2,avxvnni")]
fn tile<const R: usize, const T: usize>(codes: [&[u8]; R], values: [&[i8]; T]) -> [[i32; T]; R] {
    let codes = codes.map(|codes| codes.as_chunks::<BLOCK_BYTES>().0);
    let values = values.map(|values| values.as_chunks::<BLOCK>().0);
    let two_bits = _mm256_set1_epi8(3);
    let mut sums = [[_mm256_setzero_si256(); T]; R];
    for block in 0..codes[0].len() {
        for (sums, codes) in sums.iter_mut().zip(codes) {
            let groups = unpack(&codes[block], two_bits);
            for (sum, values) in sums.iter_mut().zip(values) {
                for (codes, values) in groups.into_iter().zip(load_groups(&values[block])) {
                    *sum = _mm256_dpbusd_avx_epi32(*sum, codes, values);
                }
            }
        }
    }
    sums.map(|sums| sums.map(|sum| reduce(sum)))
}
