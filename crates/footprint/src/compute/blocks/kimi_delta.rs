//! Kimi's delta attention (src/models/kimi-linear.cpp): a gated delta net with a gate per channel.

use super::super::builder::{Builder, Missing};
use super::super::tensor::Id;
use super::super::weights::{Part, Suffix};
use super::delta_net::{Operands, Shape, recurrence, unit_length};
use super::state::{self, Recurrence};

/// Delta attention of one layer, from the normed stream to the block's output.
pub(in super::super) fn kimi_delta(b: &mut Builder<'_>, at: Recurrence<'_>, x: Id) -> Result<Id, Missing> {
    let Recurrence { layer, state, inputs } = at;
    let here = Some(layer);
    b.graph.expand(x);
    let [n_embd, n_tokens, ..] = b.graph.ne(x);
    let norm = b.weight(here, Part::SsmNorm)?;
    let dim = b.graph.ne(norm)[0];
    let heads = state.s_elements / dim.saturating_mul(dim).max(1);
    let n_seqs = b.batch.n_seqs;
    let shape = Shape { n_seqs, per_seq: b.batch.per_seq(), dim, k_heads: heads, v_heads: heads };
    let by_token = [dim, heads, n_tokens, 1];

    let conv_states = state::states(b, layer, state.r_elements);
    let gathered = state::gather(b, inputs, conv_states);
    let mut projected = [x; 3];
    let parts = [(Part::AttnQ, Part::SsmConv1dQ), (Part::AttnK, Part::SsmConv1dK), (Part::AttnV, Part::SsmConv1dV)];
    for (slot, (matrix, kernel)) in projected.iter_mut().zip(parts) {
        let y = b.linear(here, matrix, x)?;
        *slot = convolve(b, layer, shape, kernel, [conv_states, gathered], y)?;
    }
    let [q, k, v] = projected;

    let gate = b.linear(here, Part::SsmFA, x)?;
    let gate = b.linear(here, Part::SsmFB, gate)?;
    let bias = b.find(here, Part::SsmDt, Suffix::Bias).ok_or(Missing { layer: here, part: Part::SsmDt })?;
    let gate = b.graph.add(gate, bias);
    let gate = b.graph.unary(gate);
    let gate = b.graph.reshape(gate, by_token);
    let a = b.weight(here, Part::SsmA)?;
    let a = b.graph.reshape(a, [1, heads, 1, 1]);
    let gate = b.graph.mul(gate, a);
    let gate = b.graph.reshape(gate, shape.by_head(dim, heads));
    let beta = b.linear(here, Part::SsmBeta, x)?;
    let beta = b.graph.reshape(beta, shape.by_head(1, heads));
    let beta = b.graph.unary(beta);

    let states = state::states(b, layer, state.s_elements);
    let state = state::gather(b, inputs, states);
    let [q, k] = [q, k].map(|heads| unit_length(b, heads));
    let y = recurrence(b, shape, states, state, &Operands { q, k, v, gate, beta });
    let y = b.graph.cont(y);

    let x = b.graph.reshape(x, [n_embd, shape.per_seq, n_seqs, 1]);
    let x = b.graph.reshape(x, [n_embd, n_tokens, 1, 1]);
    let gate = b.linear(here, Part::SsmGA, x)?;
    let gate = b.linear(here, Part::SsmGB, gate)?;
    let gate = b.graph.reshape(gate, by_token);
    let y = b.graph.reshape(y, by_token);
    let y = b.norm(here, Part::SsmNorm, y, here)?;
    let gate = b.graph.unary(gate);
    let y = b.graph.mul(y, gate);
    let y = b.graph.cont_as(y, [dim.saturating_mul(heads), n_tokens, 1, 1]);
    b.linear(here, Part::AttnOutput, y)
}

/// One of three convolutions, each over its share of the gathered states.
fn convolve(b: &mut Builder<'_>, layer: usize, shape: Shape, kernel: Part, [states, gathered]: [Id; 2], x: Id) -> Result<Id, Missing> {
    let Shape { n_seqs, per_seq, dim, v_heads: heads, .. } = shape;
    let kernel = b.weight(Some(layer), kernel)?;
    let d_conv = b.graph.ne(kernel)[0];
    let (kept, channels) = (d_conv.saturating_sub(1), dim.saturating_mul(heads));
    let strides = [kept.saturating_mul(4), b.graph.tensor(gathered).nb[1]];
    let before = b.graph.view_3d(gathered, [kept, channels, n_seqs], strides[0], strides[1]);
    let x = b.graph.reshape(x, [channels, per_seq, n_seqs, 1]);
    let x = b.graph.transpose(x);
    let window = b.graph.concat(before, x);
    let last = state::last_columns(b, window, kept);
    let target = b.graph.view_3d(states, [kept, channels, n_seqs], strides[0], strides[1]);
    let stored = b.graph.copy_into(last, target);
    b.graph.expand(stored);
    let kernel = b.graph.reshape(kernel, [d_conv, channels, 1, 1]);
    let y = b.graph.ssm_conv(window, kernel);
    let y = b.graph.reshape(y, [channels, per_seq.saturating_mul(n_seqs), 1, 1]);
    let y = b.graph.unary(y);
    Ok(b.graph.reshape(y, shape.by_head(dim, heads)))
}
