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

/// A gated block; without a gate matrix, `up` yields gate and value side by side. A norm before `down` where the file has
/// one (BitNet).
pub(in super::super) fn feed_forward(b: &mut Builder<'_>, layer: usize, matrices: Matrices, x: Id) -> Result<Id, Missing> {
    let up = b.linear_bias(Some(layer), matrices.up, x)?;
    let mut y = if b.find(Some(layer), matrices.gate, Suffix::Weight).is_some() {
        let gate = b.linear_bias(Some(layer), matrices.gate, x)?;
        b.graph.gated(gate, up)
    } else {
        b.graph.gated_halves(up)
    };
    if b.find(Some(layer), Part::FfnSubNorm, Suffix::Weight).is_some() {
        y = b.norm(Some(layer), Part::FfnSubNorm, y, Some(layer))?;
    }
    b.linear_bias(Some(layer), matrices.down, y)
}
