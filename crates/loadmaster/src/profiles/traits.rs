//! What of a machine is compared with an archetype.

use hardware::Tables;
use spec::machine::{Gpu, GpuKind, GpuVendor};
use spec::words;
use spec::{Bytes, Machine};
use std::collections::BTreeSet;

/// What computes on a machine: only machines of one kind are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The processor alone.
    Processor,
    /// Cards with memory of their own.
    Cards(GpuVendor),
    /// A GPU that computes in the memory of the host.
    Unified(GpuVendor),
}

words! {
    /// One quantity by which machines differ.
    Aspect {
        /// Memory of the smallest GPU.
        GpuMemory = "GPU memory",
        /// Bandwidth of the slowest GPU's memory.
        GpuBandwidth = "GPU bandwidth",
        /// Dense half-precision rate of the slowest GPU.
        GpuCompute = "GPU compute",
        /// GPUs of the kind.
        GpuCount = "GPUs",
        /// Memory of the host, as far as this process may use it.
        Memory = "memory",
        /// Bandwidth of the host's memory.
        Bandwidth = "memory bandwidth",
        /// Physical cores that this process may use.
        Cores = "cores",
        /// Integer vectors of the processor, by their width in bits; twice that with matrix instructions.
        Vectors = "vectors",
        /// The product itself.
        Product = "product",
        /// Whether limits of a container apply.
        Limits = "limits",
    }
}

/// A quantity that was compared: a number, or what it is called.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// So much of it.
    Amount(f64),
    /// One of these names.
    Names(BTreeSet<String>),
    /// Not known.
    Unknown,
}

/// A machine as it is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Traits {
    /// What computes.
    pub kind: Kind,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    pub(super) values: Vec<(Aspect, Value)>,
}

impl Traits {
    /// What is compared of a machine.
    pub fn of(machine: &Machine) -> Self {
        let gpus: Vec<&Gpu> = machine.usable_gpus().map(|(_, gpu, _)| gpu).filter(|gpu| gpu.kind != GpuKind::Software).collect();
        let kind = kind(machine, &gpus);
        let counted: Vec<&Gpu> = gpus.into_iter().filter(|gpu| of_kind(gpu, kind)).collect();
        let least = |amounts: Vec<Option<f64>>| {
            let all: Option<Vec<f64>> = amounts.into_iter().collect();
            all.and_then(|all| all.into_iter().min_by(f64::total_cmp)).map_or(Value::Unknown, Value::Amount)
        };
        let of_gpus = |amount: fn(&Gpu) -> Option<f64>| least(counted.iter().map(|gpu| amount(gpu)).collect());
        let known = |amount: Option<f64>| amount.map_or(Value::Unknown, Value::Amount);
        let cpu = &machine.facts.cpu;
        let mut values = Vec::new();
        if kind != Kind::Processor {
            values.push((Aspect::GpuCompute, of_gpus(|gpu| Some(gpu.compute.get()?.get()))));
        }
        if matches!(kind, Kind::Cards(_)) {
            values.push((Aspect::GpuMemory, of_gpus(|gpu| gpu.memory_total.get().map(Bytes::as_f64))));
            values.push((Aspect::GpuBandwidth, of_gpus(|gpu| Some(gpu.memory_bandwidth.get()?.get()))));
            values.push((Aspect::GpuCount, Value::Amount(counted.len() as f64)));
        }
        let product = if kind == Kind::Processor { processor(cpu.model.value()) } else { products(&counted, machine) };
        let limited = !machine.limits.memory.is_empty() || !machine.limits.cpu_quota.is_unknown();
        values.extend([
            (Aspect::Memory, known(machine.effective_memory_total().get().map(Bytes::as_f64))),
            (Aspect::Bandwidth, known(cpu.memory_bandwidth.get().map(|rate| rate.get()))),
            (Aspect::Cores, cores(machine)),
            (Aspect::Vectors, vectors(machine)),
            (Aspect::Product, product),
            (Aspect::Limits, Value::Amount(if limited { 2.0 } else { 1.0 })),
        ]);
        Self { kind, arch: machine.facts.platform.arch.clone(), values }
    }

    /// One of the quantities; unknown where the kind of machine has none.
    pub fn get(&self, aspect: Aspect) -> &Value {
        self.values.iter().find(|(known, _)| *known == aspect).map_or(&Value::Unknown, |(_, value)| value)
    }

    /// One of the quantities as a number.
    pub fn amount(&self, aspect: Aspect) -> Option<f64> {
        match self.get(aspect) {
            Value::Amount(amount) => Some(*amount),
            _ => None,
        }
    }
}

/// The kind that most memory is in. Graphics that share the host's memory count where they reach a bandwidth of their own class: modules
/// (Apple, Jetson, GB10, Strix Halo) and graphics that are in the tables with one.
fn kind(machine: &Machine, gpus: &[&Gpu]) -> Kind {
    let own = gpus.iter().filter(|gpu| !gpu.unified_memory && !gpu.memory_total.is_unknown());
    if let Some(card) = own.max_by_key(|gpu| gpu.memory_total.get()) {
        return Kind::Cards(card.vendor);
    }
    let computes = |gpu: &&&Gpu| {
        gpu.unified_memory
            && (matches!(gpu.vendor, GpuVendor::Apple | GpuVendor::Nvidia) || rows(gpu, machine).iter().any(|row| row.bandwidth.is_some()))
    };
    gpus.iter().find(computes).map_or(Kind::Processor, |gpu| Kind::Unified(gpu.vendor))
}

fn of_kind(gpu: &Gpu, kind: Kind) -> bool {
    match kind {
        Kind::Processor => false,
        Kind::Cards(vendor) => !gpu.unified_memory && gpu.vendor == vendor,
        Kind::Unified(vendor) => gpu.unified_memory && gpu.vendor == vendor,
    }
}

/// The rows of the tables that a GPU may be: by its name, with its cores or memory where those tell it from its namesakes, or by PCI id.
fn rows(gpu: &Gpu, machine: &Machine) -> Vec<&'static hardware::Accelerator> {
    let tables = Tables::built_in();
    let memory = if gpu.unified_memory { machine.facts.memory.total.get() } else { gpu.memory_total.get() };
    let Some(name) = gpu.name.value() else {
        return gpu.pci_id.value().map(|id| tables.by_pci_id(id, memory)).unwrap_or_default();
    };
    let with_cores = gpu.multiprocessors.get().map(|cores| format!("{name} {cores}-core GPU"));
    let with_memory = memory.map(|memory| format!("{name} {}GB", memory.as_gib().round()));
    let names = [Some(name.clone()), with_cores, with_memory].into_iter().flatten();
    let found = names.filter_map(|name| tables.accelerator(&name).ok()).next();
    match (found, gpu.pci_id.value()) {
        (Some(choice), _) => vec![choice.row],
        (None, Some(id)) => tables.by_pci_id(id, memory),
        (None, None) => Vec::new(),
    }
}

/// What the GPUs are called in the tables; Macs by their processor, which is sold with one core of the GPU more or less.
fn products(gpus: &[&Gpu], machine: &Machine) -> Value {
    let mut names = BTreeSet::new();
    for gpu in gpus {
        let rows = rows(gpu, machine);
        let called = |row: &&hardware::Accelerator| match (&row.processor, row.vendor) {
            (Some(processor), GpuVendor::Apple) => processor.clone(),
            _ => row.name.clone(),
        };
        names.extend(rows.iter().map(called));
        if rows.is_empty() {
            names.extend(gpu.name.value().cloned());
        }
    }
    if names.is_empty() { Value::Unknown } else { Value::Names(names) }
}

/// Each GPU that counts, with the memory on its label: its own, or that of the module.
pub(super) fn titles(machine: &Machine) -> Vec<String> {
    let gpus: Vec<&Gpu> = machine.usable_gpus().map(|(_, gpu, _)| gpu).collect();
    let kind = kind(machine, &gpus);
    let title = |gpu: &Gpu| {
        let row = rows(gpu, machine).into_iter().next()?;
        let shown = if gpu.unified_memory { machine.facts.memory.total.get()? } else { *gpu.memory_total.high()? };
        let label = row.memory.iter().copied().find(|size| size.scale(1.005) >= shown).unwrap_or(shown);
        Some(format!("{}, {} GiB", row.name, label.as_gib()))
    };
    gpus.into_iter().filter(|gpu| of_kind(gpu, kind)).filter_map(title).collect()
}

fn processor(model: Option<&String>) -> Value {
    let Some(model) = model else { return Value::Unknown };
    let name = Tables::built_in().processor(model).map_or_else(|_| model.clone(), |row| row.name.clone());
    Value::Names([name].into())
}

fn cores(machine: &Machine) -> Value {
    let known = machine.limits.allowed_physical_cores.get().or_else(|| machine.facts.cpu.physical_cores.get());
    let any = known.is_some() || !machine.limits.allowed_cpus.is_unknown() || !machine.facts.cpu.logical_cpus.is_unknown();
    if any { Value::Amount(f64::from(machine.effective_cores())) } else { Value::Unknown }
}

fn vectors(machine: &Machine) -> Value {
    let features = &machine.facts.cpu.features;
    let has = |name: &str| features.contains(name);
    let bits = match () {
        () if has("amx_int8") => 1024.0,
        () if has("avx512f") || has("avx512_vnni") => 512.0,
        () if has("avx2") => 256.0,
        () if has("i8mm") => 256.0,
        () if has("dotprod") => 192.0,
        () if features.is_empty() => return Value::Unknown,
        () => 128.0,
    };
    Value::Amount(bits)
}
