//! Whether AMX is there, may be used, and computes what it should.

use super::{FUNCTIONS, SIDE, multiply};
use crate::kernel::{AmxError, Functions, Kernel, ROW_PANEL, Sums};
use crate::layout::{BLOCK, BLOCK_BYTES};
use crate::simd::{avx512, reference};
use std::arch::x86_64::{__cpuid_count, _xgetbv, CpuidResult};
use std::sync::OnceLock;

/// The functions, or what is missing for them: asked once per process.
pub(crate) fn offered() -> Result<&'static Functions, AmxError> {
    static OFFERED: OnceLock<Result<(), AmxError>> = OnceLock::new();
    let ask = || {
        processor(__cpuid_count)?;
        system()?;
        permission()?;
        works()
    };
    OFFERED.get_or_init(ask).map(|()| &FUNCTIONS)
}

impl Kernel {
    /// [`Kernel::amx_int8`] for tests that emulate the instructions: does not ask for them, but for AVX-512, and compares a product each time.
    ///
    /// # Errors
    /// No AVX-512, a build without vector instructions, or products that differ.
    ///
    /// # Safety
    /// LDTILECFG, TILELOADD, TILESTORED, TDPBSUD and TILERELEASE do what Intel's manual says for as long as the process lives and whichever
    /// thread executes them: by the processor, or by a handler of the signal that they raise.
    #[doc(hidden)]
    pub unsafe fn amx_int8_assumed() -> Result<Self, AmxError> {
        if cfg!(feature = "no-simd") {
            return Err(AmxError::Build);
        }
        works().map(|()| Self(&FUNCTIONS))
    }
}

/// Bits of CPUID.1:ECX, CPUID.(7, 0):EDX and XCR0.
const OSXSAVE: u32 = 1 << 27;
const AMX_TILE: u32 = 1 << 24;
const AMX_INT8: u32 = 1 << 25;
const XTILE: u64 = 0b11 << 17;

/// Whether the processor's answers to CPUID (leaf and subleaf) name tiles of the size that this module takes, and products of 8 bits.
fn processor(cpuid: impl Fn(u32, u32) -> CpuidResult) -> Result<(), AmxError> {
    let lacks = |what| Err(AmxError::Processor(what));
    let last = cpuid(0, 0).eax;
    if last < 0x1e || cpuid(7, 0).edx & (AMX_TILE | AMX_INT8) != AMX_TILE | AMX_INT8 {
        return lacks("AMX with 8-bit integers");
    }
    if cpuid(1, 0).ecx & OSXSAVE == 0 {
        return lacks("extended states that are switched on");
    }
    let (palette, product) = (cpuid(0x1d, 1), cpuid(0x1e, 0));
    // Bytes per row and number of tiles; rows; rows and bytes per row of the second factor.
    let tiles = cpuid(0x1d, 0).eax >= 1 && palette.ebx & 0xffff == 64 && palette.ebx >> 16 >= 8 && palette.ecx & 0xffff == 16;
    match tiles && product.ebx & 0xff == 16 && product.ebx >> 8 & 0xffff == 64 {
        true => Ok(()),
        false => lacks("tiles of 16 rows of 64 bytes"),
    }
}

/// Whether the system saves tiles and their configuration. Only for processors with OSXSAVE.
fn system() -> Result<(), AmxError> {
    // SAFETY: `processor` has found OSXSAVE, without which the instruction fails; register 0 is always there.
    let xcr0 = unsafe { _xgetbv(0) };
    if xcr0 & XTILE == XTILE { Ok(()) } else { Err(AmxError::System { xcr0 }) }
}

/// Asks the system for tiles, for all threads of this process (Linux, `Documentation/arch/x86/xstate.rst`).
fn permission() -> Result<(), AmxError> {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: this request takes a number, and changes nothing but what the process may use.
    let refused = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) } != 0;
    let errno = || std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    if refused { Err(AmxError::Permission { errno: errno() }) } else { Ok(()) }
}

/// Whether AVX-512 is there and a small product is that of the plain kernel: all tiles of rows and two of tokens, of which the last are not
/// whole, and two pieces of columns.
fn works() -> Result<(), AmxError> {
    const ROWS: usize = 3 * SIDE + 1;
    const TOKENS: usize = SIDE + 1;
    const COLUMNS: usize = super::PIECE + BLOCK;
    avx512::detected().ok_or(AmxError::Processor("AVX-512 with VNNI"))?;
    let mut state = 1_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let codes: Vec<u8> = (0..ROWS * COLUMNS / 4).map(|_| byte()).collect();
    let values: Vec<i8> = (0..TOKENS * COLUMNS).map(|_| byte() as i8).collect();
    let mut sums = [Sums([i32::MIN; ROW_PANEL]); TOKENS];
    multiply(&codes, &[], &values, &mut sums);
    let equal = |sum: &i32, codes, values| (reference::FUNCTIONS.one)([codes], [values]) == [[*sum]];
    let row_bytes = COLUMNS / BLOCK * BLOCK_BYTES;
    let mut tokens = sums.iter().zip(values.chunks(COLUMNS));
    let all = tokens.all(|(Sums(sums), values)| sums.iter().zip(codes.chunks(row_bytes)).all(|(sum, codes)| equal(sum, codes, values)));
    if all { Ok(()) } else { Err(AmxError::Products) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the manual has for palette 1 and its multiplier (volume 1, chapter 18; volume 2, CPUID).
    fn sapphire_rapids(leaf: u32, subleaf: u32) -> CpuidResult {
        let (eax, ebx, ecx, edx) = match (leaf, subleaf) {
            (0, 0) => (0x20, 0, 0, 0),
            (1, 0) => (0, 0, OSXSAVE, 0),
            (7, 0) => (0, 0, 0, AMX_TILE | AMX_INT8 | 1 << 22),
            (0x1d, 0) => (1, 0, 0, 0),
            (0x1d, 1) => (8192 | 1024 << 16, 64 | 8 << 16, 16, 0),
            (0x1e, 0) => (0, 16 | 64 << 8, 0, 0),
            _ => (0, 0, 0, 0),
        };
        CpuidResult { eax, ebx, ecx, edx }
    }

    #[test]
    fn a_processor_with_tiles_is_taken_and_others_are_named() {
        assert_eq!(processor(sapphire_rapids), Ok(()));
        let without = |leaf: u32, change: fn(&mut CpuidResult)| {
            processor(|asked, subleaf| {
                let mut answer = sapphire_rapids(asked, subleaf);
                if asked == leaf {
                    change(&mut answer);
                }
                answer
            })
        };
        let refused = |what| Err(AmxError::Processor(what));
        assert_eq!(without(0, |answer| answer.eax = 0x1d), refused("AMX with 8-bit integers"));
        // 16-bit floats alone.
        assert_eq!(without(7, |answer| answer.edx = AMX_TILE | 1 << 22), refused("AMX with 8-bit integers"));
        assert_eq!(without(1, |answer| answer.ecx = 0), refused("extended states that are switched on"));
        assert_eq!(without(0x1d, |answer| answer.ecx = 8), refused("tiles of 16 rows of 64 bytes"));
        assert_eq!(without(0x1e, |answer| answer.ebx = 16 | 32 << 8), refused("tiles of 16 rows of 64 bytes"));
    }

    #[test]
    fn refusals_say_what_is_missing() {
        let said = AmxError::System { xcr0: 0xe7 }.to_string();
        assert_eq!(said, "the system does not save tile registers: XCR0 is 0xe7");
        // Whatever this machine is: what it offers and what it says go together.
        assert_eq!(Kernel::amx_int8().is_ok(), Kernel::named("amx-int8").is_some());
    }
}
