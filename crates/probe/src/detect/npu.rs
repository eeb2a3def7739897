//! Accelerators for neural networks that are no GPUs: named, for no supported engine computes on them.
//!
//! Linux Documentation/accel/introduction.rst (`/sys/class/accel`), pci.ids 2025-06.

use super::pci::{self, PciDevice};
use crate::host::Host;
use spec::Known;
use spec::machine::Npu;

const ACCEL: &str = "/sys/class/accel";
const MAX_NODES: usize = 64;

/// AMD's NPUs do not say by their class what they are: Phoenix and Hawk Point; Strix, Strix Halo and Krackan.
const XDNA: [u32; 2] = [0x1502, 0x17f0];

/// The NPUs that a driver holds, then those that stand on the bus without one.
pub(crate) fn read(host: &dyn Host, bus: &[PciDevice]) -> Vec<Npu> {
    let nodes = host.list(ACCEL).unwrap_or_default();
    let mut npus: Vec<Npu> =
        nodes.iter().filter(|name| name.starts_with("accel")).take(MAX_NODES).filter_map(|name| node(host, name)).collect();
    for device in bus.iter().filter(|device| is_npu(device)) {
        if npus.iter().any(|npu| npu.pci_address.value().is_some_and(|address| address.eq_ignore_ascii_case(&device.address))) {
            continue;
        }
        npus.push(Npu {
            name: name_of(device),
            driver: Known::from_option(device.driver(host), "PCI", "no driver holds it"),
            pci_address: Known::exact(device.address.clone(), "PCI"),
        });
    }
    npus
}

fn node(host: &dyn Host, name: &str) -> Option<Npu> {
    let uevent = host.read(&format!("{ACCEL}/{name}/device/uevent")).ok()?;
    let field = |key: &str| uevent.lines().find_map(|line| line.strip_prefix(key)).map(|text| text.trim().to_owned());
    let driver = field("DRIVER=");
    let named = match driver.as_deref() {
        Some("intel_vpu") => "Intel NPU".to_owned(),
        Some("amdxdna") => match host.read(&format!("{ACCEL}/{name}/device/vbnv")) {
            Ok(model) => format!("AMD XDNA ({})", model.trim()),
            Err(_) => "AMD XDNA".to_owned(),
        },
        Some("habanalabs") => "Intel Gaudi".to_owned(),
        Some("qaic") => "Qualcomm Cloud AI".to_owned(),
        Some("rocket") => "Rockchip NPU".to_owned(),
        _ => format!("accelerator {}", field("PCI_ID=").unwrap_or_default().to_ascii_lowercase()).trim_end().to_owned(),
    };
    Some(Npu {
        name: named,
        driver: Known::from_option(driver, ACCEL, "no driver holds it"),
        pci_address: Known::from_option(field("PCI_SLOT_NAME="), ACCEL, "not on the PCI bus"),
    })
}

fn is_npu(device: &PciDevice) -> bool {
    (device.class >> 8 == 0x12 && !device.is_gpu()) || (device.vendor == pci::AMD_PROCESSORS && XDNA.contains(&device.device))
}

fn name_of(device: &PciDevice) -> String {
    match device.vendor {
        pci::INTEL => "Intel NPU".to_owned(),
        pci::AMD_PROCESSORS => "AMD XDNA".to_owned(),
        0x1da3 => "Intel Gaudi".to_owned(),
        0x17cb => "Qualcomm Cloud AI".to_owned(),
        _ => format!("accelerator {}", device.id()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Question, Recording};

    #[test]
    fn each_once_with_its_driver() {
        let device = |address: &str, vendor, device, class| PciDevice { address: address.into(), vendor, device, class };
        let bus = [
            device("0000:00:0b.0", pci::INTEL, 0x7d1d, 0x1200),
            device("0000:c5:00.1", pci::AMD_PROCESSORS, 0x17f0, 0x1180),
            device("0000:c6:00.0", pci::AMD, 0x74a1, 0x1200),
        ];
        let mut host = Recording::new("");
        host.set(&Question::List(ACCEL.into()), Ok(Answer::Names(vec!["accel0".into()])));
        let uevent = "DRIVER=intel_vpu\nPCI_ID=8086:7D1D\nPCI_SLOT_NAME=0000:00:0b.0";
        host.set(&Question::Read(format!("{ACCEL}/accel0/device/uevent")), Ok(Answer::text(uevent)));
        let names: Vec<String> = read(&host, &bus).into_iter().map(|npu| format!("{} {}", npu.name, npu.driver)).collect();
        assert_eq!(names, ["Intel NPU intel_vpu", "AMD XDNA unknown (no driver holds it)"]);
    }
}
