//! Display controllers and accelerators on the PCI bus, whether or not a driver speaks for them.

use crate::host::Host;

/// A device on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PciDevice {
    pub(crate) address: String,
    pub(crate) vendor: u32,
    pub(crate) device: u32,
}

/// PCI vendor ids (pci.ids).
pub(crate) const NVIDIA: u32 = 0x10de;
pub(crate) const AMD: u32 = 0x1002;
pub(crate) const INTEL: u32 = 0x8086;

/// The GPUs and accelerators on the bus. One read per device, of a file that does not wake it.
pub(crate) fn accelerators(host: &dyn Host) -> Vec<PciDevice> {
    const DEVICES: &str = "/sys/bus/pci/devices";
    let device = |address: String| {
        let (vendor, device, class) = parse_modalias(&host.read(&format!("{DEVICES}/{address}/modalias")).ok()?)?;
        // 03: display controllers (VGA, 3D, other); 12: processing accelerators. MI300 and H100 are no VGA devices.
        matches!(class, 0x03 | 0x12).then_some(PciDevice { address, vendor, device })
    };
    host.list(DEVICES).unwrap_or_default().into_iter().filter_map(device).collect()
}

/// Vendor, device and base class of `pci:v000010DEd00002684sv00001458sd000040BFbc03sc00i00`.
fn parse_modalias(text: &str) -> Option<(u32, u32, u32)> {
    let rest = text.trim().strip_prefix("pci:v")?;
    let number = |from: usize, to: usize| u32::from_str_radix(rest.get(from..to)?, 16).ok();
    let class = rest.find("bc").and_then(|place| u32::from_str_radix(rest.get(place + 2..place + 4)?, 16).ok());
    Some((number(0, 8)?, rest.get(8..9).filter(|d| *d == "d").and_then(|_| number(9, 17))?, class?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn modalias() {
        assert_eq!(parse_modalias("pci:v000010DEd00002684sv00001458sd000040BFbc03sc00i00\n"), Some((NVIDIA, 0x2684, 3)));
        assert_eq!(parse_modalias("pci:v00001002d000074A1sv00001002sd000074A1bc12sc00i00"), Some((AMD, 0x74a1, 0x12)));
        assert_eq!(parse_modalias("acpi:PNP0A03:"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(pci:v)?\\PC{0,40}") {
            let _ = parse_modalias(&text);
        }
    }
}
