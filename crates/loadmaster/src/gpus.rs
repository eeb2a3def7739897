//! GPUs that our own kernels reach, through wgpu or CUDA, as a plan sees them, and layers on them.
//!
//! All of them stay idle unless they are named: what they do for a BitNet model is not measured on hardware yet, and software that computes as a
//! GPU would is never faster than the CPU. How many layers a named one gets is the plan's to choose where it is a GPU of this machine, by its
//! address on the bus; of any other device nobody knows the speed.

use bitnet::{Options, Stack, Weights};
use footprint::{Backend, Device};
use spec::{Bytes, Known, Machine};

/// Layers on a GPU, and what they hold there.
pub(crate) struct Layers {
    pub(crate) stack: Box<dyn Stack>,
    pub(crate) weights: Bytes,
    pub(crate) kv_cache: Bytes,
    pub(crate) compute: Bytes,
}

/// The devices of this machine, by their place in the lists of CUDA's driver (`cuda0`) and of wgpu's adapters (`wgpu0`). Starts drivers.
pub(crate) fn devices(machine: &Machine) -> Vec<Device> {
    let mut all = Vec::new();
    #[cfg(feature = "cuda")]
    all.extend(own_cuda::devices(machine));
    #[cfg(feature = "gpu")]
    all.extend(own_wgpu::devices(machine));
    all
}

/// The last `n_layer` layers of a model on a device that [`devices`] named; why not, where they are not there.
pub(crate) fn layers(name: &str, weights: &Weights, n_layer: usize, sizes: Options) -> Result<Layers, String> {
    #[cfg(feature = "cuda")]
    if let Some(place) = place(Backend::OWN_CUDA, name) {
        return own_cuda::layers(place, weights, n_layer, sizes).map_err(|error| format!("{name}: {error}"));
    }
    #[cfg(feature = "gpu")]
    if let Some(place) = place(Backend::WGPU, name) {
        return own_wgpu::layers(place, weights, n_layer, sizes).map_err(|error| format!("{name}: {error}"));
    }
    let _ = (weights, n_layer, sizes);
    Err(format!("{name} is none of the GPUs that this build has kernels for"))
}

/// The place of a device in its list.
fn place(backend: &str, name: &str) -> Option<usize> {
    name.strip_prefix(backend)?.parse().ok()
}

/// A device as a plan sees it: with the memory of the GPU of this machine at the same place on the bus, else with what `asked` finds out.
fn seen(
    machine: &Machine,
    name: String,
    backend: Backend,
    pci: Option<&str>,
    integrated: bool,
    asked: impl Fn() -> (Known<Bytes>, Known<Bytes>),
) -> Device {
    let same = |pci: &str| {
        machine.usable_gpus().find(|(_, gpu, _)| gpu.pci_address.value().is_some_and(|address| address.as_str().eq_ignore_ascii_case(pci)))
    };
    let found = pci.and_then(same);
    let shares_host = found.map_or(integrated, |(_, gpu, _)| gpu.unified_memory);
    let (total, free) = match found {
        Some((_, gpu, free)) => (gpu.memory_total.clone(), free.clone()),
        None if shares_host => (machine.effective_memory_total(), machine.effective_memory_available()),
        None => asked(),
    };
    let pci_address = found.and(pci).map(str::to_owned);
    Device { name, backend, total, free, shares_host, pci_address }
}

#[cfg(feature = "gpu")]
mod own_wgpu {
    use super::{Backend, Bytes, Device, Known, Layers, Machine, Options, Weights, seen};
    use gpu::{Adapter, GpuError, Kind, Sizes, Stack};
    use std::sync::Arc;

    pub(super) fn devices(machine: &Machine) -> Vec<Device> {
        let unknown = || Known::<Bytes>::unknown("no driver tells the memory of this GPU");
        let device = |(place, adapter): (usize, &Adapter)| {
            let backend = Backend::wgpu(adapter.alignment(), adapter.largest_piece());
            let integrated = !matches!(adapter.kind(), Kind::Discrete);
            seen(machine, format!("{}{place}", Backend::WGPU), backend, adapter.pci(), integrated, || (unknown(), unknown()))
        };
        gpu::list().iter().enumerate().map(device).collect()
    }

    pub(super) fn layers(place: usize, weights: &Weights, n_layer: usize, sizes: Options) -> Result<Layers, String> {
        let adapter = gpu::list().into_iter().nth(place).ok_or("it is not there any more")?;
        let said = |error: GpuError| error.to_string();
        let gpu = Arc::new(adapter.open().map_err(said)?);
        let config = weights.config();
        let wanted = Sizes { n_ctx: sizes.n_ctx, tokens: sizes.n_ubatch.min(sizes.n_ctx), cache: sizes.cache };
        let stack = Stack::new(Arc::clone(&gpu), weights, config.n_layer - n_layer..config.n_layer, wanted).map_err(said)?;
        // The batch may have become smaller for lack of memory.
        let held = Stack::bytes(&gpu, config, n_layer, Sizes { tokens: stack.tokens(), ..wanted }).unwrap_or_default();
        Ok(Layers { stack: Box::new(stack), weights: held.weights, kv_cache: held.kv_cache, compute: held.compute })
    }
}

#[cfg(feature = "cuda")]
mod own_cuda {
    use super::{Backend, Device, Known, Layers, Machine, Options, Weights, seen};
    use cuda::{ALIGNMENT, Adapter, GpuError, Sizes, Stack};
    use std::sync::Arc;

    pub(super) fn devices(machine: &Machine) -> Vec<Device> {
        let device = |(place, adapter): (usize, &Adapter)| {
            // NVML knows most of them; where it is missing, a context is opened to ask.
            let asked = || match adapter.memory() {
                Ok((free, total)) => (Known::exact(total, "cuMemGetInfo"), Known::exact(free, "cuMemGetInfo")),
                Err(error) => (Known::unknown(error.to_string()), Known::unknown(error.to_string())),
            };
            let (name, pci) = (format!("{}{place}", Backend::OWN_CUDA), adapter.pci());
            seen(machine, name, Backend::own_cuda(ALIGNMENT), pci.as_deref(), adapter.is_integrated(), asked)
        };
        cuda::list().iter().enumerate().map(device).collect()
    }

    pub(super) fn layers(place: usize, weights: &Weights, n_layer: usize, sizes: Options) -> Result<Layers, String> {
        let adapter = cuda::list().into_iter().nth(place).ok_or("it is not there any more")?;
        let said = |error: GpuError| error.to_string();
        let gpu = Arc::new(adapter.open().map_err(said)?);
        let config = weights.config();
        let wanted = Sizes { n_ctx: sizes.n_ctx, tokens: sizes.n_ubatch.min(sizes.n_ctx), cache: sizes.cache };
        let stack = Stack::new(gpu, weights, config.n_layer - n_layer..config.n_layer, wanted).map_err(said)?;
        // The batch may have become smaller for lack of memory.
        let held = Stack::bytes(config, n_layer, Sizes { tokens: stack.tokens(), ..wanted }).unwrap_or_default();
        Ok(Layers { stack: Box::new(stack), weights: held.weights, kv_cache: held.kv_cache, compute: held.compute })
    }
}
