//! AMD GPUs, from the files of amdgpu and of its compute driver.
//!
//! Linux Documentation/gpu/amdgpu/driver-misc.rst (`mem_info_*`, `gpu_busy_percent`, `unique_id`, partitions), thermal.rst
//! (`hwmon`). Amounts of memory are read from the driver's own books; sensors wake the device and are left alone while it sleeps.
//! The order is that of the compute driver, which is ROCm's: `ROCR_VISIBLE_DEVICES` counts in it, `HIP_VISIBLE_DEVICES` among
//! what the first leaves.

use super::gpus::{Found, HostMemory, Link, Source, bytes};
use super::pci::{self, PciDevice};
use super::{amd_rate, card, kfd, visible};
use crate::host::Host;
use spec::machine::{GpuKind, GpuVendor, Slice};
use spec::{Bytes, BytesPerSec, Known};

/// The AMD GPUs behind a host: those that the compute driver knows in its order, then the others in that of the bus.
pub(crate) fn read(host: &dyn Host, bus: &[&PciDevice], memory: &HostMemory<'_>) -> Source {
    let mut source = Source::default();
    let devices: Vec<&PciDevice> = bus.iter().copied().filter(|device| device.vendor == pci::AMD).collect();
    if devices.is_empty() {
        return source;
    }
    let nodes = kfd::read(host);
    let mut computes = Vec::new();
    for node in &nodes {
        let Some(device) = devices.iter().find(|device| device.address.eq_ignore_ascii_case(&node.address)) else { continue };
        let parts = nodes.iter().filter(|other| other.address == node.address).count();
        let mut found = gpu(host, device, Some(node), memory, &mut source.warnings);
        if parts > 1 {
            partition(host, device, node, parts, &mut found);
        }
        found.links = node.xgmi.iter().filter_map(|link| xgmi(link, &nodes)).collect();
        computes.push(source.found.len());
        source.found.push(found);
    }
    let mut others = Vec::new();
    for device in devices.iter().filter(|device| !nodes.iter().any(|node| device.address.eq_ignore_ascii_case(&node.address))) {
        others.push(source.found.len());
        source.found.push(gpu(host, device, None, memory, &mut source.warnings));
    }
    choose_visible(host, &devices, &computes, &others, &mut source);
    source
}

fn gpu(host: &dyn Host, device: &PciDevice, node: Option<&kfd::Node>, memory: &HostMemory<'_>, warnings: &mut Vec<String>) -> Found {
    let driver = device.driver(host);
    let target = node.and_then(|node| node.target.as_deref());
    let integrated = amd_rate::is_integrated(target, device.device);
    let kind = if integrated { GpuKind::Integrated } else { GpuKind::Discrete };
    let mut found = Found::on_the_bus(device, GpuVendor::Amd, kind, "amdgpu does not say");
    let gpu = &mut found.gpu;
    let read = |file: &str| host.read(&format!("{}/{file}", device.folder())).ok().filter(|text| !text.trim().is_empty());
    gpu.name = Known::from_option(read("product_name").map(|name| name.trim().to_owned()), "product_name", "the kernel names no model");
    gpu.uuid =
        Known::from_option(read("unique_id").map(|id| format!("GPU-{}", id.trim())), "unique_id", "the device has no number of its own");
    gpu.driver = Known::from_option(driver.clone(), "PCI", "no driver holds it");
    gpu.architecture = Known::from_option(target.map(str::to_owned), "KFD", "the compute driver (KFD) does not show this device");
    gpu.multiprocessors =
        Known::from_option(node.and_then(|node| node.compute_units), "KFD", "the compute driver (KFD) does not show this device");
    let clock = node.and_then(|node| node.max_clock_mhz);
    gpu.max_frequency_hz =
        Known::from_option(clock.and_then(|mhz| mhz.checked_mul(1_000_000)), "KFD", "the compute driver (KFD) names no clock");
    gpu.compute = amd_rate::half_precision(target, node.and_then(|node| node.compute_units), clock);
    gpu.numa_node = card::numa_node(host, device);
    let own_rate = node.filter(|_| !integrated).and_then(|node| node.bus);
    gpu.memory_bandwidth = match integrated {
        true => Known::unknown("that of the host's memory"),
        false => amd_rate::bandwidth(target, own_rate),
    };
    amounts(host, device, integrated, memory, &mut found);
    if driver.is_none() {
        warnings.push(format!("no driver holds the AMD GPU at {} ({}): load amdgpu", device.address, device.id()));
    }
    now(host, device, integrated, &mut found);
    found
}

/// Memory: of a card its own; of a processor's GPU the part that the firmware keeps for it, with what it may map of the host's.
fn amounts(host: &dyn Host, device: &PciDevice, integrated: bool, memory: &HostMemory<'_>, found: &mut Found) {
    let number = |file: &str| host.number(&format!("{}/{file}", device.folder()));
    let amount = |file: &'static str| bytes(number(file), file, format!("amdgpu shows no {file}"));
    let left = |total: &'static str, used: &'static str| match (number(total), number(used)) {
        (Some(total), Some(used)) => Known::exact(Bytes::new(total.saturating_sub(used)), "amdgpu mem_info: total - used"),
        _ => Known::unknown(format!("amdgpu shows no {total} or no {used}")),
    };
    let own = amount("mem_info_vram_total");
    let own_free = left("mem_info_vram_total", "mem_info_vram_used");
    found.gpu.shared_memory = amount("mem_info_gtt_total");
    found.gpu.host_visible = amount("mem_info_vis_vram_total");
    if !integrated {
        found.gpu.memory_total = own;
        found.free = own_free;
        return;
    }
    let mapped = left("mem_info_gtt_total", "mem_info_gtt_used");
    let mapped = match (mapped.get(), memory.available.get()) {
        (Some(mapped_now), Some(available)) if available < mapped_now => memory.available.clone(),
        _ => mapped,
    };
    found.gpu.memory_total = sum(&own, &found.gpu.shared_memory, "mem_info: carve-out + GTT");
    found.free = sum(&own_free, &mapped, "amdgpu: free carve-out + the lesser of free GTT and available memory");
}

fn sum(a: &Known<Bytes>, b: &Known<Bytes>, source: &'static str) -> Known<Bytes> {
    match a.plus(b) {
        Known::Exact { value, .. } => Known::exact(value, source),
        Known::Estimated { value, low, high, .. } => Known::estimated(value, low, high, source),
        unknown => unknown,
    }
}

/// Links, sensors and load. Nothing of it while the device sleeps.
fn now(host: &dyn Host, device: &PciDevice, integrated: bool, found: &mut Found) {
    if device.asleep(host) {
        return card::asleep(found);
    }
    if integrated {
        card::inside_processor(found);
    } else {
        let links = card::links(host, device);
        found.gpu.pcie = Known::from_option(links.best, "PCI max link", "the bus names no link");
        found.condition.link = Known::from_option(links.now, "PCI current link", "the bus names no link");
    }
    let sensors = card::sensors(host, device);
    let sensor = |files: &[&str], parts| card::sensor(host, sensors.as_ref(), files, parts);
    found.gpu.power_limit_watts = sensor(&["power1_cap"], 1e6);
    found.condition.power_watts = sensor(&["power1_average", "power1_input"], 1e6);
    found.condition.temperature_c = sensor(&["temp1_input"], 1e3);
    let busy = host.number(&format!("{}/gpu_busy_percent", device.folder())).filter(|percent| *percent <= 100);
    found.condition.utilisation = Known::from_option(busy.map(|percent| percent as f64 / 100.0), "gpu_busy_percent", "amdgpu does not say");
    found.condition.throttled = Known::unknown("amdgpu gives its reasons in a table of bytes that is not read");
}

/// One of several parts at the same address. The driver counts use for the whole only.
fn partition(host: &dyn Host, device: &PciDevice, node: &kfd::Node, parts: usize, found: &mut Found) {
    let mode = |file: &str| host.read(&format!("{}/{file}", device.folder())).ok().map(|text| text.trim().to_owned());
    let modes: Vec<String> = ["current_compute_partition", "current_memory_partition"].into_iter().filter_map(mode).collect();
    let whole = found.gpu.memory_total.get();
    let used = whole.zip(found.free.get()).map(|(total, free)| total.saturating_sub(free));
    found.gpu.slice = Some(Slice { profile: modes.join("/"), parent: device.address.clone() });
    found.gpu.memory_total = bytes(node.memory, "KFD memory bank", "the compute driver names no memory for this part");
    found.free = match (node.memory.map(Bytes::new), used) {
        (Some(own), Some(used)) => {
            let share = Bytes::new(used.get() / parts.max(1) as u64);
            Known::estimated(
                own.saturating_sub(share),
                own.saturating_sub(used),
                own,
                "part of the GPU - its share of what is used of the whole",
            )
        }
        _ => Known::unknown("the driver counts use for the whole GPU only"),
    };
    // The parts share the bus of the whole, each taking its part where all compute.
    found.gpu.memory_bandwidth =
        found.gpu.memory_bandwidth.clone().map(|rate| BytesPerSec::new(rate.get() / parts.max(1) as f64).unwrap_or(rate));
}

/// The kernel counts 50 GB/s for each link in one direction and reports the least (one link) and the most (all).
fn xgmi(link: &kfd::Xgmi, nodes: &[kfd::Node]) -> Option<Link> {
    let to = nodes.iter().find(|node| node.id == link.to)?;
    let count = link.all.checked_div(link.one).and_then(|count| u32::try_from(count).ok()).unwrap_or(1).max(1);
    let rate = BytesPerSec::from_gb(link.all as f64 / 1000.0).filter(|_| link.all > 0);
    Some(Link {
        to: to.address.clone(),
        kind: "XGMI",
        count,
        bandwidth: Known::from_option(rate, "KFD io_links", "the compute driver names no rate"),
    })
}

/// What the variables leave of the GPUs that the compute driver knows, and those that only Vulkan can use. A device whose
/// node this process cannot reach (a container without it) is not usable.
fn choose_visible(host: &dyn Host, devices: &[&PciDevice], computes: &[usize], others: &[usize], source: &mut Source) {
    let uuids = |indices: &[usize]| -> Vec<Option<String>> { indices.iter().map(|&i| source.found[i].gpu.uuid.value().cloned()).collect() };
    let mut seen = computes.to_vec();
    for variable in ["ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"] {
        if let Some(value) = host.env(variable) {
            seen = visible::visible(Some(&value), &uuids(&seen)).into_iter().map(|place| seen[place]).collect();
        }
    }
    let hidden = computes.len() - seen.len();
    seen.extend(others);
    let device = |index: usize| {
        let address = source.found[index].gpu.pci_address.value()?;
        devices.iter().copied().find(|device| device.address == *address)
    };
    let usable = |index: &usize| {
        device(*index).is_some_and(|device| card::reachable(host, device) != Some(false)) && !source.found[*index].gpu.driver.is_unknown()
    };
    let (reached, missed): (Vec<usize>, Vec<usize>) = seen.into_iter().partition(usable);
    let unreached = missed.iter().filter(|index| !source.found[**index].gpu.driver.is_unknown()).count();
    source.visible = reached;
    if unreached > 0 {
        source.warnings.push(format!(
            "{unreached} AMD GPU{} cannot be reached: no render node in /dev/dri; a container needs --device /dev/kfd --device /dev/dri",
            if unreached == 1 { "" } else { "s" }
        ));
    }
    if hidden > 0 {
        source.warnings.push(format!("{hidden} of {} AMD GPUs are hidden by ROCR_VISIBLE_DEVICES or HIP_VISIBLE_DEVICES", computes.len()));
    }
}
