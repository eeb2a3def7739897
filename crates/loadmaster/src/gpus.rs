//! GPUs that our own kernels reach through wgpu, as a plan sees them.
//!
//! All of them stay idle unless they are named: what they do for a BitNet model is not measured on hardware yet, and software that computes as a
//! GPU would is never faster than the CPU.

use footprint::{Backend, Device};
use gpu::{Adapter, Kind};
use spec::{Bytes, Known, Machine};

/// The devices of this machine, by their place in the list of adapters: `wgpu0`, `wgpu1`. Starts drivers.
pub(crate) fn devices(machine: &Machine) -> Vec<Device> {
    gpu::list().iter().enumerate().map(|(place, adapter)| device(machine, place, adapter)).collect()
}

/// The adapter of a device that [`devices`] named.
pub(crate) fn adapter(name: &str) -> Option<Adapter> {
    let place = name.strip_prefix(Backend::WGPU)?.parse::<usize>().ok()?;
    gpu::list().into_iter().nth(place)
}

fn device(machine: &Machine, place: usize, adapter: &Adapter) -> Device {
    let backend = Backend::wgpu(adapter.alignment(), adapter.largest_piece());
    let same = |pci: &str| {
        machine.usable_gpus().find(|(_, gpu, _)| gpu.pci_address.value().is_some_and(|address| address.as_str().eq_ignore_ascii_case(pci)))
    };
    let found = adapter.pci().and_then(same);
    let shares_host = found.map_or(!matches!(adapter.kind(), Kind::Discrete), |(_, gpu, _)| gpu.unified_memory);
    let (total, free) = match found {
        Some((_, gpu, free)) => (gpu.memory_total.clone(), free.clone()),
        None if shares_host => (machine.effective_memory_total(), machine.effective_memory_available()),
        None => {
            let unknown = || Known::<Bytes>::unknown("no driver tells the memory of this GPU");
            (unknown(), unknown())
        }
    };
    Device { name: format!("{}{place}", Backend::WGPU), backend, total, free, shares_host }
}
