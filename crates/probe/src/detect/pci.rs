//! Devices on the PCI bus: which are GPUs and accelerators, whether or not a driver speaks for them, and which are asleep.
//!
//! Linux Documentation/ABI/testing/sysfs-bus-pci, sysfs-devices-power. Nothing read here wakes a device: the kernel keeps
//! these files in memory.

use crate::host::Host;

const DEVICES: &str = "/sys/bus/pci/devices";

/// More devices than any bus has; a longer list is a broken answer.
const MAX_DEVICES: usize = 4096;

/// A device on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PciDevice {
    pub(crate) address: String,
    pub(crate) vendor: u32,
    pub(crate) device: u32,
    /// Base class and subclass: 0x0300 for a VGA controller.
    pub(crate) class: u32,
}

/// PCI vendor ids (pci.ids).
pub(crate) const NVIDIA: u32 = 0x10de;
pub(crate) const AMD: u32 = 0x1002;
pub(crate) const INTEL: u32 = 0x8086;
/// AMD's processors, and the NPU in them.
pub(crate) const AMD_PROCESSORS: u32 = 0x1022;

/// Makers of adapters that only show a picture: servers' management controllers and what virtual machines are given.
/// ASPEED, Matrox, Silicon Motion, XGI, Cirrus Logic, QEMU, QXL, VMware, Hyper-V, VirtualBox (pci.ids 2025-06).
const DISPLAY_ONLY: [u32; 10] = [0x1a03, 0x102b, 0x126f, 0x18ca, 0x1013, 0x1234, 0x1b36, 0x15ad, 0x1414, 0x80ee];

/// The devices on the bus, in the order of their addresses. One read per device.
pub(crate) fn devices(host: &dyn Host) -> Vec<PciDevice> {
    let device = |address: String| {
        let (vendor, device, class) = parse_modalias(&host.read(&format!("{DEVICES}/{address}/modalias")).ok()?)?;
        Some(PciDevice { address, vendor, device, class })
    };
    host.list(DEVICES).unwrap_or_default().into_iter().take(MAX_DEVICES).filter_map(device).collect()
}

impl PciDevice {
    /// True for what computes like a GPU: display controllers of every subclass (VGA 00, 3D 02, other 80: H100 and most
    /// GPUs of laptops are no VGA devices), and AMD's processing accelerators (MI300).
    pub(crate) fn is_gpu(&self) -> bool {
        match self.class >> 8 {
            0x03 => !DISPLAY_ONLY.contains(&self.vendor),
            0x12 => matches!(self.vendor, AMD | NVIDIA),
            _ => false,
        }
    }

    /// The folder of its files.
    pub(crate) fn folder(&self) -> String {
        format!("{DEVICES}/{}", self.address)
    }

    /// `10de:2684`.
    pub(crate) fn id(&self) -> String {
        format!("{:04x}:{:04x}", self.vendor, self.device)
    }

    /// The kernel's driver that holds it.
    pub(crate) fn driver(&self, host: &dyn Host) -> Option<String> {
        let uevent = host.read(&format!("{}/uevent", self.folder())).ok()?;
        uevent.lines().find_map(|line| line.strip_prefix("DRIVER=")).map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
    }

    /// True where it is powered down, and a question to it or its driver would wake it.
    pub(crate) fn asleep(&self, host: &dyn Host) -> bool {
        host.read(&format!("{}/power/runtime_status", self.folder())).is_ok_and(|status| status.trim() == "suspended")
    }
}

/// Vendor, device and class of `pci:v000010DEd00002684sv00001458sd000040BFbc03sc00i00`.
fn parse_modalias(text: &str) -> Option<(u32, u32, u32)> {
    let rest = text.trim().strip_prefix("pci:v")?;
    let number = |from: usize, to: usize| u32::from_str_radix(rest.get(from..to)?, 16).ok();
    let place = rest.find("bc")?;
    let base = number(place + 2, place + 4)?;
    let sub = rest.get(place + 4..place + 6).filter(|sc| *sc == "sc").and_then(|_| number(place + 6, place + 8)).unwrap_or(0);
    Some((number(0, 8)?, rest.get(8..9).filter(|d| *d == "d").and_then(|_| number(9, 17))?, base << 8 | sub))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn modalias() {
        assert_eq!(parse_modalias("pci:v000010DEd00002684sv00001458sd000040BFbc03sc00i00\n"), Some((NVIDIA, 0x2684, 0x0300)));
        assert_eq!(parse_modalias("pci:v00001002d000074A1sv00001002sd000074A1bc12sc00i00"), Some((AMD, 0x74a1, 0x1200)));
        assert_eq!(parse_modalias("pci:v00001002d0000150Esv000017AAsd00003801bc03sc80i00"), Some((AMD, 0x150e, 0x0380)));
        assert_eq!(parse_modalias("acpi:PNP0A03:"), None);
    }

    #[test]
    fn every_class_of_gpu_and_no_management_controller() {
        let gpu = |vendor, class| PciDevice { address: String::new(), vendor, device: 1, class }.is_gpu();
        assert!([0x0300, 0x0302, 0x0380, 0x1200].iter().all(|class| gpu(AMD, *class) && gpu(NVIDIA, *class)));
        assert!(gpu(INTEL, 0x0380) && !gpu(INTEL, 0x1200) && !gpu(NVIDIA, 0x0403));
        assert!(!gpu(0x1a03, 0x0300) && gpu(0x1ae0, 0x0300));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(pci:v)?\\PC{0,40}") {
            let _ = parse_modalias(&text);
        }
    }
}
