//! Short gated convolutions (src/models/lfm2.cpp).

use super::super::builder::{Builder, Missing};
use super::super::tensor::Id;
use super::super::weights::Part;
use super::state::{self, Recurrence};

/// The convolution of one layer, from the normed stream to the block's output.
pub(in super::super) fn short_conv(b: &mut Builder<'_>, at: Recurrence<'_>, x: Id) -> Result<Id, Missing> {
    let Recurrence { layer, state, inputs } = at;
    let here = Some(layer);
    let n_seqs = b.batch.n_seqs;
    let per_seq = b.batch.per_seq();
    let kernel = b.weight(here, Part::ShortConvConv)?;
    let [width, d_conv] = [b.graph.ne(x)[0], b.graph.ne(kernel)[0]];
    let x = b.graph.reshape(x, [width, per_seq, n_seqs, 1]);
    let all = b.linear(here, Part::ShortConvIn, x)?;
    let nb = b.graph.tensor(all).nb;
    let [before, after, x] = [(); 3].map(|()| b.graph.view_3d(all, [width, per_seq, n_seqs], nb[1], nb[2]));
    let x = b.graph.mul(before, x);
    let states = state::states(b, layer, state.r_elements);
    let window = state::window(b, inputs, states, d_conv, b.options.n_states.min(per_seq), x);
    let y = b.graph.ssm_conv(window, kernel);
    let y = b.graph.mul(after, y);
    let y = b.linear(here, Part::ShortConvOut, y)?;
    let width = b.graph.ne(y)[0];
    Ok(b.graph.reshape(y, [width, per_seq.saturating_mul(n_seqs), 1, 1]))
}
