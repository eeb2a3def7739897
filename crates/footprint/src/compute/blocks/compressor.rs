//! The compressor (DeepSeek V4): makes one cached row of several tokens, their mean weighted by learnt scores. What tokens of an
//! incomplete row contribute is kept for the next batch (src/models/deepseek4.cpp:462-590 and 960-1200; inputs:
//! llama-graph.cpp:990-1018; how many: llama-kv-cache-dsv4.cpp:828-866).

use super::super::builder::{Builder, Missing};
use super::super::tensor::{CacheKind, Id, Memory, Op};
use super::super::weights::Part;
use super::cache::{hadamard, store};
use crate::compressed::{Pending, rows};
use spec::QuantType;
use spec::model::Compression;

/// The tensors of one compressor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compressor {
    keys: Part,
    scores: Part,
    /// What scores gain by a token's place in its row.
    places: Part,
    norm: Part,
}

impl Compressor {
    pub(super) const ATTENTION: Self = Self {
        keys: Part::AttnCompressorKv,
        scores: Part::AttnCompressorGate,
        places: Part::AttnCompressorApe,
        norm: Part::AttnCompressorNorm,
    };
    pub(super) const INDEXER: Self = Self {
        keys: Part::IndexerCompressorKv,
        scores: Part::IndexerCompressorGate,
        places: Part::IndexerCompressorApe,
        norm: Part::IndexerCompressorNorm,
    };
}

/// Rows that one compressor makes, and what the application fills in for all layers with such rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    width: u64,
    /// Tokens that each is made of.
    tokens: u64,
    /// Each token is part of two.
    overlap: bool,
    /// Of one stream's cache.
    pub(super) cells: u64,
    pending: Pending,
    /// Which cells each token sees.
    pub(super) mask: Id,
    /// The Hadamard rotation of the cache.
    pub(super) rotation: Option<Id>,
    /// Each token's place in its row.
    places: Id,
    /// Tokens of each new row, before the batch or in it.
    sources: Id,
    positions: Id,
    slots: Id,
    /// Tokens of the batch to be kept, and where.
    kept: [Id; 2],
    /// Earlier states, in drafting: those to go back to, and those to be kept.
    restored: [Id; 2],
    snapshots: [Id; 2],
}

/// Creates the inputs for rows of `width`, seen through a mask of this type.
pub(super) fn inputs(b: &mut Builder<'_>, width: u32, compression: &Compression, mask: QuantType, rotation: Option<u64>) -> Rows {
    let tokens = u64::from(compression.ratio).max(1);
    let overlap = compression.indexer.is_some();
    let pending = Pending::of(compression, width);
    let (n_tokens, n_seqs, n_stream) = (b.batch.n_tokens, b.batch.n_seqs.max(1), b.options.n_stream);
    let cells = rows(b.options.cells, compression.ratio);
    // However the sequences are cut, no more rows than these are completed.
    let n_rows = n_tokens / tokens + n_seqs;
    let states = pending.tokens.saturating_mul(n_stream);
    let n_kept = n_tokens.min(states);
    let earlier = states.saturating_mul(b.options.n_states.saturating_sub(1));
    let mut list = |ty, n| b.graph.input(ty, [n, 1, 1, 1]);
    Rows {
        places: list(QuantType::I32, n_tokens),
        sources: list(QuantType::I32, n_rows.saturating_mul(tokens).saturating_mul(if overlap { 2 } else { 1 })),
        positions: list(QuantType::I32, n_rows),
        slots: list(QuantType::I64, n_rows),
        kept: [(); 2].map(|()| list(QuantType::I32, n_kept)),
        restored: [(); 2].map(|()| list(QuantType::I32, states)),
        snapshots: [(); 2].map(|()| list(QuantType::I32, earlier)),
        mask: b.graph.input(mask, [cells, n_tokens / n_seqs, 1, n_seqs]),
        rotation: rotation.map(|side| b.graph.input(QuantType::F32, [side, side, 1, 1])),
        width: u64::from(width),
        tokens,
        overlap,
        cells,
        pending,
    }
}

/// Completes rows, stores them, keeps the tokens of incomplete ones, and returns the cache.
pub(super) fn compress(
    b: &mut Builder<'_>,
    layer: usize,
    compressor: Compressor,
    inputs: &Rows,
    kind: CacheKind,
    x: Id,
) -> Result<Id, Missing> {
    let here = Some(layer);
    let keys = b.linear(here, compressor.keys, x)?;
    let scores = b.linear(here, compressor.scores, x)?;
    let table = b.weight(here, compressor.places)?;
    let places = b.graph.get_rows(table, inputs.places);
    let scores = b.graph.add(scores, places);

    let states = [(); 2].map(|()| states(b, layer, inputs.pending));
    let drafting = b.options.n_states > 1;
    let restored = states.map(|states| if drafting { moved(b, states, states, inputs.restored) } else { all(b, states) });
    let streams = b.options.n_stream;
    let sources = [(restored[0], keys), (restored[1], scores)].map(|(restored, new)| {
        let row = b.graph.tensor(restored).nb[1];
        let now = b.graph.view_2d(restored, inputs.pending.width, inputs.pending.tokens.saturating_mul(streams), row);
        b.graph.concat_along(1, now, new)
    });
    let [keys_of_rows, scores_of_rows] = if inputs.overlap { overlapping(b, inputs, sources) } else { apart(b, inputs, sources) };
    let mut row = mean(b, keys_of_rows, scores_of_rows);
    row = b.norm(here, compressor.norm, row, here)?;
    row = b.graph.like(Op::Rope, &[row, inputs.positions]);
    if let Some(rotation) = inputs.rotation {
        row = hadamard(b, row, rotation);
    }
    let memory = Memory::Cache { backend: b.cache_backend(layer), kind };
    let cache = b.graph.placed(b.options.type_k, [inputs.width, inputs.cells, streams, 1], memory);
    store(b, cache, row, inputs.slots);
    if drafting {
        let sources = [(restored[0], keys), (restored[1], scores)].map(|(restored, new)| b.graph.concat_along(1, restored, new));
        keep(b, states, sources, inputs.snapshots);
    }
    keep(b, states, [keys, scores], inputs.kept);
    Ok(cache)
}

/// What one layer keeps of the tokens of incomplete rows, for all sequences.
fn states(b: &mut Builder<'_>, layer: usize, pending: Pending) -> Id {
    let memory = Memory::Cache { backend: b.cache_backend(layer), kind: CacheKind::State };
    let planes = b.options.n_stream.saturating_mul(b.options.n_states);
    b.graph.placed(QuantType::F32, [pending.width, pending.tokens, planes, 1], memory)
}

fn all(b: &mut Builder<'_>, states: Id) -> Id {
    let ([width, tokens, planes, _], row) = (b.graph.ne(states), b.graph.tensor(states).nb[1]);
    b.graph.view_2d(states, width, tokens.saturating_mul(planes), row)
}

/// Writes the named rows of `source` to the named ones of all states.
fn moved(b: &mut Builder<'_>, states: Id, source: Id, [from, to]: [Id; 2]) -> Id {
    let source = if source == states { all(b, states) } else { source };
    let rows = b.graph.get_rows(source, from);
    let target = all(b, states);
    b.graph.set_rows(target, rows, to)
}

fn keep(b: &mut Builder<'_>, states: [Id; 2], sources: [Id; 2], rows: [Id; 2]) {
    let kept = [0, 1].map(|i| moved(b, states[i], sources[i], rows));
    for id in kept {
        b.graph.expand(id);
    }
}

/// The tokens of each row: keys and scores.
fn apart(b: &mut Builder<'_>, inputs: &Rows, sources: [Id; 2]) -> [Id; 2] {
    sources.map(|source| {
        let tokens = b.graph.get_rows(source, inputs.sources);
        let n_rows = b.graph.ne(inputs.positions)[0];
        b.graph.reshape(tokens, [inputs.width, inputs.tokens, n_rows, 1])
    })
}

/// The same of rows that overlap: the first half of a token's keys is part of the row after its own. Before the first token lies
/// one of zeros, which no score lets through.
fn overlapping(b: &mut Builder<'_>, inputs: &Rows, sources: [Id; 2]) -> [Id; 2] {
    let n_rows = b.graph.ne(inputs.positions)[0];
    let in_rows = [inputs.width, inputs.tokens, n_rows, 1];
    sources.map(|source| {
        let width = b.graph.ne(source)[0];
        let nothing = b.graph.view_1d(source, width);
        let nothing = b.graph.scale(nothing);
        let nothing = b.graph.reshape(nothing, [width, 1, 1, 1]);
        let source = b.graph.concat_along(1, source, nothing);
        let tokens = b.graph.get_rows(source, inputs.sources);
        let stride = b.graph.tensor(tokens).nb[1];
        let [before, own] = [(); 2].map(|()| {
            let half = b.graph.view_2d(tokens, inputs.width, inputs.tokens.saturating_mul(n_rows), stride);
            let half = b.graph.cont(half);
            b.graph.reshape(half, in_rows)
        });
        b.graph.concat_along(1, before, own)
    })
}

/// The mean of each row's tokens by the softmax of their scores: `[width, 1, rows]`.
fn mean(b: &mut Builder<'_>, keys: Id, scores: Id) -> Id {
    let [keys, scores] = [keys, scores].map(|id| by_element(b, id));
    let weights = b.graph.like(Op::SoftMax, &[scores]);
    let weighted = b.graph.mul(keys, weights);
    let sum = b.graph.sum_rows(weighted);
    by_element(b, sum)
}

/// Tokens and elements exchanged.
fn by_element(b: &mut Builder<'_>, x: Id) -> Id {
    let x = b.graph.permute(x, [1, 0, 2, 3]);
    b.graph.cont(x)
}
