//! The same sums in the instructions of several processors, and, beside the threads, the only place of this crate that is not safe.
//!
//! Each file states the features that it is compiled for, and hands its functions out only where the processor has them. It holds
//! `tile`, which multiplies some rows with some tokens in registers, and the two products of dense rows. Walking a matrix is the
//! same for all and stands in [`crate::linear`] and [`crate::dense`].

pub(crate) mod reference;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
#[cfg(target_arch = "aarch64")]
mod neon;

use crate::kernel::Functions;

/// What this processor can do, fastest first.
pub(crate) fn detected() -> Vec<&'static Functions> {
    #[cfg(target_arch = "x86_64")]
    let found = [avx512::detected(), avx_vnni::detected(), avx2::detected()];
    #[cfg(target_arch = "aarch64")]
    let found = [neon::detected()];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let found: [Option<&'static Functions>; 0] = [];
    found.into_iter().flatten().collect()
}

/// Adds what is left of a row, less than a whole step, to its lanes.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn with_rest(mut lanes: [f32; crate::dense::LANES], row: &[crate::kernel::Half], x: &[f32]) -> [f32; crate::dense::LANES] {
    for ((lane, weight), x) in lanes.iter_mut().zip(row).zip(x) {
        *lane += half::f16::from_le_bytes(*weight).to_f32() * x;
    }
    lanes
}
