//! The dense feed-forward block (`build_ffn`, llama-graph.cpp:1790-2000).

use super::super::builder::{Builder, Missing};
use super::super::tensor::{Id, Op};
use super::super::weights::{Part, Suffix};
use spec::Model;
use spec::model::MetaValue;

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
    if let Some(y) = fused(b, layer, matrices, x) {
        return b.linear_bias(Some(layer), matrices.down, y);
    }
    let up = b.linear_bias(Some(layer), matrices.up, x)?;
    let mut y = if b.find(Some(layer), matrices.gate, Suffix::Weight).is_some() {
        let gate = b.linear_bias(Some(layer), matrices.gate, x)?;
        if limits_apart(b.model, "swiglu_clamp_shexp", layer) { limited(b, gate, up) } else { b.graph.gated(gate, up) }
    } else {
        let down = b.weight(Some(layer), matrices.down)?;
        match activation {
            _ if b.graph.ne(up)[0] == b.graph.ne(down)[0].saturating_mul(2) => b.graph.gated_halves(up),
            Activation::Once => b.graph.unary(up),
            Activation::Twice => {
                let y = b.graph.function(up);
                b.graph.square(y)
            }
        }
    };
    if b.find(Some(layer), Part::FfnSubNorm, Suffix::Weight).is_some() {
        y = b.norm(Some(layer), Part::FfnSubNorm, y, Some(layer))?;
    }
    b.linear_bias(Some(layer), matrices.down, y)
}

/// Gate, up and activation as one operation, where the engine has it and neither matrix a bias (src/llama.cpp:7617 of
/// ik_llama.cpp at 8de297b7).
fn fused(b: &mut Builder<'_>, layer: usize, matrices: Matrices, x: Id) -> Option<Id> {
    let fuses = b.options.rules.ik.is_some_and(|ik| ik.fused_gate_up) && b.find(Some(layer), Part::FfnSubNorm, Suffix::Weight).is_none();
    let [gate, up] = [matrices.gate, matrices.up].map(|part| match b.find(Some(layer), part, Suffix::Bias) {
        None if fuses => b.find(Some(layer), part, Suffix::Weight),
        _ => None,
    });
    Some(b.graph.gate_up(up?, gate?, x))
}

/// True where this layer's gated units are limited, by one value for all layers or one of each (`swiglu_clamp_exp`,
/// `swiglu_clamp_shexp`; dense blocks follow the shared experts), and not within the unit (llama-graph.cpp:1880-1895 and
/// 2275-2290).
pub(super) fn limits_apart(model: &Model, key: &str, layer: usize) -> bool {
    let within = match model.architecture.as_str() {
        "deepseek4" => true,
        "maple" => key == "swiglu_clamp_exp",
        _ => false,
    };
    if within {
        return false;
    }
    let key = format!("{}.{key}", model.architecture);
    let of_all = match model.metadata.get(&key) {
        Some(MetaValue::Float(limit)) => *limit,
        _ => 0.0,
    };
    model.arrays.get(&key).and_then(|limits| limits.get(layer)).copied().unwrap_or(of_all) > 1e-6
}

/// A gated unit spelt out, with both sides limited (Step 3.5).
pub(super) fn limited(b: &mut Builder<'_>, gate: Id, up: Id) -> Id {
    let up = b.graph.like(Op::Clamp, &[up]);
    let gate = b.graph.unary(gate);
    let gate = b.graph.like(Op::Clamp, &[gate]);
    b.graph.mul(gate, up)
}
