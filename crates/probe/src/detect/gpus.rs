//! All GPUs of a machine put together: each once, whoever names it, in the engines' order.

use super::{Depth, amd, intel, npu, nvidia, nvidia_links, pci, phone, vulkan};
use crate::host::Host;
use spec::machine::{Gpu, GpuCondition, GpuKind, GpuVendor, Npu, PeerLink};
use spec::{Bytes, BytesPerSec, Known};

/// What the system's memory is to a GPU that has none of its own.
pub(crate) struct HostMemory<'a> {
    pub(crate) total: &'a Known<Bytes>,
    pub(crate) available: &'a Known<Bytes>,
}

/// A GPU with what is true of it now.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) gpu: Gpu,
    pub(crate) free: Known<Bytes>,
    pub(crate) condition: GpuCondition,
    pub(crate) links: Vec<Link>,
}

/// A direct link to the GPU at an address.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Link {
    pub(crate) to: String,
    pub(crate) kind: &'static str,
    pub(crate) count: u32,
    pub(crate) bandwidth: Known<BytesPerSec>,
}

/// What one source finds: its GPUs in the order of its engines, those that this process may use in the order in which they
/// count them, and what people should know.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) found: Vec<Found>,
    pub(crate) visible: Vec<usize>,
    pub(crate) warnings: Vec<String>,
}

/// The GPUs and other accelerators of a machine.
#[derive(Debug, Default)]
pub(crate) struct Gpus {
    pub(crate) gpus: Vec<Gpu>,
    pub(crate) free: Vec<Known<Bytes>>,
    pub(crate) conditions: Vec<GpuCondition>,
    pub(crate) visible: Vec<usize>,
    pub(crate) npus: Vec<Npu>,
    pub(crate) warnings: Vec<String>,
}

impl Found {
    /// A GPU of which its place on the bus is known.
    pub(crate) fn on_the_bus(device: &pci::PciDevice, vendor: GpuVendor, kind: GpuKind, why: &'static str) -> Self {
        let gpu = Gpu {
            pci_address: Known::exact(device.address.clone(), "PCI"),
            pci_id: Known::exact(device.id(), "PCI"),
            ..Gpu::unknown(vendor, kind, why)
        };
        Self { gpu, free: Known::unknown(why), condition: GpuCondition::unknown(why), links: Vec::new() }
    }

    /// True where this is the whole device at an address.
    pub(crate) fn is_at(&self, address: &str) -> bool {
        self.gpu.slice.is_none() && self.gpu.pci_address.value().is_some_and(|own| own.eq_ignore_ascii_case(address))
    }
}

/// The GPUs behind a host: NVIDIA's, then AMD's, Intel's, others.
pub(crate) fn read(host: &dyn Host, memory: &HostMemory<'_>, depth: Depth) -> Gpus {
    let bus = pci::devices(host);
    let gpus: Vec<&pci::PciDevice> = bus.iter().filter(|device| device.is_gpu()).collect();
    let sources =
        [nvidia::read(host, &gpus, memory, depth), amd::read(host, &gpus, memory), intel::read(host, &gpus, memory), others(host, &gpus)];
    let mut all = Gpus { npus: npu::read(host, &bus), ..Gpus::default() };
    let mut found = Vec::new();
    for mut source in sources {
        let first = found.len();
        all.visible.extend(source.visible.iter().filter(|index| **index < source.found.len()).map(|index| first + index));
        all.warnings.append(&mut source.warnings);
        found.append(&mut source.found);
    }
    if found.is_empty() {
        let mut source = phone::read(host, memory);
        all.visible.append(&mut source.visible);
        found.append(&mut source.found);
    }
    if depth == Depth::Full || depth > Depth::Static && only_vulkan_knows(depth, &found) {
        match vulkan::complete(host, &mut found) {
            Ok(visible) => all.visible.extend(visible),
            Err(warning) => all.warnings.push(warning),
        }
    }
    all.take(found);
    all
}

/// The GPUs that NVIDIA's library names, for a system whose bus is not read.
pub(crate) fn of_nvidia(host: &dyn Host, memory: &HostMemory<'_>, depth: Depth) -> Gpus {
    let source = nvidia::read(host, &[], memory, depth);
    let mut all = Gpus { visible: source.visible, warnings: source.warnings, ..Gpus::default() };
    all.take(source.found);
    all
}

impl Gpus {
    /// All that are found, with the links between them.
    fn take(&mut self, mut found: Vec<Found>) {
        connect(&mut found);
        for Found { gpu, free, condition, .. } in found {
            self.gpus.push(gpu);
            self.free.push(free);
            self.conditions.push(condition);
        }
    }
}

/// True where a GPU with a driver has memory that nothing has told yet, and none sleeps that may not be woken: Vulkan wakes all.
fn only_vulkan_knows(depth: Depth, found: &[Found]) -> bool {
    let silent = |found: &Found| {
        let gpu = &found.gpu;
        gpu.memory_total.is_unknown() && !gpu.driver.is_unknown() && gpu.vendor != GpuVendor::Nvidia && gpu.kind == GpuKind::Discrete
    };
    found.iter().any(silent) && (depth >= Depth::Waking || !found.iter().any(|found| found.condition.asleep))
}

/// Makers whose drivers nothing here reads.
fn others(host: &dyn Host, bus: &[&pci::PciDevice]) -> Source {
    let mut source = Source::default();
    for device in bus.iter().filter(|device| !matches!(device.vendor, pci::NVIDIA | pci::AMD | pci::INTEL)) {
        let mut found = Found::on_the_bus(device, GpuVendor::Other, GpuKind::Discrete, "no source for this maker's GPUs");
        found.gpu.driver = Known::from_option(device.driver(host), "PCI", "no driver holds it");
        found.condition.asleep = device.asleep(host);
        source.found.push(found);
    }
    source
}

/// Addresses of links become indices. A link to a switch leads to every other GPU at a switch, of which a machine has one net.
fn connect(found: &mut [Found]) {
    let places: Vec<(usize, String, bool)> = found
        .iter()
        .enumerate()
        .filter(|(_, found)| found.gpu.slice.is_none())
        .filter_map(|(index, found)| {
            let switched = found.links.iter().any(|link| link.to == nvidia_links::SWITCH);
            Some((index, found.gpu.pci_address.value()?.to_ascii_lowercase(), switched))
        })
        .collect();
    for (own, entry) in found.iter_mut().enumerate() {
        let mut peers = Vec::new();
        for link in &entry.links {
            let to = link.to.to_ascii_lowercase();
            let others = places.iter().filter(|(index, ..)| *index != own);
            for (peer, ..) in others.filter(|(_, address, switched)| *address == to || *switched && to == nvidia_links::SWITCH) {
                peers.push(PeerLink { peer: *peer, kind: link.kind.to_owned(), links: link.count, bandwidth: link.bandwidth.clone() });
            }
        }
        entry.gpu.peers = peers;
    }
}

/// A number of bytes from a file or a driver.
pub(crate) fn bytes(value: Option<u64>, source: impl Into<spec::Source>, reason: impl Into<spec::Source>) -> Known<Bytes> {
    Known::from_option(value.map(Bytes::new), source, reason)
}
