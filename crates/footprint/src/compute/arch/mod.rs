//! Architecture families, each a short declaration over [`super::decoder`].
//!
//! To add one:
//! 1. Compare its file under `src/models/` of llama.cpp with `llama.cpp` there. Tensors that a file may or may not have
//!    (biases, head norms, norms before and after blocks, a gate, fused matrices, learned positions) need no declaration.
//! 2. Say what else differs in a [`Decoder`], in the file of its kind here: [`dense`], [`experts`], [`latent`], [`per_layer`],
//!    [`recurrent`], [`encoders`].
//! 3. Write an outline of a published model in `crates/synthetic/src/outlines`, add it to the recorder's cases, and record.
//!    The tests `oracle` and `compute` say by how much a buffer, the nodes or the splits are off.

mod dense;
mod encoders;
mod experts;
mod latent;
mod per_layer;
mod recurrent;

use super::blocks::attention::{Heads, Rotation, Style};
use super::blocks::embedding::Scaling;
use super::blocks::experts::{Dense, Probabilities, Routing, SharedGate};
use super::blocks::feed_forward::Activation;
use super::builder::Norm;
use super::decoder::{Copies, Decoder, Logits, Outputs, PostNorms, Residual};
use super::weights::Part;
use spec::Model;
use spec::model::MetaValue;

/// Llama, which most families resemble.
pub(super) const LLAMA: Decoder = Decoder {
    embedding: Scaling::None,
    norm: Norm::RootMeanSquare,
    attention: Style {
        rotation: Rotation::EveryLayer,
        positions_per_token: 1,
        factors_in_windows: true,
        late_head_norms: false,
        mean_head_norms: false,
        plain_head_norms: false,
        value_norm: false,
        heads: Heads::Projected,
        clamp: false,
        temperature: false,
        query_scale: false,
        soft_cap: false,
        output_scale: false,
    },
    feed_forward_norm: Part::FfnNorm,
    activation: Activation::Once,
    routing: Routing {
        probabilities: Probabilities::Softmax,
        normalized: true,
        scaled: false,
        groups: None,
        reads_stream: false,
        weights_input: false,
        chosen_by_sigmoid: false,
        activation: Activation::Twice,
        shared_gate: SharedGate::Sigmoid,
        scaled_sum: false,
        dense: Dense::Absent,
    },
    residual: Residual::Sequential { stream_first: [false, false] },
    residual_scale: false,
    post_norms: PostNorms::Attention,
    deepstack: 0,
    copies: Copies::One,
    outputs: Outputs::InLastLayer,
    tied_head: false,
    head_without_cache: false,
    logits: Logits::Plain,
};

/// The graph of this model's family; `None` where it is not declared.
pub(super) fn decoder(model: &Model) -> Option<Decoder> {
    let families = [dense::decoder, experts::decoder, latent::decoder, per_layer::decoder, recurrent::decoder, encoders::decoder];
    families.iter().find_map(|decoder| decoder(model))
}

/// What the engine reads of any file: groups of experts, and the factor of their weights; of one, or where none is stated,
/// it spares the operation.
fn routing(model: &Model) -> Routing {
    let weight_scale = number(model, "expert_weights_scale").unwrap_or(0.0);
    let groups = model.arch_uint("expert_group_count").filter(|&groups| groups > 1);
    let used = model.arch_uint("expert_group_used_count").unwrap_or(1);
    Routing {
        scaled: weight_scale != 0.0 && weight_scale != 1.0,
        groups: groups.map(|groups| (groups, used)),
        probabilities: probabilities(model),
        ..LLAMA.routing
    }
}

/// How experts are weighted: as the file says, but in families that know nothing else or take it for granted
/// (`expert_gating_func` in src/models/*.cpp; `llama_expert_gating_func_type`). That the chosen ones alone are weighed is for
/// families that read it.
fn probabilities(model: &Model) -> Probabilities {
    match (model.architecture.as_str(), model.arch_uint("expert_gating_func")) {
        ("llama4" | "mimo2" | "nemotron_h" | "nemotron_h_moe", _) | (_, Some(2)) => Probabilities::Sigmoid,
        ("afmoe" | "cohere2moe" | "glm4moe" | "laguna" | "step35", None | Some(0)) => Probabilities::Sigmoid,
        (_, Some(4)) => Probabilities::RootOfSoftplus,
        _ => Probabilities::Softmax,
    }
}

fn metadata<'m>(model: &'m Model, key: &str) -> Option<&'m MetaValue> {
    model.metadata.get(&format!("{}.{key}", model.architecture))
}

fn number(model: &Model, key: &str) -> Option<f64> {
    match metadata(model, key)? {
        MetaValue::Float(value) => Some(*value),
        MetaValue::Uint(value) => Some(*value as f64),
        MetaValue::Int(value) => Some(*value as f64),
        _ => None,
    }
}

fn nonzero(model: &Model, key: &str) -> bool {
    number(model, key).is_some_and(|value| value != 0.0)
}

fn flag(model: &Model, key: &str) -> Option<bool> {
    match metadata(model, key)? {
        MetaValue::Bool(value) => Some(*value),
        _ => None,
    }
}

/// Positions of each token: four where the file divides the rotation into sections for images (`use_mrope`).
fn positions_by_sections(model: &Model) -> u64 {
    let sections = model.arrays.get(&format!("{}.rope.dimension_sections", model.architecture));
    let divided = sections.is_some_and(|sections| sections.iter().take(2).filter(|&&section| section > 0.0).count() == 2);
    if divided { 4 } else { 1 }
}
