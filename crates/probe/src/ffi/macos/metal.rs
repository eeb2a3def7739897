//! Metal: the GPUs of a Mac, and what IOKit adds.
//!
//! Sources: macOS SDK headers `Metal/MTLDevice.h`, `IOKit/IOKitLib.h`.

use crate::host::{MetalField, MetalQuestion, Refusal};
use crate::live::Ask;
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_core_foundation::{CFDictionary, CFNumber, CFRetained, CFString};
use objc2_io_kit::{IOObjectRelease, IORegistryEntryCreateCFProperty, IORegistryEntryIDMatching, IOServiceGetMatchingService};
use objc2_metal::{MTLCopyAllDevices, MTLCreateSystemDefaultDevice, MTLDevice, MTLGPUFamily};

// Without it MTLCreateSystemDefaultDevice finds no device in a program without windows (its documentation says so).
#[link(name = "CoreGraphics", kind = "framework")]
#[allow(unsafe_code)]
unsafe extern "C" {}

type Device = Retained<ProtocolObject<dyn MTLDevice>>;

/// The devices, the system's default first.
///
/// # Errors
/// None today; a Mac without Metal has no devices.
pub(crate) fn open() -> Result<Ask<MetalQuestion>, Refusal> {
    let devices = autoreleasepool(|_| devices());
    Ok(Box::new(move |question| autoreleasepool(|_| ask(&devices, question))))
}

fn devices() -> Vec<Device> {
    let default = MTLCreateSystemDefaultDevice();
    let id = default.as_ref().map(|device| device.registryID());
    let others = MTLCopyAllDevices().to_vec();
    default.into_iter().chain(others.into_iter().filter(|device| Some(device.registryID()) != id)).collect()
}

fn ask(devices: &[Device], question: MetalQuestion) -> Result<String, Refusal> {
    match question {
        MetalQuestion::Count => Ok(devices.len().to_string()),
        MetalQuestion::Device(index, field) => {
            let device = usize::try_from(index).ok().and_then(|index| devices.get(index)).ok_or(Refusal::NotFound)?;
            property(device, field)
        }
    }
}

fn property(device: &Device, field: MetalField) -> Result<String, Refusal> {
    Ok(match field {
        MetalField::Name => device.name().to_string(),
        MetalField::WorkingSet => device.recommendedMaxWorkingSetSize().to_string(),
        MetalField::Allocated => device.currentAllocatedSize().to_string(),
        MetalField::LargestBuffer => device.maxBufferLength().to_string(),
        MetalField::Unified => u8::from(device.hasUnifiedMemory()).to_string(),
        MetalField::LowPower => u8::from(device.isLowPower()).to_string(),
        MetalField::Family => family(device)?,
        MetalField::Cores => cores(device.registryID()).ok_or(Refusal::NotFound)?.to_string(),
    })
}

/// The highest family, of numbers that Metal may know later too.
fn family(device: &Device) -> Result<String, Refusal> {
    const FIRST: isize = 1000;
    let highest = (1..=20).rev().find(|number| device.supportsFamily(MTLGPUFamily(FIRST + number)));
    highest.map(|number| format!("apple{number}")).ok_or(Refusal::NotSupported)
}

/// What the driver of the GPU writes into its entry of IOKit's registry.
#[allow(unsafe_code)]
fn cores(registry_id: u64) -> Option<i64> {
    // SAFETY: takes a number; the dictionary that it makes is handed on unchanged.
    let matching = unsafe { IORegistryEntryIDMatching(registry_id) }?;
    // SAFETY: a mutable dictionary is a dictionary.
    let matching = unsafe { CFRetained::cast_unchecked::<CFDictionary>(matching) };
    // SAFETY: port 0 is the default one, and the dictionary is one of IOKit's own.
    let service = unsafe { IOServiceGetMatchingService(0, Some(matching)) };
    if service == 0 {
        return None;
    }
    // SAFETY: the service was found above and is released below; the key is a string.
    let value = unsafe { IORegistryEntryCreateCFProperty(service, Some(&CFString::from_static_str("gpu-core-count")), None, 0) };
    IOObjectRelease(service);
    value?.downcast_ref::<CFNumber>()?.as_i64()
}
