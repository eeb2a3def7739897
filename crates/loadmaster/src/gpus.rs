//! GPUs that our own kernels reach, through wgpu or CUDA, as a plan sees them, and layers on them.
//!
//! All of them stay idle unless they are named: what they do for a BitNet model is not measured on hardware yet, and software that computes as a
//! GPU would is never faster than the CPU. How many layers a named one gets is the plan's to choose where it is a GPU of this machine, by its
//! address on the bus; of any other device nobody knows the speed.

mod batch;

use bitnet::{Options, Stack, Weights};
use footprint::{Backend, Device};
use planner::plan::Budget;
use spec::{Bytes, Known, Machine};
use workspace::{Room, StackBytes};

/// Layers on a GPU, and what they hold there.
pub(crate) struct Layers {
    pub(crate) stack: Box<dyn Stack>,
    pub(crate) weights: Bytes,
    pub(crate) kv_cache: Bytes,
    pub(crate) compute: Bytes,
    /// Tokens of a prompt that are computed together.
    pub(crate) tokens: usize,
}

/// What a device is asked for.
pub(crate) struct Wanted<'a> {
    /// As [`devices`] named it.
    pub(crate) name: &'a str,
    /// How many layers, the last of the model.
    pub(crate) n_layer: usize,
    /// The context, and tokens that are computed together at most.
    pub(crate) sizes: Options,
    /// What the plan allows itself on the device, where fewer tokens together may be measured to be as fast; `None` where the user has said
    /// how many.
    pub(crate) open: Option<&'a Budget>,
}

impl Wanted<'_> {
    /// Tokens together at most.
    fn tokens(&self) -> usize {
        self.sizes.n_ubatch.min(self.sizes.n_ctx)
    }

    /// What is left for a batch beside weights, keys and values.
    fn room(&self, budget: &Budget, beside: &StackBytes) -> Room {
        let limit = budget.limit.map(|limit| limit.saturating_sub(beside.weights + beside.kv_cache));
        let free = limit.map_or_else(|| Known::unknown("the plan knows of no free memory"), |left| Known::exact(left, "limit of the plan"));
        Room { free, total: budget.total.clone(), held: Bytes::ZERO, margin: Bytes::ZERO, largest: None }
    }
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

/// The last layers of a model on a device; why not, where they are not there.
pub(crate) fn layers(weights: &Weights, wanted: &Wanted<'_>) -> Result<Layers, String> {
    let name = wanted.name;
    #[cfg(feature = "cuda")]
    if let Some(place) = place(Backend::OWN_CUDA, name) {
        return own_cuda::layers(place, weights, wanted).map_err(|error| format!("{name}: {error}"));
    }
    #[cfg(feature = "gpu")]
    if let Some(place) = place(Backend::WGPU, name) {
        return own_wgpu::layers(place, weights, wanted).map_err(|error| format!("{name}: {error}"));
    }
    let _ = weights;
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
    use super::batch::Question;
    use super::{Backend, Bytes, Device, Known, Layers, Machine, Wanted, Weights, seen};
    use gpu::{Adapter, GpuError, Kind, Sizes, Stack, TILE};
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

    pub(super) fn layers(place: usize, weights: &Weights, wanted: &Wanted<'_>) -> Result<Layers, String> {
        let adapter = gpu::list().into_iter().nth(place).ok_or("it is not there any more")?;
        let said = |error: GpuError| error.to_string();
        let gpu = Arc::new(adapter.open().map_err(said)?);
        let (config, n_layer, sizes) = (weights.config(), wanted.n_layer, wanted.sizes);
        let first = config.n_layer - n_layer;
        let all = Sizes { n_ctx: sizes.n_ctx, tokens: wanted.tokens(), cache: sizes.cache };
        let bytes = |tokens: usize| Stack::bytes(&gpu, config, n_layer, Sizes { tokens, ..all });
        let tokens = wanted.open.zip(bytes(1)).and_then(|(budget, beside)| {
            let shape = Stack::shape(config, n_layer);
            let question = Question {
                name: wanted.name,
                projections: &shape.projections()?,
                n_layer,
                n_embd: config.n_embd,
                tile: TILE.into(),
                most: all.tokens as u64,
                room: wanted.room(budget, &beside),
            };
            let mut trial = Stack::new(Arc::clone(&gpu), weights, first..first + 1, Sizes { n_ctx: all.tokens, ..all }).ok()?;
            let choice = question.answer(&mut trial, |tokens| Some(bytes(tokens as usize)?.compute))?;
            Some(choice.batch as usize)
        });
        let all = Sizes { tokens: tokens.unwrap_or(all.tokens), ..all };
        let stack = Stack::new(Arc::clone(&gpu), weights, first..config.n_layer, all).map_err(said)?;
        // The batch may have become smaller for lack of memory.
        let (tokens, held) = (stack.tokens(), bytes(stack.tokens()).unwrap_or_default());
        Ok(Layers { stack: Box::new(stack), weights: held.weights, kv_cache: held.kv_cache, compute: held.compute, tokens })
    }
}

#[cfg(feature = "cuda")]
mod own_cuda {
    use super::batch::Question;
    use super::{Backend, Device, Known, Layers, Machine, Wanted, Weights, seen};
    use cuda::{ALIGNMENT, Adapter, GpuError, Sizes, Stack, TILE};
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

    pub(super) fn layers(place: usize, weights: &Weights, wanted: &Wanted<'_>) -> Result<Layers, String> {
        let adapter = cuda::list().into_iter().nth(place).ok_or("it is not there any more")?;
        let said = |error: GpuError| error.to_string();
        let gpu = Arc::new(adapter.open().map_err(said)?);
        let (config, n_layer, sizes) = (weights.config(), wanted.n_layer, wanted.sizes);
        let first = config.n_layer - n_layer;
        let all = Sizes { n_ctx: sizes.n_ctx, tokens: wanted.tokens(), cache: sizes.cache };
        let bytes = |tokens: usize| Stack::bytes(config, n_layer, Sizes { tokens, ..all });
        let tokens = wanted.open.zip(bytes(1)).and_then(|(budget, beside)| {
            let shape = Stack::shape(config, n_layer);
            let question = Question {
                name: wanted.name,
                projections: &shape.projections()?,
                n_layer,
                n_embd: config.n_embd,
                tile: TILE.into(),
                most: all.tokens as u64,
                room: wanted.room(budget, &beside),
            };
            let mut trial = Stack::new(Arc::clone(&gpu), weights, first..first + 1, Sizes { n_ctx: all.tokens, ..all }).ok()?;
            let choice = question.answer(&mut trial, |tokens| Some(bytes(tokens as usize)?.compute))?;
            Some(choice.batch as usize)
        });
        let all = Sizes { tokens: tokens.unwrap_or(all.tokens), ..all };
        let stack = Stack::new(Arc::clone(&gpu), weights, first..config.n_layer, all).map_err(said)?;
        // The batch may have become smaller for lack of memory.
        let (tokens, held) = (stack.tokens(), bytes(stack.tokens()).unwrap_or_default());
        Ok(Layers { stack: Box::new(stack), weights: held.weights, kv_cache: held.kv_cache, compute: held.compute, tokens })
    }
}
