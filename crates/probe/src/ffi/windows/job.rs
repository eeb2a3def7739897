//! The job object that this process is in.

use super::refusal;
use crate::host::Refusal;
use std::fmt::Write;
use windows::Win32::System::JobObjects::{
    IsProcessInJob, JOB_OBJECT_CPU_RATE_CONTROL_MIN_MAX_RATE, JOBOBJECT_CPU_RATE_CONTROL_INFORMATION, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
    JOBOBJECTINFOCLASS, JobObjectCpuRateControlInformation, JobObjectExtendedLimitInformation, QueryInformationJobObject,
};
use windows::Win32::System::Threading::GetCurrentProcess;
use windows::core::BOOL;

/// `JobObjectMemoryUsageInformation`, which the public headers leave out and Microsoft's own container tools use (hcsshim,
/// `internal/winapi/jobobject.go`).
const MEMORY_USAGE: JOBOBJECTINFOCLASS = JOBOBJECTINFOCLASS(28);

#[repr(C)]
#[derive(Default)]
struct MemoryUsage {
    now: u64,
    peak: u64,
}

/// The limits of the innermost job, as lines.
///
/// # Errors
/// [`Refusal::NotFound`] where the process is in no job.
#[allow(unsafe_code)]
pub(super) fn read() -> Result<String, Refusal> {
    let mut inside = BOOL::default();
    // SAFETY: the handle is this process's own pseudo handle; the pointer is to a local number.
    unsafe { IsProcessInJob(GetCurrentProcess(), None, &raw mut inside) }.map_err(|error| refusal(&error))?;
    if !inside.as_bool() {
        return Err(Refusal::NotFound);
    }
    let limits: JOBOBJECT_EXTENDED_LIMIT_INFORMATION = query(JobObjectExtendedLimitInformation)?;
    let mut text = format!(
        "flags: {}\njob-memory: {}\nprocess-memory: {}",
        limits.BasicLimitInformation.LimitFlags.0, limits.JobMemoryLimit, limits.ProcessMemoryLimit
    );
    if let Ok(rate) = query::<JOBOBJECT_CPU_RATE_CONTROL_INFORMATION>(JobObjectCpuRateControlInformation) {
        let flags = rate.ControlFlags;
        // SAFETY: every part of the union is a number; the flag says which of them is meant.
        let parts = unsafe {
            if flags.contains(JOB_OBJECT_CPU_RATE_CONTROL_MIN_MAX_RATE) {
                rate.Anonymous.Anonymous.MaxRate.into()
            } else {
                rate.Anonymous.CpuRate
            }
        };
        let _ = write!(text, "\ncpu-flags: {}\ncpu-rate: {parts}", flags.0);
    }
    if let Ok(usage) = query::<MemoryUsage>(MEMORY_USAGE) {
        let _ = write!(text, "\nused: {}", usage.now);
    }
    Ok(text)
}

/// One class of information. `T` must be the structure of that class.
#[allow(unsafe_code)]
fn query<T: Default>(class: JOBOBJECTINFOCLASS) -> Result<T, Refusal> {
    let mut value = T::default();
    // SAFETY: no handle means the job of this process; the structure has the size that is passed, and holds numbers only.
    unsafe { QueryInformationJobObject(None, class, (&raw mut value).cast(), size_of::<T>() as u32, None) }
        .map_err(|error| refusal(&error))?;
    Ok(value)
}
