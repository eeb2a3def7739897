//! The Mamba recurrences (`build_mamba_layer` and `build_mamba2_layer`, src/models/mamba-base.cpp; src/models/plamo2.cpp).

use super::super::builder::{Builder, Missing};
use super::super::tensor::{Id, Op};
use super::super::weights::{Part, Suffix};
use super::state::{self, Recurrence};
use spec::model::Recurrent;

/// Extents of one layer's recurrence.
#[derive(Clone, Copy)]
struct Shape {
    n_seqs: u64,
    /// Tokens of each sequence.
    per_seq: u64,
    d_inner: u64,
    d_state: u64,
}

impl Shape {
    fn of(b: &mut Builder<'_>, layer: usize, state: &Recurrent) -> Result<Self, Missing> {
        let out = b.weight(Some(layer), Part::SsmOut)?;
        let d_inner = b.graph.ne(out)[0];
        let n_seqs = b.batch.n_seqs;
        Ok(Self { n_seqs, per_seq: b.batch.per_seq(), d_inner, d_state: state.s_elements / d_inner.max(1) })
    }
    /// Tokens in sequences: `[width, tokens of each, sequences]`.
    fn by_sequence(self, b: &mut Builder<'_>, x: Id) -> Id {
        let [width, ..] = b.graph.ne(x);
        b.graph.reshape(x, [width, self.per_seq, self.n_seqs, 1])
    }
    /// All tokens in a row.
    fn in_a_row(self, b: &mut Builder<'_>, x: Id, width: u64) -> Id {
        b.graph.reshape(x, [width, self.per_seq.saturating_mul(self.n_seqs), 1, 1])
    }
    /// Columns of `x` (tokens of sequences) as heads of this width.
    fn heads(self, b: &mut Builder<'_>, x: Id, dim: u64, heads: u64) -> Id {
        let nb = b.graph.tensor(x).nb;
        b.graph.view(x, [dim, heads, self.per_seq, self.n_seqs], [dim.saturating_mul(4), nb[1], nb[2]])
    }
    /// Columns of `x` (tokens of sequences).
    fn columns(self, b: &mut Builder<'_>, x: Id, width: u64) -> Id {
        let nb = b.graph.tensor(x).nb;
        b.graph.view_3d(x, [width, self.per_seq, self.n_seqs], nb[1], nb[2])
    }
}

/// Convolution, bias where the file has one, activation.
fn convolve(b: &mut Builder<'_>, layer: usize, window: Id) -> Result<Id, Missing> {
    let kernel = b.weight(Some(layer), Part::SsmConv1d)?;
    let mut y = b.graph.ssm_conv(window, kernel);
    if let Some(bias) = b.find(Some(layer), Part::SsmConv1d, Suffix::Bias) {
        y = b.graph.add(y, bias);
    }
    Ok(b.graph.unary(y))
}

/// Norm of one of the scan's operands: with a weight, or without where the file says only that there is one.
fn operand_norm(b: &mut Builder<'_>, layer: usize, part: Part, x: Id) -> Result<Id, Missing> {
    if b.find(Some(layer), part, Suffix::Weight).is_some() {
        b.norm(Some(layer), part, x, Some(layer))
    } else {
        Ok(b.graph.like(Op::RmsNorm, &[x]))
    }
}

/// Mamba of one layer, from the normed stream to the block's output.
pub(in super::super) fn mamba(b: &mut Builder<'_>, at: Recurrence<'_>, x: Id) -> Result<Id, Missing> {
    let Recurrence { layer, state, inputs } = at;
    let here = Some(layer);
    let shape = Shape::of(b, layer, state)?;
    let Shape { n_seqs, per_seq, d_inner, d_state } = shape;
    let kernel = b.weight(here, Part::SsmConv1d)?;
    let dt_weight = b.weight(here, Part::SsmDt)?;
    let (d_conv, dt_rank) = (b.graph.ne(kernel)[0], b.graph.ne(dt_weight)[0]);
    let conv_states = state::states(b, layer, state.r_elements);
    let ssm_states = state::states(b, layer, state.s_elements);

    let x = shape.by_sequence(b, x);
    let both = b.linear(here, Part::SsmIn, x)?;
    let [x, z] = [(); 2].map(|()| shape.columns(b, both, d_inner));
    let window = state::window(b, inputs, conv_states, d_conv, 1, x);
    let x = convolve(b, layer, window)?;

    let mixed = b.linear(here, Part::SsmX, x)?;
    let mut dt = shape.columns(b, mixed, dt_rank);
    let [mut b_matrix, mut c_matrix] = [(); 2].map(|()| shape.heads(b, mixed, d_state, 1));
    let normed = b.find(here, Part::SsmDtNorm, Suffix::Weight).is_some() || b.model.arch_flag("ssm.dt_b_c_rms");
    if normed {
        dt = operand_norm(b, layer, Part::SsmDtNorm, dt)?;
        b_matrix = operand_norm(b, layer, Part::SsmBNorm, b_matrix)?;
        c_matrix = operand_norm(b, layer, Part::SsmCNorm, c_matrix)?;
    } else {
        dt = b.graph.cont(dt);
    }
    let dt = b.linear_bias(here, Part::SsmDt, dt)?;
    let heads = b.graph.reshape(x, [1, d_inner, per_seq, n_seqs]);
    let a = b.weight(here, Part::SsmA)?;
    let scanned = state::scan(b, inputs, ssm_states, |b, table, own| {
        let rows = b.graph.ne(table)[1];
        let states = b.graph.reshape(table, [d_state, 1, d_inner, rows]);
        b.graph.ssm_scan([states, heads, dt, a, b_matrix, c_matrix, own], 1)
    });
    keep(b, scanned, ssm_states);

    let nb = b.graph.tensor(heads).nb;
    let y = b.graph.view_3d(scanned, [d_inner, per_seq, n_seqs], nb[2], nb[3]);
    let skip = b.weight(here, Part::SsmD)?;
    let skipped = b.graph.mul(x, skip);
    let y = b.graph.add(y, skipped);
    let z = b.graph.cont(z);
    let y = b.graph.gated(z, y);
    let y = b.linear(here, Part::SsmOut, y)?;
    let width = b.graph.ne(y)[0];
    Ok(shape.in_a_row(b, y, width))
}

/// What a scan leaves behind its outputs becomes the new states.
fn keep(b: &mut Builder<'_>, scanned: Id, states: Id) {
    let n = b.graph.ne(states)[0].saturating_mul(b.batch.n_seqs);
    let new = b.graph.view_1d(scanned, n);
    state::keep(b, states, new);
}

/// Mamba 2 of one layer, from the normed stream to the block's output.
pub(in super::super) fn mamba2(b: &mut Builder<'_>, at: Recurrence<'_>, x: Id) -> Result<Id, Missing> {
    let Recurrence { layer, state, inputs } = at;
    let here = Some(layer);
    let shape = Shape::of(b, layer, state)?;
    let Shape { n_seqs, per_seq, d_inner, d_state } = shape;
    let kernel = b.weight(here, Part::SsmConv1d)?;
    let [d_conv, channels, ..] = b.graph.ne(kernel);
    let a = b.weight(here, Part::SsmA)?;
    let n_head = b.graph.ne(a)[1];
    let dim = d_inner / n_head.max(1);
    let n_group = channels.saturating_sub(d_inner) / d_state.saturating_mul(2).max(1);
    let conv_states = state::states(b, layer, state.r_elements);
    let ssm_states = state::states(b, layer, state.s_elements);

    let all = b.linear(here, Part::SsmIn, x)?;
    let all = shape.by_sequence(b, all);
    let z = shape.heads(b, all, dim, n_head);
    let convolved = shape.columns(b, all, channels);
    let dt = shape.columns(b, all, n_head);
    let window = state::window(b, inputs, conv_states, d_conv, b.options.n_states.min(per_seq), convolved);
    let convolved = convolve(b, layer, window)?;
    let x = shape.heads(b, convolved, dim, n_head);
    let [b_matrix, c_matrix] = [(); 2].map(|()| shape.heads(b, convolved, d_state, n_group));
    let dt = b.graph.cont(dt);
    let dt_bias = b.find(here, Part::SsmDt, Suffix::Bias).ok_or(Missing { layer: here, part: Part::SsmDt })?;
    let dt = b.graph.add(dt, dt_bias);
    let scanned = state::scan(b, inputs, ssm_states, |b, table, own| {
        let rows = b.graph.ne(table)[1];
        let states = b.graph.reshape(table, [d_state, dim, n_head, rows]);
        b.graph.ssm_scan([states, x, dt, a, b_matrix, c_matrix, own], b.options.n_states)
    });
    keep(b, scanned, ssm_states);

    let head = dim.saturating_mul(4);
    let token = head.saturating_mul(n_head);
    let y = b.graph.view(scanned, [dim, n_head, per_seq, n_seqs], [head, token, token.saturating_mul(per_seq)]);
    let skip = b.weight(here, Part::SsmD)?;
    let skipped = b.graph.mul(x, skip);
    let y = b.graph.add(y, skipped);
    let z = b.graph.cont(z);
    let mut y = b.graph.gated(z, y);
    if b.find(here, Part::SsmNorm, Suffix::Weight).is_some() {
        y = b.graph.reshape(y, [d_inner / n_group.max(1), n_group, per_seq, n_seqs]);
        y = b.norm(here, Part::SsmNorm, y, here)?;
    }
    let y = shape.in_a_row(b, y, d_inner);
    b.linear(here, Part::SsmOut, y)
}

/// PLaMo 2's recurrence of one layer: heads as in Mamba 2, operands as in Mamba, normed.
pub(in super::super) fn plamo2(b: &mut Builder<'_>, at: Recurrence<'_>, x: Id) -> Result<Id, Missing> {
    let Recurrence { layer, state, inputs } = at;
    let here = Some(layer);
    let shape = Shape::of(b, layer, state)?;
    let Shape { n_seqs, per_seq, d_inner, d_state } = shape;
    let kernel = b.weight(here, Part::SsmConv1d)?;
    let dt_weight = b.weight(here, Part::SsmDt)?;
    let (d_conv, [dt_rank, n_head, ..]) = (b.graph.ne(kernel)[0], b.graph.ne(dt_weight));
    let dim = d_inner / n_head.max(1);
    let conv_states = state::states(b, layer, state.r_elements);
    let ssm_states = state::states(b, layer, state.s_elements);

    let x = shape.by_sequence(b, x);
    let both = b.linear(here, Part::SsmIn, x)?;
    let both = b.graph.permute(both, [0, 2, 1, 3]);
    let both = b.graph.cont_as(both, [dim.saturating_mul(2), n_head, per_seq, n_seqs]);
    let nb = b.graph.tensor(both).nb;
    let [x, z] = [(); 2].map(|()| b.graph.view(both, [dim, n_head, per_seq, n_seqs], [nb[1], nb[2], nb[3]]));
    let x = b.graph.cont_as(x, [d_inner, per_seq, n_seqs, 1]);
    let window = state::window(b, inputs, conv_states, d_conv, 1, x);
    let x = convolve(b, layer, window)?;

    let mixed = b.linear(here, Part::SsmX, x)?;
    let mut operands = [d_state, d_state, dt_rank].map(|width| shape.columns(b, mixed, width));
    for (operand, part) in operands.iter_mut().zip([Part::SsmBNorm, Part::SsmCNorm, Part::SsmDtNorm]) {
        *operand = b.norm(here, part, *operand, here)?;
    }
    let [b_matrix, c_matrix, dt] = operands;
    let dt = b.linear_bias(here, Part::SsmDt, dt)?;
    let a = b.weight(here, Part::SsmA)?;
    let a = b.graph.reshape(a, [1, n_head, 1, 1]);
    let x = shape.heads(b, x, dim, n_head);
    let [b_matrix, c_matrix] = [b_matrix, c_matrix].map(|matrix| shape.heads(b, matrix, d_state, 1));
    let scanned = state::scan(b, inputs, ssm_states, |b, table, own| {
        let rows = b.graph.ne(table)[1];
        let states = b.graph.reshape(table, [d_state, dim, n_head, rows]);
        b.graph.ssm_scan([states, x, dt, a, b_matrix, c_matrix, own], 1)
    });
    keep(b, scanned, ssm_states);

    let nb = b.graph.tensor(x).nb;
    let y = b.graph.view(scanned, [dim, n_head, per_seq, n_seqs], [nb[1], nb[2], nb[3]]);
    let skip = b.weight(here, Part::SsmD)?;
    let skip = b.graph.reshape(skip, [1, n_head, 1, 1]);
    let skipped = b.graph.mul(x, skip);
    let y = b.graph.add(y, skipped);
    let z = b.graph.cont(z);
    let y = b.graph.gated(z, y);
    let nb = b.graph.tensor(y).nb;
    let y = b.graph.view_3d(y, [d_inner, per_seq, n_seqs], nb[2], nb[3]);
    let y = b.linear(here, Part::SsmOut, y)?;
    let width = b.graph.ne(y)[0];
    Ok(shape.in_a_row(b, y, width))
}
