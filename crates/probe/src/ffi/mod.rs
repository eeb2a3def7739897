//! What cannot be asked through files: instructions of the processor, calls of the system and libraries of drivers. The only
//! unsafe code of this crate; every function here is safe to call.

pub(crate) mod amx;
pub(crate) mod cpuid;
pub(crate) mod nvml;

// A question for another system is answered here too: with a refusal.
#[cfg(target_os = "macos")]
pub(crate) mod macos;
#[cfg(not(target_os = "macos"))]
#[path = "elsewhere_macos.rs"]
pub(crate) mod macos;
pub(crate) mod vulkan;
#[cfg(windows)]
pub(crate) mod windows;
#[cfg(not(windows))]
#[path = "elsewhere_windows.rs"]
pub(crate) mod windows;
