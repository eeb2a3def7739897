//! Vulkan as the last source: for what no other names, and for devices that only it knows.
//!
//! Each device is found once: by its place on the bus, by its UUID, or where it tells neither by the ids of its kind.

use super::gpus::Found;
use super::pci;
use crate::host::{Host, Question};
use spec::machine::{Gpu, GpuCondition, GpuKind, GpuVendor};
use spec::{Bytes, Known};

const SOURCE: &str = "Vulkan";
const SILENT: &str = "Vulkan does not say";

/// More devices than any machine holds.
const MAX_DEVICES: usize = 64;

/// A device as Vulkan describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Device {
    name: String,
    kind: String,
    /// PCI vendor and device.
    id: String,
    driver: Option<String>,
    uuid: Option<String>,
    address: Option<String>,
    largest: Option<u64>,
    /// Bytes of device memory, and what of it may be taken.
    heaps: Vec<(u64, Option<u64>)>,
}

/// What Vulkan adds: facts to GPUs that are known, then GPUs that are not. Gives the places of those that an engine can use
/// through it.
pub(super) fn complete(host: &dyn Host, found: &mut Vec<Found>) -> Result<Vec<usize>, String> {
    let text = match host.text(&Question::Vulkan) {
        Ok(text) => text,
        Err(crate::Refusal::NotFound | crate::Refusal::NotRecorded) => return Ok(Vec::new()),
        Err(refusal) => return Err(format!("Vulkan does not work: {refusal}")),
    };
    let mut visible = Vec::new();
    for device in parse(&text) {
        match place(&device, found) {
            Some(place) => fill(&mut found[place], &device),
            None => {
                let new = new(&device);
                // An engine that is none of the makers' own takes these; of cards it is not known which.
                if new.gpu.kind == GpuKind::Integrated {
                    visible.push(found.len());
                }
                found.push(new);
            }
        }
    }
    Ok(visible)
}

fn parse(text: &str) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once(": ")) {
        let value = value.trim();
        if name == "device" && devices.len() < MAX_DEVICES {
            devices.push(Device { name: value.to_owned(), ..Device::default() });
        }
        let Some(device) = devices.last_mut() else { continue };
        let own = || Some(value.to_owned()).filter(|value| !value.is_empty());
        match name {
            "kind" => device.kind = value.to_owned(),
            "id" => device.id = value.to_ascii_lowercase(),
            "driver" => device.driver = own(),
            "uuid" => device.uuid = own(),
            "address" => device.address = own(),
            "largest" => device.largest = value.parse().ok(),
            "heap" => {
                let mut numbers = value.split_whitespace().map(|word| word.parse::<u64>().ok());
                if let Some(Some(size)) = numbers.next() {
                    device.heaps.push((size, numbers.next().flatten()));
                }
            }
            _ => {}
        }
    }
    devices
}

/// Where a device stands among those that are known.
fn place(device: &Device, found: &[Found]) -> Option<usize> {
    if device.kind == "software" {
        return None;
    }
    let by = |is: &dyn Fn(&Found) -> bool| {
        let mut places = (0..found.len()).filter(|place| is(&found[*place]));
        places.next().filter(|_| places.next().is_none())
    };
    if let Some(address) = &device.address
        && let Some(place) = by(&|found| found.is_at(address))
    {
        return Some(place);
    }
    let uuid = device.uuid.as_ref().map(|uuid| format!("gpu-{}", uuid.to_ascii_lowercase()));
    by(&|found| found.gpu.uuid.value().is_some_and(|own| Some(own.to_ascii_lowercase()) == uuid))
        .or_else(|| by(&|found| device.address.is_none() && found.gpu.slice.is_none() && found.gpu.pci_id.value() == Some(&device.id)))
        .or_else(|| by(&|found| device.kind == "integrated" && device.address.is_none() && of_the_chip(&found.gpu)))
}

/// True of the GPU of a phone's chip, which has neither place nor ids; a chip has one.
fn of_the_chip(gpu: &Gpu) -> bool {
    gpu.kind == GpuKind::Integrated && gpu.vendor == GpuVendor::Other && gpu.pci_id.is_unknown()
}

/// Memory of the device: of cards the sum of its heaps; a GPU in the host's memory shows the same memory in each, and NVIDIA's
/// window to its memory is a heap of the same bytes.
fn memory(device: &Device, kind: GpuKind) -> (Option<u64>, Option<u64>) {
    let sum = kind == GpuKind::Discrete && !device.id.starts_with("10de:");
    let total = if sum {
        device.heaps.iter().map(|(size, _)| *size).reduce(u64::saturating_add)
    } else {
        device.heaps.iter().map(|(size, _)| *size).max()
    };
    let left = if sum {
        device.heaps.iter().map(|(_, left)| *left).sum::<Option<u64>>().filter(|_| !device.heaps.is_empty())
    } else {
        device.heaps.iter().max_by_key(|(size, _)| *size).and_then(|(_, left)| *left)
    };
    (total.filter(|total| *total > 0), left)
}

fn fill(found: &mut Found, device: &Device) {
    let (total, left) = memory(device, found.gpu.kind);
    let gpu = &mut found.gpu;
    better(&mut gpu.name, Some(device.name.clone()).filter(|name| !name.is_empty()));
    better(&mut gpu.largest_buffer, device.largest.map(Bytes::new));
    better(&mut gpu.memory_total, total.map(Bytes::new));
    better(&mut found.free, left.map(Bytes::new));
}

fn better<T>(known: &mut Known<T>, value: Option<T>) {
    if known.is_unknown()
        && let Some(value) = value
    {
        *known = Known::exact(value, SOURCE);
    }
}

fn new(device: &Device) -> Found {
    let kind = match device.kind.as_str() {
        "software" => GpuKind::Software,
        "integrated" => GpuKind::Integrated,
        _ => GpuKind::Discrete,
    };
    let vendor = match u32::from_str_radix(device.id.split(':').next().unwrap_or_default(), 16) {
        Ok(pci::NVIDIA) => GpuVendor::Nvidia,
        Ok(pci::AMD) => GpuVendor::Amd,
        Ok(pci::INTEL) => GpuVendor::Intel,
        _ => GpuVendor::Other,
    };
    let (total, left) = memory(device, kind);
    let gpu = Gpu {
        name: Known::exact(device.name.clone(), SOURCE),
        uuid: Known::from_option(device.uuid.clone(), SOURCE, SILENT),
        driver: Known::from_option(device.driver.clone(), SOURCE, SILENT),
        memory_total: Known::from_option(total.map(Bytes::new), SOURCE, SILENT),
        largest_buffer: Known::from_option(device.largest.map(Bytes::new), SOURCE, SILENT),
        pci_address: Known::from_option(device.address.clone(), SOURCE, SILENT),
        pci_id: Known::from_option(Some(device.id.clone()).filter(|_| kind != GpuKind::Software), SOURCE, "no device"),
        ..Gpu::unknown(vendor, kind, SILENT)
    };
    let free = Known::from_option(left.map(Bytes::new), "Vulkan memory budget", SILENT);
    Found { gpu, free, condition: GpuCondition::unknown(SILENT), links: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Recording};

    const ARC: &str = "device: Intel(R) Arc(tm) B580\nkind: discrete\nid: 8086:e20b\nuuid: 00000000-0000-0000-0000-000000000009\naddress: 0000:03:00.0\nlargest: 4294967292\nheap: 12000000000 11000000000\nheap: 268435456 100\n";
    const PIPE: &str = "device: llvmpipe\nkind: software\nid: 10005:0000\nheap: 33000000000 34000000000\n";

    fn known(kind: GpuKind) -> Found {
        let device = pci::PciDevice { address: "0000:03:00.0".into(), vendor: pci::INTEL, device: 0xe20b, class: 0x0300 };
        Found::on_the_bus(&device, GpuVendor::Intel, kind, "test")
    }

    fn ask(text: &str, found: &mut Vec<Found>) -> Vec<usize> {
        let mut host = Recording::new("");
        host.set(&Question::Vulkan, Ok(Answer::text(text)));
        complete(&host, found).unwrap()
    }

    #[test]
    fn what_is_missing_is_filled_and_nothing_stands_twice() {
        let mut found = vec![known(GpuKind::Discrete)];
        assert!(ask(&format!("{ARC}\n{PIPE}"), &mut found).is_empty());
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].gpu.memory_total.get(), Some(Bytes::new(12_268_435_456)));
        assert_eq!(found[0].free.get(), Some(Bytes::new(11_000_000_100)));
        assert_eq!(found[1].gpu.kind, GpuKind::Software);
        // By the ids of its kind where the driver tells no place.
        let mut found = vec![known(GpuKind::Discrete)];
        ask(&ARC.replace("address: 0000:03:00.0\n", ""), &mut found);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn memory_of_the_host_is_counted_once() {
        let phone = "device: Adreno 750\nkind: integrated\nid: 5143:43051401\nheap: 12000000000 -\nheap: 12000000000 -\n";
        let mut found = Vec::new();
        assert_eq!(ask(phone, &mut found), [0]);
        assert_eq!((found[0].gpu.memory_total.get(), found[0].gpu.unified_memory), (Some(Bytes::new(12_000_000_000)), true));
        assert!(found[0].free.is_unknown());
        // The driver's files name it already.
        let mut found = vec![Found { gpu: Gpu::unknown(GpuVendor::Other, GpuKind::Integrated, "test"), ..found.remove(0) }];
        ask(phone, &mut found);
        assert_eq!((found.len(), found[0].gpu.name.value().map(String::as_str)), (1, Some("Adreno 750")));
    }
}
