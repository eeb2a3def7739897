//! CPUID and XGETBV. `None` on processors that have no such instruction.

use crate::host::Registers;

/// The registers after CPUID on the CPU that happens to run this thread.
#[cfg(target_arch = "x86_64")]
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> Option<Registers> {
    let result = std::arch::x86_64::__cpuid_count(leaf, subleaf);
    Some(Registers { eax: result.eax, ebx: result.ebx, ecx: result.ecx, edx: result.edx })
}

/// The extended control register 0: which register state the system saves.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
pub(crate) fn xcr0() -> Option<u64> {
    const OSXSAVE: u32 = 1 << 27;
    if cpuid(1, 0)?.ecx & OSXSAVE == 0 {
        return None;
    }
    // SAFETY: OSXSAVE says that the processor has XGETBV and that the system has enabled it.
    Some(unsafe { std::arch::x86_64::_xgetbv(0) })
}

/// No such instruction here.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn cpuid(_leaf: u32, _subleaf: u32) -> Option<Registers> {
    None
}

/// No such register here.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn xcr0() -> Option<u64> {
    None
}
