//! Memory of the host, its modules and NUMA nodes.

use crate::known::Known;
use crate::units::Bytes;
use std::collections::BTreeSet;

/// Memory of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Installed and usable by the system.
    pub total: Known<Bytes>,
    /// Swap space configured.
    pub swap_total: Known<Bytes>,
    /// Size of a base page.
    pub page: Known<Bytes>,
    /// Pages larger than a base page.
    pub huge_pages: HugePages,
    /// Modules, where the firmware's table can be read; empty otherwise.
    pub modules: Vec<MemoryModule>,
}

impl Memory {
    /// Memory of which nothing is known, and why not.
    pub fn unknown(why: &'static str) -> Self {
        Self {
            total: Known::unknown(why),
            swap_total: Known::unknown(why),
            page: Known::unknown(why),
            huge_pages: HugePages::unknown(why),
            modules: Vec::new(),
        }
    }
}

/// Pages larger than a base page.
#[derive(Clone, Debug, PartialEq)]
pub struct HugePages {
    /// Whether the system makes them by itself: `always`, `madvise`, `never`.
    pub transparent: Known<String>,
    /// Size of one.
    pub size: Known<Bytes>,
    /// How many are set aside, taken or not.
    pub reserved: Known<u64>,
}

impl HugePages {
    /// Nothing known, and why not.
    pub fn unknown(why: &'static str) -> Self {
        Self { transparent: Known::unknown(why), size: Known::unknown(why), reserved: Known::unknown(why) }
    }
}

/// A module of memory as the firmware describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryModule {
    /// Where it sits, in the board's words: `DIMM A1`.
    pub slot: String,
    /// Its memory.
    pub size: Known<Bytes>,
    /// `DDR4`, `DDR5`, `LPDDR5`.
    pub kind: Known<String>,
    /// Transfers per second at which it runs, not at which it could.
    pub transfers_per_s: Known<u64>,
    /// Width of its data in bits, without error correction.
    pub width_bits: Known<u32>,
}

/// One NUMA node.
#[derive(Clone, Debug, PartialEq)]
pub struct NumaNode {
    /// The system's number.
    pub id: u32,
    /// Logical CPUs; empty on a node that has memory only.
    pub cpus: BTreeSet<u32>,
    /// Memory of the node.
    pub memory: Known<Bytes>,
    /// The kernel's relative cost of reaching each node, 10 being the node itself, in the order of [`Facts::numa`](super::Facts::numa); empty where
    /// it does not say.
    pub distances: Vec<u32>,
    /// True where the memory is that of a GPU (Grace Hopper, POWER9 with V100): no part of [`Memory::total`].
    pub of_gpu: bool,
}
