//! Processors, their kinds of core and caches.

use crate::known::Known;
use crate::units::{Bytes, BytesPerSec};
use std::collections::BTreeSet;

/// The processors of a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Cpu {
    /// Marketing name, e.g. `AMD EPYC 9554`.
    pub model: Known<String>,
    /// Packages.
    pub sockets: Known<u32>,
    /// Dies of all sockets; on processors of one die per package as many as sockets.
    pub dies: Known<u32>,
    /// Physical cores of all sockets.
    pub physical_cores: Known<u32>,
    /// Hardware threads of all sockets.
    pub logical_cpus: Known<u32>,
    /// Kinds of core, fastest first; one kind on a uniform machine, empty where not known.
    pub core_kinds: Vec<CoreKind>,
    /// Frequency in Hz that all cores keep; the highest of the kinds of core.
    pub base_frequency_hz: Known<u64>,
    /// Highest frequency in Hz that the system names, of one core at its best.
    pub max_frequency_hz: Known<u64>,
    /// Bits of a scalable vector register (SVE).
    pub vector_bits: Known<u32>,
    /// Caches, one entry per distinct level, type and size.
    pub caches: Vec<Cache>,
    /// Instruction-set extensions in the kernel's or vendor's spelling, lower case: `avx2`, `avx512f`, `avx512_vnni`,
    /// `avx512_bf16`, `avx512_fp16`, `avx512vbmi`, `avx_vnni`, `avx10`, `amx_tile`, `amx_int8`, `f16c`, `fma`; `neon`, `dotprod`,
    /// `i8mm`, `sve`, `sve2`, `sme`. Only what the system lets a program use.
    pub features: BTreeSet<String>,
    /// Peak rate of sequential reads from memory by all cores.
    pub memory_bandwidth: Known<BytesPerSec>,
}

impl Cpu {
    /// Processors of which nothing is known, and why not.
    pub fn unknown(why: &'static str) -> Self {
        Self {
            model: Known::unknown(why),
            sockets: Known::unknown(why),
            dies: Known::unknown(why),
            physical_cores: Known::unknown(why),
            logical_cpus: Known::unknown(why),
            core_kinds: Vec::new(),
            base_frequency_hz: Known::unknown(why),
            max_frequency_hz: Known::unknown(why),
            vector_bits: Known::unknown(why),
            caches: Vec::new(),
            features: BTreeSet::new(),
            memory_bandwidth: Known::unknown(why),
        }
    }
}

/// Cores of one kind on a hybrid processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreKind {
    /// `performance`, `efficiency`, `low-power`, or a core name such as `Cortex-X4`.
    pub name: String,
    /// Logical CPU numbers.
    pub cpus: BTreeSet<u32>,
    /// Physical cores among them.
    pub physical_cores: u32,
}

/// One kind of cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1, 2, 3.
    pub level: u8,
    /// `data`, `instruction`, `unified`.
    pub kind: String,
    /// Size of one instance.
    pub size: Bytes,
    /// How many instances the machine has.
    pub instances: u32,
    /// Logical CPUs that share one instance.
    pub shared_by: u32,
}
