//! Vulkan's loader, opened at run time: which devices there are and what memory they have.
//!
//! Each device is a paragraph of lines `NAME: VALUE`:
//!
//! | name | value |
//! |---|---|
//! | `device` | its name |
//! | `kind` | `discrete`, `integrated`, `software`, `virtual` or `other` |
//! | `id` | PCI vendor and device, `1002:744c` |
//! | `driver` | driver and its version |
//! | `uuid` | of the device, the same for every interface |
//! | `address` | on the PCI bus, where the driver tells |
//! | `largest` | bytes of the largest allocation |
//! | `heap` | once for each heap of device memory: bytes, and bytes that this process may take now (or `-`) |
//!
//! Vulkan specification 1.3: "Physical Device Enumeration", VK_EXT_pci_bus_info, VK_EXT_memory_budget. Enumerating opens every
//! driver and wakes every GPU.

use crate::host::Refusal;
use ash::vk;
use libloading::Library;
use std::ffi::CStr;
use std::fmt::Write;

/// Where systems have the loader.
#[cfg(not(any(windows, target_vendor = "apple")))]
pub(crate) const LIBRARIES: [&str; 2] = ["libvulkan.so.1", "libvulkan.so"];
#[cfg(windows)]
pub(crate) const LIBRARIES: [&str; 1] = ["vulkan-1.dll"];
#[cfg(target_vendor = "apple")]
pub(crate) const LIBRARIES: [&str; 2] = ["libvulkan.dylib", "libvulkan.1.dylib"];

/// The devices that the loader finds, as text. Takes 10 to 500 ms.
///
/// # Errors
/// [`Refusal::NotFound`] where there is no loader or no driver, [`Refusal::Failed`] where Vulkan fails.
#[allow(unsafe_code)]
pub(crate) fn devices(paths: &[&str]) -> Result<String, Refusal> {
    // SAFETY: loading runs the initialisers of a library of the system, found by its fixed name on the loader's path.
    let library = paths.iter().find_map(|path| unsafe { Library::new(*path) }.ok()).ok_or(Refusal::NotFound)?;
    // Drivers leave threads and handlers behind that must not lose their code: the library stays.
    let library = Box::leak(Box::new(library));
    // SAFETY: the loader exports this function with this type (Vulkan specification, "Command Function Pointers").
    let get = unsafe { library.get::<vk::PFN_vkGetInstanceProcAddr>(b"vkGetInstanceProcAddr\0") }.map_err(|_| Refusal::NotSupported)?;
    // SAFETY: the function is the loader's and stays as long as the process.
    let entry = unsafe { ash::Entry::from_static_fn(ash::StaticFn { get_instance_proc_addr: *get }) };
    let application = vk::ApplicationInfo::default().application_name(c"loadmaster").api_version(vk::API_VERSION_1_1);
    let create = vk::InstanceCreateInfo::default().application_info(&application);
    // SAFETY: the structures live through the call, and every pointer in them is null or theirs.
    let instance = unsafe { entry.create_instance(&create, None) }.map_err(|error| match error {
        vk::Result::ERROR_INCOMPATIBLE_DRIVER => Refusal::NotFound,
        error => Refusal::Failed(format!("Vulkan: {error}")),
    })?;
    // SAFETY: the instance is ours and lives until it is destroyed below; nothing of it is used after.
    let (text, ()) = unsafe { (describe_all(&instance), instance.destroy_instance(None)) };
    text
}

/// All devices as text.
///
/// # Safety
/// The instance is alive.
#[allow(unsafe_code)]
unsafe fn describe_all(instance: &ash::Instance) -> Result<String, Refusal> {
    // SAFETY: the instance is alive.
    let devices = unsafe { instance.enumerate_physical_devices() }.map_err(|error| Refusal::Failed(format!("Vulkan: {error}")))?;
    let mut text = String::new();
    for device in devices {
        // SAFETY: the device is of this instance.
        unsafe { describe(instance, device, &mut text) };
        text.push('\n');
    }
    Ok(text)
}

/// One device as a paragraph.
///
/// # Safety
/// The instance is alive and the device is one of its.
#[allow(unsafe_code)]
unsafe fn describe(instance: &ash::Instance, device: vk::PhysicalDevice, text: &mut String) {
    // SAFETY: the device is of this instance.
    let extensions = unsafe { instance.enumerate_device_extension_properties(device) }.unwrap_or_default();
    let has = |name: &CStr| extensions.iter().any(|extension| extension.extension_name_as_c_str() == Ok(name));
    let mut place = vk::PhysicalDevicePCIBusInfoPropertiesEXT::default();
    let mut identity = vk::PhysicalDeviceIDProperties::default();
    let mut sizes = vk::PhysicalDeviceMaintenance3Properties::default();
    let mut driver = vk::PhysicalDeviceDriverProperties::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut identity).push_next(&mut sizes);
    let (on_bus, named) = (has(ash::ext::pci_bus_info::NAME), has(ash::khr::driver_properties::NAME));
    if on_bus {
        properties = properties.push_next(&mut place);
    }
    if named {
        properties = properties.push_next(&mut driver);
    }
    // SAFETY: the device is of this instance, of version 1.1; only structures that it knows are chained.
    unsafe { instance.get_physical_device_properties2(device, &mut properties) };
    let own = properties.properties;
    let kind = match own.device_type {
        vk::PhysicalDeviceType::DISCRETE_GPU => "discrete",
        vk::PhysicalDeviceType::INTEGRATED_GPU => "integrated",
        vk::PhysicalDeviceType::CPU => "software",
        vk::PhysicalDeviceType::VIRTUAL_GPU => "virtual",
        _ => "other",
    };
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a text does not fail.
        let _ = writeln!(text, "{name}: {value}");
    };
    line("device", &words(own.device_name_as_c_str()));
    line("kind", &kind);
    line("id", &format_args!("{:04x}:{:04x}", own.vendor_id, own.device_id));
    if named {
        line("driver", &format_args!("{} {}", words(driver.driver_name_as_c_str()), words(driver.driver_info_as_c_str())));
    }
    line("uuid", &uuid(&identity.device_uuid));
    if on_bus {
        line("address", &format_args!("{:04x}:{:02x}:{:02x}.{:x}", place.pci_domain, place.pci_bus, place.pci_device, place.pci_function));
    }
    line("largest", &sizes.max_memory_allocation_size);
    // SAFETY: as above.
    for (size, budget) in unsafe { heaps(instance, device, has(ash::ext::memory_budget::NAME)) } {
        match budget {
            Some(budget) => line("heap", &format_args!("{size} {budget}")),
            None => line("heap", &format_args!("{size} -")),
        }
    }
}

/// Heaps of device memory: bytes, and what this process may take of them.
///
/// # Safety
/// The instance is alive and the device is one of its.
#[allow(unsafe_code)]
unsafe fn heaps(instance: &ash::Instance, device: vk::PhysicalDevice, budgets: bool) -> Vec<(u64, Option<u64>)> {
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut memory = vk::PhysicalDeviceMemoryProperties2::default();
    if budgets {
        memory = memory.push_next(&mut budget);
    }
    // SAFETY: the device is of this instance, of version 1.1; only a structure that it knows is chained.
    unsafe { instance.get_physical_device_memory_properties2(device, &mut memory) };
    let count = (memory.memory_properties.memory_heap_count as usize).min(vk::MAX_MEMORY_HEAPS);
    let own = memory.memory_properties.memory_heaps;
    let heap = |index: usize| {
        // Some drivers name a budget above the heap.
        let left = budgets.then(|| budget.heap_budget[index].saturating_sub(budget.heap_usage[index]).min(own[index].size));
        own[index].flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL).then_some((own[index].size, left))
    };
    (0..count).filter_map(heap).collect()
}

fn words(text: Result<&CStr, std::ffi::FromBytesUntilNulError>) -> String {
    text.map(|text| text.to_string_lossy().replace(['\n', '\r'], " ")).unwrap_or_default()
}

fn uuid(bytes: &[u8; 16]) -> String {
    let digits = crate::host::to_hexadecimal(bytes);
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}
