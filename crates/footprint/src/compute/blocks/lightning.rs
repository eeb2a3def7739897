//! MiniMax's lightning attention (src/models/minimax-01.cpp): linear attention with a decay per head.

use super::super::builder::{Builder, Missing};
use super::super::tensor::Id;
use super::super::weights::Part;
use super::state::{self, Recurrence};
use spec::QuantType;

/// Decays that the application fills in: per head, per token from either end of the batch, and between tokens.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Decays {
    slopes: Id,
    queries: Id,
    keys: Id,
    between: Id,
}

/// Creates the decays of all layers.
pub(super) fn decays(b: &mut Builder<'_>, heads: u64) -> Decays {
    let n_seqs = b.batch.n_seqs;
    let per_seq = b.batch.per_seq();
    Decays {
        slopes: b.graph.input(QuantType::F32, [heads, 1, 1, 1]),
        queries: b.graph.input(QuantType::F32, [1, heads, per_seq, n_seqs]),
        keys: b.graph.input(QuantType::F32, [1, heads, per_seq, n_seqs]),
        between: b.graph.input(QuantType::F32, [per_seq, per_seq, heads, n_seqs]),
    }
}

/// Lightning attention of one layer, from the normed stream to the block's output.
pub(in super::super) fn lightning(b: &mut Builder<'_>, at: Recurrence<'_>, decays: Decays, x: Id) -> Result<Id, Missing> {
    let Recurrence { layer, state, inputs } = at;
    let here = Some(layer);
    let heads = b.graph.ne(decays.slopes)[0];
    let qkv = b.weight(here, Part::AttnQkv)?;
    let dim = b.graph.ne(qkv)[1] / heads.saturating_mul(3).max(1);
    let (n_embd, n_seqs) = (b.graph.ne(x)[0], b.batch.n_seqs);
    let per_seq = b.batch.per_seq();
    let unused = state::states(b, layer, state.r_elements);
    state::gather(b, inputs, unused);
    let rate = b.graph.scale(decays.slopes);
    let x = b.graph.reshape(x, [n_embd, per_seq, 1, n_seqs]);
    let qkv = b.linear(here, Part::AttnQkv, x)?;
    let qkv = b.graph.unary(qkv);
    let qkv = b.graph.reshape(qkv, [dim.saturating_mul(3), heads, per_seq, n_seqs]);
    let nb = b.graph.tensor(qkv).nb;
    let [q, k, v] = [(); 3].map(|()| b.graph.view(qkv, [dim, heads, per_seq, n_seqs], [nb[1], nb[2], nb[3]]));
    let states = state::states(b, layer, state.s_elements);
    let old = state::gather(b, inputs, states);
    let old = b.graph.reshape(old, [dim, dim, heads, n_seqs]);

    let [q_decay, k_decay, between] = [decays.queries, decays.keys, decays.between].map(|decay| {
        let decay = b.graph.scale(decay);
        b.graph.function(decay)
    });
    let decayed = b.graph.mul(q, q_decay);
    let decayed = b.graph.permute(decayed, [0, 2, 1, 3]);
    let from_old = b.graph.mul_mat(old, decayed);
    let [q, by_head] = [q, k].map(|x| b.graph.permute(x, [0, 2, 1, 3]));
    let scores = b.graph.mul_mat(by_head, q);
    let scores = b.graph.mul(scores, between);
    let v = b.graph.permute(v, [1, 2, 0, 3]);
    let v = b.graph.cont(v);
    let from_batch = b.graph.mul_mat(v, scores);
    let y = b.graph.add(from_old, from_batch);
    b.graph.expand(y);

    let decay = b.graph.scale(rate);
    let decay = b.graph.function(decay);
    let decay = b.graph.reshape(decay, [1, 1, heads, 1]);
    let old = b.graph.mul(old, decay);
    let k = b.graph.mul(k, k_decay);
    let k = b.graph.permute(k, [1, 2, 0, 3]);
    let k = b.graph.cont(k);
    let new = b.graph.mul_mat(k, v);
    let new = b.graph.add(old, new);
    state::keep(b, states, new);

    let y = b.graph.permute(y, [0, 2, 1, 3]);
    let y = b.graph.cont(y);
    let y = b.graph.reshape(y, [dim.saturating_mul(heads), per_seq, 1, n_seqs]);
    let y = b.norm(here, Part::AttnNorm2, y, here)?;
    let gate = b.linear(here, Part::AttnGate, x)?;
    let gate = b.graph.unary(gate);
    let y = b.graph.mul(gate, y);
    let y = b.linear(here, Part::AttnOutput, y)?;
    let width = b.graph.ne(y)[0];
    Ok(b.graph.reshape(y, [width, per_seq.saturating_mul(n_seqs), 1, 1]))
}
