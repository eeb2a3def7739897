//! What a model needs, by device and component. Totals are functions of the parts.

use crate::parts::{Component, Part};
use crate::profile::Rules;
use spec::{Bytes, Known, QuantType};

/// What one configuration of one model needs, right after load and at peak.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    /// The context as the engine resolves it.
    pub context: ResolvedContext,
    /// Per GPU, parallel to [`crate::Target::devices`].
    pub devices: Vec<DeviceRequirement>,
    /// Host memory.
    pub host: HostRequirement,
    /// Which device holds each layer; `None` is the host. The last entry is the output. Where layers are sliced, the first
    /// device stands for all.
    pub layer_devices: Vec<Option<usize>>,
    /// Type of a copy of the output head, on the host, that tokens read instead of the file's; `None` where they read the file's.
    pub head: Option<QuantType>,
    /// This program's own kernels for ternary weights compute, and no engine of ggml.
    pub own_kernels: bool,
    /// Every device holds a slice of each layer that is not on the host (split mode `tensor`).
    pub sliced: bool,
    /// Nodes and splits of the simulated prefill graph, where it was simulated.
    pub graph: Option<GraphSize>,
    /// Remarks for people: generic accounting, rules that could not be checked.
    pub notes: Vec<String>,
}

impl Requirement {
    /// What devices that share the host's memory hold at peak, mapped weights included; nothing where all have their own.
    pub fn held_by_devices(&self) -> Known<Bytes> {
        self.sharing().fold(Known::exact(Bytes::ZERO, "no device shares the host's memory"), |sum, device| sum.plus(&device.total()))
    }
    /// Host memory in full use that cannot be dropped: anonymous memory, and what devices that share it hold.
    pub fn held(&self) -> Known<Bytes> {
        self.sharing().fold(self.host.anonymous(), |sum, device| sum.plus(&device.total()))
    }
    /// Host memory right after load that cannot be dropped.
    pub fn held_at_load(&self) -> Known<Bytes> {
        self.sharing().fold(self.host.anonymous_at_load(), |sum, device| sum.plus(&device.at_load()))
    }
    /// Weights that the host alone uses in place: page cache beside what is held.
    pub fn mapped(&self) -> Known<Bytes> {
        let shared = self.host.mapped_shared.get().unwrap_or(Bytes::ZERO);
        self.host.mapped().map(|mapped| mapped.saturating_sub(shared))
    }
    /// All that should stay in the host's memory for full speed, each page once.
    pub fn resident(&self) -> Known<Bytes> {
        self.held().plus(&self.mapped())
    }
    /// Devices without memory of their own.
    fn sharing(&self) -> impl Iterator<Item = &DeviceRequirement> {
        self.devices.iter().filter(|device| device.shares_host)
    }
}

/// Settings after the engine's own rounding and clamping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedContext {
    /// Context over all sequences, padded.
    pub n_ctx: u32,
    /// Context of one sequence.
    pub n_ctx_seq: u32,
    /// Logical batch.
    pub n_batch: u32,
    /// Micro-batch.
    pub n_ubatch: u32,
    /// Rows of logits reserved per micro-batch.
    pub n_outputs: u32,
    /// Rows of logits that a batch asks for at most: one per sequence, and one more per drafted token.
    pub n_rows: u32,
    /// Recurrent states that each sequence keeps: 1, and one more per token that drafts may be rolled back by.
    pub n_states: u32,
    /// Whether flash attention is in use after `auto` is resolved.
    pub flash_attn: bool,
    /// The engine's rules under which it was resolved.
    pub rules: Rules,
}

/// Size of a simulated graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphSize {
    /// Nodes of the prefill graph.
    pub nodes: u32,
    /// Nodes and what they read: inputs, weights, caches. Of all graphs that are reserved, the most.
    pub tensors: u32,
    /// Splits: runs of nodes on one device.
    pub splits: u32,
}

/// What one GPU must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceRequirement {
    /// The engine's name of the device.
    pub name: String,
    /// Model weights. Where they are used in place from the mapped file: all that is mapped, whatever lies between them.
    pub weights: Known<Bytes>,
    /// Of `weights`: pages of the mapped file. Held in memory while the device computes; where it shares the host's memory, they
    /// are the host's page cache.
    pub weights_mapped: Known<Bytes>,
    /// Attention caches.
    pub kv_cache: Known<Bytes>,
    /// Recurrent state.
    pub state: Known<Bytes>,
    /// Compute buffer of the scheduler.
    pub compute: Known<Bytes>,
    /// The driver's context outside every buffer, right after load.
    pub runtime: Known<Bytes>,
    /// What the backend adds for itself once it computes (pools, copies, workspaces): nothing at load.
    pub scratch: Known<Bytes>,
    /// What is loaded beside the model.
    pub beside: Vec<Part>,
    /// True where the device has no memory of its own: all of this is the host's, too.
    pub shares_host: bool,
}

impl DeviceRequirement {
    /// What the engine itself allocates: weights, caches, state and compute; what its memory breakdown reports.
    pub fn buffers(&self) -> Known<Bytes> {
        self.weights.plus(&self.kv_cache).plus(&self.state).plus(&self.compute)
    }
    /// Everything on the device right after load.
    pub fn at_load(&self) -> Known<Bytes> {
        self.beside.iter().fold(self.buffers().plus(&self.runtime), |sum, part| sum.plus(&part.load))
    }
    /// Everything on the device at peak: what it must have.
    pub fn total(&self) -> Known<Bytes> {
        self.beside.iter().fold(self.buffers().plus(&self.runtime).plus(&self.scratch), |sum, part| sum.plus(&part.peak))
    }
}

/// What the host must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct HostRequirement {
    /// Weights used in place from the mapped file: page cache, reclaimable, but read for every token.
    pub weights_mapped: Known<Bytes>,
    /// What the engine reports for the mapped file: in each file everything from the first to the last tensor used in
    /// place, whatever lies between them.
    pub mapped_span: Known<Bytes>,
    /// File pages that loading touches: weights used in place and the originals of repacked ones. Page cache, reclaimable.
    pub mapped_touched: Known<Bytes>,
    /// Of `weights_mapped`: weights in the part of the file that a device sharing the host's memory has mapped. The same pages,
    /// and counted there.
    pub mapped_shared: Known<Bytes>,
    /// Weights read into anonymous memory.
    pub weights_anonymous: Known<Bytes>,
    /// Second, repacked copies of weights for the CPU's kernels; anonymous.
    pub weights_repacked: Known<Bytes>,
    /// Attention caches of layers computed or kept on the host.
    pub kv_cache: Known<Bytes>,
    /// Recurrent state on the host.
    pub state: Known<Bytes>,
    /// Host compute buffer.
    pub compute: Known<Bytes>,
    /// Logits (and embeddings) handed to the application, for one row per sequence.
    pub output: Known<Bytes>,
    /// What that buffer grows by when drafted tokens are checked.
    pub output_growth: Known<Bytes>,
    /// The program itself: code, vocabulary, graph metadata, driver libraries.
    pub runtime: Known<Bytes>,
    /// What full micro-batches of tokens write of the compute buffer, and take beside it ([`crate::process::in_use`]).
    pub in_use: Known<Bytes>,
    /// Most that the server's prompt cache may grow to later.
    pub prompt_cache: Known<Bytes>,
    /// Most that the server's context checkpoints may grow to later.
    pub checkpoints: Known<Bytes>,
    /// Of `weights_anonymous`: tables of which a token reads one row.
    pub weights_rarely_read: Known<Bytes>,
    /// Of weights, compute and output: page-locked for a device to copy from, which can be neither swapped nor dropped.
    pub pinned: Known<Bytes>,
    /// What is loaded beside the model.
    pub beside: Vec<Part>,
}

impl HostRequirement {
    /// Most that the server's prompt cache and context checkpoints may grow to later, together.
    pub fn growth_limit(&self) -> Known<Bytes> {
        self.prompt_cache.plus(&self.checkpoints)
    }
    /// Buffers that the engine's memory breakdown reports for the host: weights (mapped, anonymous, repacked), caches,
    /// state, compute.
    pub fn buffers(&self) -> Known<Bytes> {
        self.weights_mapped
            .plus(&self.weights_anonymous)
            .plus(&self.weights_repacked)
            .plus(&self.kv_cache)
            .plus(&self.state)
            .plus(&self.compute)
    }
    /// Anonymous memory in full use: cannot be dropped, only swapped. What a host must have.
    pub fn anonymous(&self) -> Known<Bytes> {
        let own = self.anonymous_at_load_alone().plus(&self.compute).plus(&self.output_growth);
        self.beside_anonymous().fold(own, |sum, part| sum.plus(&part.peak))
    }
    /// Anonymous memory as the system counts it once micro-batches of full size have run, or, with a share below one, smaller ones:
    /// pages of the compute buffer that nothing writes are reserved and not counted.
    pub fn anonymous_in_use(&self, share: f64) -> Known<Bytes> {
        let scaled = |bytes: &Bytes| bytes.scale(share.clamp(0.0, 1.0));
        let in_use = match (self.in_use.get(), self.in_use.low(), self.in_use.high()) {
            (Some(value), Some(low), Some(high)) => {
                Known::estimated(scaled(&value), scaled(low), *high, "what batches of this size write (footprint::process)")
            }
            _ => self.in_use.clone(),
        };
        let own = self.anonymous_at_load_alone().plus(&in_use).plus(&self.output_growth);
        self.beside_anonymous().fold(own, |sum, part| sum.plus(&part.peak))
    }
    /// Anonymous memory right after load, before the first token. Caches are cleared and so touched; the compute buffer is
    /// reserved, and the system counts its pages only as batches of full size use them.
    pub fn anonymous_at_load(&self) -> Known<Bytes> {
        let touched = self.beside_anonymous().filter(|part| !part.component.is_compute());
        touched.fold(self.anonymous_at_load_alone(), |sum, part| sum.plus(&part.load))
    }
    fn anonymous_at_load_alone(&self) -> Known<Bytes> {
        self.weights_anonymous.plus(&self.weights_repacked).plus(&self.kv_cache).plus(&self.state).plus(&self.output).plus(&self.runtime)
    }
    /// All that should stay in memory for full speed: anonymous memory and mapped weights.
    pub fn resident(&self) -> Known<Bytes> {
        self.anonymous().plus(&self.mapped())
    }
    /// Weights used in place from mapped files, those of a draft included: page cache that should stay.
    pub fn mapped(&self) -> Known<Bytes> {
        self.beside
            .iter()
            .filter(|part| part.component == Component::DraftMapped)
            .fold(self.weights_mapped.clone(), |sum, part| sum.plus(&part.peak))
    }
    fn beside_anonymous(&self) -> impl Iterator<Item = &Part> {
        self.beside.iter().filter(|part| part.component != Component::DraftMapped)
    }
}
