//! Alternating updates (Gemma 3n): the stream is several copies side by side, `[width, tokens, copies]`. Each layer predicts
//! all of them, computes one, and corrects the others by what it has learnt (src/models/gemma3n.cpp).

use super::super::builder::{Builder, Missing};
use super::super::tensor::{Id, Op};
use super::super::weights::Part;
use super::attention::{AttentionInputs, Style, attention};
use super::per_layer::{self, slice};
use spec::model::{self, FeedForward, Layer, Mixer};

/// Copies of the stream (`hparams.n_altup`).
const COPIES: u64 = 4;
/// Layers, from the first, whose feed-forward block keeps only its largest activations (`n_layer_sparsity`).
const SPARSE_LAYERS: usize = 10;

/// The copies of the embeddings `x`: itself, and projections of its own magnitude.
pub(in super::super) fn spread(b: &mut Builder<'_>, x: Id) -> Result<Id, Missing> {
    let [width, n_tokens, ..] = b.graph.ne(x);
    let target = magnitude(b, x);
    let repeated = b.graph.repeat(x, [width, n_tokens, COPIES - 1, 1]);
    let others = projected(b, Part::AltupProj, repeated, target)?;
    Ok(b.graph.concat_along(2, x, others))
}

/// The mean of all copies.
pub(in super::super) fn merge(b: &mut Builder<'_>, copies: Id) -> Result<Id, Missing> {
    let active = slice(b, copies);
    let target = magnitude(b, active);
    let others = rest(b, copies);
    let others = projected(b, Part::AltupUnembdProj, others, target)?;
    let mut sum = slice(b, copies);
    for _ in 1..COPIES {
        let other = slice(b, others);
        sum = b.graph.add(sum, other);
    }
    Ok(b.graph.scale(sum))
}

/// All copies through a matrix each, scaled to the magnitude `target`.
fn projected(b: &mut Builder<'_>, part: Part, copies: Id, target: Id) -> Result<Id, Missing> {
    let matrices = b.weight(None, part)?;
    let y = b.graph.mul_mat(matrices, copies);
    let magnitude = magnitude(b, y);
    let y = b.graph.mul(y, target);
    Ok(b.graph.like(Op::Div, &[y, magnitude]))
}

fn magnitude(b: &mut Builder<'_>, x: Id) -> Id {
    let squares = b.graph.square(x);
    let sum = b.graph.sum_rows(squares);
    b.graph.square_root(sum)
}

/// All copies but the first.
fn rest(b: &mut Builder<'_>, copies: Id) -> Id {
    let (ne, nb) = (b.graph.ne(copies), b.graph.tensor(copies).nb);
    b.graph.view_3d(copies, [ne[0], ne[1], COPIES - 1], nb[1], nb[2])
}

/// One layer over all copies.
pub(in super::super) fn layer(
    b: &mut Builder<'_>,
    index: usize,
    layer: &Layer,
    inputs: &AttentionInputs,
    style: Style,
    per_layer: Id,
    copies: Id,
) -> Result<Id, Missing> {
    let (Mixer::Attention(shape), FeedForward::Dense { .. }) = (&layer.mixer, &layer.feed_forward) else {
        return Err(Missing { layer: Some(index), part: Part::AttnOutput });
    };
    let predictions = predict(b, index, copies)?;
    let x = slice(b, predictions);
    let x = blocks(b, index, shape, inputs, style, x)?;
    let corrected = correct(b, index, predictions, x)?;
    let active = slice(b, corrected);
    let scale = b.weight(Some(index), Part::AltupCorrectScale)?;
    let active = b.graph.mul(active, scale);
    let gated = per_layer::gated(b, index, per_layer, active, None)?;
    let first = slice(b, corrected);
    let others = rest(b, corrected);
    let others = b.graph.add(others, gated);
    Ok(b.graph.concat_along(2, first, others))
}

/// Attention with a learnt low-rank residual beside it, and the feed-forward block.
fn blocks(
    b: &mut Builder<'_>,
    index: usize,
    shape: &model::Attention,
    inputs: &AttentionInputs,
    style: Style,
    x: Id,
) -> Result<Id, Missing> {
    let here = Some(index);
    let normed = b.norm(here, Part::AttnNorm, x, here)?;
    let low = b.linear(here, Part::LaurelL, normed)?;
    let low = b.linear(here, Part::LaurelR, low)?;
    let low = b.norm(here, Part::LaurelPostNorm, low, here)?;
    let laurel = b.graph.add(low, normed);
    let y = attention(b, index, shape, inputs, style, normed)?;
    let y = b.norm(here, Part::AttnPostNorm, y, here)?;
    let y = b.graph.add(y, x);
    let y = b.graph.add(y, laurel);
    let x = b.graph.scale(y);
    let normed = b.norm(here, Part::FfnNorm, x, here)?;
    let up = b.linear(here, Part::FfnUp, normed)?;
    let mut gate = b.linear(here, Part::FfnGate, normed)?;
    if index < SPARSE_LAYERS {
        gate = largest(b, gate);
    }
    let gate = b.graph.unary(gate);
    let y = b.graph.mul(up, gate);
    let y = b.linear(here, Part::FfnDown, y)?;
    let y = b.norm(here, Part::FfnPostNorm, y, None)?;
    Ok(b.graph.add(y, x))
}

/// What exceeds mean plus some deviations.
fn largest(b: &mut Builder<'_>, x: Id) -> Id {
    let mean = b.graph.mean(x);
    let deviations = b.graph.sub(x, mean);
    let squares = b.graph.square(deviations);
    let variance = b.graph.sum_rows(squares);
    let variance = b.graph.scale(variance);
    let deviation = b.graph.square_root(variance);
    let deviation = b.graph.scale(deviation);
    let cutoff = b.graph.add(mean, deviation);
    let above = b.graph.sub(x, cutoff);
    b.graph.function(above)
}

/// How much each copy counts: the coefficients of this token.
fn modalities(b: &mut Builder<'_>, layer: usize, x: Id) -> Result<Id, Missing> {
    let x = b.norm(Some(layer), Part::AltupRouterNorm, x, Some(layer))?;
    let x = b.graph.scale(x);
    let router = b.weight(Some(layer), Part::AltupRouter)?;
    let y = b.graph.mul_mat(router, x);
    Ok(b.graph.function(y))
}

fn predict(b: &mut Builder<'_>, layer: usize, copies: Id) -> Result<Id, Missing> {
    let n_tokens = b.graph.ne(copies)[1];
    let active = slice(b, copies);
    let modalities = modalities(b, layer, active)?;
    let coefficients = b.linear(Some(layer), Part::AltupPredictCoef, modalities)?;
    let coefficients = b.graph.reshape(coefficients, [COPIES, COPIES, n_tokens, 1]);
    let by_copy = b.graph.permute(copies, [1, 2, 0, 3]);
    let by_copy = b.graph.cont(by_copy);
    let mixed = b.graph.mul_mat(by_copy, coefficients);
    let mixed = b.graph.permute(mixed, [0, 2, 1, 3]);
    let mixed = b.graph.cont(mixed);
    Ok(b.graph.add(mixed, copies))
}

fn correct(b: &mut Builder<'_>, layer: usize, predictions: Id, active: Id) -> Result<Id, Missing> {
    let [width, n_tokens, ..] = b.graph.ne(active);
    let modalities = modalities(b, layer, active)?;
    let predicted = slice(b, predictions);
    let innovation = b.graph.add(active, predicted);
    let coefficients = b.linear(Some(layer), Part::AltupCorrectCoef, modalities)?;
    let coefficients = b.graph.scale(coefficients);
    let coefficients = b.graph.transpose(coefficients);
    let coefficients = b.graph.cont_as(coefficients, [1, n_tokens, COPIES, 1]);
    let innovation = b.graph.repeat(innovation, [width, n_tokens, COPIES, 1]);
    let corrected = b.graph.mul(innovation, coefficients);
    Ok(b.graph.add(corrected, predictions))
}
