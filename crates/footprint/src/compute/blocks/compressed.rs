//! Attention over a window of whole rows and over rows that each stand for several tokens (src/models/deepseek4.cpp:592-870 and
//! 880-1290). Keys serve as values, and what the heads yield is turned back by the positions of the queries.

use super::super::builder::{Builder, Missing};
use super::super::tensor::{CacheKind, Id, Memory, Op};
use super::super::weights::{Part, Suffix};
use super::attend::{Score, attend};
use super::attention::AttentionInputs;
use super::cache::{hadamard, rotation, rows_of, store};
use super::compressor::{self, Compressor, Rows, compress};
use super::indexer::{best, by_stream, mask_of, rotation_side};
use super::latent::{narrow_queries, queries, turned};
use spec::QuantType;
use spec::model::{Compressed, Indexer, Mixer};

/// What the application fills in for all layers: for the window, for rows that an indexer chooses from and their keys in it, and
/// for rows that all are seen.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct CompressedInputs {
    slots: Id,
    mask: Id,
    rotation: Option<Id>,
    chosen: Option<[Rows; 2]>,
    seen: Option<Rows>,
}

/// Creates the inputs, where the model has such layers.
pub(super) fn inputs(b: &mut Builder<'_>) -> Option<CompressedInputs> {
    let layers: Vec<&Compressed> = b.model.layers.iter().filter_map(|layer| compressed(&layer.mixer)).collect();
    let head_dim = layers.first()?.head_dim;
    let (n_tokens, n_seqs) = (b.batch.n_tokens, b.batch.n_seqs.max(1));
    let mask_type = if b.options.flash_attn() { QuantType::F16 } else { QuantType::F32 };
    let side = rotation(b.options.type_k, [head_dim].into_iter(), true);
    let mask = b.graph.input(mask_type, [b.options.cells_window, n_tokens / n_seqs, 1, n_seqs]);
    b.graph.expand(mask);
    let of = |chosen: bool| layers.iter().filter_map(|layer| layer.beyond.as_ref()).find(|beyond| beyond.indexer.is_some() == chosen);
    let chosen = of(true).and_then(|beyond| {
        let width = beyond.indexer.as_ref()?.head_dim;
        let rows = compressor::inputs(b, head_dim, beyond, mask_type, side);
        // The scores of an indexer are always masked in half precision.
        Some([rows, compressor::inputs(b, width, beyond, QuantType::F16, Some(rotation_side(width)))])
    });
    let seen = of(false).map(|beyond| compressor::inputs(b, head_dim, beyond, mask_type, side));
    Some(CompressedInputs {
        slots: b.graph.input(QuantType::I64, [n_tokens, 1, 1, 1]),
        mask,
        rotation: side.map(|side| b.graph.input(QuantType::F32, [side, side, 1, 1])),
        chosen,
        seen,
    })
}

fn compressed(mixer: &Mixer) -> Option<&Compressed> {
    match mixer {
        Mixer::Compressed(attention) => Some(attention),
        _ => None,
    }
}

/// Attention of one layer, from the normed stream to the block's output.
pub(in super::super) fn compressed_attention(
    b: &mut Builder<'_>,
    layer: usize,
    shape: &Compressed,
    inputs: &AttentionInputs,
    x: Id,
) -> Result<Id, Missing> {
    let here = Some(layer);
    let missing = Missing { layer: here, part: Part::AttnCompressorKv };
    let own = inputs.compressed.ok_or(missing.clone())?;
    let (head, n_head, n_tokens) = (u64::from(shape.head_dim), u64::from(shape.n_head), b.batch.n_tokens);
    let narrow = narrow_queries(b, layer, x)?;
    let q = queries(b, layer, x, narrow)?;
    let q = b.graph.reshape(q, [head, n_head, n_tokens, 1]);
    let q = b.graph.like(Op::RmsNorm, &[q]);
    let q = turned(b, q, inputs, None);
    let k = b.linear(here, Part::AttnKv, x)?;
    let k = b.norm(here, Part::AttnKvANorm, k, here)?;
    let k = b.graph.reshape(k, [head, 1, n_tokens, 1]);
    let k = turned(b, k, inputs, None);

    let indexer = shape.beyond.as_ref().map(|beyond| beyond.indexer.as_ref());
    let beyond = match (indexer, own.chosen, own.seen) {
        (None, ..) => None,
        (Some(Some(indexer)), Some([rows, keys]), _) => {
            let cache = compress(b, layer, Compressor::ATTENTION, &rows, CacheKind::Compressed, x)?;
            let index = compress(b, layer, Compressor::INDEXER, &keys, CacheKind::Indexer, x)?;
            let narrow = narrow.ok_or(missing)?;
            let chosen = chosen_rows(b, layer, indexer, inputs, (&keys, index), [x, narrow])?;
            Some((cache, rows, Some(chosen)))
        }
        (Some(None), _, Some(rows)) => Some((compress(b, layer, Compressor::ATTENTION, &rows, CacheKind::Compressed, x)?, rows, None)),
        _ => return Err(missing),
    };
    let y = over_rows(b, layer, &own, [q, k], beyond);
    let y = b.graph.reshape(y, [head, n_head, n_tokens, 1]);
    let y = turned(b, y, inputs, None);
    in_groups(b, layer, y)
}

/// The rows that each token attends to, by this layer's indexer from the normed stream and the compressed queries.
fn chosen_rows(
    b: &mut Builder<'_>,
    layer: usize,
    shape: &Indexer,
    inputs: &AttentionInputs,
    keys: (&Rows, Id),
    [x, narrow]: [Id; 2],
) -> Result<Id, Missing> {
    let here = Some(layer);
    let (keys, cache) = keys;
    let q = b.linear(here, Part::IndexerQB, narrow)?;
    let q = b.graph.reshape(q, [u64::from(shape.head_dim), u64::from(shape.n_head), b.batch.n_tokens, 1]);
    let mut q = turned(b, q, inputs, None);
    if let Some(rotation) = keys.rotation {
        q = hadamard(b, q, rotation);
    }
    let weights = b.linear(here, Part::IndexerProj, x)?;
    let weights = b.graph.scale(weights);
    let k = whole(b, cache, keys);
    let n_stream = b.graph.ne(k)[3];
    let (q, weights) = by_stream(b, q, weights, n_stream);
    Ok(best(b, [q, k, weights, keys.mask], shape))
}

/// A cache of compressed rows as keys of one head. The engine looks at the part of it that is in use, which is all of it when it
/// reserves.
fn whole(b: &mut Builder<'_>, cache: Id, rows: &Rows) -> Id {
    let width = b.graph.ne(cache)[0];
    let k = rows_of(b, cache, width, 1, rows.cells);
    let (ne, nb) = (b.graph.ne(k), b.graph.tensor(k).nb);
    b.graph.view(k, ne, [nb[1], nb[2], nb[3]])
}

/// Stores keys, and attends over the window and over the rows beyond it: all of a cache, or those that were chosen.
fn over_rows(
    b: &mut Builder<'_>,
    layer: usize,
    inputs: &CompressedInputs,
    [mut q, mut k]: [Id; 2],
    beyond: Option<(Id, Rows, Option<Id>)>,
) -> Id {
    if let Some(rotation) = inputs.rotation {
        [q, k] = [q, k].map(|id| hadamard(b, id, rotation));
    }
    b.graph.expand(q);
    b.graph.expand(k);
    let (cells, width) = (b.options.cells_window, b.graph.ne(k)[0]);
    let memory = Memory::Cache { backend: b.cache_backend(layer), kind: CacheKind::Window };
    let cache = b.graph.placed(b.options.type_k, [width, cells, b.options.n_stream, 1], memory);
    store(b, cache, k, inputs.slots);
    let mut k = rows_of(b, cache, width, 1, cells);
    let mut mask = inputs.mask;
    if let Some((cache, rows, chosen)) = beyond {
        let further = whole(b, cache, &rows);
        k = b.graph.concat_along(2, k, further);
        let further = match chosen {
            Some(chosen) => {
                let zeros = b.graph.tensor(rows.mask).ty;
                mask_of(b, rows.mask, chosen, zeros)
            }
            None => rows.mask,
        };
        mask = b.graph.concat(mask, further);
    }
    let sinks = b.find(Some(layer), Part::AttnSinks, Suffix::Weight);
    let y = attend(b, layer, [q, k, k], Score { mask, sinks, soft_cap: false, v_transposed: false, decompress: None });
    match inputs.rotation {
        Some(rotation) => hadamard(b, y, rotation),
        None => y,
    }
}

/// What the heads yield, `[head, heads, tokens]`: each group of heads through a narrow matrix of its own, and all of them together
/// through one.
fn in_groups(b: &mut Builder<'_>, layer: usize, y: Id) -> Result<Id, Missing> {
    let here = Some(layer);
    let missing = Missing { layer: here, part: Part::AttnOutputA };
    let [head, n_head, n_tokens, _] = b.graph.ne(y);
    let groups = b.model.arch_uint("attention.output_group_count").filter(|&n| n > 0 && n_head.is_multiple_of(n)).ok_or(missing.clone())?;
    let rank = b.model.arch_uint("attention.output_lora_rank").ok_or(missing)?;
    let width = head.saturating_mul(n_head / groups);
    let y = b.graph.reshape(y, [width, groups, n_tokens, 1]);
    let y = b.graph.permute(y, [0, 2, 1, 3]);
    let matrices = b.weight_as(layer, Part::AttnOutputA, [width, rank, groups, 1])?;
    let y = b.graph.mul_mat(matrices, y);
    let y = b.graph.permute(y, [0, 2, 1, 3]);
    let y = b.graph.cont_as(y, [rank.saturating_mul(groups), n_tokens, 1, 1]);
    b.linear(here, Part::AttnOutputB, y)
}
