//! NVIDIA's systems on a chip (Jetson), where the management library is missing or says little.
//!
//! Jetson Linux Developer Guide ("Hardware", "Power and Performance"); compute capabilities: developer.nvidia.com/cuda-gpus,
//! read 2025-11. The device tree names the chip.

use super::gpus::{Found, HostMemory};
use crate::host::Host;
use spec::Known;
use spec::machine::{Gpu, GpuCondition, GpuKind, GpuVendor};

const TREE: &str = "/proc/device-tree";
const CLOCKS: &str = "/sys/class/devfreq";
const LOADS: [&str; 2] = ["/sys/devices/platform/gpu.0/load", "/sys/devices/gpu.0/load"];
const THERMAL: &str = "/sys/class/thermal";
const SILENT: &str = "the system does not say";

/// Chip, and the compute capability of its GPU: Nano, TX2, Xavier, Orin, Thor.
const CHIPS: [(&str, (u32, u32)); 5] =
    [("tegra210", (5, 3)), ("tegra186", (6, 2)), ("tegra194", (7, 2)), ("tegra234", (8, 7)), ("tegra264", (11, 0))];

/// The compute capability of the chip; `None` on other machines.
fn capability(host: &dyn Host) -> Option<(u32, u32)> {
    let compatible = host.read(&format!("{TREE}/compatible")).ok()?;
    // Boards come first, the chip last.
    let names = |chip: &str| compatible.split('\0').any(|name| name.trim().strip_prefix("nvidia,") == Some(chip));
    CHIPS.iter().find(|(chip, _)| names(chip)).map(|(_, capability)| *capability)
}

/// The GPU of such a chip, computing in the host's memory.
pub(super) fn gpu(host: &dyn Host, memory: &HostMemory<'_>) -> Option<Found> {
    let capability = capability(host)?;
    let model = host.read(&format!("{TREE}/model")).ok().map(|text| text.trim_matches(['\0', ' ', '\n']).to_owned());
    let gpu = Gpu {
        name: Known::from_option(model.filter(|model| !model.is_empty()), "device tree", SILENT),
        compute_capability: Known::exact(capability, "device tree"),
        memory_total: memory.total.clone(),
        shared_memory: memory.total.clone(),
        ..Gpu::unknown(GpuVendor::Nvidia, GpuKind::Integrated, SILENT)
    };
    Some(Found { gpu, free: memory.available.clone(), condition: GpuCondition::unknown(SILENT), links: Vec::new() })
}

/// What the system's files tell of such a GPU and the library does not.
pub(super) fn complete(host: &dyn Host, found: &mut [Found]) {
    let Some(capability) = capability(host) else { return };
    for entry in found.iter_mut().filter(|entry| entry.gpu.kind == GpuKind::Integrated) {
        let (gpu, now) = (&mut entry.gpu, &mut entry.condition);
        fill(&mut gpu.compute_capability, Known::exact(capability, "device tree"));
        fill(&mut gpu.max_frequency_hz, frequency(host));
        let load = LOADS.iter().find_map(|path| Some((host.number(path).filter(|load| *load <= 1000)?, *path)));
        let load = load.map_or(Known::unknown(SILENT), |(load, path)| Known::exact(load as f64 / 1000.0, path));
        fill(&mut now.utilisation, load);
        fill(&mut now.temperature_c, temperature(host));
    }
}

fn fill<T>(known: &mut Known<T>, better: Known<T>) {
    if known.is_unknown() && !better.is_unknown() {
        *known = better;
    }
}

/// The GPU's clock among the clocks that the kernel scales: `17000000.gpu`, `17000000.ga10b`, `17000000.gv11b`, `57000000.gpu`.
fn frequency(host: &dyn Host) -> Known<u64> {
    let is_gpu = |name: &&String| {
        name.ends_with(".gpu") || name.contains(".ga10") || name.contains(".gv11") || name.contains(".gp10") || name.contains(".gb10")
    };
    let Some(name) = host.list(CLOCKS).unwrap_or_default().iter().find(is_gpu).cloned() else { return Known::unknown(SILENT) };
    let path = format!("{CLOCKS}/{name}/max_freq");
    Known::from_option(host.number(&path).filter(|hz| *hz > 0), path, SILENT)
}

fn temperature(host: &dyn Host) -> Known<f64> {
    for zone in host.list(THERMAL).unwrap_or_default().iter().filter(|name| name.starts_with("thermal_zone")) {
        let kind = host.read(&format!("{THERMAL}/{zone}/type")).unwrap_or_default().to_ascii_lowercase();
        if kind.starts_with("gpu") {
            let path = format!("{THERMAL}/{zone}/temp");
            // A GPU that is off reads no temperature.
            if let Some(milli) = host.number(&path).filter(|milli| (1_000..200_000).contains(milli)) {
                return Known::exact(milli as f64 / 1000.0, path);
            }
        }
    }
    Known::unknown(SILENT)
}
