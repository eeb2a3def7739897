//! GPUs that our own kernels reach, through wgpu or CUDA, as a plan sees them, and layers on them.
//!
//! All of them stay idle unless they are named: what they do for a BitNet model is not measured on hardware yet, and software that computes as a
//! GPU would is never faster than the CPU. How many layers a named one gets is the plan's to choose where it is a GPU of this machine, by its
//! address on the bus; of any other device nobody knows the speed. The output head is the last layer of all, as llama.cpp counts them.

mod adapting;
mod batch;

use adapting::{Adapting, Now, Resizable};
use batch::Question;
use bitnet::{Options, Stack, Weights};
use footprint::{Backend, Device};
use planner::plan::Budget;
use spec::{Bytes, Known, Machine};
use std::ops::Range;
use std::sync::Arc;
use workspace::{Room, StackBytes, most_tokens};

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
    /// Which layers, the last of the model; behind them all stands the output head.
    pub(crate) layers: Range<usize>,
    /// The context, and tokens that are computed together at most.
    pub(crate) sizes: Options,
    /// What the plan allows itself on the device, where fewer tokens together may be measured to be as fast; `None` where the user has said
    /// how many.
    pub(crate) open: Option<&'a Budget>,
}

impl Wanted<'_> {
    /// Tokens together at most.
    pub(crate) fn tokens(&self) -> usize {
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

/// Makes some of the model's layers, in a context of so many tokens, so many of which are computed together.
type Make<'a, S> = dyn Fn(Range<usize>, usize, usize) -> Result<S, String> + 'a;

/// What a kind of device brings to layers on it.
struct OfItsKind<'a, S> {
    /// All layers that it is to have.
    shape: workspace::Stack,
    /// Tokens of a tile of the kernels.
    tile: u64,
    /// What these layers hold with so many tokens computed together, to the byte.
    bytes: Arc<dyn Fn(usize) -> Option<StackBytes> + Send + Sync>,
    make: Box<Make<'a, S>>,
    /// Memory that is free now, and what this program holds of it, where somebody knows.
    memory: Box<dyn FnMut() -> (Option<Bytes>, Option<Bytes>) + Send>,
}

impl<S: Resizable + 'static> OfItsKind<'_, S> {
    /// The layers, with the batch that is worth it where the user has not said which.
    fn layers(mut self, wanted: &Wanted<'_>) -> Result<Layers, String> {
        let most = wanted.tokens();
        // A head alone computes one token.
        let open = wanted.open.filter(|_| self.shape.n_layer > 0);
        let measured = open.and_then(|budget| self.measured(budget, most, wanted));
        let tokens = measured.map_or(most, |(tokens, _)| tokens);
        let stack = (self.make)(wanted.layers.clone(), wanted.sizes.n_ctx, tokens)?;
        // The batch may have become smaller for lack of memory.
        let (tokens, held) = (stack.tokens(), (self.bytes)(stack.tokens()).unwrap_or_default());
        let stack: Box<dyn Stack> = match open.zip(measured) {
            None => Box::new(stack),
            Some((budget, (_, best))) => {
                let (bytes, margin, limit) = (self.bytes, budget.margin, budget.limit);
                let beside = held.weights + held.kv_cache;
                let ask = move |now: u64| {
                    let compute = |tokens: u64| Some(bytes(usize::try_from(tokens).ok()?)?.compute);
                    let (free, taken) = (self.memory)();
                    let usable = |free: Bytes| Some((free + compute(now)?).saturating_sub(margin));
                    let room = free.and_then(usable).map(|usable| most_tokens(compute, usable, best));
                    let peak = limit.zip(taken).map(|(limit, taken)| (limit.saturating_sub(beside), taken.saturating_sub(beside)));
                    Now { room, peak }
                };
                let n_embd = usize::try_from(self.shape.n_embd).unwrap_or(usize::MAX);
                Box::new(Adapting::new(wanted.name, stack, best, Box::new(ask), n_embd))
            }
        };
        Ok(Layers { stack, weights: held.weights, kv_cache: held.kv_cache, compute: held.compute, tokens })
    }

    /// The batch that is worth it in the memory that the plan leaves, and the one that is with all memory free.
    fn measured(&self, budget: &Budget, most: usize, wanted: &Wanted<'_>) -> Option<(usize, u64)> {
        let first = wanted.layers.start;
        let question = Question {
            name: wanted.name,
            projections: &self.shape.projections()?,
            n_layer: usize::try_from(self.shape.n_layer).ok()?,
            n_embd: usize::try_from(self.shape.n_embd).ok()?,
            tile: self.tile,
            most: most as u64,
            room: wanted.room(budget, &(self.bytes)(1)?),
        };
        let mut trial = match (self.make)(first..first + 1, most, most) {
            Ok(trial) => trial,
            Err(error) => {
                tracing::warn!(device = wanted.name, error, "no layer to measure the batch of a device on");
                return None;
            }
        };
        let (choice, best) = question.answer(&mut trial, |tokens| Some((self.bytes)(usize::try_from(tokens).ok()?)?.compute))?;
        Some((usize::try_from(choice.batch).ok()?, best))
    }
}

/// Layers that a model does not have.
#[cfg(any(feature = "gpu", feature = "cuda"))]
fn unknown(wanted: &Wanted<'_>) -> String {
    format!("layers {} to {} are none of the model", wanted.layers.start, wanted.layers.end)
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
    use super::adapting::Resizable;
    use super::{Backend, Bytes, Device, Known, Layers, Machine, OfItsKind, Wanted, Weights, seen, unknown};
    use gpu::{Adapter, GpuError, Kind, Sizes, Stack, TILE};
    use std::sync::Arc;

    pub(super) fn devices(machine: &Machine) -> Vec<Device> {
        let device = |(place, adapter): (usize, &Adapter)| {
            let backend = Backend::wgpu(adapter.alignment(), adapter.largest_piece());
            let integrated = !matches!(adapter.kind(), Kind::Discrete);
            seen(machine, format!("{}{place}", Backend::WGPU), backend, adapter.pci(), integrated, || memory(adapter))
        };
        gpu::list().iter().enumerate().map(device).collect()
    }

    /// What a device has in all and free.
    fn memory(adapter: &Adapter) -> (Known<Bytes>, Known<Bytes>) {
        const SOURCE: &str = "VK_EXT_memory_budget";
        let unknown = || Known::unknown("no driver tells the memory of this GPU");
        adapter.memory().map_or_else(|| (unknown(), unknown()), |told| (Known::exact(told.total, SOURCE), Known::exact(told.free, SOURCE)))
    }

    pub(super) fn layers(place: usize, weights: &Weights, wanted: &Wanted<'_>) -> Result<Layers, String> {
        let adapter = gpu::list().into_iter().nth(place).ok_or("it is not there any more")?;
        let said = |error: GpuError| error.to_string();
        let gpu = Arc::new(adapter.open().map_err(said)?);
        let (_, shape) = weights.part(wanted.layers.clone()).ok_or_else(|| unknown(wanted))?;
        let (here, held, sizes, cache) = (Arc::clone(&gpu), Arc::clone(&gpu), wanted.sizes, wanted.sizes.cache);
        let kind = OfItsKind {
            shape,
            tile: TILE.into(),
            bytes: Arc::new(move |tokens| Stack::bytes(&here, &shape, Sizes { n_ctx: sizes.n_ctx, tokens, cache })),
            make: Box::new(|layers, n_ctx, tokens| {
                Stack::new(Arc::clone(&gpu), weights, layers, Sizes { n_ctx, tokens, cache }).map_err(said)
            }),
            memory: Box::new(move || {
                let told = held.memory();
                // Software tells what all programs have of the host's memory. Without a word on this one there is the allocator's on what it
                // has reserved.
                let used = told.as_ref().filter(|_| !held.is_software()).map(|told| told.used);
                let reserved = || held.allocated().map(|(_, reserved)| reserved);
                (told.map(|told| told.free), used.or_else(reserved))
            }),
        };
        kind.layers(wanted)
    }

    impl Resizable for Stack {
        fn tokens(&self) -> usize {
            Self::tokens(self)
        }
        fn resize(&mut self, tokens: usize) -> Result<(), bitnet::StackError> {
            Self::resize(self, tokens).map_err(Into::into)
        }
    }
}

#[cfg(feature = "cuda")]
mod own_cuda {
    use super::adapting::Resizable;
    use super::{Backend, Device, Known, Layers, Machine, OfItsKind, Wanted, Weights, seen, unknown};
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
        let (_, shape) = weights.part(wanted.layers.clone()).ok_or_else(|| unknown(wanted))?;
        let (here, sizes, cache) = (Arc::clone(&gpu), wanted.sizes, wanted.sizes.cache);
        let kind = OfItsKind {
            shape,
            tile: TILE.into(),
            bytes: Arc::new(move |tokens| Stack::bytes(&shape, Sizes { n_ctx: sizes.n_ctx, tokens, cache })),
            make: Box::new(|layers, n_ctx, tokens| {
                Stack::new(Arc::clone(&gpu), weights, layers, Sizes { n_ctx, tokens, cache }).map_err(said)
            }),
            // What this program holds of it nobody tells; what is free says as much.
            memory: Box::new(move || (here.memory().ok().map(|(free, _)| free), None)),
        };
        kind.layers(wanted)
    }

    impl Resizable for Stack {
        fn tokens(&self) -> usize {
            Self::tokens(self)
        }
        fn resize(&mut self, tokens: usize) -> Result<(), bitnet::StackError> {
            Self::resize(self, tokens).map_err(Into::into)
        }
    }
}
