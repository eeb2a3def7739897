//! Embeddings that each layer has of its own (Gemma 3n and 4): a table row per token, mixed with a projection of the stream's
//! first state, gates each layer's output (`build_inp_per_layer`, `project_per_layer_inputs` in src/models/gemma4.cpp).

use super::super::builder::{Builder, Missing};
use super::super::tensor::{Id, Op};
use super::super::weights::{Part, Suffix};
use spec::QuantType;

/// The table's rows, where they are looked up before the stream's embeddings.
pub(in super::super) fn looked_up_first(b: &mut Builder<'_>) -> Option<Id> {
    if !b.options.rules.per_layer_first || b.model.architecture != "gemma4" {
        return None;
    }
    let table = b.find(None, Part::PerLayerTokenEmbd, Suffix::Weight)?;
    let rows = looked_up(b, table);
    b.graph.expand(rows);
    Some(rows)
}

fn looked_up(b: &mut Builder<'_>, table: Id) -> Id {
    let tokens = b.graph.input(QuantType::I32, [b.batch.n_tokens, 1, 1, 1]);
    b.graph.get_rows(table, tokens)
}

/// The inputs of all layers, `[width, tokens, layers]`, from the embeddings `x`, with `rows` where they have been looked up; none where
/// the file has no table.
pub(in super::super) fn inputs(b: &mut Builder<'_>, x: Id, rows: Option<Id>) -> Result<Option<Id>, Missing> {
    let Some(table) = b.find(None, Part::PerLayerTokenEmbd, Suffix::Weight) else { return Ok(None) };
    let (n_tokens, n_layer) = (b.batch.n_tokens, u64::from(b.model.n_layer()).max(1));
    let width = b.graph.ne(table)[0] / n_layer;
    let by_layer = [width, n_layer, n_tokens, 1];
    let later = rows.is_some();
    let rows = rows.unwrap_or_else(|| looked_up(b, table));
    let rows = b.graph.reshape(rows, by_layer);
    let rows = b.graph.scale(rows);
    if !later {
        b.graph.expand(rows);
    }

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

/// `x` gated by this layer's input, back in the width of the stream and normed; `outputs` are the rows that `x` has left.
pub(in super::super) fn gated(b: &mut Builder<'_>, layer: usize, inputs: Id, x: Id, outputs: Option<Id>) -> Result<Id, Missing> {
    let here = Some(layer);
    let gate = b.linear(here, Part::PerLayerGate, x)?;
    let gate = b.graph.unary(gate);
    let slice = slice(b, inputs);
    let slice = outputs.map_or(slice, |outputs| b.graph.get_rows(slice, outputs));
    let y = b.graph.mul(gate, slice);
    let y = b.linear(here, Part::PerLayerProj, y)?;
    b.norm(here, Part::PerLayerPostNorm, y, here)
}

/// One plane of a three-dimensional tensor; which one makes no difference here.
pub(super) fn slice(b: &mut Builder<'_>, x: Id) -> Id {
    let (ne, row) = (b.graph.ne(x), b.graph.tensor(x).nb[1]);
    b.graph.view_2d(x, ne[0], ne[1], row)
}

/// The layer's output with its own embeddings added, and scaled where the file says so; `outputs` as for [`gated`].
pub(in super::super) fn finish(b: &mut Builder<'_>, layer: usize, inputs: Option<Id>, x: Id, outputs: Option<Id>) -> Result<Id, Missing> {
    let mut x = x;
    if let Some(inputs) = inputs {
        let y = gated(b, layer, inputs, x, outputs)?;
        x = b.graph.add(x, y);
    }
    if let Some(scale) = b.find(Some(layer), Part::LayerOutputScale, Suffix::Weight) {
        x = b.graph.like(Op::Mul, &[x, scale]);
    }
    Ok(x)
}
