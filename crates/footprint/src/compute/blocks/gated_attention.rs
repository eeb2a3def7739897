//! Attention whose query matrix yields a gate beside each query (src/models/qwen3next.cpp, qwen35.cpp).

use super::super::builder::{Builder, Missing};
use super::super::tensor::Id;
use super::super::weights::{Part, Suffix};
use super::attention::{AttentionInputs, Style, cached, normed_and_rotated};
use spec::model::Attention;

/// Attention of one layer, from the normed stream to the block's output. `cut`: queries and gates are cut into heads before
/// they are parted (Qwen3-Next).
pub(super) fn gated_attention(
    b: &mut Builder<'_>,
    layer: usize,
    shape: &Attention,
    inputs: &AttentionInputs,
    style: Style,
    cut: bool,
    x: Id,
) -> Result<Id, Missing> {
    let here = Some(layer);
    let n_tokens = b.batch.n_tokens;
    let [dim, heads, kv_heads] = [shape.head_dim_k, shape.n_head, shape.n_head_kv].map(u64::from);
    if b.find(here, Part::AttnQ, Suffix::Weight).is_none() {
        return Err(Missing { layer: here, part: Part::AttnQ });
    }
    let mut both = b.linear_bias(here, Part::AttnQ, x)?;
    if cut {
        both = b.graph.reshape(both, [dim.saturating_mul(2), heads, n_tokens, 1]);
    }
    let pair = dim.saturating_mul(8);
    let [q, gate] = [(); 2].map(|()| b.graph.view_3d(both, [dim, heads, n_tokens], pair, pair.saturating_mul(heads)));
    let [k, v] = [Part::AttnK, Part::AttnV].map(|part| {
        let y = b.linear_bias(here, part, x)?;
        Ok(b.graph.reshape(y, [dim, kv_heads, n_tokens, 1]))
    });
    let turn = Some((inputs.positions, None));
    let q = normed_and_rotated(b, layer, Part::AttnQNorm, q, [dim, heads], style, turn)?;
    let k = normed_and_rotated(b, layer, Part::AttnKNorm, k?, [dim, kv_heads], style, turn)?;
    let y = cached(b, layer, shape, inputs, style, q, Some([k, v?]));
    let gate = b.graph.cont_as(gate, [dim.saturating_mul(heads), n_tokens, 1, 1]);
    let gate = b.graph.unary(gate);
    let y = b.graph.mul(y, gate);
    b.linear(here, Part::AttnOutput, y)
}
