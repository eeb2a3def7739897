//! The Mamba recurrence (`build_mamba_layer`, src/models/mamba-base.cpp; `build_rs`, llama-graph.cpp:3587-3630).

use super::super::builder::{Builder, Missing};
use super::super::tensor::{Id, Memory};
use super::super::weights::{Part, Suffix};
use spec::QuantType;
use spec::model::Recurrent;

/// Which rows of the state belong to the sequences of the batch.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct StateInputs {
    /// All rows.
    rows: Id,
    /// Those of the batch.
    own: Id,
    /// The others, when the first is read in place.
    rest: Id,
}

/// Creates the input of all recurrent layers.
pub(in super::super) fn inputs(b: &mut Builder<'_>) -> StateInputs {
    let n_rows = b.options.n_seq_max;
    let rows = b.graph.input(QuantType::I32, [n_rows, 1, 1, 1]);
    let own = b.graph.view_1d(rows, b.batch.n_seqs);
    let rest = b.graph.view_1d(rows, n_rows.saturating_sub(1));
    StateInputs { rows, own, rest }
}

/// Mamba of one layer, from the normed stream to the block's output.
pub(in super::super) fn mamba(b: &mut Builder<'_>, layer: usize, shape: &Recurrent, inputs: &StateInputs, x: Id) -> Result<Id, Missing> {
    let here = Some(layer);
    let (n_seqs, per_seq) = (b.batch.n_seqs, b.batch.n_tokens / b.batch.n_seqs.max(1));
    let kernel = b.weight(here, Part::SsmConv1d)?;
    let [d_conv, d_inner, ..] = b.graph.ne(kernel);
    let a = b.weight(here, Part::SsmA)?;
    let d_state = b.graph.ne(a)[0];
    let dt_weight = b.weight(here, Part::SsmDt)?;
    let dt_rank = b.graph.ne(dt_weight)[0];
    let memory = Memory::Cache { backend: b.cache_backend(layer) };
    let n_rows = b.options.n_seq_max;
    let conv_states = b.graph.placed(QuantType::F32, [shape.r_elements, n_rows, 1, 1], memory);
    let ssm_states = b.graph.placed(QuantType::F32, [shape.s_elements, n_rows, 1, 1], memory);

    let conv = gather(b, inputs, conv_states, None);
    let conv = b.graph.reshape(conv, [d_conv.saturating_sub(1), d_inner, n_seqs, 1]);
    let n_embd = b.graph.ne(x)[0];
    let x = b.graph.reshape(x, [n_embd, per_seq, n_seqs, 1]);
    let both = b.linear(here, Part::SsmIn, x)?;
    let nb = b.graph.tensor(both).nb;
    let [x, z] = [(); 2].map(|()| b.graph.view_3d(both, [d_inner, per_seq, n_seqs], nb[1], nb[2]));

    let x = convolve(b, layer, conv, conv_states, x, kernel)?;
    let mixed = b.linear(here, Part::SsmX, x)?;
    let nb = b.graph.tensor(mixed).nb;
    let dt = b.graph.view_3d(mixed, [dt_rank, per_seq, n_seqs], nb[1], nb[2]);
    let row = d_state.saturating_mul(4);
    let [b_matrix, c_matrix] = [(); 2].map(|()| b.graph.view(mixed, [d_state, 1, per_seq, n_seqs], [row, nb[1], nb[2]]));
    let dt = b.graph.cont(dt);
    let dt = b.linear_bias(here, Part::SsmDt, dt)?;
    let heads = b.graph.reshape(x, [1, d_inner, per_seq, n_seqs]);

    let scan = Scan { d_state, d_inner, x: heads, dt, a, b: b_matrix, c: c_matrix };
    let scanned = gather(b, inputs, ssm_states, Some(&scan));
    let n = d_state.saturating_mul(d_inner).saturating_mul(n_seqs);
    let new_states = b.graph.view_1d(scanned, n);
    let target = b.graph.view_1d(ssm_states, n);
    let kept = b.graph.copy_into(new_states, target);
    b.graph.expand(kept);

    let nb = b.graph.tensor(heads).nb;
    let y = b.graph.view_3d(scanned, [d_inner, per_seq, n_seqs], nb[2], nb[3]);
    let skip = b.weight(here, Part::SsmD)?;
    let skipped = b.graph.mul(x, skip);
    let y = b.graph.add(y, skipped);
    let z = b.graph.cont(z);
    let y = b.graph.gated(z, y);
    let y = b.linear(here, Part::SsmOut, y)?;
    let width = b.graph.ne(y)[0];
    Ok(b.graph.reshape(y, [width, per_seq.saturating_mul(n_seqs), 1, 1]))
}

/// Convolution over the last tokens, which are kept for the next batch.
fn convolve(b: &mut Builder<'_>, layer: usize, conv: Id, states: Id, x: Id, kernel: Id) -> Result<Id, Missing> {
    let [kept, d_inner, n_seqs, _] = b.graph.ne(conv);
    let x = b.graph.transpose(x);
    let window = b.graph.concat(conv, x);
    let nb = b.graph.tensor(window).nb;
    let last = b.graph.view_3d(window, [kept, d_inner, n_seqs], nb[1], nb[2]);
    let target = b.graph.view_1d(states, kept.saturating_mul(d_inner).saturating_mul(n_seqs));
    let stored = b.graph.copy_into(last, target);
    b.graph.expand(stored);
    let y = b.graph.ssm_conv(window, kernel);
    let bias = b.find(Some(layer), Part::SsmConv1d, Suffix::Bias);
    let bias = bias.ok_or(Missing { layer: Some(layer), part: Part::SsmConv1d })?;
    let y = b.graph.add(y, bias);
    Ok(b.graph.unary(y))
}

/// The operands of a scan that reads states in place.
struct Scan {
    d_state: u64,
    d_inner: u64,
    x: Id,
    dt: Id,
    a: Id,
    b: Id,
    c: Id,
}

/// The states of the batch: gathered, or scanned in place; other states are copied along.
fn gather(b: &mut Builder<'_>, inputs: &StateInputs, states: Id, scan: Option<&Scan>) -> Id {
    let [width, n_rows, ..] = b.graph.ne(states);
    let n_seqs = b.batch.n_seqs;
    let rows = if scan.is_some() { inputs.rest } else { inputs.rows };
    let table = b.graph.reshape(states, [width, n_rows, 1, 1]);
    let zeroed = b.graph.view_1d(table, width);
    let zeroed = b.graph.scale_inplace(zeroed);
    b.graph.expand(zeroed);
    let all = b.graph.get_rows(table, rows);
    let row = b.graph.tensor(all).nb[1];
    let own = match scan {
        Some(scan) => {
            let s = b.graph.reshape(table, [scan.d_state, 1, scan.d_inner, n_rows]);
            b.graph.ssm_scan([s, scan.x, scan.dt, scan.a, scan.b, scan.c, inputs.own])
        }
        None => b.graph.view_2d(all, width, n_seqs, row),
    };
    b.graph.expand(own);
    let others = n_rows.saturating_sub(n_seqs);
    let extra = b.graph.view_2d(all, width, others, row);
    let state_row = b.graph.tensor(states).nb[1];
    let target = b.graph.view_2d(states, width, others, state_row);
    let copied = b.graph.copy_into(extra, target);
    b.graph.expand(copied);
    own
}
