//! How much memory of a device is free.

use spec::Bytes;

// The targets for which wgpu has Vulkan.
#[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
mod vulkan;

/// No target for which wgpu has Vulkan.
#[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")))]
mod vulkan {
    /// There are none here.
    #[derive(Clone, Debug)]
    pub(crate) enum Heaps {}

    impl Heaps {
        pub(crate) fn of(_: &wgpu::Adapter) -> Option<Self> {
            None
        }

        pub(crate) fn memory(&self) -> Option<super::Memory> {
            match *self {}
        }
    }
}

pub(crate) use vulkan::Heaps;

/// Memory of a device as its driver tells it now: of the heap that is local to the device, the largest one if there are several.
///
/// Vulkan 1.3 specification, VK_EXT_memory_budget: a heap's budget is a rough estimate of what this process may have there in all, what it
/// has already included, before allocations fail or become slow. It changes with what other programs take, and promises nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What this process may take on top of what it has: the budget less `used`, at most `total`.
    pub free: Bytes,
    /// The heap's size, whoever has it.
    pub total: Bytes,
    /// What this process has there, by the driver's estimate. Mesa's software driver, where it has the extension, tells what the whole machine
    /// has in use instead (`src/gallium/frontends/lavapipe/lvp_device.c:lvp_GetPhysicalDeviceMemoryProperties2`).
    pub used: Bytes,
}
