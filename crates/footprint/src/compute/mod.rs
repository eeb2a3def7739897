//! Compute buffers: the graph of one micro-batch, its splits over devices, and where each tensor of it lies.
//!
//! llama.cpp builds the graph of the largest micro-batch when a context is made, lets its scheduler assign devices and
//! insert copies, and its allocator find a place for each tensor; the high-water marks are the compute buffers. This
//! module does the same without the engine: `decoder` builds the graph out of `blocks`, by the declarations of `arch`;
//! `schedule` cuts it; a `plan` lays it out in an `arena` per `buffer`; `estimate` stands in where none of this applies.
//!
//! For searches, `simulations` cuts graphs at the `borders` of layers. What is scheduled from border to border is a `course` of
//! `steps`, each the `outline` of a layer, which serves contexts of all lengths with sizes from their `catalog`; what each takes of
//! memory is one of the `pieces` that make up a graph.
//!
//! Upstream: `llama_context::sched_reserve` and `graph_reserve`, src/llama-context.cpp:616-770 and 2526-2582 (llama.cpp
//! v0.6.0-dev, crate llama-cpp-sys-2 0.1.161).

mod arch;
mod arena;
mod blocks;
mod borders;
mod buffer;
mod builder;
mod catalog;
mod course;
mod decoder;
mod estimate;
mod fusions;
mod graph;
mod outline;
mod pieces;
mod plan;
mod reorder;
mod room;
mod schedule;
mod shape;
mod simulations;
mod steps;
mod support;
mod tensor;
mod weights;

pub(crate) use room::room;

use crate::context::reserves_one_sequence;
use crate::kv_cache::cells;
use crate::output::{hands_out_embeddings, pooling};
use crate::placement::Placement;
use crate::{Device, GraphSize, ResolvedContext, Target};
use buffer::{BufferRules, NO_LIMIT, Scratch};
use builder::{Batch, Missing, Options};
use decoder::{Copies, Decoder};
use fusions::{Fusion, Fusions};
use reorder::Optimizer;
use schedule::{MAX_OPTIMIZED, PIPELINE_COPIES, Scheduler};
pub(crate) use shape::{LayerShape, Shape, Shapes};
pub(crate) use simulations::Simulations;
use spec::settings::{FlashAttention, SplitMode};
use spec::{Bytes, Known, Model, Settings};
use support::Support;

/// The scheduler's compute buffers.
#[derive(Clone, Debug, PartialEq)]
pub struct ComputeBuffers {
    /// In host memory.
    pub host: Known<Bytes>,
    /// Per device, parallel to [`Target::devices`].
    pub devices: Vec<Known<Bytes>>,
    /// Size of the prefill graph, where it was simulated.
    pub graph: Option<GraphSize>,
    /// Whether flash attention is in use once the engine has resolved `auto`; where the graph was not simulated, as the
    /// context says. It is off where a layer's attention would not run on the layer's own device (`--no-kv-offload`
    /// together with overrides), which also rules out a quantised V cache.
    pub flash_attn: bool,
}

impl ComputeBuffers {
    /// The same as an estimate, for graphs that also write the states which drafts are rolled back to: two logs of
    /// llama-server 0.7.0 confirm those of Qwen3.5 to 0.01 MiB, no recording to the byte.
    pub(crate) fn with_kept_states(self) -> Self {
        let wider = |known: Known<Bytes>| match known.get() {
            Some(size) => {
                let source = format!("{SIMULATED}; with the states that drafts are rolled back to");
                Known::estimated(size, size.scale(0.98), size.scale(1.02), source)
            }
            None => known,
        };
        Self { host: wider(self.host), devices: self.devices.into_iter().map(wider).collect(), ..self }
    }
}

const SIMULATED: &str = "simulation of graph, splits and allocator (llama-context.cpp:616-770, ggml-backend.cpp:1205-1740, ggml-alloc.c)";
/// `LLAMA_MAX_LAYERS`.
const MAX_LAYERS: usize = 512;
/// No tensor of a real micro-batch comes near; what does is a file that lies.
const MAX_TENSOR: u64 = 1 << 50;

/// The compute buffers of one configuration, as the engine allocates them when it is loaded: the largest of what the
/// reservations for prefill and for decode take.
///
/// Exact for declared architectures on the host and on backends whose allocation is known to follow the common rules;
/// elsewhere an estimate: from Llama's graph over the model's tensors, or else from closed forms.
pub fn buffers(model: &Model, settings: &Settings, target: &Target, placement: &Placement, context: &ResolvedContext) -> ComputeBuffers {
    Simulations::new(model).buffers(Configuration { settings, target, placement }, None, context, Run::Load)
}

/// What the engine's own dry run (`no_alloc`; `--fit`, `llama-fit-params`) reports for the same configuration.
///
/// It differs from a load in two ways: only the first prefill graph is measured, and the measuring resets the scheduler,
/// so that nodes which the model has fixed to a device are free to move (`ggml_backend_sched_reserve_size`,
/// ggml-backend.cpp, against `ggml_backend_sched_reserve`). With several GPUs the two differ by activations at the borders.
pub fn dry_run(model: &Model, settings: &Settings, target: &Target, placement: &Placement, context: &ResolvedContext) -> ComputeBuffers {
    Simulations::new(model).buffers(Configuration { settings, target, placement }, None, context, Run::Dry)
}

/// Which of the engine's reservations is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// A load: prefill, decode, prefill.
    Load,
    /// A dry run: prefill without pins.
    Dry,
}

/// What the used devices do to their splits. CUDA's pass concerns experts alone.
fn optimizers<'d>(model: &Model, used: impl Iterator<Item = &'d Device>) -> [Option<Optimizer>; MAX_OPTIMIZED] {
    let mut optimizers = [None; MAX_OPTIMIZED];
    for (slot, device) in optimizers.iter_mut().zip(used) {
        *slot = Optimizer::of(&device.backend.name).filter(|&optimizer| optimizer != Optimizer::Cuda || model.has_experts());
    }
    optimizers
}

fn support<'d>(used: impl Iterator<Item = &'d Device>) -> [Support; MAX_OPTIMIZED] {
    let mut support = [Support::Everything; MAX_OPTIMIZED];
    for (slot, device) in support.iter_mut().zip(used) {
        *slot = Support::of(&device.backend.name, device.backend.max_tensor.map_or(NO_LIMIT, Bytes::get));
    }
    support
}

fn scratch_of(backend: &str) -> Scratch {
    match backend {
        "CUDA" | "ROCm" => Scratch::Cuda,
        "Metal" => Scratch::Metal,
        _ => Scratch::None,
    }
}

/// A configuration whose tensors are placed.
#[derive(Clone, Copy)]
pub(crate) struct Configuration<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) target: &'a Target,
    pub(crate) placement: &'a Placement,
}

/// Everything that the graphs of one context share.
struct Setup<'a> {
    model: &'a Model,
    placement: &'a Placement,
    simulations: &'a Simulations<'a>,
    /// What of the placement shapes graphs, where others like these are asked for.
    shape: Option<&'a Shape>,
    options: Options,
    scheduler: Scheduler,
    rules: Vec<BufferRules>,
    flash_auto: bool,
}

impl<'a> Setup<'a> {
    fn new(
        simulations: &'a Simulations<'a>,
        shape: Option<&'a Shape>,
        configuration: Configuration<'a>,
        context: &ResolvedContext,
    ) -> Self {
        let model = simulations.model;
        let Configuration { settings, target, placement } = configuration;
        let used = || placement.devices.iter().filter_map(|&device| target.devices.get(device));
        let backends = u8::try_from(placement.devices.len()).unwrap_or(u8::MAX - 1) + 1;
        let backend_of = |device: Option<usize>| {
            let position = device.and_then(|device| placement.devices.iter().position(|&used| used == device));
            position.and_then(|position| u8::try_from(position).ok()).unwrap_or(backends - 1)
        };
        let cells = cells(model, settings, context);
        let full_offload = settings.n_gpu_layers > model.n_layer_all();
        let pipeline = placement.devices.len() > 1
            && full_offload
            && settings.split_mode == SplitMode::Layer
            && settings.kv_offload
            && (!placement.has_overrides || context.rules.ik.is_some())
            && used().all(|device| device.backend.pipeline);
        let mut rules: Vec<BufferRules> = used()
            .map(|device| BufferRules {
                alignment: device.backend.alignment,
                max_buffer: device.backend.max_buffer.map_or(NO_LIMIT, Bytes::get),
                quantized_row_padding: device.backend.quantized_row_padding,
                scratch: if context.rules.attention_scratch { scratch_of(&device.backend.name) } else { Scratch::None },
            })
            .collect();
        let pinned = used().next().filter(|device| device.backend.host_buffer);
        let alignment = pinned.map_or(BufferRules::HOST.alignment, |device| device.backend.host_alignment);
        rules.push(BufferRules { alignment, ..BufferRules::HOST });
        Self {
            model,
            placement,
            simulations,
            shape,
            options: Options {
                fusions: if context.flash_attn { Fusions::ALL } else { Fusions::ALL.without(Fusion::Attention) },
                v_transposed: settings.flash_attn == FlashAttention::Off || !context.flash_attn,
                type_k: settings.cache_type_k,
                type_v: settings.cache_type_v,
                n_stream: u64::from(cells.streams),
                n_seq_max: u64::from(settings.n_parallel.max(1)),
                n_states: u64::from(context.n_states.max(1)),
                cells: u64::from(cells.full),
                cells_window: u64::from(cells.window),
                n_ctx_seq: u64::from(context.n_ctx_seq),
                pooling: hands_out_embeddings(model, settings).then(|| pooling(model, settings)),
                rules: context.rules,
                kv_offload: settings.kv_offload,
                full_offload,
                backends,
                layers: placement.layer_devices.iter().map(|&device| backend_of(device)).collect(),
            },
            scheduler: Scheduler {
                backends,
                op_offload: settings.op_offload,
                copies: match context.rules.ik {
                    _ if !pipeline => 1,
                    Some(ik) => usize::try_from(ik.copies).unwrap_or(1).max(1),
                    None => PIPELINE_COPIES,
                },
                support: support(used()),
                optimizers: match context.rules.ik {
                    None if context.rules.reorders => optimizers(model, used()),
                    _ => [None; MAX_OPTIMIZED],
                },
                ik: context.rules.ik,
            },
            rules,
            // A quantised V cache needs fused attention, wherever it runs (llama-context.cpp:3843-3850).
            flash_auto: settings.flash_attn == FlashAttention::Auto && !settings.cache_type_v.is_quantized(),
        }
    }

    /// What the engine reserves, in its order: prefill, decode, prefill again (of some families for one sequence); a buffer
    /// that is too small is replaced.
    fn reserve(&self, decoder: &Decoder, context: &ResolvedContext, run: Run) -> Result<Reserved, Missing> {
        let n_seqs = self.options.n_seq_max;
        let n_tokens = u64::from(context.n_ctx.min(context.n_ubatch));
        let whole = n_tokens.next_multiple_of(n_seqs);
        let prefill = Batch { n_tokens: whole, n_seqs, n_outputs: u64::from(context.n_outputs).min(n_tokens).max(1) };
        let decode = Batch { n_tokens: n_seqs, n_seqs, n_outputs: n_seqs };

        let (fusions, decoded) = self.resolve(decoder, decode)?;
        let mut held = self.measure(decoder, fusions, prefill, run)?;
        // ik_llama.cpp reserves nothing after the first prefill (src/llama.cpp:21335-21345, ddceb0a5).
        if run == Run::Load && self.options.rules.ik.is_none() {
            let decoded = decoded.map_or_else(|| self.measure(decoder, fusions, decode, run), Ok)?;
            let again = match reserves_one_sequence(self.model) {
                true => Some(self.measure(decoder, fusions, Batch { n_tokens, n_seqs: 1, ..prefill }, run)?),
                false => None,
            };
            held = held.then(&decoded, again.as_ref());
        }
        Ok(Reserved {
            sizes: totals(&held.chunks),
            unfused: totals(held.unfused()),
            graph: held.graph,
            flash_attn: fusions.has(Fusion::Attention),
        })
    }

    /// What stays fused, and the graph of decode where it has been seen: one of as many tokens as the engine looks at.
    fn resolve(&self, decoder: &Decoder, decode: Batch) -> Result<(Fusions, Option<Measured>), Missing> {
        let mut fusions = self.options.fusions;
        let mut seen: Option<Measured> = None;
        let open = |fusion: &Fusion| if *fusion == Fusion::Attention { self.flash_auto } else { decoder.copies == Copies::HyperConnected };
        let (several, wanted) = (self.options.backends > 1, fusions);
        for fusion in Fusion::ALL.into_iter().filter(|fusion| several && wanted.has(*fusion) && open(fusion)) {
            let graph = match seen.take() {
                Some(graph) => graph,
                None => self.measure(decoder, fusions, decode, Run::Load)?,
            };
            if graph.astray.has(fusion) {
                fusions = fusions.without(fusion);
            } else {
                seen = Some(graph);
            }
        }
        Ok((fusions, seen))
    }

    fn known(&self, target: &Target, reserved: &Reserved, at_best: Option<Certainty>) -> ComputeBuffers {
        let of = |device: &Device| match device.backend.name.as_str() {
            "CUDA" | "ROCm" | "FAKE" => Certainty::Exact,
            "Vulkan" | "Metal" => Certainty::Profiled,
            _ => Certainty::Reordered,
        };
        // What a device does not compute falls to the host.
        let used = || self.placement.devices.iter().filter_map(|&device| target.devices.get(device));
        let beside = if used().any(|device| of(device) == Certainty::Profiled) { Certainty::Profiled } else { Certainty::Exact };
        let by_backend = |device: Option<&Device>| device.map_or(beside, of);
        let by_age = (!self.options.rules.confirmed).then_some(Certainty::OlderRules);
        let certainty = |device| at_best.or(by_age).unwrap_or_else(|| by_backend(device));
        let mut devices = vec![Known::exact(Bytes::ZERO, "the engine does not use this device"); target.devices.len()];
        for (&device, (&size, &unfused)) in self.placement.devices.iter().zip(reserved.sizes.iter().zip(&reserved.unfused)) {
            if let Some(slot) = devices.get_mut(device) {
                let certainty = certainty(target.devices.get(device));
                *slot = if certainty == Certainty::Exact && unfused != size { fused(size, unfused) } else { certainty.of(size) };
            }
        }
        let host = reserved.sizes.last().map_or_else(too_large, |&size| certainty(None).of(size));
        let graph = at_best.is_none().then_some(reserved.graph);
        ComputeBuffers { host, devices, graph, flash_attn: reserved.flash_attn }
    }
}

/// What a simulation yields.
struct Reserved {
    /// Bytes per backend; the host is last.
    sizes: Vec<u64>,
    /// The same without fusions (`GGML_CUDA_DISABLE_FUSION`).
    unfused: Vec<u64>,
    graph: GraphSize,
    flash_attn: bool,
}

/// What one graph takes.
#[derive(Clone, Debug)]
struct Measured {
    /// Bytes of each chunk of each backend's buffer; the host is last.
    chunks: Vec<Vec<u64>>,
    /// The same without fusions, where these change anything.
    unfused: Option<Vec<Vec<u64>>>,
    graph: GraphSize,
    /// What is computed as one, but not on its layer's own device.
    astray: Fusions,
}

impl Measured {
    fn unfused(&self) -> &[Vec<u64>] {
        self.unfused.as_deref().unwrap_or(&self.chunks)
    }
    /// The buffers once the graph of decode and the first, or another, of prefill are reserved in them.
    fn then(self, decode: &Self, again: Option<&Self>) -> Self {
        let tensors = [decode.graph.tensors, again.map_or(0, |again| again.graph.tensors)].into_iter().fold(self.graph.tensors, u32::max);
        let again = again.unwrap_or(&self);
        let held = |of: fn(&Self) -> &[Vec<u64>]| {
            let first = of(&self).iter().zip(of(decode)).zip(of(again));
            first.map(|((held, decode), again)| grown(grown(held, decode), again).to_vec()).collect()
        };
        let plain = [&self, decode, again].iter().any(|measured| measured.unfused.is_some());
        Self {
            unfused: plain.then(|| held(Self::unfused)),
            chunks: held(|measured| &measured.chunks),
            graph: GraphSize { tensors, ..self.graph },
            ..self
        }
    }
}

fn totals(chunks: &[Vec<u64>]) -> Vec<u64> {
    chunks.iter().map(|chunks| chunks.iter().fold(0, |sum: u64, &size| sum.saturating_add(size))).collect()
}

/// How well a backend keeps to the common rules of graph and allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    /// To the byte.
    Exact,
    /// To the byte on the device whose answers were recorded; others may compute more or less of the graph, and align
    /// otherwise (Vulkan, Metal).
    Profiled,
    /// The backend may reorder the graph, or add scratch to results.
    Reordered,
    /// The engine is older than the rules that were read in its source.
    OlderRules,
    /// The graph is that of another family.
    StandIn,
}

impl Certainty {
    fn of(self, size: u64) -> Known<Bytes> {
        if size >= MAX_TENSOR {
            return too_large();
        }
        let size = Bytes::new(size);
        match self {
            Self::Exact => Known::exact(size, SIMULATED),
            Self::Profiled => {
                let source = format!("{SIMULATED}, with the backend's order, scratch and operations as recorded from one device");
                Known::estimated(size, size.scale(0.97), size.scale(1.03), source)
            }
            Self::Reordered => {
                Known::estimated(size, size.scale(0.9), size.scale(1.25), format!("{SIMULATED}; the backend may reorder the graph"))
            }
            Self::OlderRules => {
                let source = format!("{SIMULATED}, with the rules of an older engine as far as they are known");
                Known::estimated(size, size.scale(0.8), size.scale(1.25), source)
            }
            Self::StandIn => {
                let source = format!("{SIMULATED}, with Llama's graph in place of one that is not declared");
                Known::estimated(size, size.scale(0.6), size.scale(1.6), source)
            }
        }
    }
}

/// A buffer with and without the backend's fusions of experts: they were read in its source, but no run has confirmed them.
fn fused(size: u64, plain: u64) -> Known<Bytes> {
    let [low, high] = [size.min(plain), size.max(plain)].map(Bytes::new);
    Known::estimated(
        Bytes::new(size),
        low,
        high,
        format!("{SIMULATED}, with and without CUDA's fusions of experts (ggml-cuda.cu:4603-4715)"),
    )
}

/// The chunks of a buffer after `wanted` is reserved in it: all are made anew where one is too small
/// (`ggml_gallocr_reserve_n_impl`, ggml-alloc.c:860-905).
fn grown<'a>(held: &'a [u64], wanted: &'a [u64]) -> &'a [u64] {
    let too_small = wanted.iter().enumerate().any(|(i, &size)| size > held.get(i).copied().unwrap_or(0));
    if too_small { wanted } else { held }
}

fn too_large() -> Known<Bytes> {
    Known::unknown("sizes in the file are beyond what an engine can address")
}
