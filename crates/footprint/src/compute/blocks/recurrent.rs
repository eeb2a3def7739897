//! Recurrences by their kind, and the inputs that they share.

use super::super::builder::{Builder, Missing};
use super::super::tensor::Id;
use super::super::weights::Part;
use super::delta_net::delta_net;
use super::kimi_delta::kimi_delta;
use super::lightning::{self, Decays, lightning};
use super::mamba::{mamba, mamba2, plamo2};
use super::short_conv::short_conv;
use super::state::{self, Recurrence, StateInputs};
use spec::model::{Mixer, Recurrent};

/// The inputs of all recurrent layers.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct RecurrentInputs {
    pub(super) state: StateInputs,
    /// Of linear attention.
    decays: Option<Decays>,
}

/// Creates the inputs, where the model has recurrent layers.
pub(in super::super) fn inputs(b: &mut Builder<'_>) -> Option<RecurrentInputs> {
    let linear = |mixer: &Mixer| matches!(mixer, Mixer::Recurrent(state) if state.kind == "linear-attention");
    let decaying = b.model.layers.iter().any(|layer| linear(&layer.mixer));
    b.model.has_recurrent_state().then(|| {
        let state = state::inputs(b);
        let heads = b.model.arch_uint("attention.head_count").unwrap_or(1);
        RecurrentInputs { state, decays: decaying.then(|| lightning::decays(b, heads)) }
    })
}

/// The recurrence of one layer, from the normed stream to the block's output.
pub(in super::super) fn recurrent(
    b: &mut Builder<'_>,
    layer: usize,
    state: &Recurrent,
    inputs: &RecurrentInputs,
    x: Id,
) -> Result<Id, Missing> {
    let at = Recurrence { layer, state, inputs: &inputs.state };
    match (state.kind.as_str(), inputs.decays) {
        ("mamba", _) => mamba(b, at, x),
        ("mamba2", _) => mamba2(b, at, x),
        ("plamo2-mamba", _) => plamo2(b, at, x),
        ("gated-delta-net", _) => delta_net(b, at, x),
        ("kda", _) => kimi_delta(b, at, x),
        ("short-conv", _) => short_conv(b, at, x),
        ("linear-attention", Some(decays)) => lightning(b, at, decays, x),
        _ => Err(Missing { layer: Some(layer), part: Part::SsmOut }),
    }
}
