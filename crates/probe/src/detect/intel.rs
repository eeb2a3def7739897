//! Intel GPUs, from the files of i915 and xe.
//!
//! Linux Documentation/ABI/testing/sysfs-driver-intel-xe-hwmon, sysfs-driver-intel-i915-hwmon, sysfs-driver-intel-xe-sriov;
//! drivers/gpu/drm/xe/xe_gt_freq.c, xe_gt_throttle.c. Neither driver shows a card's memory in a file of the released kernels;
//! where a distribution's does, it is read. Vulkan tells the rest.

use super::card;
use super::gpus::{Found, HostMemory, Source, bytes};
use super::pci::{self, PciDevice};
use crate::host::Host;
use spec::Known;
use spec::machine::{GpuKind, GpuVendor};

/// The address window through which the host reaches a card's memory.
const MEMORY_WINDOW: usize = 2;

/// The Intel GPUs behind a host, in the order of the bus.
pub(crate) fn read(host: &dyn Host, bus: &[&PciDevice], memory: &HostMemory<'_>) -> Source {
    let mut source = Source::default();
    for device in bus.iter().filter(|device| device.vendor == pci::INTEL) {
        let found = gpu(host, device, memory);
        let usable = !found.gpu.driver.is_unknown();
        let reachable = card::reachable(host, device) != Some(false);
        if usable && reachable {
            source.visible.push(source.found.len());
        } else if usable && found.gpu.kind == GpuKind::Discrete {
            source.warnings.push(format!(
                "the Intel GPU at {} cannot be reached: no render node in /dev/dri; a container needs --device /dev/dri",
                device.address
            ));
        } else if found.gpu.kind == GpuKind::Discrete {
            source.warnings.push(format!("no driver holds the Intel GPU at {} ({}): load xe or i915", device.address, device.id()));
        }
        source.found.push(found);
    }
    source
}

fn gpu(host: &dyn Host, device: &PciDevice, memory: &HostMemory<'_>) -> Found {
    // The processor's own GPU has had this place since the first one.
    let integrated = device.address.ends_with(":00:02.0");
    let kind = if integrated { GpuKind::Integrated } else { GpuKind::Discrete };
    let mut found = Found::on_the_bus(device, GpuVendor::Intel, kind, "the kernel does not say");
    found.gpu.driver = Known::from_option(device.driver(host), "PCI", "no driver holds it");
    found.gpu.numa_node = card::numa_node(host, device);
    let node = host.list(&format!("{}/drm", device.folder())).unwrap_or_default().into_iter().find(|name| name.starts_with("card"));
    let drm = node.map(|node| format!("{}/drm/{node}", device.folder()));
    let mhz =
        [drm.as_ref().map(|folder| format!("{folder}/gt_RP0_freq_mhz")), Some(format!("{}/tile0/gt0/freq0/rp0_freq", device.folder()))];
    let highest = mhz.into_iter().flatten().find_map(|path| Some((host.number(&path).filter(|mhz| *mhz > 0)?, path)));
    found.gpu.max_frequency_hz = match highest {
        Some((mhz, path)) => Known::exact(mhz.saturating_mul(1_000_000), path),
        None => Known::unknown("the driver names no frequency"),
    };
    if integrated {
        found.gpu.memory_total = memory.total.clone();
        found.gpu.shared_memory = memory.total.clone();
        found.free = memory.available.clone();
        found.gpu.memory_bandwidth = Known::unknown("that of the host's memory");
    } else {
        amounts(host, device, drm.as_deref(), &mut found);
    }
    now(host, device, integrated, &mut found);
    found
}

/// A card's memory, where a kernel shows it, and the window to it.
fn amounts(host: &dyn Host, device: &PciDevice, drm: Option<&str>, found: &mut Found) {
    const SILENT: &str = "neither i915 nor xe shows a card's memory in a file";
    let file = |name: &str| drm.and_then(|folder| host.number(&format!("{folder}/{name}")));
    let tiles = (0..4).map_while(|tile| host.number(&format!("{}/tile{tile}/physical_vram_size_bytes", device.folder())));
    let total = file("lmem_total_bytes").or_else(|| tiles.reduce(u64::saturating_add)).filter(|bytes| *bytes > 0);
    found.gpu.memory_total = bytes(total, "the driver's file", SILENT);
    found.free = bytes(file("lmem_avail_bytes"), "lmem_avail_bytes", SILENT);
    found.gpu.host_visible = bytes(card::window(host, device, MEMORY_WINDOW), "PCI resource 2", "the bus shows no window to its memory");
}

/// Link, sensors and what slows it down. Nothing of it while the device sleeps.
fn now(host: &dyn Host, device: &PciDevice, integrated: bool, found: &mut Found) {
    if device.asleep(host) {
        return card::asleep(found);
    }
    if integrated {
        card::inside_processor(found);
    } else {
        let links = card::links(host, device);
        let outside = |link: Option<_>| link.filter(|link| !card::is_inside(*link));
        const INSIDE: &str = "the bus shows the link inside the card only";
        found.gpu.pcie = Known::from_option(outside(links.best), "PCI max link", INSIDE);
        found.condition.link = Known::from_option(outside(links.now), "PCI current link", INSIDE);
    }
    let sensors = card::sensors(host, device);
    let sensor = |files: &[&str], parts| card::sensor(host, sensors.as_ref(), files, parts);
    found.gpu.power_limit_watts = sensor(&["power1_cap", "power1_max"], 1e6);
    // Older kernels show the energy only, which is a rate only over time.
    found.condition.power_watts = sensor(&["power1_input"], 1e6);
    found.condition.temperature_c = sensor(&["temp2_input", "temp1_input"], 1e3);
    found.condition.throttled = throttled(host, device);
}

/// `throttle/reason_*` of the first tile: each file holds 1 while its reason slows the clock.
fn throttled(host: &dyn Host, device: &PciDevice) -> Known<String> {
    let folder = format!("{}/tile0/gt0/freq0/throttle", device.folder());
    let files = match host.list(&folder) {
        Ok(files) => files,
        Err(refusal) => return Known::unknown(format!("{folder}: {refusal}")),
    };
    let mut reasons: Vec<&str> = files
        .iter()
        .filter(|file| host.number(&format!("{folder}/{file}")) == Some(1))
        .filter_map(|file| match file.strip_prefix("reason_")? {
            "thermal" | "prochot" | "ratl" | "vr_thermalert" | "soc_thermal" | "mem_thermal" | "vr_thermal" => Some("thermal"),
            _ => Some("power"),
        })
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    Known::exact(reasons.join(", "), folder)
}
