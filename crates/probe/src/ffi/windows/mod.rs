//! Windows: processors, memory, the job object, power, the registry, and DXGI.
//!
//! Sources: Windows SDK headers `winnt.h`, `sysinfoapi.h`, `jobapi2.h`, `winbase.h`, `powersetting.h`.

mod dxgi;
mod job;
mod registry;

pub(crate) use dxgi::open as open_dxgi;
pub(crate) use registry::{keys as registry_keys, value as registry};

use crate::detect::windows::relations;
use crate::host::{Refusal, WindowsQuestion};
use windows::Win32::Foundation::{ERROR_ACCESS_DENIED, ERROR_FILE_NOT_FOUND, ERROR_NOT_SUPPORTED, HLOCAL, LocalFree, WIN32_ERROR};
use windows::Win32::System::Power::{GetSystemPowerStatus, PowerGetActiveScheme, SYSTEM_POWER_STATUS};
use windows::Win32::System::SystemInformation::{
    GROUP_AFFINITY, GetLogicalProcessorInformationEx, GetSystemInfo, GlobalMemoryStatusEx, IMAGE_FILE_MACHINE, IMAGE_FILE_MACHINE_AMD64,
    IMAGE_FILE_MACHINE_ARM64, MEMORYSTATUSEX, PROCESSOR_GROUP_INFO, RelationAll, SYSTEM_INFO, SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX,
};
use windows::Win32::System::Threading::{
    GetCurrentProcess, GetProcessAffinityMask, GetProcessGroupAffinity, IsProcessorFeaturePresent, IsWow64Process2, PROCESSOR_FEATURE_ID,
};
use windows::core::GUID;

// What `relations::encode` relies on.
const _: () = assert!(size_of::<GROUP_AFFINITY>() == 16 && size_of::<PROCESSOR_GROUP_INFO>() == 48);

/// The answer to one question.
///
/// # Errors
/// What the system says.
pub(crate) fn ask(question: WindowsQuestion) -> Result<String, Refusal> {
    match question {
        WindowsQuestion::Processors => processors(),
        WindowsQuestion::Affinity => affinity(),
        WindowsQuestion::Memory => memory(),
        WindowsQuestion::Job => job::read(),
        WindowsQuestion::Power => power(),
        WindowsQuestion::PowerScheme => power_scheme(),
        WindowsQuestion::Machine => machine(),
        WindowsQuestion::ArmFeatures => arm_features(),
    }
}

fn refusal(error: &windows::core::Error) -> Refusal {
    win32(WIN32_ERROR::from_error(error).unwrap_or(WIN32_ERROR(u32::MAX)))
}

fn win32(code: WIN32_ERROR) -> Refusal {
    match code {
        ERROR_FILE_NOT_FOUND => Refusal::NotFound,
        ERROR_ACCESS_DENIED => Refusal::Denied,
        ERROR_NOT_SUPPORTED => Refusal::NotSupported,
        WIN32_ERROR(code) => Refusal::Failed(format!("Windows error {code}")),
    }
}

#[allow(unsafe_code)]
fn processors() -> Result<String, Refusal> {
    let mut length = 0u32;
    // SAFETY: without a buffer the call only says how long it must be.
    let _ = unsafe { GetLogicalProcessorInformationEx(RelationAll, None, &raw mut length) };
    // Numbers of eight bytes, for the alignment that the structures want.
    let mut buffer = vec![0u64; usize::try_from(length).unwrap_or(0).div_ceil(8)];
    let start = buffer.as_mut_ptr().cast::<SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX>();
    // SAFETY: the buffer has room for `length` bytes and is aligned.
    unsafe { GetLogicalProcessorInformationEx(RelationAll, Some(start), &raw mut length) }.map_err(|error| refusal(&error))?;
    let bytes: Vec<u8> = buffer.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let written = bytes.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default();
    relations::encode(written).ok_or_else(|| Refusal::Failed("GetLogicalProcessorInformationEx wrote an odd length".into()))
}

#[allow(unsafe_code)]
fn affinity() -> Result<String, Refusal> {
    const MAX_GROUPS: u16 = 64;
    let (mut process, mut system) = (0usize, 0usize);
    // SAFETY: the handle is this process's own pseudo handle; the pointers are to local numbers.
    unsafe { GetProcessAffinityMask(GetCurrentProcess(), &raw mut process, &raw mut system) }.map_err(|error| refusal(&error))?;
    let mut groups = [0u16; MAX_GROUPS as usize];
    let mut count = MAX_GROUPS;
    // SAFETY: the array has room for `count` numbers.
    let known = unsafe { GetProcessGroupAffinity(GetCurrentProcess(), &raw mut count, groups.as_mut_ptr()) }.as_bool();
    let groups: Vec<String> = groups.iter().take(if known { count.into() } else { 0 }).map(u16::to_string).collect();
    Ok(format!("process: {process:x}\nsystem: {system:x}\ngroups: {}", groups.join(" ")))
}

#[allow(unsafe_code)]
fn memory() -> Result<String, Refusal> {
    let mut status = MEMORYSTATUSEX { dwLength: size_of::<MEMORYSTATUSEX>() as u32, ..MEMORYSTATUSEX::default() };
    // SAFETY: the structure says its own length.
    unsafe { GlobalMemoryStatusEx(&raw mut status) }.map_err(|error| refusal(&error))?;
    let mut info = SYSTEM_INFO::default();
    // SAFETY: fills a structure of fixed size.
    unsafe { GetSystemInfo(&raw mut info) };
    Ok(format!(
        "total: {}\navailable: {}\ncommit-limit: {}\ncommit-available: {}\npage: {}",
        status.ullTotalPhys, status.ullAvailPhys, status.ullTotalPageFile, status.ullAvailPageFile, info.dwPageSize
    ))
}

#[allow(unsafe_code)]
fn power() -> Result<String, Refusal> {
    let mut status = SYSTEM_POWER_STATUS::default();
    // SAFETY: fills a structure of fixed size.
    unsafe { GetSystemPowerStatus(&raw mut status) }.map_err(|error| refusal(&error))?;
    Ok(format!(
        "line: {}\nbattery: {}\nleft: {}\nsaver: {}",
        status.ACLineStatus, status.BatteryFlag, status.BatteryLifePercent, status.SystemStatusFlag
    ))
}

/// The names of the schemes that Windows comes with (`GUID_MIN_POWER_SAVINGS` and others, `winnt.h`).
#[allow(unsafe_code)]
fn power_scheme() -> Result<String, Refusal> {
    const SCHEMES: [(u128, &str); 4] = [
        (0x381b4222_f694_41f0_9685_ff5bb260df2e, "balanced"),
        (0x8c5e7fda_e8bf_4a96_9a85_a6e23a8c635c, "high performance"),
        (0xa1841308_3541_4fab_bc81_f71556f20b4a, "power saver"),
        (0xe9a42b02_d5df_448d_aa00_03f14749eb61, "ultimate performance"),
    ];
    let mut scheme: *mut GUID = std::ptr::null_mut();
    // SAFETY: the pointer is to a local pointer, which the call sets to memory that it hands over.
    let result = unsafe { PowerGetActiveScheme(None, &raw mut scheme) };
    if result.is_err() || scheme.is_null() {
        return Err(win32(result));
    }
    // SAFETY: the call succeeded, so that the pointer is to one GUID; it is freed once, as the documentation says, and not used after.
    let found = unsafe {
        let found = scheme.read_unaligned();
        LocalFree(Some(HLOCAL(scheme.cast())));
        found
    };
    let name = SCHEMES.iter().find(|(guid, _)| GUID::from_u128(*guid) == found).map_or("custom", |(_, name)| name);
    Ok(name.to_owned())
}

#[allow(unsafe_code)]
fn machine() -> Result<String, Refusal> {
    let (mut process, mut native) = (IMAGE_FILE_MACHINE::default(), IMAGE_FILE_MACHINE::default());
    // SAFETY: the handle is this process's own pseudo handle; the pointers are to local numbers.
    unsafe { IsWow64Process2(GetCurrentProcess(), &raw mut process, Some(&raw mut native)) }.map_err(|error| refusal(&error))?;
    match native {
        IMAGE_FILE_MACHINE_AMD64 => Ok("x86_64".into()),
        IMAGE_FILE_MACHINE_ARM64 => Ok("aarch64".into()),
        _ => Err(Refusal::NotSupported),
    }
}

/// `PF_ARM_*` of `winnt.h`; those after 45 are newer than the bindings.
#[allow(unsafe_code)]
fn arm_features() -> Result<String, Refusal> {
    const FEATURES: [(u32, &str); 7] = [(19, "neon"), (43, "dotprod"), (46, "sve"), (47, "sve2"), (66, "i8mm"), (67, "fp16"), (68, "bf16")];
    if !cfg!(target_arch = "aarch64") {
        return Err(Refusal::NotSupported);
    }
    // SAFETY: takes a number; one that it does not know is absent.
    let has = |number: u32| unsafe { IsProcessorFeaturePresent(PROCESSOR_FEATURE_ID(number)) }.as_bool();
    Ok(FEATURES.iter().filter(|(number, _)| has(*number)).map(|(_, name)| *name).collect::<Vec<_>>().join(" "))
}
