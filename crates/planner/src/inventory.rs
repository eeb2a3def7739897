//! What of a model lies where: bytes, operations and cache of each layer, so that a search can sum them cheaply.

use footprint::bitnet::{head_copy, with_copied_head};
use footprint::{EngineProfile, Requirement};
use spec::model::Tensor;
use spec::model::{Experts, FeedForward, Layer, Mixer};
use spec::{Bytes, Model, QuantType, Settings};
use std::collections::BTreeMap;

/// Weights, operations and cache of a model by layer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Inventory {
    pub(crate) layers: Vec<LayerLoad>,
    /// Token embeddings and other tables of the input: always on the host, read one row per token.
    pub(crate) input: Bytes,
    /// Output head and its norm; where the head is tied, the token embedding.
    pub(crate) output: Bytes,
    /// Multiply-adds of the output head per token.
    pub(crate) output_elements: u64,
    /// True where the output head is the token embedding: on a GPU it is a second copy.
    pub(crate) tied: bool,
    /// Largest single weight tensor of the layers.
    pub(crate) largest_tensor: Bytes,
    /// Elements per token of the widest block's activations, for a first guess of compute buffers.
    pub(crate) activation_width: u64,
    /// Elements per token of the logits.
    pub(crate) n_vocab: u64,
    /// Width of the residual stream.
    pub(crate) width: u64,
    /// How most of the dense weights are stored, the output's included, and how most of the experts'.
    pub(crate) quants: [QuantType; 2],
    /// True where this program's own kernels compute it.
    pub(crate) own_kernels: bool,
}

/// One layer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LayerLoad {
    /// Weights that every token reads.
    pub(crate) dense: Bytes,
    /// Stacked weights of routed experts.
    pub(crate) experts: Bytes,
    /// Elements of the dense weights: multiply-adds per token.
    pub(crate) dense_elements: u64,
    /// Elements of the experts' weights, all of them.
    pub(crate) expert_elements: u64,
    /// Experts that a token visits, and all of them; `None` without experts.
    pub(crate) routing: Option<(u32, u32)>,
    /// Elements of one token's K and V rows; zero where the layer keeps no cache.
    pub(crate) k_width: u64,
    pub(crate) v_width: u64,
    /// Elements of a query of all heads: what a token multiplies with each cached row, and again with each value.
    pub(crate) query_width: u64,
    pub(crate) window: Option<u32>,
    /// Recurrent state per sequence.
    pub(crate) state: Bytes,
    /// False for trailing layers that only predict further tokens: loaded, not computed.
    pub(crate) computed: bool,
}

impl LayerLoad {
    /// The share of the experts' weights that one token reads.
    pub(crate) fn expert_share(&self) -> f64 {
        match self.routing {
            Some((used, count)) if count > 0 => (f64::from(used) / f64::from(count)).min(1.0),
            _ => 1.0,
        }
    }
    /// The share of the experts that `tokens` tokens visit together, if they choose at random: `1 − (1 − k/E)^n`.
    pub(crate) fn expert_share_of(&self, tokens: u32) -> f64 {
        1.0 - (1.0 - self.expert_share()).powf(f64::from(tokens))
    }
    /// Cells of the layer's cache over all streams: the window and a micro-batch for sliding layers
    /// (`src/llama-kv-cache-iswa.cpp:73-80`), padded to 256, else the whole context.
    fn cells(&self, settings: &Settings) -> u64 {
        let streams = if settings.kv_unified { 1 } else { u64::from(settings.n_parallel.max(1)) };
        let all = u64::from(settings.n_ctx).next_multiple_of(256);
        match self.window {
            Some(window) if !settings.swa_full => {
                let sequences = if settings.kv_unified { u64::from(settings.n_parallel.max(1)) } else { 1 };
                let batch = u64::from(settings.n_ubatch.min(settings.n_batch).min(settings.n_ctx));
                let cells = u64::from(window).saturating_mul(sequences).saturating_add(batch).next_multiple_of(256);
                cells.min(all.div_ceil(streams)).saturating_mul(streams)
            }
            _ => all,
        }
    }
    /// One token's rows of cache.
    pub(crate) fn cache_row(&self, settings: &Settings) -> Bytes {
        cache_row(settings.cache_type_k, self.k_width) + cache_row(settings.cache_type_v, self.v_width)
    }
    /// Cells that attention of one sequence passes over at most: those of a sliding layer beyond its window are read and masked.
    pub(crate) fn reach(&self, settings: &Settings) -> Option<u32> {
        self.window.filter(|_| !settings.swa_full).map(|window| window.saturating_add(settings.n_ubatch.min(settings.n_batch)))
    }
    /// Cells that a token at `depth` passes over.
    pub(crate) fn seen(&self, depth: u32, settings: &Settings) -> u32 {
        self.reach(settings).map_or(depth, |reach| reach.min(depth))
    }
    /// Cache and state of the layer.
    pub(crate) fn cache(&self, settings: &Settings) -> Bytes {
        self.cache_row(settings).times(self.cells(settings)) + self.state.times(u64::from(settings.n_parallel.max(1)))
    }
}

/// A row of cache; a ragged one is counted as whole blocks.
fn cache_row(ty: QuantType, width: u64) -> Bytes {
    ty.row_bytes(width.next_multiple_of(ty.block().weights)).unwrap_or(Bytes::MAX)
}

impl Inventory {
    /// That of a model as the engine that a requirement is of computes it.
    pub(crate) fn required(model: &Model, requirement: &Requirement) -> Self {
        Self { own_kernels: requirement.own_kernels, ..Self::with_head(model, requirement.head) }
    }

    /// That of a model whose output head is read from a copy in this type, if any ([`footprint::Requirement::head`]).
    fn with_head(model: &Model, copy: Option<QuantType>) -> Self {
        let Some(ty) = copy else { return Self::of(model) };
        // The speed model knows types by what most weights of a file are in. What is not copied is computed as before.
        let quants = [false, true].map(|experts| dominant(model, experts));
        Self { quants, ..Self::of(&with_copied_head(model, ty)) }
    }

    /// That of a model as the engine of a profile computes it.
    pub(crate) fn as_run(model: &Model, profile: &EngineProfile) -> Self {
        let Some(engine) = profile.bitnet else { return Self::of(model) };
        let mut inventory = Self { own_kernels: true, ..Self::with_head(model, head_copy(model, engine)) };
        if !inventory.tied {
            // Mapped, and but for a row per token not read again.
            inventory.input = Bytes::ZERO;
        }
        inventory
    }

    /// That of a model as its file has it.
    pub(crate) fn of(model: &Model) -> Self {
        let computed = model.n_layer() as usize;
        let mut layers: Vec<LayerLoad> = model.layers.iter().enumerate().map(|(i, layer)| empty_layer(layer, i < computed)).collect();
        let mut inventory = Self {
            layers: Vec::new(),
            input: Bytes::ZERO,
            output: Bytes::ZERO,
            output_elements: 0,
            tied: model.tied_embeddings,
            largest_tensor: Bytes::ZERO,
            activation_width: model.layers.iter().map(|layer| activation_width(model.n_embd, layer)).max().unwrap_or(0),
            n_vocab: model.n_vocab,
            width: model.n_embd,
            quants: [false, true].map(|experts| dominant(model, experts)),
            own_kernels: false,
        };
        for tensor in &model.tensors {
            match tensor.layer().and_then(|layer| layers.get_mut(layer as usize)) {
                Some(layer) => {
                    add_to_layer(layer, tensor);
                    inventory.largest_tensor = inventory.largest_tensor.max(tensor.bytes);
                }
                None if is_input(&tensor.name) => {
                    inventory.input += tensor.bytes;
                    if model.tied_embeddings && tensor.name == "token_embd.weight" {
                        inventory.add_output(tensor);
                    }
                }
                None => inventory.add_output(tensor),
            }
        }
        inventory.layers = layers;
        inventory
    }

    fn add_output(&mut self, tensor: &Tensor) {
        self.output += tensor.bytes;
        self.output_elements = self.output_elements.saturating_add(tensor.elements());
    }

    /// The trailing prediction layers and the output as a model of their own.
    pub(crate) fn of_prediction_layers(&self) -> Self {
        let mut own = self.clone();
        own.layers.retain(|layer| !layer.computed);
        own.layers.iter_mut().for_each(|layer| layer.computed = true);
        own
    }

    /// Layers and the output: what `-ngl` can count.
    pub(crate) fn offloadable(&self) -> u32 {
        u32::try_from(self.layers.len()).unwrap_or(u32::MAX).saturating_add(1)
    }
    /// True where any layer routes tokens to experts.
    pub(crate) fn has_experts(&self) -> bool {
        self.layers.iter().any(|layer| !layer.experts.is_zero())
    }
    /// Layers up to and including the last one with experts: the most that `--n-cpu-moe` can use.
    pub(crate) fn layers_to_last_experts(&self) -> u32 {
        let last = self.layers.iter().rposition(|layer| !layer.experts.is_zero());
        last.and_then(|i| u32::try_from(i + 1).ok()).unwrap_or(0)
    }
}

/// The type of most bytes of the dense weights, or of the experts'; F16 where there are none.
fn dominant(model: &Model, experts: bool) -> QuantType {
    let mut bytes: BTreeMap<QuantType, Bytes> = BTreeMap::new();
    let read = |tensor: &&Tensor| {
        tensor.is_expert() == experts && (!is_input(&tensor.name) || model.tied_embeddings && tensor.name == "token_embd.weight")
    };
    for tensor in model.tensors.iter().filter(read) {
        *bytes.entry(tensor.ty).or_default() += tensor.bytes;
    }
    bytes.into_iter().max_by_key(|&(_, bytes)| bytes).map_or(QuantType::F16, |(ty, _)| ty)
}

/// Activations alive at once in a block, per token: about three rows of the inner width and two of the residual stream in a
/// dense block, two rows per visited expert in a routed one.
fn activation_width(n_embd: u64, layer: &Layer) -> u64 {
    match &layer.feed_forward {
        FeedForward::Dense { n_ff } => n_ff.saturating_mul(3).saturating_add(n_embd.saturating_mul(2)),
        FeedForward::Experts(experts) => n_embd.saturating_mul(2 * u64::from(experts.used) + 4),
        FeedForward::None => n_embd.saturating_mul(8),
    }
}

/// Tensors of the input: `llm_tensor_info_for` gives them the class INPUT (`src/llama-arch.cpp`).
fn is_input(name: &str) -> bool {
    ["token_embd", "token_types", "position_embd", "per_layer_token_embd", "token_embd_norm"].iter().any(|prefix| name.starts_with(prefix))
}

fn add_to_layer(layer: &mut LayerLoad, tensor: &Tensor) {
    if tensor.is_expert() {
        layer.experts += tensor.bytes;
        layer.expert_elements = layer.expert_elements.saturating_add(tensor.elements());
    } else {
        layer.dense += tensor.bytes;
        layer.dense_elements = layer.dense_elements.saturating_add(tensor.elements());
    }
}

fn empty_layer(layer: &Layer, computed: bool) -> LayerLoad {
    let (k_width, v_width, window) = match &layer.mixer {
        Mixer::Attention(a) | Mixer::Both(a, _) if a.shares_kv_of.is_none() => (a.k_width(), a.v_width(), a.window),
        Mixer::Mla(mla) => {
            let index = mla.indexer.as_ref().filter(|indexer| indexer.own_keys).map_or(0, |indexer| u64::from(indexer.head_dim));
            (u64::from(mla.kv_lora_rank) + u64::from(mla.rope_dim) + index, 0, None)
        }
        // Of a layer that sees further than its window, the window is the smaller part.
        Mixer::Compressed(attention) => match &attention.beyond {
            None => (u64::from(attention.head_dim), 0, Some(attention.window)),
            Some(beyond) => {
                let index = beyond.indexer.as_ref().map_or(0, |indexer| u64::from(indexer.head_dim));
                ((u64::from(attention.head_dim) + index) / u64::from(beyond.ratio).max(1), 0, None)
            }
        },
        _ => (0, 0, None),
    };
    let query_width = match &layer.mixer {
        Mixer::Attention(a) | Mixer::Both(a, _) => u64::from(a.n_head).saturating_mul(u64::from(a.head_dim_k)),
        // Queries are taken into the compressed space (`src/models/deepseek2.cpp`).
        Mixer::Mla(mla) => u64::from(mla.n_head).saturating_mul(u64::from(mla.kv_lora_rank) + u64::from(mla.rope_dim)),
        Mixer::Compressed(attention) => u64::from(attention.n_head).saturating_mul(u64::from(attention.head_dim)),
        Mixer::Recurrent(_) | Mixer::None => 0,
    };
    let state = match &layer.mixer {
        Mixer::Recurrent(r) | Mixer::Both(_, r) => Bytes::new(r.r_elements.saturating_add(r.s_elements)).times(4),
        _ => Bytes::ZERO,
    };
    let routing = match &layer.feed_forward {
        FeedForward::Experts(Experts { count, used, .. }) => Some((*used, *count)),
        _ => None,
    };
    // Trailing layers of the MTP head have no part in the main context.
    let (k_width, v_width, query_width) = if computed { (k_width, v_width, query_width) } else { (0, 0, 0) };
    LayerLoad {
        dense: Bytes::ZERO,
        experts: Bytes::ZERO,
        dense_elements: 0,
        expert_elements: 0,
        routing,
        k_width,
        v_width,
        query_width,
        window,
        state,
        computed,
    }
}
