//! Gated delta nets (src/models/qwen35.cpp, qwen3next.cpp and kimi-linear.cpp; src/models/delta-net-base.cpp). The bundled
//! engine computes them by one operation and does not ask whether a device supports it (llama-context.cpp:235-237).

use super::super::builder::{Builder, Missing};
use super::super::tensor::{Id, Op};
use super::super::weights::{Part, Suffix};
use super::state::{self, Recurrence};

/// Extents of one layer's recurrence.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) n_seqs: u64,
    /// Tokens of each sequence.
    pub(super) per_seq: u64,
    /// Width of a head.
    pub(super) dim: u64,
    pub(super) k_heads: u64,
    pub(super) v_heads: u64,
}

impl Shape {
    pub(super) fn by_head(self, dim: u64, heads: u64) -> [u64; 4] {
        [dim, heads, self.per_seq, self.n_seqs]
    }
}

/// The operands of the recurrence.
pub(super) struct Operands {
    pub(super) q: Id,
    pub(super) k: Id,
    pub(super) v: Id,
    /// One per head, or one per channel (Kimi).
    pub(super) gate: Id,
    pub(super) beta: Id,
}

/// The gated delta net of Qwen3-Next and Qwen3.5, from the normed stream to the block's output.
pub(in super::super) fn delta_net(b: &mut Builder<'_>, at: Recurrence<'_>, x: Id) -> Result<Id, Missing> {
    let Recurrence { layer, state, inputs } = at;
    let here = Some(layer);
    b.graph.expand(x);
    let a = b.weight(here, Part::SsmA)?;
    let norm = b.weight(here, Part::SsmNorm)?;
    let kernel = b.weight(here, Part::SsmConv1d)?;
    let (v_heads, dim, [d_conv, channels, ..]) = (b.graph.ne(a)[0], b.graph.ne(norm)[0], b.graph.ne(kernel));
    let n_seqs = b.batch.n_seqs;
    let per_seq = b.batch.per_seq();
    let k_heads = (channels / dim.max(1)).saturating_sub(v_heads) / 2;
    let shape = Shape { n_seqs, per_seq, dim, k_heads, v_heads };

    let mixed = b.linear(here, Part::AttnQkv, x)?;
    let mixed = b.graph.reshape(mixed, [channels, per_seq, n_seqs, 1]);
    let z = b.linear(here, Part::AttnGate, x)?;
    let (beta, gate) = gates(b, layer, shape, x)?;

    let conv_states = state::states(b, layer, state.r_elements);
    let window = state::window(b, inputs, conv_states, d_conv, b.options.n_states, mixed);
    let ssm_states = state::states(b, layer, state.s_elements);
    let gathered = state::gather(b, inputs, ssm_states);
    let convolved = b.graph.ssm_conv(window, kernel);
    let convolved = b.graph.unary(convolved);
    let row = channels.saturating_mul(4);
    let [q, k, v] = [k_heads, k_heads, v_heads].map(|heads| {
        let nb = [dim.saturating_mul(4), row, row.saturating_mul(per_seq)];
        b.graph.view(convolved, shape.by_head(dim, heads), nb)
    });
    let interleaved = b.find(here, Part::SsmBa, Suffix::Weight).is_some();
    let [q, k] = [q, k].map(|heads| {
        let heads = unit_length(b, heads);
        if interleaved { repeated(b, shape, heads) } else { heads }
    });
    let y = recurrence(b, shape, ssm_states, gathered, &Operands { q, k, v, gate, beta });

    let z = b.graph.reshape(z, shape.by_head(dim, v_heads));
    let y = b.norm(here, Part::SsmNorm, y, here)?;
    let z = b.graph.unary(z);
    let y = b.graph.mul(y, z);
    let y = b.graph.reshape(y, [dim.saturating_mul(v_heads), per_seq, n_seqs, 1]);
    let y = b.linear(here, Part::SsmOut, y)?;
    let width = b.graph.ne(y)[0];
    Ok(b.graph.reshape(y, [width, per_seq.saturating_mul(n_seqs), 1, 1]))
}

/// How much of the new is taken in, and how much of the old is forgotten: by two matrices or, interleaved by key head, by
/// one (Qwen3-Next).
fn gates(b: &mut Builder<'_>, layer: usize, shape: Shape, x: Id) -> Result<(Id, Id), Missing> {
    let here = Some(layer);
    let Shape { n_seqs, per_seq, v_heads, k_heads, .. } = shape;
    let scalars = shape.by_head(1, v_heads);
    let by_token = [v_heads, per_seq, n_seqs, 1];
    let (beta, alpha) = if b.find(here, Part::SsmBa, Suffix::Weight).is_some() {
        let both = b.linear(here, Part::SsmBa, x)?;
        let each = v_heads / k_heads.max(1);
        let both = b.graph.reshape(both, shape.by_head(each.saturating_mul(2), k_heads));
        let nb = b.graph.tensor(both).nb;
        let [beta, alpha] = [(); 2].map(|()| b.graph.view(both, shape.by_head(each, k_heads), [nb[1], nb[2], nb[3]]));
        let beta = if b.options.rules.strided_gates { beta } else { b.graph.cont(beta) };
        let beta = b.graph.unary(beta);
        (b.graph.reshape(beta, scalars), b.graph.cont_as(alpha, by_token))
    } else {
        let beta = b.linear(here, Part::SsmBeta, x)?;
        let beta = b.graph.reshape(beta, scalars);
        let beta = b.graph.unary(beta);
        let alpha = b.linear(here, Part::SsmAlpha, x)?;
        (beta, b.graph.reshape(alpha, by_token))
    };
    let bias = b.find(here, Part::SsmDt, Suffix::Bias).ok_or(Missing { layer: here, part: Part::SsmDt })?;
    let alpha = b.graph.add(alpha, bias);
    let alpha = b.graph.unary(alpha);
    let a = b.weight(here, Part::SsmA)?;
    let gate = b.graph.mul(alpha, a);
    Ok((beta, b.graph.reshape(gate, scalars)))
}

/// Heads scaled to length one.
pub(super) fn unit_length(b: &mut Builder<'_>, heads: Id) -> Id {
    let normed = b.graph.like(Op::RmsNorm, &[heads]);
    b.graph.scale(normed)
}

/// Each key head once per value head of its group.
fn repeated(b: &mut Builder<'_>, shape: Shape, heads: Id) -> Id {
    let Shape { n_seqs, per_seq, dim, k_heads, v_heads } = shape;
    if k_heads == v_heads {
        return heads;
    }
    let tokens = per_seq.saturating_mul(n_seqs);
    let apart = b.graph.reshape(heads, [dim, 1, k_heads, tokens]);
    let apart = b.graph.repeat(apart, [dim, v_heads / k_heads.max(1), k_heads, tokens]);
    b.graph.reshape(apart, shape.by_head(dim, v_heads))
}

/// Outputs of the recurrence; the new states are kept.
pub(super) fn recurrence(b: &mut Builder<'_>, shape: Shape, states: Id, gathered: Id, operands: &Operands) -> Id {
    let Shape { n_seqs, per_seq, dim, v_heads, .. } = shape;
    let Operands { q, k, v, gate, beta } = *operands;
    let state = b.graph.reshape(gathered, [dim, dim, v_heads, n_seqs]);
    let tokens = per_seq.saturating_mul(n_seqs);
    let rows = tokens.saturating_add(dim.saturating_mul(n_seqs).saturating_mul(b.options.n_states));
    let all = b.graph.recurrence(Op::GatedDelta, [dim.saturating_mul(v_heads), rows], &[q, k, v, gate, beta, state]);
    let head = dim.saturating_mul(4);
    let token = head.saturating_mul(v_heads);
    let y = b.graph.view(all, shape.by_head(dim, v_heads), [head, token, token.saturating_mul(per_seq)]);
    let matrix = head.saturating_mul(dim);
    let new = b.graph.view(all, [dim, dim, v_heads, n_seqs], [head, matrix, matrix.saturating_mul(v_heads)]);
    state::keep(b, states, new);
    y
}
