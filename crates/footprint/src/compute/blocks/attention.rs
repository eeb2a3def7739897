//! Softmax attention of a layer, over a KV cache or, in encoders, over the batch alone (`build_qkv`, `build_attn` in
//! llama-graph.cpp).

use super::super::builder::{Builder, Missing, Norm};
use super::super::tensor::{CacheKind, Id, Memory, Op};
use super::super::weights::{Part, Suffix};
use super::attend::{Score, attend};
use super::cache::{columns_of, hadamard, rotation, rows_of, store, store_transposed};
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
