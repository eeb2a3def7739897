//! The one place of this crate with unsafe code: Vulkan's budgets of heaps, behind functions that anyone can call.

use super::Memory;
use ash::{ext, vk};
use spec::Bytes;
use wgpu::hal::api::Vulkan;

/// The heaps of an adapter whose driver tells their budgets.
#[derive(Clone, Debug)]
pub(crate) struct Heaps(wgpu::Adapter);

impl Heaps {
    /// Asks once whether the driver tells budgets; `None` where it does not, is older than Vulkan 1.1, or is not Vulkan's.
    #[allow(unsafe_code)]
    pub(crate) fn of(adapter: &wgpu::Adapter) -> Option<Self> {
        // SAFETY: nothing of the adapter is destroyed.
        let open = unsafe { adapter.as_hal::<Vulkan>() }?;
        if !can_be_asked(&open) {
            return None;
        }
        // Not wgpu's list, which leaves the extension out for Mesa's driver of AMD (wgpu-hal 30.0.1 `vulkan/adapter.rs:2001`): that
        // miscounts memory which other programs share with this one, and there is none of it here.
        // SAFETY: the instance is alive while `open` is, and the device is one of its.
        let listed = unsafe { open.shared_instance().raw_instance().enumerate_device_extension_properties(open.raw_physical_device()) };
        let is_budget = |extension: &vk::ExtensionProperties| extension.extension_name_as_c_str() == Ok(ext::memory_budget::NAME);
        listed.ok()?.iter().any(is_budget).then(|| Self(adapter.clone()))
    }

    /// What they have now; `None` where the driver fills in nothing.
    #[allow(unsafe_code)]
    pub(crate) fn memory(&self) -> Option<Memory> {
        // SAFETY: nothing of the adapter is destroyed.
        let open = unsafe { self.0.as_hal::<Vulkan>() }?;
        let mut told = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut asked = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut told);
        let instance = open.shared_instance().raw_instance();
        // SAFETY: the instance is alive while `open` is, and the device is one of its; both can be asked, or there were no `Heaps`. A
        // driver fills in the chained structure or skips it.
        unsafe { instance.get_physical_device_memory_properties2(open.raw_physical_device(), &mut asked) };
        let heaps = asked.memory_properties;
        largest(&heaps, &told)
    }
}

/// Whether instance and device are of version 1.1 or newer, and so have the question.
fn can_be_asked(open: &wgpu::hal::vulkan::Adapter) -> bool {
    let version = open.physical_device_capabilities().properties().api_version;
    open.shared_instance().instance_api_version().min(version) >= vk::API_VERSION_1_1
}

/// The largest heap that is local to the device, the first of several such.
fn largest(heaps: &vk::PhysicalDeviceMemoryProperties, told: &vk::PhysicalDeviceMemoryBudgetPropertiesEXT<'_>) -> Option<Memory> {
    let all = heaps.memory_heaps.iter().zip(&told.heap_budget).zip(&told.heap_usage).take(heaps.memory_heap_count as usize);
    let local = all.filter(|((heap, _), _)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
    let ((heap, budget), used) = local.reduce(|first, next| if next.0.0.size > first.0.0.size { next } else { first })?;
    // No budget is zero (Vulkan 1.3 specification, VkPhysicalDeviceMemoryBudgetPropertiesEXT); one above the heap is some drivers' mistake.
    let free = (*budget > 0).then(|| budget.min(&heap.size).saturating_sub(*used))?;
    Some(Memory { free: Bytes::new(free), total: Bytes::new(heap.size), used: Bytes::new(*used) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Heaps as a driver fills them in, in MiB: local to the device, size, budget, usage.
    fn answer(rows: &[(bool, u64, u64, u64)]) -> Option<(u64, u64, u64)> {
        let mut heaps = vk::PhysicalDeviceMemoryProperties { memory_heap_count: rows.len() as u32, ..Default::default() };
        let mut told = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        for (index, (local, size, budget, used)) in rows.iter().enumerate() {
            let flags = if *local { vk::MemoryHeapFlags::DEVICE_LOCAL } else { vk::MemoryHeapFlags::empty() };
            heaps.memory_heaps[index] = vk::MemoryHeap { size: size * MIB, flags };
            (told.heap_budget[index], told.heap_usage[index]) = (budget * MIB, used * MIB);
        }
        largest(&heaps, &told).map(|memory| (memory.free.get() / MIB, memory.total.get() / MIB, memory.used.get() / MIB))
    }

    #[test]
    fn heaps_and_what_is_free() {
        // A card beside the host's memory.
        assert_eq!(answer(&[(true, 8192, 7000, 1000), (false, 16384, 16000, 10)]), Some((6000, 8192, 1000)));
        // The part that the host sees is a heap of its own, before or after the rest.
        assert_eq!(answer(&[(true, 7936, 7500, 500), (false, 16000, 16000, 0), (true, 256, 240, 8)]), Some((7000, 7936, 500)));
        assert_eq!(answer(&[(true, 16, 15, 0), (true, 8176, 7742, 42), (false, 16000, 16000, 0)]), Some((7700, 8176, 42)));
        // Of equal ones the first.
        assert_eq!(answer(&[(true, 100, 90, 10), (true, 100, 50, 20)]), Some((80, 100, 10)));
        // Integrated: the one heap is the host's.
        assert_eq!(answer(&[(true, 16000, 12000, 300)]), Some((11700, 16000, 300)));
        // More is in use than other programs leave.
        assert_eq!(answer(&[(true, 8192, 2000, 3000)]), Some((0, 8192, 3000)));
        // A budget above the heap.
        assert_eq!(answer(&[(true, 8192, 9000, 192)]), Some((8000, 8192, 192)));
        // Drivers that tell nothing.
        assert_eq!(answer(&[(true, 8192, 0, 0)]), None);
        assert_eq!(answer(&[(false, 8192, 8000, 0)]), None);
        assert_eq!(answer(&[]), None);
    }

    /// A driver skips a structure that it does not know (Vulkan 1.3 specification, "Valid Usage for Structure Pointer Chains"), as Mesa 22.3's
    /// in software does.
    #[test]
    #[allow(unsafe_code, clippy::print_stderr, reason = "an adapter is looked into, and a test says when it is left out")]
    fn a_driver_that_does_not_tell_is_asked_without_harm() {
        let mut about = wgpu::InstanceDescriptor::new_without_display_handle();
        about.backends = wgpu::Backends::VULKAN;
        let adapters = pollster::block_on(wgpu::Instance::new(about).enumerate_adapters(wgpu::Backends::all()));
        let mut asked = 0;
        for adapter in adapters.into_iter().filter(|adapter| Heaps::of(adapter).is_none()) {
            // SAFETY: nothing of the adapter is destroyed.
            if unsafe { adapter.as_hal::<Vulkan>() }.is_some_and(|open| can_be_asked(&open)) {
                assert_eq!(Heaps(adapter).memory(), None);
                asked += 1;
            }
        }
        if asked == 0 {
            eprintln!("SKIPPED: no adapter here that does not tell");
        }
    }

    #[test]
    fn a_count_beyond_the_array_reads_the_array() {
        let heaps = vk::PhysicalDeviceMemoryProperties { memory_heap_count: u32::MAX, ..Default::default() };
        assert_eq!(largest(&heaps, &vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default()), None);
    }
}
