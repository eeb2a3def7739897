//! Softmax attention, over a KV cache or, in encoders, over the batch alone (`build_qkv`, `build_attn`, `build_attn_mha` in llama-graph.cpp; `cpy_k`, `cpy_v`,
//! `get_k`, `get_v` in llama-kv-cache.cpp:1296-1500).

use super::super::builder::{Builder, Missing, Norm};
use super::super::fusions::Fusion;
use super::super::tensor::{CacheKind, Id, Memory, Op};
use super::super::weights::{Part, Suffix};
use super::compressed::{self, CompressedInputs};
use super::gated_attention::gated_attention;
use super::indexer::{self, IndexerInputs};
use spec::model::{Attention, Layer, Mixer};
use spec::{Model, QuantType};

/// What the application fills in for one cache.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct CacheInputs {
    /// Cells of one stream.
    cells: u64,
    k_slots: Id,
    v_slots: Id,
    mask: Id,
    /// Hadamard rotations of quantised caches.
    k_rotation: Option<Id>,
    v_rotation: Option<Id>,
}

impl CacheInputs {
    /// Where each token's key goes.
    pub(super) const fn k_slots(&self) -> Id {
        self.k_slots
    }
    /// Where each token's value goes.
    pub(super) const fn v_slots(&self) -> Id {
        self.v_slots
    }
    /// Which cells each token sees.
    pub(super) const fn mask(&self) -> Id {
        self.mask
    }
}

/// The inputs of all attention layers.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct AttentionInputs {
    pub(in super::super) positions: Id,
    /// A factor of each token's query, where the family has it.
    pub(super) temperatures: Option<Id>,
    /// Of layers that see everything.
    pub(in super::super) full: CacheInputs,
    /// Of layers with a window; such models keep two caches.
    window: Option<CacheInputs>,
    /// Of layers whose tokens an indexer chooses.
    pub(super) indexer: Option<IndexerInputs>,
    /// Of layers that see compressed rows.
    pub(super) compressed: Option<CompressedInputs>,
}

impl AttentionInputs {
    fn cache_of(&self, shape: &Attention) -> &CacheInputs {
        self.window.as_ref().filter(|_| shape.window.is_some()).unwrap_or(&self.full)
    }
}

/// Which layers rotate queries and keys by their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Rotation {
    EveryLayer,
    Never,
    /// Only layers with a window.
    Windowed,
    /// These, and the first n layers (Cohere2-MoE).
    WindowedOrFirst(usize),
    /// Those that the file lists, or else all (`attention.rope_pattern`).
    Listed,
    /// Every n-th layer does not.
    AllButEvery(usize),
    /// The first of every n layers does not.
    AllButFirstOf(usize),
}

/// When the rows of projected queries, keys and values are cut into heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Heads {
    /// At once, each by itself.
    Projected,
    /// At once, all of a fused projection together (OpenELM).
    Whole,
    /// After their norms, which are over whole rows (OLMo 2).
    AfterNorms,
    /// Queries lie side by side with gates of what their heads yield; `cut` into heads before they are parted (Qwen3-Next),
    /// or not (Qwen3.5).
    Gated { cut: bool },
}

/// How a family's attention differs from Llama's.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Style {
    /// Where positions are rotated.
    pub(in super::super) rotation: Rotation,
    /// Positions of one token: four where images have a height and a width.
    pub(in super::super) positions_per_token: u64,
    /// Frequency factors of the file are for layers with a window too.
    pub(in super::super) factors_in_windows: bool,
    /// Norms of queries and keys follow the rotation (Hunyuan).
    pub(in super::super) late_head_norms: bool,
    /// Norms of queries and keys subtract the mean, whatever other norms do (Chameleon).
    pub(in super::super) mean_head_norms: bool,
    /// Rotated queries and keys are normed without weights (Llama 4).
    pub(in super::super) plain_head_norms: bool,
    /// Values are normed without weights (Gemma 3n and 4).
    pub(in super::super) value_norm: bool,
    /// When rows are cut into heads.
    pub(in super::super) heads: Heads,
    /// Projections are clamped.
    pub(in super::super) clamp: bool,
    /// Queries are multiplied with a factor by position; where some layers do not rotate, in these only.
    pub(in super::super) temperature: bool,
    /// Queries are scaled by an operation of their own.
    pub(in super::super) query_scale: bool,
    /// Scores are capped by a tanh.
    pub(in super::super) soft_cap: bool,
    /// The block's output is scaled (MiMo).
    pub(in super::super) output_scale: bool,
}

fn attention_of(layer: &Layer) -> Option<&Attention> {
    match &layer.mixer {
        Mixer::Attention(attention) | Mixer::Both(attention, _) => Some(attention),
        _ => None,
    }
}

/// True where some layers slide a window: the engine then keeps two caches and two masks.
pub(in super::super) fn has_windows(model: &Model) -> bool {
    model.layers.iter().filter_map(attention_of).any(|attention| attention.window.is_some())
}

/// Creates the inputs; those that no layer uses take no memory.
pub(in super::super) fn inputs(b: &mut Builder<'_>, style: Style) -> AttentionInputs {
    let n_tokens = b.batch.n_tokens;
    let positions = b.graph.input(QuantType::I32, [n_tokens.saturating_mul(style.positions_per_token), 1, 1, 1]);
    let temperatures = style.temperature.then(|| b.graph.input(QuantType::F32, [1, 1, n_tokens, 1]));
    let full = cache_inputs(b, b.options.cells, false);
    let window = has_windows(b.model).then(|| cache_inputs(b, b.options.cells_window, true));
    let indexer = indexer::inputs(b);
    let compressed = compressed::inputs(b);
    AttentionInputs { positions, temperatures, full, window, indexer, compressed }
}

fn cache_inputs(b: &mut Builder<'_>, cells: u64, windowed: bool) -> CacheInputs {
    let n_tokens = b.batch.n_tokens;
    // Without a cache each token sees the batch, whichever sequence the others belong to.
    let (cells, n_stream) = if b.model.encoder { (n_tokens, 1) } else { (cells, b.options.n_stream.min(b.batch.n_seqs)) };
    let v_width = b.model.layers.iter().filter_map(attention_of).map(Attention::v_width).max().unwrap_or(1);
    let v_slots = if b.options.v_transposed { n_tokens.saturating_mul(v_width) } else { n_tokens };
    let half = b.options.flash_attn() && b.options.rules.half_mask;
    let mask_type = if half { QuantType::F16 } else { QuantType::F32 };
    let of_this_cache = |attention: &&Attention| attention.window.is_some() == windowed;
    let layers = || b.model.layers.iter().filter_map(attention_of).filter(of_this_cache);
    // Where layers with windows stand between recurrent ones, caches are not rotated (`build_inp_mem_hybrid_iswa`).
    let rotated = b.options.rules.rotated_cache && !(b.model.has_recurrent_state() && has_windows(b.model));
    let k_rotation = rotation(b.options.type_k, layers().map(|attention| attention.head_dim_k), true).filter(|_| rotated);
    let v_rotation = rotation(b.options.type_v, layers().map(|attention| attention.head_dim_v), false).filter(|_| rotated);
    let rows = (n_tokens / n_stream.max(1)).next_multiple_of(b.options.rules.mask_padding.max(1));
    let mask = b.graph.input(mask_type, [cells, rows, 1, n_stream]);
    CacheInputs {
        cells,
        k_slots: b.graph.input(QuantType::I64, [n_tokens, 1, 1, 1]),
        v_slots: b.graph.input(QuantType::I64, [v_slots, 1, 1, 1]),
        mask: if b.options.flash_attn() && !half { b.graph.cast(mask, QuantType::F16) } else { mask },
        k_rotation: k_rotation.map(|n| b.graph.input(QuantType::F32, [n, n, 1, 1])),
        v_rotation: v_rotation.map(|n| b.graph.input(QuantType::F32, [n, n, 1, 1])),
    }
}

/// Side of the rotation of a quantised cache: 64, and for keys the largest power of two that divides the head
/// (llama-kv-cache.cpp:313-358). None where heads differ in width or are no multiple of 64.
pub(super) fn rotation(ty: QuantType, mut head_dims: impl Iterator<Item = u32>, largest: bool) -> Option<u64> {
    let first = head_dims.next()?;
    if !ty.is_quantized() || first == 0 || !first.is_multiple_of(64) || head_dims.any(|dim| dim != first) {
        return None;
    }
    Some(if largest { 1 << first.trailing_zeros() } else { 64 })
}

/// Attention of one layer, from the normed stream to the block's output.
pub(in super::super) fn attention(
    b: &mut Builder<'_>,
    layer: usize,
    shape: &Attention,
    inputs: &AttentionInputs,
    style: Style,
    x: Id,
) -> Result<Id, Missing> {
    if let Heads::Gated { cut } = style.heads {
        return gated_attention(b, layer, shape, inputs, style, cut, x);
    }
    let (q, kv) = project(b, layer, shape, style, x)?;
    let rotated = match style.rotation {
        Rotation::EveryLayer => true,
        Rotation::Never => false,
        Rotation::Windowed => shape.window.is_some(),
        Rotation::WindowedOrFirst(n) => shape.window.is_some() || layer < n,
        Rotation::Listed => {
            let list = b.model.arrays.get(&format!("{}.attention.rope_pattern", b.model.architecture));
            list.and_then(|list| list.get(layer)).is_none_or(|&turns| turns != 0.0)
        }
        Rotation::AllButEvery(n) => !(layer + 1).is_multiple_of(n),
        Rotation::AllButFirstOf(n) => !layer.is_multiple_of(n),
    };
    let factors = if shape.window.is_none() || style.factors_in_windows { rotary_factors(b, layer) } else { None };
    let turn = rotated.then_some((inputs.positions, factors));
    let k_heads = [u64::from(shape.head_dim_k), u64::from(shape.n_head_kv)];
    let mut q = normed_and_rotated(b, layer, Part::AttnQNorm, q, [k_heads[0], u64::from(shape.n_head)], style, turn)?;
    let kv = match kv {
        Some([k, mut v]) => {
            let k = normed_and_rotated(b, layer, Part::AttnKNorm, k, k_heads, style, turn)?;
            if style.heads == Heads::AfterNorms {
                v = b.graph.reshape(v, [u64::from(shape.head_dim_v), k_heads[1], b.batch.n_tokens, 1]);
            }
            if style.value_norm {
                v = b.graph.like(Op::RmsNorm, &[v]);
            }
            Some([k, v])
        }
        None => None,
    };
    if let Some(temperatures) = inputs.temperatures
        && (!rotated || style.rotation == Rotation::EveryLayer)
    {
        q = b.graph.mul(q, temperatures);
    }
    if style.query_scale {
        q = b.graph.scale(q);
    }
    let mut y = match kv {
        Some([k, v]) if b.model.encoder => uncached(b, layer, inputs.cache_of(shape), style, [q, k, v]),
        kv => cached(b, layer, shape, inputs, style, q, kv),
    };
    if b.find(Some(layer), Part::AttnSubNorm, Suffix::Weight).is_some() {
        y = b.norm(Some(layer), Part::AttnSubNorm, y, Some(layer))?;
    }
    if b.find(Some(layer), Part::AttnGate, Suffix::Weight).is_some() {
        y = gate(b, layer, shape, x, y)?;
    }
    let y = b.linear_bias(Some(layer), Part::AttnOutput, y)?;
    Ok(if style.output_scale { b.graph.scale(y) } else { y })
}

/// What the heads yield times a gate, one value per head or per element.
fn gate(b: &mut Builder<'_>, layer: usize, shape: &Attention, x: Id, y: Id) -> Result<Id, Missing> {
    let gate = b.linear(Some(layer), Part::AttnGate, x)?;
    let gate = b.graph.unary(gate);
    let (ne, n_head) = (b.graph.ne(y), u64::from(shape.n_head));
    if b.graph.ne(gate)[0] != n_head {
        return Ok(b.graph.mul(y, gate));
    }
    let heads = b.graph.reshape(y, [u64::from(shape.head_dim_v), n_head, ne[1], 1]);
    let gate = b.graph.reshape(gate, [1, n_head, ne[1], 1]);
    let y = b.graph.mul(heads, gate);
    Ok(b.graph.reshape(y, ne))
}

/// Queries, and keys with values unless the layer reads those of another.
type Projected = (Id, Option<[Id; 2]>);

/// Queries, keys and values (`build_qkv`): one row per head, or one per token where heads are cut later.
fn project(b: &mut Builder<'_>, layer: usize, shape: &Attention, style: Style, x: Id) -> Result<Projected, Missing> {
    let n_tokens = b.batch.n_tokens;
    let heads = [
        [u64::from(shape.head_dim_k), u64::from(shape.n_head)],
        [u64::from(shape.head_dim_k), u64::from(shape.n_head_kv)],
        [u64::from(shape.head_dim_v), u64::from(shape.n_head_kv)],
    ];
    let clamped = |b: &mut Builder<'_>, y: Id| if style.clamp { b.graph.like(Op::Clamp, &[y]) } else { y };
    if b.find(Some(layer), Part::AttnQkv, Suffix::Weight).is_some() {
        if shape.shares_kv_of.is_some() || style.value_norm {
            return Err(Missing { layer: Some(layer), part: Part::AttnQ });
        }
        let mut qkv = b.linear_bias(Some(layer), Part::AttnQkv, x)?;
        qkv = clamped(b, qkv);
        let row = b.graph.tensor(qkv).nb[1];
        if style.heads == Heads::Whole {
            let all = heads.iter().fold(0, |sum: u64, &[_, n]| sum.saturating_add(n));
            qkv = b.graph.reshape(qkv, [heads[0][0], all, n_tokens, 1]);
        }
        let [q, k, v] = heads.map(|[dim, n]| {
            if style.heads == Heads::AfterNorms {
                let rows = b.graph.view_2d(qkv, dim.saturating_mul(n), n_tokens, row);
                b.graph.cont(rows)
            } else {
                b.graph.view_3d(qkv, [dim, n, n_tokens], dim.saturating_mul(4), row)
            }
        });
        return Ok((q, Some([k, v])));
    }
    let one = |b: &mut Builder<'_>, part: Part| {
        let y = b.linear_bias(Some(layer), part, x)?;
        Ok(clamped(b, y))
    };
    let cut = |b: &mut Builder<'_>, y: Id, [dim, n]: [u64; 2]| {
        if style.heads == Heads::AfterNorms { y } else { b.graph.reshape(y, [dim, n, n_tokens, 1]) }
    };
    let q = one(b, Part::AttnQ)?;
    let q = cut(b, q, heads[0]);
    if shape.shares_kv_of.is_some() {
        return Ok((q, None));
    }
    let k = one(b, Part::AttnK)?;
    // Without a matrix of their own, values are the keys (Gemma 4).
    let own = b.find(Some(layer), Part::AttnV, Suffix::Weight).is_some();
    let v = if own || !style.value_norm { one(b, Part::AttnV)? } else { k };
    Ok((q, Some([cut(b, k, heads[1]), cut(b, v, heads[2])])))
}

/// Frequency factors of the file: one set, or two of which the context decides (`get_rope_factors`, llama-model.cpp:2343).
pub(super) fn rotary_factors(b: &mut Builder<'_>, layer: usize) -> Option<Id> {
    b.shared(layer, Part::RopeFreqs).or_else(|| {
        let trained = b.model.arch_uint("rope.scaling.original_context_length");
        let trained = trained.or(b.model.n_ctx_train.map(u64::from)).unwrap_or(u64::MAX);
        let long = b.options.n_ctx_seq > trained;
        b.shared(layer, if long { Part::RopeFactorsLong } else { Part::RopeFactorsShort })
    })
}

/// Norm where the file has one, of each head or of the whole row, and the turn by positions and frequency factors.
pub(super) fn normed_and_rotated(
    b: &mut Builder<'_>,
    layer: usize,
    norm: Part,
    x: Id,
    [dim, heads]: [u64; 2],
    style: Style,
    turn: Option<(Id, Option<Id>)>,
) -> Result<Id, Missing> {
    let in_heads = [dim, heads, b.batch.n_tokens, 1];
    let normed = |b: &mut Builder<'_>, x: Id| {
        let Some(weight) = b.find(Some(layer), norm, Suffix::Weight) else { return Ok(x) };
        if style.mean_head_norms {
            return b.norm_as(Norm::Layer, Some(layer), norm, x, Some(layer));
        }
        if style.heads == Heads::AfterNorms || b.graph.ne(weight)[0] == dim {
            return b.norm(Some(layer), norm, x, Some(layer));
        }
        let rows = b.graph.reshape(x, [dim.saturating_mul(heads), in_heads[2], 1, 1]);
        let rows = b.norm(Some(layer), norm, rows, Some(layer))?;
        Ok(b.graph.reshape(rows, in_heads))
    };
    let mut x = x;
    if !style.late_head_norms {
        x = normed(b, x)?;
    }
    if style.heads == Heads::AfterNorms {
        x = b.graph.reshape(x, in_heads);
    }
    if let Some((positions, factors)) = turn {
        x = match factors {
            Some(factors) => b.graph.like(Op::Rope, &[x, positions, factors]),
            None => b.graph.like(Op::Rope, &[x, positions]),
        };
        if style.plain_head_norms {
            x = b.graph.like(Op::RmsNorm, &[x]);
        }
    }
    if style.late_head_norms { normed(b, x) } else { Ok(x) }
}

/// Attends over the batch itself.
fn uncached(b: &mut Builder<'_>, layer: usize, inputs: &CacheInputs, style: Style, qkv: [Id; 3]) -> Id {
    for id in qkv {
        b.graph.expand(id);
    }
    attend(b, layer, qkv, Score { mask: inputs.mask, sinks: None, soft_cap: style.soft_cap, v_transposed: false, decompress: None })
}

/// Stores keys and values, where the layer has its own, and attends over the whole cache.
pub(super) fn cached(
    b: &mut Builder<'_>,
    layer: usize,
    shape: &Attention,
    inputs: &AttentionInputs,
    style: Style,
    mut q: Id,
    mut kv: Option<[Id; 2]>,
) -> Id {
    let cache = inputs.cache_of(shape);
    if let Some(rotation) = cache.k_rotation {
        q = hadamard(b, q, rotation);
        kv = kv.map(|[k, v]| [hadamard(b, k, rotation), v]);
    }
    if let Some(rotation) = cache.v_rotation {
        kv = kv.map(|[k, v]| [k, hadamard(b, v, rotation)]);
    }
    b.graph.expand(q);
    let keys_first = inputs.window.is_some() || !b.options.rules.indexed_store;
    for id in kv.map(|[k, v]| if keys_first { [k, v] } else { [v, k] }).into_iter().flatten() {
        b.graph.expand(id);
    }
    let home = shape.shares_kv_of.map_or(layer, |source| source as usize);
    let kind = if inputs.window.is_some() && shape.window.is_some() { CacheKind::Window } else { CacheKind::Full };
    let cells = cache.cells;
    let [k_cache, v_cache] = b.cache(home, |b| {
        let memory = Memory::Cache { backend: b.cache_backend(home), kind };
        let v_width = if b.options.v_transposed { widest_v(b.model) } else { shape.v_width() };
        let of = |b: &mut Builder<'_>, ty, width| b.graph.placed(ty, [width, cells, b.options.n_stream, 1], memory);
        [of(b, b.options.type_k, shape.k_width()), of(b, b.options.type_v, v_width)]
    });
    if let Some([k, v]) = kv {
        store(b, k_cache, k, cache.k_slots);
        if b.options.v_transposed {
            store_transposed(b, v_cache, v, cache.v_slots);
        } else {
            store(b, v_cache, v, cache.v_slots);
        }
    }
    let k = rows_of(b, k_cache, u64::from(shape.head_dim_k), u64::from(shape.n_head_kv), cells);
    let v = if b.options.v_transposed {
        columns_of(b, v_cache, u64::from(shape.head_dim_v), u64::from(shape.n_head_kv), cells)
    } else {
        rows_of(b, v_cache, u64::from(shape.head_dim_v), u64::from(shape.n_head_kv), cells)
    };
    let sinks = b.find(Some(layer), Part::AttnSinks, Suffix::Weight);
    let score = Score { mask: cache.mask, sinks, soft_cap: style.soft_cap, v_transposed: b.options.v_transposed, decompress: None };
    let y = attend(b, layer, [q, k, v], score);
    match cache.v_rotation {
        Some(rotation) => hadamard(b, y, rotation),
        None => y,
    }
}

fn widest_v(model: &Model) -> u64 {
    model.layers.iter().filter_map(attention_of).map(Attention::v_width).max().unwrap_or(1)
}

/// A product with a small rotation, row block by row block (`llama_mul_mat_hadamard`).
pub(super) fn hadamard(b: &mut Builder<'_>, x: Id, rotation: Id) -> Id {
    let n = b.graph.ne(rotation)[0].max(1);
    let (ne, rows) = (b.graph.ne(x), b.graph.tensor(x).elements() / n);
    let blocks = [n, rows, 1, 1];
    let x = if b.graph.tensor(x).is_contiguous() { b.graph.reshape(x, blocks) } else { b.graph.cont_as(x, blocks) };
    let y = b.graph.mul_mat(rotation, x);
    b.graph.reshape(y, ne)
}

/// Writes one row per token into a cache.
pub(super) fn store(b: &mut Builder<'_>, cache: Id, x: Id, slots: Id) {
    let (ne, row) = (b.graph.ne(x), b.graph.tensor(x).nb[2]);
    let width = ne[0].saturating_mul(ne[1]);
    if !b.options.rules.indexed_store {
        let target = b.graph.view_1d(cache, width.saturating_mul(ne[2]));
        let stored = b.graph.copy_into(x, target);
        b.graph.expand(stored);
        return;
    }
    let x = b.graph.view_2d(x, width, ne[2], row);
    let [_, cells, n_stream, _] = b.graph.ne(cache);
    let cache = if n_stream > 1 { b.graph.reshape(cache, [width, cells.saturating_mul(n_stream), 1, 1]) } else { cache };
    let stored = b.graph.set_rows(cache, x, slots);
    b.graph.expand(stored);
}

/// Writes values into a transposed cache, one element per row.
pub(super) fn store_transposed(b: &mut Builder<'_>, cache: Id, x: Id, slots: Id) {
    let (ne, row) = (b.graph.ne(x), b.graph.tensor(x).nb[2]);
    let width = ne[0].saturating_mul(ne[1]);
    let flat = [width, ne[2], 1, 1];
    let mut x = if row == width.saturating_mul(4) { b.graph.reshape(x, flat) } else { b.graph.cont_as(x, flat) };
    if !b.options.rules.indexed_store {
        let x = b.graph.transpose(x);
        let column = b.graph.tensor(cache).nb[0].saturating_mul(b.graph.ne(cache)[1]);
        let target = b.graph.view_2d(cache, ne[2], width, column);
        let stored = b.graph.copy_into(x, target);
        b.graph.expand(stored);
        return;
    }
    let cache_width = b.graph.ne(cache)[0];
    if width < cache_width {
        x = b.graph.pad_rows(x, cache_width);
    }
    let elements = b.graph.tensor(cache).elements();
    let column = b.graph.reshape(cache, [1, elements, 1, 1]);
    let elements = b.graph.tensor(x).elements();
    let x = b.graph.reshape(x, [1, elements, 1, 1]);
    let stored = b.graph.set_rows(column, x, slots);
    b.graph.expand(stored);
}

/// The cache as heads of rows: `[dim, heads, cells, streams]`.
pub(super) fn rows_of(b: &mut Builder<'_>, cache: Id, dim: u64, heads: u64, cells: u64) -> Id {
    let tensor = b.graph.tensor(cache);
    let (ty, [_, row, stream, _], n_stream) = (tensor.ty, tensor.nb, tensor.ne[2]);
    let head = ty.row_bytes(dim).map_or(row / heads.max(1), |bytes| bytes.get());
    b.graph.view(cache, [dim, heads, cells, n_stream], [head, row, stream])
}

/// The transposed cache: `[cells, heads, dim, streams]`.
pub(super) fn columns_of(b: &mut Builder<'_>, cache: Id, dim: u64, heads: u64, cells: u64) -> Id {
    let tensor = b.graph.tensor(cache);
    let (element, stream, n_stream) = (tensor.nb[0], tensor.nb[2], tensor.ne[2]);
    let column = element.saturating_mul(cells);
    b.graph.view(cache, [cells, heads, dim, n_stream], [column.saturating_mul(dim), column, stream])
}

/// How scores are formed and used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Score {
    pub(super) mask: Id,
    pub(super) sinks: Option<Id>,
    pub(super) soft_cap: bool,
    pub(super) v_transposed: bool,
    /// The matrix that brings latent values back to heads.
    pub(super) decompress: Option<Id>,
}

/// Attention proper, one output row per token (`build_attn_mha`).
pub(super) fn attend(b: &mut Builder<'_>, layer: usize, qkv: [Id; 3], score: Score) -> Id {
    let [q, k, v] = qkv;
    let n_stream = b.graph.ne(k)[3].max(1);
    let (ne, nb) = (b.graph.ne(q), b.graph.tensor(q).nb);
    let tokens = ne[2] / n_stream;
    let q = b.graph.view(q, [ne[0], ne[1], tokens, n_stream], [nb[1], nb[2], nb[2].saturating_mul(tokens)]);
    let [q, k, v] = [q, k, v].map(|id| b.graph.permute(id, [0, 2, 1, 3]));
    let y = if b.options.flash_attn() { fused(b, layer, [q, k, v], score) } else { spelt_out(b, [q, k, v], score) };
    b.graph.expand(y);
    y
}

fn fused(b: &mut Builder<'_>, layer: usize, qkv: [Id; 3], score: Score) -> Id {
    let [q, k, v] = qkv;
    let v = if score.v_transposed { b.graph.transpose(v) } else { v };
    let half = |b: &mut Builder<'_>, id: Id| {
        if b.graph.tensor(id).ty == QuantType::F32 { b.graph.cast(id, QuantType::F16) } else { id }
    };
    let k = half(b, k);
    let v = half(b, v);
    let mut y = b.graph.flash_attention(q, k, v, score.mask, score.sinks);
    b.fused.push((Fusion::Attention, layer, y));
    if let Some(decompress) = score.decompress {
        y = b.graph.permute(y, [0, 2, 1, 3]);
        y = b.graph.mul_mat(decompress, y);
        y = b.graph.permute(y, [0, 2, 1, 3]);
        y = b.graph.cont(y);
    }
    let ne = b.graph.ne(y);
    b.graph.reshape(y, [ne[0].saturating_mul(ne[1]), ne[2].saturating_mul(ne[3]), 1, 1])
}

/// Head by head, where scores of all heads would pass a limit and each query head has keys of its own (`-amb` of
/// ik_llama.cpp; `llm_build_kqv`, src/llama.cpp:10198-10290, ddceb0a5).
fn by_head(b: &mut Builder<'_>, [q, k, v]: [Id; 3], score: Score) -> Option<Id> {
    let limit = b.options.rules.ik.map_or(0, |ik| ik.attn_max_batch);
    let (nq, nk, nv) = (b.graph.ne(q), b.graph.ne(k), b.graph.ne(v));
    let size = nk[1].saturating_mul(nq[1]).saturating_mul(nq[2]).saturating_mul(4) >> 20;
    if limit == 0 || u64::from(limit) >= size || nk[2] != nq[2] || nv[2] != nq[2] {
        return None;
    }
    let one = |b: &mut Builder<'_>, id: Id| {
        let (ne, nb) = (b.graph.ne(id), b.graph.tensor(id).nb);
        b.graph.view_3d(id, [ne[0], ne[1], 1], nb[1], nb[2])
    };
    let mut sum = None;
    for _ in 0..nq[2] {
        let [k, q] = [k, q].map(|id| one(b, id));
        let scores = b.graph.mul_mat(k, q);
        let scores = match score.soft_cap {
            true => b.graph.fused(&[scores, score.mask]),
            false => b.graph.like(Op::SoftMax, &[scores, score.mask]),
        };
        let v = one(b, v);
        let y = b.graph.mul_mat(v, scores);
        sum = Some(sum.map_or(y, |sum| b.graph.concat_along(2, sum, y)));
    }
    let y = b.graph.permute(sum?, [0, 2, 1, 3]);
    let ne = b.graph.ne(y);
    Some(b.graph.cont_as(y, [ne[0].saturating_mul(ne[1]), ne[2].saturating_mul(ne[3]), 1, 1]))
}

fn spelt_out(b: &mut Builder<'_>, qkv: [Id; 3], score: Score) -> Id {
    let [q, k, v] = qkv;
    if let Some(y) = by_head(b, qkv, score) {
        return y;
    }
    let mut scores = b.graph.mul_mat(k, q);
    let capped_at_once = score.soft_cap && b.options.rules.ik.is_some();
    if capped_at_once {
        scores = b.graph.fused(&[scores, score.mask]);
    } else if score.soft_cap {
        scores = b.graph.scale(scores);
        scores = b.graph.function(scores);
        scores = b.graph.scale(scores);
    }
    scores = match score.sinks {
        _ if capped_at_once => scores,
        Some(sinks) => b.graph.like(Op::SoftMax, &[scores, score.mask, sinks]),
        None => b.graph.like(Op::SoftMax, &[scores, score.mask]),
    };
    let v = if score.v_transposed {
        v
    } else {
        let v = b.graph.transpose(v);
        b.graph.cont(v)
    };
    let mut y = b.graph.mul_mat(v, scores);
    if let Some(decompress) = score.decompress {
        y = b.graph.mul_mat(decompress, y);
    }
    let y = b.graph.permute(y, [0, 2, 1, 3]);
    let ne = b.graph.ne(y);
    let y = b.graph.cont_as(y, [ne[0].saturating_mul(ne[1]), ne[2].saturating_mul(ne[3]), 1, 1]);
    if !b.options.kv_offload {
        let host = b.host();
        b.graph.pins.push((y, host));
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_follow_the_head() {
        let of = |ty, dims: &[u32], largest| rotation(ty, dims.iter().copied(), largest);
        assert_eq!(of(QuantType::Q8_0, &[128, 128], true), Some(128));
        assert_eq!(of(QuantType::Q8_0, &[192], true), Some(64));
        assert_eq!(of(QuantType::Q8_0, &[128], false), Some(64));
        assert_eq!(of(QuantType::F16, &[128], true), None);
        assert_eq!(of(QuantType::Q8_0, &[80], true), None);
        assert_eq!(of(QuantType::Q8_0, &[128, 64], true), None);
        assert_eq!(of(QuantType::Q8_0, &[], true), None);
    }
}
