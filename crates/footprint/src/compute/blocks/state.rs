//! The states that recurrent layers keep per sequence (`build_rs`, llama-graph.cpp:3587-3675).

use super::super::builder::Builder;
use super::super::tensor::{CacheKind, Id, Memory};
use spec::QuantType;
use spec::model::Recurrent;

/// Which rows of the states belong to the sequences of the batch.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct StateInputs {
    /// All rows.
    rows: Id,
    /// Those of the batch.
    own: Id,
    /// The others, when the first is read in place.
    rest: Id,
}

/// A layer's recurrence: where it is, what it keeps, and the rows that belong to the batch.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Recurrence<'a> {
    pub(super) layer: usize,
    pub(super) state: &'a Recurrent,
    pub(super) inputs: &'a StateInputs,
}

/// Creates the input of all recurrent layers.
pub(in super::super) fn inputs(b: &mut Builder<'_>) -> StateInputs {
    let n_rows = b.options.n_seq_max;
    let rows = b.graph.input(QuantType::I32, [n_rows, 1, 1, 1]);
    let own = b.graph.view_1d(rows, b.batch.n_seqs);
    let rest = b.graph.view_1d(rows, n_rows.saturating_sub(1));
    StateInputs { rows, own, rest }
}

/// The states of one layer: a row of `width` elements per sequence of the context and state kept of it.
pub(super) fn states(b: &mut Builder<'_>, layer: usize, width: u64) -> Id {
    let memory = Memory::Cache { backend: b.cache_backend(layer), kind: CacheKind::State };
    b.graph.placed(QuantType::F32, [width, b.options.n_seq_max.saturating_mul(b.options.n_states), 1, 1], memory)
}

/// The states of the batch's sequences, gathered; other states are copied along.
pub(super) fn gather(b: &mut Builder<'_>, inputs: &StateInputs, states: Id) -> Id {
    let n_seqs = b.batch.n_seqs;
    around(b, states, inputs.rows, |b, _, all| {
        let ([width, ..], row) = (b.graph.ne(all), b.graph.tensor(all).nb[1]);
        b.graph.view_2d(all, width, n_seqs, row)
    })
}

/// What `scan` makes of all states and the numbers of the batch's rows: it reads them where they are.
pub(super) fn scan(b: &mut Builder<'_>, inputs: &StateInputs, states: Id, scan: impl FnOnce(&mut Builder<'_>, Id, Id) -> Id) -> Id {
    around(b, states, inputs.rest, |b, table, _| scan(b, table, inputs.own))
}

/// Clears the row of new sequences, reads, and copies the states of sequences that are not in the batch.
fn around(b: &mut Builder<'_>, states: Id, rows: Id, read: impl FnOnce(&mut Builder<'_>, Id, Id) -> Id) -> Id {
    let [width, n_rows, ..] = b.graph.ne(states);
    let n_seqs = b.batch.n_seqs;
    let table = b.graph.reshape(states, [width, n_rows, 1, 1]);
    let zeroed = b.graph.view_1d(table, width);
    let zeroed = b.graph.scale_inplace(zeroed);
    b.graph.expand(zeroed);
    let all = b.graph.get_rows(table, rows);
    let own = read(b, table, all);
    b.graph.expand(own);
    let others = b.options.n_seq_max.saturating_sub(n_seqs);
    let row = b.graph.tensor(all).nb[1];
    let extra = b.graph.view_2d(all, width, others, row);
    let state_row = b.graph.tensor(states).nb[1];
    let target = b.graph.view_2d(states, width, others, state_row);
    let copied = b.graph.copy_into(extra, target);
    b.graph.expand(copied);
    own
}

/// Keeps `new` as the states of the batch's sequences.
pub(super) fn keep(b: &mut Builder<'_>, states: Id, new: Id) {
    let ([width, ..], row) = (b.graph.ne(states), b.graph.tensor(states).nb[1]);
    let target = b.graph.view_2d(states, width, b.batch.n_seqs, row);
    let kept = b.graph.copy_into(new, target);
    b.graph.expand(kept);
}

/// The last tokens before the batch and those of the batch, one row per channel, as a convolution over `kernel` tokens reads
/// them; the last of them are kept for the next batch, `slots` times with one token less. `x` has one row per token:
/// `[channels, tokens, sequences]`.
pub(super) fn window(b: &mut Builder<'_>, inputs: &StateInputs, states: Id, kernel: u64, slots: u64, x: Id) -> Id {
    let gathered = gather(b, inputs, states);
    let x = b.graph.transpose(x);
    let [_, channels, n_seqs, _] = b.graph.ne(x);
    let kept = kernel.saturating_sub(1);
    let before = b.graph.reshape(gathered, [kept, channels, n_seqs, 1]);
    let window = b.graph.concat(before, x);
    for _ in 0..slots {
        let last = last_columns(b, window, kept);
        keep(b, states, last);
    }
    window
}

/// As many columns at the end of each row of a window.
pub(super) fn last_columns(b: &mut Builder<'_>, window: Id, columns: u64) -> Id {
    let ([_, channels, n_seqs, _], nb) = (b.graph.ne(window), b.graph.tensor(window).nb);
    b.graph.view_3d(window, [columns, channels, n_seqs], nb[1], nb[2])
}
