//! The dense feed-forward block (`build_ffn`, llama-graph.cpp:1790-2000).

use super::super::builder::{Builder, Missing};
use super::super::tensor::Id;
use super::super::weights::{Part, Suffix};

/// The matrices of one block.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Matrices {
    pub(in super::super) gate: Part,
    pub(in super::super) up: Part,
    pub(in super::super) down: Part,
}

impl Matrices {
    /// The block that all tokens visit.
    pub(in super::super) const DENSE: Self = Self { gate: Part::FfnGate, up: Part::FfnUp, down: Part::FfnDown };
    /// The shared experts.
    pub(in super::super) const SHARED: Self = Self { gate: Part::FfnGateShexp, up: Part::FfnUpShexp, down: Part::FfnDownShexp };
}

/// How an ungated block bends its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Activation {
    /// By one operation (GELU, xIELU, ...).
    Once,
    /// By two (the square of ReLU).
    Twice,
}

/// A gated block; without a gate matrix, `up` yields gate and value side by side where `down` takes half as many, and else
/// the block is not gated. A norm before `down` where the file has one (BitNet).
pub(in super::super) fn feed_forward(
    b: &mut Builder<'_>,
    layer: usize,
    matrices: Matrices,
    activation: Activation,
    x: Id,
) -> Result<Id, Missing> {
    let up = b.linear_bias(Some(layer), matrices.up, x)?;
    let mut y = if b.find(Some(layer), matrices.gate, Suffix::Weight).is_some() {
        let gate = b.linear_bias(Some(layer), matrices.gate, x)?;
        b.graph.gated(gate, up)
    } else {
        let down = b.weight(Some(layer), matrices.down)?;
        match activation {
            _ if b.graph.ne(up)[0] == b.graph.ne(down)[0].saturating_mul(2) => b.graph.gated_halves(up),
            Activation::Once => b.graph.unary(up),
            Activation::Twice => {
                let y = b.graph.unary(up);
                b.graph.unary(y)
            }
        }
    };
    if b.find(Some(layer), Part::FfnSubNorm, Suffix::Weight).is_some() {
        y = b.norm(Some(layer), Part::FfnSubNorm, y, Some(layer))?;
    }
    b.linear_bias(Some(layer), matrices.down, y)
}
