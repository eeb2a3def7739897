//! GPUs under Windows: NVIDIA's library first, then DXGI, then the registry.

use crate::detect::gpus::{HostMemory, of_nvidia};
use crate::detect::{Depth, fields};
use crate::host::{DxgiQuestion, Host, NvmlQuestion, Question, Refusal};
use spec::machine::{Gpu, GpuCondition, GpuKind, GpuVendor, Npu};
use spec::{Bytes, Known};

/// More adapters than any machine holds.
const MAX_ADAPTERS: u32 = 64;
/// `DXGI_ADAPTER_FLAG_REMOTE`, `DXGI_ADAPTER_FLAG_SOFTWARE` (`dxgi.h`).
const REMOTE: u64 = 1;
const SOFTWARE: u64 = 2;
/// Microsoft Basic Render Driver, which old versions do not flag.
const BASIC_RENDER: (u64, u64) = (0x1414, 0x8c);
/// The key of display adapters (`GUID_DEVCLASS_DISPLAY`, `devguid.h`).
const DISPLAY: &str = "SYSTEM\\CurrentControlSet\\Control\\Class\\{4d36e968-e325-11ce-bfc1-08002be10318}";

/// The GPUs with what is free on each.
#[derive(Default)]
pub(super) struct Gpus {
    pub(super) gpus: Vec<Gpu>,
    pub(super) free: Vec<Known<Bytes>>,
    pub(super) visible: Vec<usize>,
    /// Of the GPUs that NVIDIA's library names, which come first.
    pub(super) conditions: Vec<GpuCondition>,
    pub(super) warnings: Vec<String>,
}

/// Without a driver asked, GPUs are those of the registry.
pub(super) fn read(host: &dyn Host, total: &Known<Bytes>, available: &Known<Bytes>, depth: Depth) -> Gpus {
    if depth == Depth::Static {
        let mut found = Gpus::default();
        registry(host, &mut found);
        return found;
    }
    let own = of_nvidia(host, &HostMemory { total, available }, depth);
    let mut found = Gpus { gpus: own.gpus, free: own.free, visible: own.visible, conditions: own.conditions, warnings: own.warnings };
    if host.text(&Question::Nvml(NvmlQuestion::Count)) == Err(Refusal::TimedOut) {
        found.warnings = vec!["NVIDIA's library nvml.dll did not answer in time; its GPUs are those that DXGI names".into()];
    }
    let by_library = found.gpus.len();
    match host.text(&Question::Dxgi(DxgiQuestion::Count)) {
        Ok(count) => {
            let mut matched = Vec::new();
            for index in 0..count.trim().parse::<u32>().unwrap_or(0).min(MAX_ADAPTERS) {
                if let Ok(text) = host.text(&Question::Dxgi(DxgiQuestion::Adapter(index))) {
                    adapter(&text, by_library, available, &mut matched, &mut found);
                }
            }
        }
        Err(refusal) => {
            if refusal == Refusal::TimedOut {
                found.warnings.push("DXGI did not answer in time; GPUs are those of the registry".into());
            }
            registry(host, &mut found);
        }
    }
    found
}

/// One adapter: the one of NVIDIA's library that it is, or another. `matched`: which of the library's have theirs.
fn adapter(text: &str, by_library: usize, available: &Known<Bytes>, matched: &mut Vec<usize>, found: &mut Gpus) {
    let flags = fields::number(text, "flags").unwrap_or(0);
    let (vendor, device) = (fields::hexadecimal(text, "vendor").unwrap_or(0), fields::hexadecimal(text, "device").unwrap_or(0));
    // A screen on another machine.
    if flags & REMOTE != 0 {
        return;
    }
    let name = fields::text(text, "name").filter(|name| !name.is_empty());
    let bytes = |field: &str| fields::number(text, field).map(Bytes::new);
    let shared = Known::from_option(bytes("shared"), "DXGI SharedSystemMemory", "DXGI does not say");
    let pci_id = Known::exact(format!("{vendor:04x}:{device:04x}"), "DXGI");
    let same = |gpu: &Gpu| gpu.vendor == GpuVendor::Nvidia && gpu.name.value().map(String::as_str) == name;
    let twin = (0..by_library).find(|index| maker(vendor) == GpuVendor::Nvidia && !matched.contains(index) && same(&found.gpus[*index]));
    if let Some(index) = twin {
        matched.push(index);
        let gpu = &mut found.gpus[index];
        gpu.shared_memory = shared;
        if gpu.pci_id.is_unknown() {
            gpu.pci_id = pci_id;
        }
        return;
    }
    let software = flags & SOFTWARE != 0 || (vendor, device) == BASIC_RENDER;
    let kind = kind(text, software, vendor);
    let dedicated = bytes("dedicated").unwrap_or(Bytes::ZERO);
    let rest = |budget: Option<Bytes>, used: Option<Bytes>| Some(budget?.saturating_sub(used?));
    let local = rest(bytes("local-budget"), bytes("local-used"));
    let driver = fields::text(text, "driver").map(str::to_owned);
    let total = match kind {
        GpuKind::Discrete => Known::from_option(
            Some(dedicated).filter(|bytes| !bytes.is_zero()),
            "DXGI DedicatedVideoMemory",
            "DXGI names no memory of its own",
        ),
        GpuKind::Integrated => shared.clone().map(|shared| shared + dedicated),
        GpuKind::Software => Known::unknown("pretended by the processor"),
    };
    // A budget may be above what there is.
    let all = total.get();
    if kind != GpuKind::Software {
        found.visible.push(found.gpus.len());
    }
    found.gpus.push(Gpu {
        name: Known::from_option(name.map(str::to_owned), "DXGI", "DXGI does not name it"),
        driver: Known::from_option(driver, "DXGI CheckInterfaceSupport", "DXGI does not say"),
        memory_total: total,
        shared_memory: shared,
        pci_id,
        ..Gpu::unknown(maker(vendor), kind, "DXGI does not say")
    });
    // A budget of the host's memory takes no account of what others use of it.
    let capped = |local: Bytes| available.get().filter(|_| kind == GpuKind::Integrated).map_or(local, |free| local.min(free));
    found.free.push(match kind {
        GpuKind::Software => Known::unknown("pretended by the processor"),
        _ => Known::from_option(
            local.map(capped).map(|free| all.map_or(free, |all| free.min(all))),
            "DXGI QueryVideoMemoryInfo: budget - use",
            "DXGI names no budget",
        ),
    });
}

/// DXCore says which adapter is integrated. Without it: the memory that firmware sets aside for one is small, and no card has so
/// little.
fn kind(text: &str, software: bool, vendor: u64) -> GpuKind {
    const LEAST_OF_A_CARD: u64 = 1 << 30;
    let little = fields::number(text, "dedicated").unwrap_or(0) < LEAST_OF_A_CARD;
    match (software, fields::number(text, "integrated")) {
        (true, _) => GpuKind::Software,
        (_, Some(1)) => GpuKind::Integrated,
        (_, None) if little && maker(vendor) != GpuVendor::Nvidia => GpuKind::Integrated,
        _ => GpuKind::Discrete,
    }
}

fn maker(vendor: u64) -> GpuVendor {
    match vendor {
        0x10de => GpuVendor::Nvidia,
        0x1002 | 0x1022 => GpuVendor::Amd,
        0x8086 => GpuVendor::Intel,
        _ => GpuVendor::Other,
    }
}

/// What the registry keeps of adapters, for a system whose DXGI is silent: a service, or a server without a desktop. What is
/// free is not there.
fn registry(host: &dyn Host, found: &mut Gpus) {
    const SILENT: &str = "DXGI is silent and the registry does not say";
    for key in host.registry_keys(DISPLAY).iter().filter(|key| key.chars().all(|c| c.is_ascii_digit())).take(MAX_ADAPTERS as usize) {
        let value = |name: &str| host.text(&Question::Registry(format!("{DISPLAY}\\{key}\\{name}"))).ok();
        let Some((vendor, device)) = value("MatchingDeviceId").and_then(|id| pci(&id)) else { continue };
        let name = value("DriverDesc");
        if found.gpus.iter().any(|gpu| gpu.name.value().map(String::as_str) == name.as_deref()) {
            continue;
        }
        let memory = value("HardwareInformation.qwMemorySize").and_then(|text| text.trim().parse().ok()).filter(|bytes| *bytes > 0);
        let kind = if memory.is_some_and(|bytes: u64| bytes >= 1 << 30) { GpuKind::Discrete } else { GpuKind::Integrated };
        found.visible.push(found.gpus.len());
        found.gpus.push(Gpu {
            name: Known::from_option(name, "registry DriverDesc", SILENT),
            driver: Known::from_option(value("DriverVersion"), "registry DriverVersion", SILENT),
            memory_total: Known::from_option(memory.map(Bytes::new), "registry HardwareInformation.qwMemorySize", SILENT),
            pci_id: Known::exact(format!("{vendor:04x}:{device:04x}"), "registry MatchingDeviceId"),
            ..Gpu::unknown(maker(vendor), kind, SILENT)
        });
        found.free.push(Known::unknown(SILENT));
    }
}

/// Vendor and device of `pci\ven_10de&dev_2684&...`.
fn pci(id: &str) -> Option<(u64, u64)> {
    let id = id.to_ascii_lowercase();
    let number = |word: &str| u64::from_str_radix(id.split_once(word)?.1.get(..4)?, 16).ok();
    Some((number("ven_")?, number("dev_")?))
}

/// Accelerators that DXCore calls NPUs.
pub(super) fn npus(host: &dyn Host) -> Vec<Npu> {
    let text = host.text(&Question::Dxgi(DxgiQuestion::Npus)).unwrap_or_default();
    let npu = |name: &str| Npu {
        name: name.to_owned(),
        driver: Known::unknown("DXCore does not say"),
        pci_address: Known::unknown("DXCore does not say"),
    };
    text.lines().map(str::trim).filter(|name| !name.is_empty()).map(npu).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Recording};

    #[test]
    fn the_registry_stands_in_for_a_silent_dxgi() {
        let mut host = Recording::new("");
        host.set(&Question::RegistryKeys(DISPLAY.into()), Ok(Answer::Names(["0000", "0001", "Configuration"].map(String::from).into())));
        for (name, value) in [
            ("0000\\DriverDesc", "AMD Radeon RX 7900 XTX"),
            ("0000\\MatchingDeviceId", "PCI\\VEN_1002&DEV_744C&REV_C8"),
            ("0000\\HardwareInformation.qwMemorySize", "25753026560"),
            ("0000\\DriverVersion", "32.0.12019.1028"),
            ("0001\\MatchingDeviceId", "root\\basicdisplay"),
        ] {
            host.set(&Question::Registry(format!("{DISPLAY}\\{name}")), Ok(Answer::text(value)));
        }
        let found = read(&host, &Known::unknown("test"), &Known::unknown("test"), Depth::Drivers);
        assert_eq!((found.gpus.len(), found.visible.as_slice()), (1, &[0usize][..]));
        assert_eq!(found.gpus[0].memory_total.get(), Some(Bytes::new(25_753_026_560)));
        assert_eq!(found.gpus[0].pci_id.value().map(String::as_str), Some("1002:744c"));
        assert!(found.free[0].is_unknown());
        // A driver that would answer is not asked where only files may be.
        host.set(&Question::Dxgi(DxgiQuestion::Count), Ok(Answer::text("0")));
        assert!(read(&host, &Known::unknown("test"), &Known::unknown("test"), Depth::Drivers).gpus.is_empty());
        assert_eq!(read(&host, &Known::unknown("test"), &Known::unknown("test"), Depth::Static).gpus.len(), 1);
    }

    #[test]
    fn ids_of_devices() {
        assert_eq!(pci("pci\\ven_10de&dev_2684&subsys_1"), Some((0x10de, 0x2684)));
        assert_eq!((pci("root\\x"), pci("ven_1&dev_2"), pci("ven_10de&dev_é00")), (None, None, None));
    }
}
