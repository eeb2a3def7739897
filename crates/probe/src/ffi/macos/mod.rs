//! macOS: values of the kernel, pages of memory, power, and Metal.
//!
//! Sources: macOS SDK headers `sys/sysctl.h`, `mach/host_info.h`, `IOKit/ps/IOPowerSources.h`, `Foundation/NSProcessInfo.h`.

mod metal;

pub(crate) use metal::open as open_metal;

use crate::detect::macos::sysctl as values;
use crate::host::{MacQuestion, Refusal};
use objc2::runtime::NSObjectProtocol;
use objc2::sel;
use objc2_core_foundation::{CFDictionary, CFNumber, CFRetained, CFString, CFType};
use objc2_foundation::{NSProcessInfo, NSProcessInfoThermalState};
use objc2_io_kit::{IOPSCopyPowerSourcesInfo, IOPSCopyPowerSourcesList, IOPSGetPowerSourceDescription, IOPSGetProvidingPowerSourceType};
use std::ffi::CString;
use std::fmt::Write;

/// Longer than any value that is asked for.
const MAX_VALUE: usize = 4096;

/// A value of the kernel, in the form of [`Question::Sysctl`](crate::Question::Sysctl).
///
/// # Errors
/// [`Refusal::NotFound`] where the kernel has no such value.
#[allow(unsafe_code)]
pub(crate) fn sysctl(name: &str) -> Result<String, Refusal> {
    let named = CString::new(name).map_err(|_| Refusal::NotFound)?;
    let mut bytes = vec![0u8; MAX_VALUE];
    let mut length = bytes.len();
    // SAFETY: the name ends in NUL; the buffer has room for `length` bytes; nothing is set.
    let result = unsafe { libc::sysctlbyname(named.as_ptr(), bytes.as_mut_ptr().cast(), &raw mut length, std::ptr::null_mut(), 0) };
    if result != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    bytes.truncate(length);
    values::decode(name, &bytes).ok_or(Refusal::NotSupported)
}

/// The answer to one question.
///
/// # Errors
/// What the system says; [`Refusal::NotSupported`] on a version without it.
pub(crate) fn ask(question: MacQuestion) -> Result<String, Refusal> {
    match question {
        MacQuestion::Memory => memory(),
        MacQuestion::Power => power(),
        MacQuestion::LowPower => low_power(),
        MacQuestion::Thermal => thermal(),
    }
}

#[allow(unsafe_code)]
fn memory() -> Result<String, Refusal> {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut pages: libc::vm_statistics64 = unsafe { std::mem::zeroed() };
    let mut count = libc::HOST_VM_INFO64_COUNT;
    // SAFETY: takes no argument. The port is this process's own and lives as long as it.
    #[allow(deprecated, reason = "libc names another crate; a dependency for one call")]
    let host = unsafe { libc::mach_host_self() };
    // SAFETY: `pages` has room for `count` words, which is the size of the structure that this flavour fills.
    let result = unsafe { libc::host_statistics64(host, libc::HOST_VM_INFO64, (&raw mut pages).cast(), &raw mut count) };
    if result != libc::KERN_SUCCESS {
        return Err(Refusal::Failed(format!("host_statistics64: {result}")));
    }
    let fields = [
        ("free", pages.free_count),
        ("active", pages.active_count),
        ("inactive", pages.inactive_count),
        ("speculative", pages.speculative_count),
        ("wired", pages.wire_count),
        ("purgeable", pages.purgeable_count),
        ("file-backed", pages.external_page_count),
        ("anonymous", pages.internal_page_count),
        ("compressor", pages.compressor_page_count),
    ];
    let mut text = String::new();
    for (name, number) in fields {
        let _ = writeln!(text, "{name}: {number}");
    }
    Ok(text)
}

#[allow(unsafe_code)]
fn power() -> Result<String, Refusal> {
    let info = IOPSCopyPowerSourcesInfo().ok_or(Refusal::NotSupported)?;
    // SAFETY: the snapshot is what IOPSCopyPowerSourcesInfo made, and lives through the call.
    let source = unsafe { IOPSGetProvidingPowerSourceType(Some(&info)) }.ok_or(Refusal::NotSupported)?;
    let left = battery(&info).map_or_else(String::new, |left| format!("\nleft: {left}"));
    Ok(format!("{source}{left}"))
}

/// Charge of the first battery, in per cent.
#[allow(unsafe_code)]
fn battery(info: &CFType) -> Option<i64> {
    // SAFETY: the snapshot is what IOPSCopyPowerSourcesInfo made, and lives through the call.
    let sources = unsafe { IOPSCopyPowerSourcesList(Some(info)) }?;
    // SAFETY: the header says that the array holds power sources, each of type CFTypeRef.
    let sources = unsafe { CFRetained::cast_unchecked::<objc2_core_foundation::CFArray<CFType>>(sources) };
    sources.iter().find_map(|source| {
        // SAFETY: snapshot and source belong together.
        let description = unsafe { IOPSGetPowerSourceDescription(Some(info), Some(&source)) }?;
        // SAFETY: the header says that the keys of a description are strings; values are checked when they are read.
        let description = unsafe { CFRetained::cast_unchecked::<CFDictionary<CFString, CFType>>(description) };
        let number = |key: &'static str| description.get(&CFString::from_static_str(key))?.downcast_ref::<CFNumber>()?.as_i64();
        let (now, full) = (number("Current Capacity")?, number("Max Capacity").filter(|full| *full > 0)?);
        now.checked_mul(100).map(|now| now / full)
    })
}

fn low_power() -> Result<String, Refusal> {
    let info = NSProcessInfo::processInfo();
    // macOS 12 and later.
    if !info.respondsToSelector(sel!(isLowPowerModeEnabled)) {
        return Err(Refusal::NotSupported);
    }
    Ok(u8::from(info.isLowPowerModeEnabled()).to_string())
}

fn thermal() -> Result<String, Refusal> {
    let state = NSProcessInfo::processInfo().thermalState();
    let names = [
        (NSProcessInfoThermalState::Nominal, "nominal"),
        (NSProcessInfoThermalState::Fair, "fair"),
        (NSProcessInfoThermalState::Serious, "serious"),
        (NSProcessInfoThermalState::Critical, "critical"),
    ];
    names.iter().find(|(known, _)| *known == state).map(|(_, name)| (*name).to_owned()).ok_or(Refusal::NotSupported)
}
