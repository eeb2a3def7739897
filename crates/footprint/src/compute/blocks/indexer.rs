//! The lightning indexer: which cached tokens a query attends to (src/models/deepseek32.cpp:219-326, glm-dsa.cpp; the mask:
//! llama-graph.cpp:3114-3185). The engine always takes the fused operation (llama-context.cpp:239).

use super::super::builder::{Builder, Missing, Norm};
use super::super::tensor::{CacheKind, Id, Memory, Op};
use super::super::weights::Part;
use super::attention::AttentionInputs;
use super::cache::{rows_of, store};
use spec::QuantType;
use spec::model::{Indexer, Mixer};

/// What the application fills in for all indexers.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexerInputs {
    slots: Id,
    mask: Id,
    /// The Hadamard rotation that indexers always apply.
    rotation: Id,
}

/// Creates the inputs, where the model has indexers.
pub(super) fn inputs(b: &mut Builder<'_>) -> Option<IndexerInputs> {
    let width = b.model.layers.iter().find_map(|layer| match &layer.mixer {
        Mixer::Mla(latent) => latent.indexer.as_ref().map(|indexer| indexer.head_dim),
        _ => None,
    })?;
    let (n_tokens, cells) = (b.batch.n_tokens, b.options.cells);
    let n_stream = b.options.n_stream.min(b.batch.n_seqs).max(1);
    let side = rotation_side(width);
    Some(IndexerInputs {
        slots: b.graph.input(QuantType::I64, [n_tokens, 1, 1, 1]),
        mask: b.graph.input(QuantType::F16, [cells, n_tokens / n_stream, 1, n_stream]),
        rotation: b.graph.input(QuantType::F32, [side, side, 1, 1]),
    })
}

/// Side of the rotation of an indexer's keys: the largest power of two that divides the head, from 64 on
/// (llama-kv-cache.cpp:323-345).
pub(super) fn rotation_side(width: u32) -> u64 {
    1 << width.trailing_zeros().clamp(6, 31)
}

/// Cells for each token, by this layer's indexer from the normed stream and the compressed queries; or those that the last
/// indexer has chosen.
pub(super) fn chosen_cells(
    b: &mut Builder<'_>,
    layer: usize,
    shape: &Indexer,
    inputs: &AttentionInputs,
    [x, queries]: [Id; 2],
) -> Result<Id, Missing> {
    let here = Some(layer);
    let missing = Missing { layer: here, part: Part::IndexerK };
    if !shape.own_keys {
        return b.chosen_cells.ok_or(missing);
    }
    let own = inputs.indexer.ok_or(missing)?;
    let (n_tokens, width, heads) = (b.batch.n_tokens, u64::from(shape.head_dim), u64::from(shape.n_head));
    let turned = |b: &mut Builder<'_>, x: Id, heads: u64| {
        let x = b.graph.reshape(x, [width, heads, n_tokens, 1]);
        let x = b.graph.like(Op::Rope, &[x, inputs.positions]);
        b.graph.mul_mat(own.rotation, x)
    };
    let q = b.linear(here, Part::IndexerQB, queries)?;
    let q = turned(b, q, heads);
    let k = b.linear(here, Part::IndexerK, x)?;
    let k = b.norm_as(Norm::Layer, here, Part::IndexerKNorm, k, here)?;
    let k = turned(b, k, 1);

    let (cells, n_stream) = (b.options.cells, b.options.n_stream);
    let memory = Memory::Cache { backend: b.cache_backend(layer), kind: CacheKind::Indexer };
    let cache = b.graph.placed(b.options.type_k, [width, cells, n_stream, 1], memory);
    store(b, cache, k, own.slots);
    let weights = b.linear(here, Part::IndexerProj, x)?;
    let k = rows_of(b, cache, width, 1, cells);

    let (q, weights) = by_stream(b, q, weights, b.graph.ne(k)[3]);
    let weights = b.graph.scale(weights);
    let chosen = best(b, [q, k, weights, own.mask], shape);
    b.chosen_cells = Some(chosen);
    Ok(chosen)
}

/// Queries and weights of the tokens, stream by stream.
pub(super) fn by_stream(b: &mut Builder<'_>, q: Id, weights: Id, n_stream: u64) -> (Id, Id) {
    let n_stream = n_stream.max(1);
    let (ne, nb) = (b.graph.ne(q), b.graph.tensor(q).nb);
    let q = b.graph.view(q, [ne[0], ne[1], ne[2] / n_stream, n_stream], [nb[1], nb[2], nb[3] / n_stream]);
    let (ne, nb) = (b.graph.ne(weights), b.graph.tensor(weights).nb);
    let weights = b.graph.view(weights, [ne[0], ne[1] / n_stream, ne[2], n_stream], [nb[1], nb[2] / n_stream, nb[3] / n_stream]);
    (q, weights)
}

/// Numbers of the best cells for each token.
pub(super) fn best(b: &mut Builder<'_>, [q, k, weights, mask]: [Id; 4], shape: &Indexer) -> Id {
    let cells = b.graph.ne(k)[2];
    let scores = b.graph.index(q, k, weights, mask);
    let top = b.graph.top_k_alone(scores, u64::from(shape.top_k).min(cells));
    b.graph.cont(top)
}

/// The mask that lets each token see its chosen cells only: all are hidden, the chosen ones uncovered by writing zeros, and
/// those of other sequences and later positions hidden again by the sum with `mask`.
pub(super) fn mask_of(b: &mut Builder<'_>, mask: Id, chosen: Id, zeros: QuantType) -> Id {
    let hidden = b.graph.fill(mask);
    let (ne, nb) = (b.graph.ne(hidden), b.graph.tensor(hidden).nb);
    let hidden = b.graph.view(hidden, [1, ne[0], ne[1], ne[3]], [nb[0], nb[1], nb[2]]);
    let (ne, nb) = (b.graph.ne(chosen), b.graph.tensor(chosen).nb);
    let [k, tokens, streams] = [ne[0], ne[1], ne[3]];
    let chosen = b.graph.view(chosen, [k, tokens, streams, 1], [nb[1], nb[2], nb[3].saturating_mul(streams)]);
    let zeros = b.graph.placed(zeros, [1, k, tokens, streams], Memory::Compute);
    let zeros = b.graph.fill(zeros);
    let uncovered = b.graph.set_rows(hidden, zeros, chosen);
    let (ne, nb) = (b.graph.ne(uncovered), b.graph.tensor(uncovered).nb);
    let uncovered = b.graph.view(uncovered, [ne[1], ne[2], 1, ne[3]], [nb[2], nb[3], nb[3]]);
    b.graph.add(uncovered, mask)
}
