//! Embeddings that each layer has of its own (Gemma 3n and 4): a table row per token, mixed with a projection of the stream's
//! first state, gates each layer's output (`build_inp_per_layer`, `project_per_layer_inputs` in src/models/gemma4.cpp).

use super::super::builder::{Builder, Missing};
use super::super::tensor::{Id, Op};
use super::super::weights::{Part, Suffix};
use spec::QuantType;

/// The inputs of all layers, `[width, tokens, layers]`, from the embeddings `x`; none where the file has no table.
pub(in super::super) fn inputs(b: &mut Builder<'_>, x: Id) -> Result<Option<Id>, Missing> {
    let Some(table) = b.find(None, Part::PerLayerTokenEmbd, Suffix::Weight) else { return Ok(None) };
    let (n_tokens, n_layer) = (b.batch.n_tokens, u64::from(b.model.n_layer()).max(1));
    let width = b.graph.ne(table)[0] / n_layer;
    let by_layer = [width, n_layer, n_tokens, 1];
    let tokens = b.graph.input(QuantType::I32, [n_tokens, 1, 1, 1]);
    let rows = b.graph.get_rows(table, tokens);
    let rows = b.graph.reshape(rows, by_layer);
    let rows = b.graph.scale(rows);
    b.graph.expand(rows);

    let matrix = b.weight(None, Part::PerLayerModelProj)?;
    let projected = b.graph.mul_mat(matrix, x);
    let projected = b.graph.scale(projected);
    let projected = b.graph.reshape(projected, by_layer);
    let projected = b.norm(None, Part::PerLayerProjNorm, projected, None)?;
    let sum = b.graph.add(projected, rows);
    let sum = b.graph.scale(sum);
    let by_token = b.graph.permute(sum, [0, 2, 1, 3]);
    Ok(Some(b.graph.cont(by_token)))
}

/// `x` gated by this layer's input, back in the width of the stream and normed.
pub(in super::super) fn gated(b: &mut Builder<'_>, layer: usize, inputs: Id, x: Id) -> Result<Id, Missing> {
    let here = Some(layer);
    let gate = b.linear(here, Part::PerLayerGate, x)?;
    let gate = b.graph.unary(gate);
    let slice = slice(b, inputs);
    let y = b.graph.mul(gate, slice);
    let y = b.linear(here, Part::PerLayerProj, y)?;
    b.norm(here, Part::PerLayerPostNorm, y, here)
}

/// One plane of a three-dimensional tensor; which one makes no difference here.
pub(super) fn slice(b: &mut Builder<'_>, x: Id) -> Id {
    let (ne, row) = (b.graph.ne(x), b.graph.tensor(x).nb[1]);
    b.graph.view_2d(x, ne[0], ne[1], row)
}

/// The layer's output with its own embeddings added, and scaled where the file says so.
pub(in super::super) fn finish(b: &mut Builder<'_>, layer: usize, inputs: Option<Id>, x: Id) -> Result<Id, Missing> {
    let mut x = x;
    if let Some(inputs) = inputs {
        let y = gated(b, layer, inputs, x)?;
        x = b.graph.add(x, y);
    }
    if let Some(scale) = b.find(Some(layer), Part::LayerOutputScale, Suffix::Weight) {
        x = b.graph.like(Op::Mul, &[x, scale]);
    }
    Ok(x)
}
