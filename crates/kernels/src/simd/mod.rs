//! The same sums in the instructions of several processors, and, beside the threads, the only place of this crate that is not safe.
//!
//! Each file states the features that it is compiled for, and hands its functions out only where the processor has them. It holds
//! `tile`, which multiplies some rows with some tokens in registers, and the two products of dense rows; that of AMX holds a panel of
//! rows times many tokens instead. Walking a matrix is the same for all and stands in [`crate::linear`] and [`crate::dense`].

pub(crate) mod floats;
pub(crate) mod reference;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
#[cfg(target_arch = "aarch64")]
mod neon;

use crate::kernel::{AmxError, Functions};
#[cfg(target_arch = "x86_64")]
use crate::layout::BLOCK_BYTES;

/// What this processor can do, fastest first.
pub(crate) fn detected() -> Vec<&'static Functions> {
    #[cfg(target_arch = "x86_64")]
    let found = [amx_int8().ok(), avx512::detected(), avx_vnni::detected(), avx2::detected()];
    #[cfg(target_arch = "aarch64")]
    let found = [neon::detected()];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let found: [Option<&'static Functions>; 0] = [];
    found.into_iter().flatten().collect()
}

/// AMX, or why there is none.
pub(crate) fn amx_int8() -> Result<&'static Functions, AmxError> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    let offered = amx::offered();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    let offered = Err(AmxError::Build);
    offered
}

/// Asks for what the `R` rows will be read for later: each goes on in memory with the next row of its part of the matrix.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch<const R: usize, T>(rows: [&[T]; R], step: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    /// Far enough for a core to have as many lines under way as memory answers, and not so far that much is asked for beyond the end of a
    /// piece: of 0, 256, 384, 512, 640, 768, 1024, 2048, 4096 and 8192 bytes those from 256 to 512 are fastest on a Zen 4.
    const AHEAD: usize = 512;
    for row in rows {
        let ahead = row.as_ptr().wrapping_add(step).cast::<i8>().wrapping_add(AHEAD);
        // SAFETY: a prefetch reads nothing that the program sees, and no address makes it fail.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead) };
    }
}

/// Asks for bytes that are read soon: on x86-64 they come to the second cache of the core, elsewhere nothing happens. It costs an instruction per
/// 64 bytes, and waits for none of them.
#[inline]
pub fn expect(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: as in `prefetch`; the address is that of a byte of the slice.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    // On other processors their own prefetchers have to do.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// What [`prefetch`] does, for a block of packed rows that `T` tokens are multiplied with: several read a panel of rows again and again, from a cache.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_for<const T: usize, const R: usize>(rows: [&[[u8; BLOCK_BYTES]]; R], block: usize) {
    if T == 1 {
        prefetch(rows, block);
    }
}

/// Adds what is left of a row, less than a whole step, to its lanes.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn with_rest<const BF16: bool>(
    mut lanes: [f32; crate::dense::LANES],
    row: &[crate::kernel::Half],
    x: &[f32],
) -> [f32; crate::dense::LANES] {
    for ((lane, weight), x) in lanes.iter_mut().zip(row).zip(x) {
        *lane += crate::kernel::float::<BF16>(*weight) * x;
    }
    lanes
}

/// Less than sixteen floats, and zeros: their products add nothing to a lane, which is never −0.
#[cfg(target_arch = "x86_64")]
fn filled(rest: &[f32]) -> [f32; crate::dense::LANES] {
    let mut lanes = [0.0; crate::dense::LANES];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}
