//! What the kernel tells about every GPU on the PCI bus alike: link, address window, nearest memory, sensors.
//!
//! Linux Documentation/ABI/testing/sysfs-bus-pci (`max_link_speed`, `resource`, `numa_node`), Documentation/hwmon/sysfs-interface.rst.

use super::gpus::Found;
use super::pci::PciDevice;
use crate::host::{Host, Question};
use spec::Known;
use spec::machine::{GpuCondition, PcieLink};

/// Why nothing is read of a device that sleeps.
pub(crate) const ASLEEP: &str = "asleep, and not woken";
const INSIDE: &str = "part of the processor";

/// Nothing of what changes is read of a device that sleeps: reading would wake it.
pub(crate) fn asleep(found: &mut Found) {
    found.gpu.pcie = Known::unknown(ASLEEP);
    found.gpu.power_limit_watts = Known::unknown(ASLEEP);
    found.condition = GpuCondition { asleep: true, ..GpuCondition::unknown(ASLEEP) };
}

/// A GPU of the processor hangs on no link.
pub(crate) fn inside_processor(found: &mut Found) {
    found.gpu.pcie = Known::unknown(INSIDE);
    found.condition.link = Known::unknown(INSIDE);
}

/// The best link between card and host, and the link as it runs now.
pub(crate) struct Links {
    pub(crate) best: Option<PcieLink>,
    pub(crate) now: Option<PcieLink>,
}

/// The link of a card to the slot that it sits in.
///
/// Cards of AMD (since Vega) and Intel have a switch of their own: the GPU hangs on a link inside the card, whose speed says
/// nothing. What counts is the link of the switch's upper port, and the best of it is what both of its ends can do.
pub(crate) fn links(host: &dyn Host, device: &PciDevice) -> Links {
    let chain = ancestors(host, device);
    let card = outer_port(host, device, &chain);
    let folder = card.map_or_else(|| device.folder(), device_folder);
    let above = chain.iter().position(|address| Some(address.as_str()) == card.or(Some(&device.address)));
    let above = above.and_then(|place| place.checked_sub(1)).map(|place| device_folder(&chain[place]));
    let best = link(host, &folder, "max").map(|own| match above.and_then(|folder| link(host, &folder, "max")) {
        Some(port) => PcieLink { generation: own.generation.min(port.generation), lanes: own.lanes.min(port.lanes) },
        None => own,
    });
    Links { best, now: link(host, &folder, "current") }
}

/// True where the files describe a link inside the card instead of the one to the slot: Intel's GPUs then name one lane of the
/// first generation.
pub(crate) fn is_inside(link: PcieLink) -> bool {
    link == PcieLink { generation: 1, lanes: 1 }
}

fn device_folder(address: &str) -> String {
    format!("/sys/bus/pci/devices/{address}")
}

/// The addresses on the way from the root to the device, the device last; empty where the system does not say.
fn ancestors(host: &dyn Host, device: &PciDevice) -> Vec<String> {
    // ../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0
    let target = host.text(&Question::Link(device.folder())).unwrap_or_default();
    target.split('/').skip_while(|part| !part.starts_with("pci")).skip(1).map(str::to_owned).collect()
}

/// The upper port of the card's own switch: two steps above the device, of the same maker, and not the root's port.
fn outer_port<'a>(host: &dyn Host, device: &PciDevice, chain: &'a [String]) -> Option<&'a str> {
    let place = chain.len().checked_sub(3).filter(|place| *place > 0)?;
    let own = |address: &String| {
        let vendor = host.read(&format!("{}/vendor", device_folder(address))).ok()?;
        u32::from_str_radix(vendor.trim().trim_start_matches("0x"), 16).ok().filter(|vendor| *vendor == device.vendor)
    };
    chain[place..place + 2].iter().all(|address| own(address).is_some()).then(|| chain[place].as_str())
}

fn link(host: &dyn Host, folder: &str, which: &str) -> Option<PcieLink> {
    let speed = host.read(&format!("{folder}/{which}_link_speed")).ok()?;
    let lanes = host.read(&format!("{folder}/{which}_link_width")).ok()?;
    Some(PcieLink { generation: generation(&speed)?, lanes: lanes.trim().parse().ok().filter(|lanes| (1..=32).contains(lanes))? })
}

/// The generation of `16.0 GT/s PCIe`.
pub(crate) fn generation(text: &str) -> Option<u32> {
    let rate: f64 = text.split_whitespace().next()?.parse().ok()?;
    [2.5, 5.0, 8.0, 16.0, 32.0, 64.0, 128.0].iter().position(|known| (known - rate).abs() < 0.01).and_then(|at| u32::try_from(at + 1).ok())
}

/// The length of an address window of the device, in bytes; `None` where it has no such window.
pub(crate) fn window(host: &dyn Host, device: &PciDevice, bar: usize) -> Option<u64> {
    let text = host.read(&format!("{}/resource", device.folder())).ok()?;
    let mut numbers = text.lines().nth(bar)?.split_whitespace().map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16));
    match (numbers.next(), numbers.next()) {
        (Some(Ok(start)), Some(Ok(end))) if end > start => (end - start).checked_add(1),
        _ => None,
    }
}

/// The NUMA node that the device is nearest to.
pub(crate) fn numa_node(host: &dyn Host, device: &PciDevice) -> Known<u32> {
    let path = format!("{}/numa_node", device.folder());
    match host.read(&path).map(|text| text.trim().parse::<i64>()) {
        Ok(Ok(node)) => match u32::try_from(node) {
            Ok(node) => Known::exact(node, path),
            Err(_) => Known::unknown("the firmware names no node for it"),
        },
        Ok(Err(_)) => Known::unknown(format!("{path} is no number")),
        Err(refusal) => Known::unknown(format!("{path}: {refusal}")),
    }
}

/// The folder of the device's sensors.
pub(crate) fn sensors(host: &dyn Host, device: &PciDevice) -> Option<String> {
    let folder = format!("{}/hwmon", device.folder());
    host.list(&folder).ok()?.into_iter().find(|name| name.starts_with("hwmon")).map(|name| format!("{folder}/{name}"))
}

/// A sensor that counts in millionths or thousandths of its unit: the first of the files that can be read.
pub(crate) fn sensor(host: &dyn Host, folder: Option<&String>, files: &[&str], parts: f64) -> Known<f64> {
    let Some(folder) = folder else { return Known::unknown("the driver shows no sensors") };
    for file in files {
        let path = format!("{folder}/{file}");
        if let Some(value) = host.read(&path).ok().and_then(|text| text.trim().parse::<i64>().ok()) {
            return Known::exact(value as f64 / parts, path);
        }
    }
    Known::unknown(format!("{folder} has no {}", files.join(", no ")))
}

/// Whether the device's render node is there to be opened: a container sees the host's `/sys` and not its devices. `None` where
/// nothing tells.
pub(crate) fn reachable(host: &dyn Host, device: &PciDevice) -> Option<bool> {
    use crate::host::Refusal;
    let node = host.list(&format!("{}/drm", device.folder())).ok()?.into_iter().find(|name| name.starts_with("renderD"))?;
    match host.list("/dev/dri") {
        Ok(names) => Some(names.contains(&node)),
        Err(Refusal::NotFound) => Some(false),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Recording};

    fn device() -> PciDevice {
        PciDevice { address: "0000:03:00.0".into(), vendor: super::super::pci::AMD, device: 0x744c, class: 0x0300 }
    }

    fn host(files: &[(&str, &str)], path: &str) -> Recording {
        let mut host = Recording::new("");
        for (file, text) in files {
            host.set(&Question::Read(format!("/sys/bus/pci/devices/{file}")), Ok(Answer::text(*text)));
        }
        host.set(&Question::Link(device().folder()), Ok(Answer::text(path)));
        host
    }

    #[test]
    fn the_link_of_the_slot_and_not_of_the_cards_own_switch() {
        let files = [
            ("0000:00:01.1/vendor", "0x1022"),
            ("0000:00:01.1/max_link_speed", "16.0 GT/s PCIe"),
            ("0000:00:01.1/max_link_width", "4"),
            ("0000:01:00.0/vendor", "0x1002"),
            ("0000:01:00.0/max_link_speed", "16.0 GT/s PCIe"),
            ("0000:01:00.0/max_link_width", "16"),
            ("0000:01:00.0/current_link_speed", "2.5 GT/s PCIe"),
            ("0000:01:00.0/current_link_width", "4"),
            ("0000:02:00.0/vendor", "0x1002"),
            ("0000:03:00.0/max_link_speed", "32.0 GT/s PCIe"),
            ("0000:03:00.0/max_link_width", "16"),
        ];
        let host = host(&files, "../../../devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0");
        let links = links(&host, &device());
        assert_eq!(links.best, Some(PcieLink { generation: 4, lanes: 4 }));
        assert_eq!(links.now, Some(PcieLink { generation: 1, lanes: 4 }));
    }

    #[test]
    fn a_card_without_a_switch_has_its_own_link() {
        let files = [("0000:03:00.0/max_link_speed", "8.0 GT/s PCIe"), ("0000:03:00.0/max_link_width", "16")];
        for path in ["", "../../../devices/pci0000:00/0000:00:01.1/0000:03:00.0", "pci"] {
            let links = links(&host(&files, path), &device());
            assert_eq!((links.best, links.now), (Some(PcieLink { generation: 3, lanes: 16 }), None));
        }
        assert_eq!((generation("Unknown"), generation("64.0 GT/s PCIe"), generation("2.5 GT/s")), (None, Some(6), Some(1)));
    }

    #[test]
    fn windows_of_addresses() {
        let host = host(&[("0000:03:00.0/resource", "0xf800000000 0xfbffffffff 0x14220c\n0x0 0x0 0x0\n0x5 0x4 0x1\nx")], "");
        let window = |bar| window(&host, &device(), bar);
        assert_eq!((window(0), window(1), window(2), window(3), window(9)), (Some(16 << 30), None, None, None, None));
    }
}
