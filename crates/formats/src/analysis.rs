//! What a model computes and reads per token, from its shapes alone; nothing is measured.
//!
//! Formulas, with weights `w`, a depth of `d` tokens already in the cache and `b` tokens computed at once:
//!
//! * operations per token = 2 × active weights + attention(d) + recurrence; a multiply-add counts as two
//! * active weights: every matrix once, routed experts as far as they are used, of look-up tables one row, and nothing
//!   of layers that only predict further tokens
//! * attention(d) = 2 × heads × (width of K + width of V) × min(d, window), summed over layers; for latent attention
//!   the widths are those of the compressed row (rank + rotary part, and rank); where an indexer chooses tokens, at most
//!   these are seen, and the indexer adds 2 × its heads × their width × d
//! * recurrence = 6 operations per element of state: decay, input, output
//! * bytes per batch = weights that all tokens share + experts × (1 − (1 − used / count)^b), the share that `b` tokens
//!   visit where routing is even
//! * intensity = b × operations per token / bytes per batch

use spec::model::{Attention, Compressed, FeedForward, Mixer, Mla, Model, Tensor};
use spec::{Bytes, BytesPerSec, OpsPerSec, QuantType};
use std::collections::{BTreeMap, BTreeSet};

/// The analysis of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    /// Weights in all.
    pub parameters: u64,
    /// Weights that one token passes.
    pub active_parameters: u64,
    /// Size of all weights.
    pub weight_bytes: Bytes,
    /// Bytes of weights that one token reads, decoded alone.
    pub active_bytes: Bytes,
    /// Routed experts, by how many of them a token uses; empty without any.
    pub experts: Vec<ExpertGroup>,
    /// Elements of recurrent state per sequence, all layers.
    pub state_elements: u64,
    /// Shapes of weight matrices, those with most weights first.
    pub matrices: Vec<MatrixShape>,
    /// Tensor types, those with most bytes first.
    pub types: Vec<TypeShare>,
    /// What can be divided between devices or computed together.
    pub parallelism: Parallelism,
    /// Layers that attend, as far as their cost depends on depth.
    attention: Vec<AttentionCost>,
}

/// Routed experts of all layers that use the same number of the same count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertGroup {
    /// Experts of a layer.
    pub count: u64,
    /// Experts that one token visits.
    pub used: u64,
    /// Size of all their weights.
    pub bytes: Bytes,
}

/// Matrices of one shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixShape {
    /// Elements of a row: the width of the input.
    pub columns: u64,
    /// Rows: the width of the output.
    pub rows: u64,
    /// Matrices in one tensor: the number of experts, else 1.
    pub stacked: u64,
    /// Tensors of this shape.
    pub count: u64,
    /// What they are, by their names without layer: `attn_q`, `ffn_up`.
    pub roles: BTreeSet<String>,
}

/// Weights of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeShare {
    /// The type.
    pub ty: QuantType,
    /// Tensors of this type.
    pub tensors: u64,
    /// Weights in them.
    pub weights: u64,
    /// Their size.
    pub bytes: Bytes,
}

/// What can be divided between devices or computed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parallelism {
    /// Pieces of a split by layer: all layers and the output (what `-ngl` counts).
    pub layers: u32,
    /// Weights that can stay in host memory while the rest is on a GPU at little cost: routed experts. Zero without any.
    pub expert_bytes: Bytes,
    /// Largest number of devices that divide the key/value heads of every layer evenly; `None` without such heads.
    pub head_split: Option<u32>,
    /// True where several sequences can be decoded in one batch, so that weights are read once for all.
    pub batched_sequences: bool,
    /// True where all tokens of a prompt are computed at once; false where a recurrence takes them one after another
    /// in some layer, so that only the matrices around it gain.
    pub parallel_prompt: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct AttentionCost {
    /// Operations per token in the cache.
    ops: u64,
    /// Elements of K and of V per token in the cache.
    k: u64,
    v: u64,
    window: Option<u32>,
}

impl AttentionCost {
    fn seen(&self, depth: u64) -> u64 {
        self.window.map_or(depth, |window| depth.min(window.into()))
    }
}

/// Analyses a model.
pub fn analyze(model: &Model) -> Analysis {
    let mut analysis = Analysis {
        parameters: model.parameters(),
        active_parameters: 0,
        weight_bytes: model.tensor_bytes(),
        active_bytes: Bytes::ZERO,
        experts: Vec::new(),
        state_elements: 0,
        matrices: matrices(model),
        types: types(model),
        parallelism: parallelism(model),
        attention: Vec::new(),
    };
    let mut groups: BTreeMap<(u64, u64), Bytes> = BTreeMap::new();
    for tensor in &model.tensors {
        if tensor.layer().is_some_and(|layer| layer >= model.n_layer()) {
            continue;
        }
        let (used, count) = share(model, tensor);
        analysis.active_parameters = analysis.active_parameters.saturating_add(fraction(tensor.elements(), used, count));
        analysis.active_bytes += Bytes::new(fraction(tensor.bytes.get(), used, count));
        if tensor.is_expert() {
            *groups.entry((count, used)).or_default() += tensor.bytes;
        }
    }
    analysis.experts = groups.into_iter().map(|((count, used), bytes)| ExpertGroup { count, used, bytes }).collect();
    for layer in model.layers.iter().take(model.n_layer() as usize) {
        if let Mixer::Recurrent(state) | Mixer::Both(_, state) = &layer.mixer {
            analysis.state_elements = analysis.state_elements.saturating_add(state.r_elements.saturating_add(state.s_elements));
        }
        analysis.attention.extend(attention_costs(&layer.mixer));
    }
    analysis
}

/// `value × used / count`; exact, since experts are equal parts.
fn fraction(value: u64, used: u64, count: u64) -> u64 {
    if used == count { value } else { value / count.max(1) * used }
}

/// How much of a tensor one token passes, as a fraction.
fn share(model: &Model, tensor: &Tensor) -> (u64, u64) {
    if tensor.is_expert() {
        let layer = tensor.layer().and_then(|layer| model.layers.get(layer as usize));
        if let Some(FeedForward::Experts(experts)) = layer.map(|layer| &layer.feed_forward) {
            let [_, _, stacked, _] = tensor.shape;
            let count = if stacked > 1 { stacked } else { experts.count.into() };
            return (u64::from(experts.used).min(count), count.max(1));
        }
    }
    let [_, rows, ..] = tensor.shape;
    match tensor.name.as_str() {
        "token_embd.weight" if !model.tied_embeddings => (1, rows.max(1)),
        "per_layer_token_embd.weight" | "position_embd.weight" | "token_types.weight" => (1, rows.max(1)),
        _ => (1, 1),
    }
}

/// What attention costs, and beside it what its indexer does.
fn attention_costs(mixer: &Mixer) -> Vec<AttentionCost> {
    let costs = match mixer {
        Mixer::Attention(attention) | Mixer::Both(attention, _) => {
            let Attention { n_head, head_dim_k, head_dim_v, window, .. } = *attention;
            let width = u64::from(head_dim_k) + u64::from(head_dim_v);
            let ops = (2 * u64::from(n_head)).saturating_mul(width);
            [Some(AttentionCost { ops, k: attention.k_width(), v: attention.v_width(), window }), None]
        }
        Mixer::Mla(mla) => {
            let row = u64::from(mla.kv_lora_rank) + u64::from(mla.rope_dim);
            let ops = (2 * u64::from(mla.n_head)).saturating_mul(row + u64::from(mla.kv_lora_rank));
            let chosen = mla.indexer.as_ref().map(|indexer| indexer.top_k);
            let index = mla.indexer.as_ref().filter(|indexer| indexer.own_keys).map(|indexer| {
                let width = u64::from(indexer.head_dim);
                AttentionCost { ops: (2 * u64::from(indexer.n_head)).saturating_mul(width), k: width, v: 0, window: None }
            });
            [Some(AttentionCost { ops, k: row, v: 0, window: chosen }), index]
        }
        Mixer::Compressed(attention) => return compressed_costs(attention),
        Mixer::Recurrent(_) | Mixer::None => [None, None],
    };
    costs.into_iter().flatten().collect()
}

/// Per token: a row that stands for several is a fraction of one.
fn compressed_costs(attention: &Compressed) -> Vec<AttentionCost> {
    let width = u64::from(attention.head_dim);
    let ops = (4 * u64::from(attention.n_head)).saturating_mul(width);
    let mut costs = vec![AttentionCost { ops, k: width, v: 0, window: Some(attention.window) }];
    if let Some(beyond) = &attention.beyond {
        let tokens = u64::from(beyond.ratio).max(1);
        let chosen = beyond.indexer.as_ref().map(|indexer| indexer.top_k.saturating_mul(beyond.ratio));
        costs.push(AttentionCost { ops: ops / tokens, k: width / tokens, v: 0, window: chosen });
        costs.extend(beyond.indexer.as_ref().map(|indexer| {
            let width = u64::from(indexer.head_dim);
            let ops = (2 * u64::from(indexer.n_head)).saturating_mul(width);
            AttentionCost { ops: ops / tokens, k: width / tokens, v: 0, window: None }
        }));
    }
    costs
}

fn matrices(model: &Model) -> Vec<MatrixShape> {
    let mut shapes: BTreeMap<[u64; 3], (u64, BTreeSet<String>)> = BTreeMap::new();
    for tensor in &model.tensors {
        let [columns, rows, stacked, last] = tensor.shape;
        if rows <= 1 && stacked <= 1 {
            continue;
        }
        let (count, roles) = shapes.entry([columns, rows, stacked.saturating_mul(last)]).or_default();
        *count += 1;
        roles.insert(role(&tensor.name).to_owned());
    }
    let mut matrices: Vec<_> =
        shapes.into_iter().map(|([columns, rows, stacked], (count, roles))| MatrixShape { columns, rows, stacked, count, roles }).collect();
    let weights = |m: &MatrixShape| [m.columns, m.rows, m.stacked, m.count].into_iter().fold(1, u64::saturating_mul);
    matrices.sort_by_key(|matrix| std::cmp::Reverse(weights(matrix)));
    matrices
}

/// A tensor's name without layer and `.weight`.
fn role(name: &str) -> &str {
    let name = match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((_, role)) => role,
        None => name,
    };
    name.strip_suffix(".weight").unwrap_or(name)
}

fn types(model: &Model) -> Vec<TypeShare> {
    let mut shares: BTreeMap<QuantType, TypeShare> = BTreeMap::new();
    for tensor in &model.tensors {
        let empty = TypeShare { ty: tensor.ty, tensors: 0, weights: 0, bytes: Bytes::ZERO };
        let share = shares.entry(tensor.ty).or_insert(empty);
        share.tensors += 1;
        share.weights = share.weights.saturating_add(tensor.elements());
        share.bytes += tensor.bytes;
    }
    let mut types: Vec<_> = shares.into_values().collect();
    types.sort_by_key(|share| std::cmp::Reverse(share.bytes));
    types
}

fn parallelism(model: &Model) -> Parallelism {
    let heads = model.layers.iter().filter_map(|layer| match &layer.mixer {
        Mixer::Attention(attention) | Mixer::Both(attention, _) => Some(attention.n_head_kv),
        // Every device needs the whole compressed row, but computes its own share of the heads.
        Mixer::Mla(Mla { n_head, .. }) | Mixer::Compressed(Compressed { n_head, .. }) => Some(*n_head),
        Mixer::Recurrent(_) | Mixer::None => None,
    });
    Parallelism {
        layers: model.n_layer_all().saturating_add(1),
        expert_bytes: model.tensors.iter().filter(|tensor| tensor.is_expert()).map(|tensor| tensor.bytes).sum(),
        head_split: heads.reduce(greatest_common_divisor),
        batched_sequences: true,
        parallel_prompt: !model.has_recurrent_state(),
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

impl Analysis {
    /// Bits per weight over the whole file; 0 for a model without weights.
    pub fn bits_per_weight(&self) -> f64 {
        if self.parameters == 0 { 0.0 } else { self.weight_bytes.as_f64() * 8.0 / self.parameters as f64 }
    }

    /// Operations to decode one token with `depth` tokens in the cache.
    pub fn decode_ops(&self, depth: u64) -> u64 {
        let attention = self.attention.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.ops.saturating_mul(layer.seen(depth))));
        let state = self.state_elements.saturating_mul(6);
        self.active_parameters.saturating_mul(2).saturating_add(attention).saturating_add(state)
    }

    /// Bytes of cache that one token reads with `depth` tokens in it, K and V stored as these types; rows that are no
    /// whole number of blocks count as if they were.
    pub fn cache_bytes(&self, depth: u64, k: QuantType, v: QuantType) -> Bytes {
        let size = |elements: u64, ty: QuantType| elements as f64 * ty.bits_per_weight() / 8.0;
        let layer = |layer: &AttentionCost| layer.seen(depth) as f64 * (size(layer.k, k) + size(layer.v, v));
        Bytes::from_f64(self.attention.iter().map(layer).sum())
    }

    /// Bytes of recurrent state that one token reads and writes, per sequence: F32, both ways.
    pub fn state_bytes(&self) -> Bytes {
        Bytes::new(self.state_elements).times(2 * 4)
    }

    /// Bytes of weights that `batch` tokens read together: an expectation where there are experts.
    pub fn batch_bytes(&self, batch: u64) -> Bytes {
        let one: f64 = self.experts.iter().map(|group| group.visited(1)).sum();
        let all: f64 = self.experts.iter().map(|group| group.visited(batch)).sum();
        Bytes::from_f64((self.active_bytes.as_f64() - one).max(0.0) + all)
    }

    /// Operations per byte of weights when `batch` tokens are computed together: sequences decoded at once, or tokens of
    /// a prompt.
    pub fn intensity(&self, batch: u64) -> f64 {
        let bytes = self.batch_bytes(batch).as_f64();
        if bytes == 0.0 { 0.0 } else { batch as f64 * self.decode_ops(0) as f64 / bytes }
    }
}

impl ExpertGroup {
    /// Bytes of these experts that a batch is expected to visit, where routing is even.
    fn visited(&self, batch: u64) -> f64 {
        let missed = 1.0 - self.used as f64 / self.count.max(1) as f64;
        self.bytes.as_f64() * (1.0 - missed.powf(batch as f64))
    }
}

/// What a machine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Reading weights.
    Memory,
    /// Arithmetic.
    Compute,
}

/// Where a batch stands on the roofline of a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// What takes longer.
    pub limit: Limit,
    /// Operations per byte of this batch.
    pub intensity: f64,
    /// Operations that the machine does while it reads one byte.
    pub balance: f64,
    /// Smallest batch whose arithmetic takes at least as long as reading its weights; `None` above 2^32.
    pub break_even: Option<u64>,
}

/// Whether `batch` tokens computed together wait for memory or for arithmetic on a machine of these rates.
///
/// The roofline of Williams, Waterman and Patterson (2009) over weights alone: at depth, reading the cache comes on top
/// of memory's side and does not shrink with the batch, since every sequence has its own.
pub fn bound(analysis: &Analysis, rate: OpsPerSec, bandwidth: BytesPerSec, batch: u64) -> Bound {
    let balance = rate.get() / bandwidth.get();
    let compute = |batch: u64| analysis.intensity(batch) >= balance;
    Bound {
        limit: if compute(batch) { Limit::Compute } else { Limit::Memory },
        intensity: analysis.intensity(batch),
        balance,
        break_even: break_even(compute),
    }
}

/// The first batch for which `compute` holds. It holds for all above too: operations grow with the batch, bytes less and
/// less, and both start from a batch of none that only reads.
fn break_even(compute: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut low, mut high) = (1, 1 << 32);
    if !compute(high) {
        return None;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if compute(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Some(low)
}
