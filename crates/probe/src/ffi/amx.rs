//! Leave to use AMX, which Linux gives to a process that asks (Linux Documentation/arch/x86/xstate.rst).

use crate::host::Refusal;

/// Asks for the tile data of AMX.
///
/// # Errors
/// What the kernel says; [`Refusal::NotSupported`] on other systems and processors, and where the kernel knows no AMX.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[allow(unsafe_code)]
pub(crate) fn request() -> Result<(), Refusal> {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: this call takes two numbers, writes no memory of the process, and fails with an error where it is not known.
    let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS) => Err(Refusal::NotSupported),
        _ => Err(error.into()),
    }
}

/// No such leave here.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(crate) fn request() -> Result<(), Refusal> {
    Err(Refusal::NotSupported)
}
