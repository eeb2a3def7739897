//! GPUs, their links, and other accelerators.

use crate::known::Known;
use crate::units::{Bytes, BytesPerSec, OpsPerSec};

/// Who made a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GpuVendor {
    /// NVIDIA.
    Nvidia,
    /// AMD.
    Amd,
    /// Intel.
    Intel,
    /// Apple.
    Apple,
    /// Another maker, or one that is pretended.
    Other,
}

/// What a GPU is built as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GpuKind {
    /// With memory of its own.
    Discrete,
    /// Part of the processor or its package, computing in the host's memory.
    Integrated,
    /// Pretended by the processor (lavapipe, SwiftShader): never chosen.
    Software,
}

/// A GPU as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// Marketing name.
    pub name: Known<String>,
    /// Maker.
    pub vendor: GpuVendor,
    /// What it is built as.
    pub kind: GpuKind,
    /// Identity across interfaces and starts, e.g. `GPU-5ad4...`.
    pub uuid: Known<String>,
    /// Driver and its version, e.g. `nvidia 570.86`, `amdgpu`.
    pub driver: Known<String>,
    /// Instruction set in the maker's word where that is not a compute capability, e.g. `gfx1100`.
    pub architecture: Known<String>,
    /// Multiprocessors (NVIDIA), compute units (AMD), Xe cores (Intel), GPU cores (Apple).
    pub multiprocessors: Known<u32>,
    /// Highest frequency of the processors in Hz.
    pub max_frequency_hz: Known<u64>,
    /// The power that it may draw, in watts.
    pub power_limit_watts: Known<f64>,
    /// Memory of the device: its own; on an integrated GPU what firmware keeps for it and what it may map of the host's
    /// ([`Gpu::shared_memory`]) together, the second being the host's.
    pub memory_total: Known<Bytes>,
    /// Memory of the host that it may map beside its own (GTT, shared GPU memory); on integrated GPUs a part of the host's, never
    /// more memory.
    pub shared_memory: Known<Bytes>,
    /// The part of its memory that the host can address (BAR); smaller than the memory without Resizable BAR.
    pub host_visible: Known<Bytes>,
    /// The largest single buffer that its interface hands out.
    pub largest_buffer: Known<Bytes>,
    /// Peak bandwidth of the device's memory.
    pub memory_bandwidth: Known<BytesPerSec>,
    /// Dense half-precision rate.
    pub compute: Known<OpsPerSec>,
    /// CUDA compute capability (major, minor).
    pub compute_capability: Known<(u32, u32)>,
    /// Link to the host at its best: generation and lanes.
    pub pcie: Known<PcieLink>,
    /// True where the GPU shares the host's memory: its memory is not added to the host's.
    pub unified_memory: bool,
    /// PCI address, e.g. `0000:65:00.0`.
    pub pci_address: Known<String>,
    /// Vendor and device of the PCI registry, e.g. `10de:2684`.
    pub pci_id: Known<String>,
    /// The NUMA node that it is nearest to, an id of [`Facts::numa`](super::Facts::numa).
    pub numa_node: Known<u32>,
    /// Set where this is a part of a partitioned GPU (MIG).
    pub slice: Option<Slice>,
    /// Direct links to other GPUs.
    pub peers: Vec<PeerLink>,
}

impl Gpu {
    /// A GPU of which nothing else is known, and why not.
    pub fn unknown(vendor: GpuVendor, kind: GpuKind, why: &'static str) -> Self {
        Self {
            name: Known::unknown(why),
            vendor,
            kind,
            uuid: Known::unknown(why),
            driver: Known::unknown(why),
            architecture: Known::unknown(why),
            multiprocessors: Known::unknown(why),
            max_frequency_hz: Known::unknown(why),
            power_limit_watts: Known::unknown(why),
            memory_total: Known::unknown(why),
            shared_memory: Known::unknown(why),
            host_visible: Known::unknown(why),
            largest_buffer: Known::unknown(why),
            memory_bandwidth: Known::unknown(why),
            compute: Known::unknown(why),
            compute_capability: Known::unknown(why),
            pcie: Known::unknown(why),
            unified_memory: kind != GpuKind::Discrete,
            pci_address: Known::unknown(why),
            pci_id: Known::unknown(why),
            numa_node: Known::unknown(why),
            slice: None,
            peers: Vec::new(),
        }
    }
}

/// A part of a partitioned GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The maker's name of its size, e.g. `3g.40gb`; empty where not told.
    pub profile: String,
    /// PCI address of the whole.
    pub parent: String,
}

/// A direct link between two GPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerLink {
    /// Index of the other in [`Facts::gpus`](super::Facts::gpus).
    pub peer: usize,
    /// `NVLink`, `XGMI`.
    pub kind: String,
    /// Links that are up.
    pub links: u32,
    /// Of all of them together, in one direction.
    pub bandwidth: Known<BytesPerSec>,
}

/// An accelerator for neural networks that is no GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Npu {
    /// `Intel NPU`, `AMD XDNA`, `Apple Neural Engine`.
    pub name: String,
    /// Driver that holds it.
    pub driver: Known<String>,
    /// PCI address.
    pub pci_address: Known<String>,
}

/// A PCI Express link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcieLink {
    /// Generation, 1 to 7.
    pub generation: u32,
    /// Lanes.
    pub lanes: u32,
}

impl PcieLink {
    /// Usable bandwidth in one direction: lanes × raw rate × line coding (8b/10b up to generation 2, 128b/130b after),
    /// PCI Express base specification; protocol overhead of packets not taken off.
    pub fn bandwidth(self) -> Option<BytesPerSec> {
        let gb_per_lane = match self.generation {
            1 => 0.25,
            2 => 0.5,
            3 => 0.985,
            4 => 1.969,
            5 => 3.938,
            6 => 7.563,
            7 => 15.125,
            _ => return None,
        };
        BytesPerSec::from_gb(gb_per_lane * f64::from(self.lanes))
    }
}
