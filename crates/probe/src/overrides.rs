//! A machine with another memory or fewer threads than it has.

use spec::machine::{GpuVendor, Machine, NumaNode};
use spec::{Bytes, Known};
use std::collections::BTreeMap;

const SOURCE: &str = "override";

/// What a fresh system leaves of its memory: the part that is free, and the least that may be.
const FREE: f64 = 0.95;
const FREE_LOW: f64 = 0.85;

/// What to pretend of a machine, live, recorded or described.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Memory of a GPU, by its index; all of it free.
    pub gpu_memory: BTreeMap<usize, Bytes>,
    /// Memory of the host; what is free is estimated as on a fresh system, and limits of control groups are gone. GPUs that share it get
    /// the same part as before, those of Macs what macOS gives them.
    pub ram: Option<Bytes>,
    /// Logical CPUs that may be used; a quota on their time is gone.
    pub threads: Option<u32>,
}

/// What cannot be pretended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverrideError {
    /// No such GPU.
    #[error("there is no GPU {index}: the machine has {count}; `detect` lists them")]
    NoGpu {
        /// The index asked for.
        index: usize,
        /// GPUs of the machine.
        count: usize,
    },
    /// More than the host has, of a GPU that has no memory of its own.
    #[error("GPU {index} computes in the memory of the host, which is {host}, less than {asked}; set --ram beside it")]
    MoreThanTheHost {
        /// The GPU.
        index: usize,
        /// What was asked for.
        asked: Bytes,
        /// What the host has.
        host: Bytes,
    },
    /// More threads than may be used.
    #[error("{asked} threads are more than the {available} that may be used here; describe a machine with --machine to pretend more")]
    TooManyThreads {
        /// What was asked for.
        asked: u32,
        /// What there is.
        available: u32,
    },
    /// Nothing is no machine.
    #[error("{what} must be above zero")]
    Zero {
        /// Which override.
        what: &'static str,
    },
}

impl Overrides {
    /// True where nothing is pretended.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The machine with what is pretended; the origin says so.
    ///
    /// # Errors
    /// [`OverrideError`].
    pub fn apply(&self, mut machine: Machine) -> Result<Machine, OverrideError> {
        if self.is_empty() {
            return Ok(machine);
        }
        if let Some(ram) = self.ram {
            set_ram(&mut machine, ram)?;
        }
        for (&index, &size) in &self.gpu_memory {
            set_gpu_memory(&mut machine, index, size)?;
        }
        if let Some(threads) = self.threads {
            set_threads(&mut machine, threads)?;
        }
        machine.origin = format!("{} with {}", machine.origin, self.words());
        Ok(machine)
    }

    fn words(&self) -> String {
        let gpus = self.gpu_memory.iter().map(|(index, size)| format!("GPU {index} of {size}"));
        let ram = self.ram.map(|ram| format!("ram {ram}"));
        let threads = self.threads.map(|threads| format!("{threads} threads"));
        gpus.chain(ram).chain(threads).collect::<Vec<_>>().join(", ")
    }
}

fn set_ram(machine: &mut Machine, ram: Bytes) -> Result<(), OverrideError> {
    if ram.is_zero() {
        return Err(OverrideError::Zero { what: "--ram" });
    }
    let before = machine.facts.memory.total.get().filter(|total| !total.is_zero());
    let ratio = before.map(|before| ram.as_f64() / before.as_f64());
    let scaled = |known: &Known<Bytes>| match ratio {
        Some(ratio) => known.clone().map(|size| size.scale(ratio)),
        None => Known::unknown("the part of the host's memory is not known"),
    };
    for (gpu, free) in machine.facts.gpus.iter_mut().zip(&mut machine.free.gpu_memory).filter(|(gpu, _)| gpu.unified_memory) {
        gpu.memory_total = match gpu.vendor {
            GpuVendor::Apple => hardware::apple::working_set(ram),
            _ => scaled(&gpu.memory_total),
        };
        gpu.shared_memory = scaled(&gpu.shared_memory);
        // What ran on it is not pretended: as much is free as a fresh system leaves.
        *free = gpu.memory_total.clone().map(|size| size.scale(FREE));
    }
    let nodes = machine.facts.numa.iter_mut().filter(|node| !node.of_gpu);
    let mut nodes: Vec<&mut NumaNode> = nodes.collect();
    match nodes.as_mut_slice() {
        [node] => node.memory = Known::exact(ram, SOURCE),
        nodes => nodes.iter_mut().for_each(|node| node.memory = scaled(&node.memory)),
    }
    machine.facts.memory.total = Known::exact(ram, SOURCE);
    machine.facts.memory.modules.clear();
    machine.free.memory = Known::estimated(ram.scale(FREE), ram.scale(FREE_LOW), ram, "override: 95 % of the memory assumed free");
    machine.limits.memory.clear();
    Ok(())
}

fn set_gpu_memory(machine: &mut Machine, index: usize, size: Bytes) -> Result<(), OverrideError> {
    if size.is_zero() {
        return Err(OverrideError::Zero { what: "--gpu-memory" });
    }
    let count = machine.facts.gpus.len();
    let host = machine.effective_memory_total();
    let (Some(gpu), Some(free)) = (machine.facts.gpus.get_mut(index), machine.free.gpu_memory.get_mut(index)) else {
        return Err(OverrideError::NoGpu { index, count });
    };
    match host.high() {
        Some(&host) if gpu.unified_memory && size > host => return Err(OverrideError::MoreThanTheHost { index, asked: size, host }),
        _ => {}
    }
    gpu.memory_total = Known::exact(size, SOURCE);
    *free = Known::exact(size, SOURCE);
    Ok(())
}

fn set_threads(machine: &mut Machine, threads: u32) -> Result<(), OverrideError> {
    if threads == 0 {
        return Err(OverrideError::Zero { what: "--threads" });
    }
    let available = machine.effective_cpus();
    // A machine of which nothing is known has one CPU by default, and may be pretended to have any number.
    let known = machine.limits.allowed_cpus.value().is_some() || machine.facts.cpu.logical_cpus.value().is_some();
    if known && threads > available {
        return Err(OverrideError::TooManyThreads { asked: threads, available });
    }
    let cores = machine.effective_cores().min(threads);
    let all = machine.limits.allowed_cpus.value().cloned().unwrap_or_else(|| (0..threads).collect());
    let allowed = all.into_iter().take(threads as usize).collect();
    machine.limits.allowed_cpus = Known::exact(allowed, SOURCE);
    machine.limits.allowed_physical_cores = Known::exact(if known { cores } else { threads }, SOURCE);
    machine.limits.cpu_quota = Known::unknown("overridden");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::describe;
    use proptest::prelude::*;
    use spec::machine::MemoryLimit;

    fn pretend(text: &str, overrides: Overrides) -> Result<Machine, OverrideError> {
        overrides.apply(describe(text).unwrap())
    }

    #[test]
    fn memory_of_a_card() {
        let overrides = Overrides { gpu_memory: BTreeMap::from([(1, Bytes::from_gib(8))]), ..Overrides::default() };
        let machine = pretend("rtx4090x2,ram=64GiB", overrides.clone()).unwrap();
        assert!(!machine.free.gpu_memory[0].is_exact());
        assert_eq!(machine.free.gpu_memory[1], Known::exact(Bytes::from_gib(8), "override"));
        assert_eq!(machine.facts.gpus[1].memory_total.get(), Some(Bytes::from_gib(8)));
        assert_eq!(machine.origin, "rtx4090x2,ram=64GiB with GPU 1 of 8.00 GiB");
        assert_eq!(
            pretend("rtx4090,ram=64GiB", overrides).unwrap_err().to_string(),
            "there is no GPU 1: the machine has 1; `detect` lists them"
        );
    }

    #[test]
    fn memory_of_the_host_and_of_what_shares_it() {
        let ram = |gib| Overrides { ram: Some(Bytes::from_gib(gib)), ..Overrides::default() };
        let mut contained = describe("ram=64GiB,cores=8").unwrap();
        contained.limits.memory.push(MemoryLimit {
            source: "memory.max".into(),
            limit: Bytes::from_gib(4),
            used: Known::unknown("test"),
            reclaimable: Known::unknown("test"),
            swap: Known::unknown("test"),
            mapped_files: true,
        });
        let machine = ram(16).apply(contained).unwrap();
        assert_eq!(machine.effective_memory_total(), Known::exact(Bytes::from_gib(16), "override"));
        assert_eq!(machine.free.memory.high(), Some(&Bytes::from_gib(16)));
        let mac = pretend("m3-max-40c-64gb", ram(32)).unwrap();
        assert_eq!(mac.facts.gpus[0].memory_total, hardware::apple::working_set(Bytes::from_gib(32)));
        let spark = pretend("gb10", ram(64)).unwrap();
        let memory = spark.facts.gpus[0].memory_total.get().unwrap();
        assert!(memory.saturating_sub(Bytes::from_gib(64)) < Bytes::from_mib(1), "{memory}");
        let over = Overrides { gpu_memory: BTreeMap::from([(0, Bytes::from_gib(100))]), ..ram(32) };
        assert!(pretend("m3-max-40c-64gb", over).unwrap_err().to_string().contains("set --ram"));
    }

    #[test]
    fn threads() {
        let threads = |threads| Overrides { threads: Some(threads), ..Overrides::default() };
        let machine = pretend("cpu=ryzen-9-7950x,ram=64GiB", threads(4)).unwrap();
        assert_eq!((machine.effective_cpus(), machine.effective_cores()), (4, 4));
        assert_eq!(machine.facts.cpu.physical_cores.get(), Some(16));
        let machine = pretend("cores=8,threads=16", threads(12)).unwrap();
        assert_eq!((machine.effective_cpus(), machine.effective_cores()), (12, 8));
        assert_eq!(pretend("cores=8", threads(9)).unwrap_err(), OverrideError::TooManyThreads { asked: 9, available: 8 });
        assert_eq!(pretend("ram=8GiB", threads(6)).unwrap().effective_cores(), 6);
        assert!(pretend("cores=8", threads(0)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_pretended_holds(gib in 1u64..512, threads in 1u32..33, size in 1u64..64, gpu in 0usize..2) {
            let overrides = Overrides { gpu_memory: BTreeMap::from([(gpu, Bytes::from_gib(size))]), ram: Some(Bytes::from_gib(gib)), threads: Some(threads) };
            let machine = pretend("rtx4090x2,ram=64GiB,cpu=ryzen-9-7950x", overrides).unwrap();
            prop_assert_eq!(machine.effective_cpus(), threads);
            prop_assert!(machine.effective_cores() <= threads);
            prop_assert_eq!(machine.effective_memory_total().get(), Some(Bytes::from_gib(gib)));
            prop_assert_eq!(machine.usable_gpus().nth(gpu).and_then(|(_, _, free)| free.get()), Some(Bytes::from_gib(size)));
        }
    }
}
