//! Routed experts (`build_moe_ffn`, llama-graph.cpp:2060-2410).

use super::super::builder::{Builder, Missing};
use super::super::tensor::{Id, Op};
use super::super::weights::{Part, Suffix};
use super::feed_forward::{Activation, limited, limits_apart};
use spec::QuantType;
use spec::model::Experts;

/// How a router turns its logits into weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Routing {
    /// How probabilities are made of the logits.
    pub(in super::super) probabilities: Probabilities,
    /// Weights of the chosen experts are divided by their sum.
    pub(in super::super) normalized: bool,
    /// Weights are multiplied by a constant other than one.
    pub(in super::super) scaled: bool,
    /// Experts are chosen in two steps: groups, then experts of these groups. (groups, groups used)
    pub(in super::super) groups: Option<(u64, u64)>,
    /// The router reads the layer's input instead of what the experts read (SmallThinker).
    pub(in super::super) reads_stream: bool,
    /// Experts are chosen by their logits, and their input is weighted instead of their output (Llama 4).
    pub(in super::super) weights_input: bool,
    /// Experts are chosen by a sigmoid of their logits, whatever they are weighted by (GroveMoE).
    pub(in super::super) chosen_by_sigmoid: bool,
    /// Experts without a gate.
    pub(in super::super) activation: Activation,
    /// How the gate of the shared experts is bent, where there is one.
    pub(in super::super) shared_gate: SharedGate,
    /// The sum of routed and shared experts is scaled (Cohere2-MoE).
    pub(in super::super) scaled_sum: bool,
    /// What a dense block beside the experts does.
    pub(in super::super) dense: Dense,
}

/// How probabilities are made of logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Probabilities {
    Softmax,
    Sigmoid,
    /// The softmax is taken over the chosen experts only, after choosing (gpt-oss).
    SoftmaxOfChosen,
    /// The root of their softplus (DeepSeek V4).
    RootOfSoftplus,
}

/// The gate of the shared experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum SharedGate {
    /// A sigmoid by one operation.
    Sigmoid,
    /// A sigmoid as the quotient of SiLU and its argument (Qwen2-MoE).
    Quotient,
}

/// A dense block beside routed experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Dense {
    /// There is none.
    Absent,
    /// Both read the same; their sum is scaled (Grok).
    ScaledSum,
    /// Each has norms of its own, and the router a scale (Gemma 4).
    OwnNorms,
    /// It follows attention, while the experts read the layer's input (Arctic).
    First,
}

/// `LLAMA_MAX_EXPERTS`; what a file states beyond it is no model.
const MAX_EXPERTS: u32 = 1024;

/// The logits of the experts.
pub(in super::super) fn router(b: &mut Builder<'_>, layer: usize, x: Id) -> Result<Id, Missing> {
    b.linear_bias(Some(layer), Part::FfnGateInp, x)
}

/// The stacked matrices of experts.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Stack {
    gate_up: Option<Part>,
    gate: Part,
    up: Part,
    down: Part,
}

impl Stack {
    /// Routed experts.
    pub(in super::super) const ROUTED: Self =
        Self { gate_up: Some(Part::FfnGateUpExps), gate: Part::FfnGateExps, up: Part::FfnUpExps, down: Part::FfnDownExps };
    /// Experts that several routed ones have in common (GroveMoE).
    pub(in super::super) const OF_GROUPS: Self =
        Self { gate_up: None, gate: Part::FfnGateChexps, up: Part::FfnUpChexps, down: Part::FfnDownChexps };
}

/// Some experts of one layer; there may be fewer than logits, which then are those of the experts that have them in common.
pub(in super::super) fn experts(
    b: &mut Builder<'_>,
    layer: usize,
    stack: Stack,
    shape: &Experts,
    routing: Routing,
    logits: Id,
    x: Id,
) -> Result<Id, Missing> {
    let [n_embd, n_tokens, ..] = b.graph.ne(x);
    let n_used = u64::from(shape.used);
    if shape.used > MAX_EXPERTS {
        return Err(Missing { layer: Some(layer), part: Part::FfnDownExps });
    }
    let ik = b.options.rules.ik;
    let (chosen, weights) = route(b, layer, shape, routing, logits);
    if ik.is_none() {
        b.graph.expand(weights);
    }
    let mut x = b.graph.reshape(x, [n_embd, 1, n_tokens, 1]);
    if routing.weights_input {
        x = b.graph.repeat(x, [n_embd, n_used, n_tokens, 1]);
        x = b.graph.mul(x, weights);
    }
    let hidden = hidden(b, layer, stack, routing.activation, chosen, x)?;
    let mut y = through(b, layer, stack.down, hidden, chosen)?;
    if b.model.architecture == "mistral4" && b.graph.tensor(y).op == Op::MulMatId {
        b.graph.tensor_mut(y).precise = true;
    }
    if !routing.weights_input {
        y = b.graph.mul(y, weights);
    }
    let nb = b.graph.tensor(y).nb;
    if ik.is_some() && n_used > 2 {
        let first = b.graph.view_2d(y, n_embd, n_tokens, nb[2]);
        return Ok(b.graph.sum_of_experts(first));
    }
    b.graph.expand(y);
    let views: Vec<Id> = (0..n_used).map(|_| b.graph.view_2d(y, n_embd, n_tokens, nb[2])).collect();
    for &view in &views {
        b.graph.expand(view);
    }
    let mut views = views.into_iter();
    let first = views.next().ok_or(Missing { layer: Some(layer), part: Part::FfnDownExps })?;
    if n_used == 1 {
        return Ok(b.graph.cont(first));
    }
    let mut sum = first;
    for view in views {
        sum = b.graph.add(sum, view);
        b.graph.expand(sum);
    }
    Ok(sum)
}

/// Numbers and weights of the experts that each token visits.
fn route(b: &mut Builder<'_>, layer: usize, shape: &Experts, routing: Routing, logits: Id) -> (Id, Id) {
    let [n_experts, n_tokens, ..] = b.graph.ne(logits);
    let (grouped, n_used) = (u64::from(shape.count) != n_experts, u64::from(shape.used));
    let probabilities = match routing.probabilities {
        Probabilities::Softmax => b.graph.like(Op::SoftMax, &[logits]),
        Probabilities::Sigmoid => b.graph.unary(logits),
        Probabilities::SoftmaxOfChosen => logits,
        Probabilities::RootOfSoftplus => {
            let bent = b.graph.unary(logits);
            b.graph.square_root(bent)
        }
    };
    // HY V3's files call it by the stem alone.
    let bias = b.find(Some(layer), Part::ExpProbs, Suffix::Bias).or_else(|| b.find(Some(layer), Part::ExpProbs, Suffix::Weight));
    let mut selection = match bias {
        Some(bias) => b.graph.add(probabilities, bias),
        None if routing.weights_input => logits,
        None if routing.chosen_by_sigmoid => b.graph.unary(logits),
        None => probabilities,
    };
    if let (Some((groups, used)), None) = (routing.groups, b.options.rules.ik) {
        selection = within_groups(b, selection, [n_experts, n_tokens], groups, used);
    }
    let chosen = match listed(b, layer) {
        Some(chosen) => chosen,
        None => b.graph.top_k(selection, n_used),
    };
    let chosen = if grouped { groups_of(b, chosen) } else { chosen };
    let probabilities = b.graph.reshape(probabilities, [1, n_experts, n_tokens, 1]);
    let mut weights = b.graph.get_rows(probabilities, chosen);
    let (flat, tall) = ([n_used, n_tokens, 1, 1], [1, n_used, n_tokens, 1]);
    if routing.probabilities == Probabilities::SoftmaxOfChosen {
        weights = b.graph.reshape(weights, flat);
        weights = b.graph.like(Op::SoftMax, &[weights]);
        weights = b.graph.reshape(weights, tall);
    }
    if routing.normalized {
        weights = b.graph.reshape(weights, flat);
        let sum = b.graph.sum_rows(weights);
        let sum = if b.options.rules.ik.is_some() { sum } else { b.graph.like(Op::Clamp, &[sum]) };
        weights = b.graph.like(Op::Div, &[weights, sum]);
        weights = b.graph.reshape(weights, tall);
    }
    let always = b.options.rules.ik.is_some() && b.model.architecture == "deepseek2";
    if routing.scaled || always {
        weights = b.graph.scale(weights);
    }
    (chosen, weights)
}

/// The experts that the file lists for each token of the vocabulary (the first layers of DeepSeek V4).
fn listed(b: &mut Builder<'_>, layer: usize) -> Option<Id> {
    let table = b.find(Some(layer), Part::FfnGateTid2Eid, Suffix::Weight)?;
    b.tokens.map(|tokens| b.graph.get_rows(table, tokens))
}

/// The number of each expert's group: a quotient, for which there is no operation on integers.
fn groups_of(b: &mut Builder<'_>, chosen: Id) -> Id {
    let number = b.graph.cast(chosen, QuantType::F32);
    let number = b.graph.scale(number);
    b.graph.cast(number, QuantType::I32)
}

/// Selection scores with all but the best groups masked out.
fn within_groups(b: &mut Builder<'_>, selection: Id, [n_experts, n_tokens]: [u64; 2], groups: u64, used: u64) -> Id {
    let per_group = n_experts / groups.max(1);
    let grouped = b.graph.reshape(selection, [per_group, groups, n_tokens, 1]);
    let best = b.graph.top_k(grouped, 2);
    let column = b.graph.reshape(grouped, [1, per_group, groups, n_tokens]);
    let scores = b.graph.get_rows(column, best);
    let ne = b.graph.ne(scores);
    let scores = b.graph.reshape(scores, [ne[1], ne[2], ne[3], 1]);
    let scores = b.graph.sum_rows(scores);
    let ne = b.graph.ne(scores);
    let scores = b.graph.reshape(scores, [ne[1], ne[2], 1, 1]);
    let chosen = b.graph.top_k(scores, used);
    let kept = b.graph.get_rows(grouped, chosen);
    let masked = b.graph.fill(grouped);
    let masked = b.graph.set_rows(masked, kept, chosen);
    b.graph.reshape(masked, [n_experts, n_tokens, 1, 1])
}

/// The gated activations of each visited expert.
fn hidden(b: &mut Builder<'_>, layer: usize, stack: Stack, activation: Activation, chosen: Id, x: Id) -> Result<Id, Missing> {
    if let Some(gate_up) = stack.gate_up.filter(|&part| b.find(Some(layer), part, Suffix::Weight).is_some()) {
        let both = through(b, layer, gate_up, x, chosen)?;
        let (ne, nb) = (b.graph.ne(both), b.graph.tensor(both).nb);
        let [gate, up] = [(); 2].map(|()| b.graph.view_3d(both, [ne[0] / 2, ne[1], ne[2]], nb[1], nb[2]));
        return Ok(b.graph.gated(gate, up));
    }
    if b.options.rules.ik.is_some_and(|ik| ik.fused_experts) && b.find(Some(layer), stack.gate, Suffix::Weight).is_some() {
        let [up, gate] = [b.weight(Some(layer), stack.up)?, b.weight(Some(layer), stack.gate)?];
        return Ok(b.graph.experts_gate(up, gate, x, chosen));
    }
    let up = through(b, layer, stack.up, x, chosen)?;
    if b.find(Some(layer), stack.gate, Suffix::Weight).is_none() {
        if activation == Activation::Twice {
            let y = b.graph.function(up);
            return Ok(b.graph.square(y));
        }
        return Ok(b.graph.unary(up));
    }
    let gate = through(b, layer, stack.gate, x, chosen)?;
    Ok(if limits_apart(b.model, "swiglu_clamp_exp", layer) { limited(b, gate, up) } else { b.graph.gated(gate, up) })
}

/// `x` through the chosen experts' matrices, with scale and bias where the file has them (`build_lora_mm_id`).
fn through(b: &mut Builder<'_>, layer: usize, part: Part, x: Id, chosen: Id) -> Result<Id, Missing> {
    let matrices = b.weight(Some(layer), part)?;
    let n_tokens = b.graph.ne(x)[2];
    let mut y = b.graph.mul_mat_id(matrices, x, chosen);
    if let Some(scale) = b.find(Some(layer), part, Suffix::Scale) {
        let n_experts = b.graph.ne(scale)[0];
        let scale = b.graph.reshape(scale, [1, n_experts, 1, 1]);
        let scale = b.graph.repeat(scale, [1, n_experts, n_tokens, 1]);
        let scale = b.graph.get_rows(scale, chosen);
        y = b.graph.mul(y, scale);
    }
    Ok(match b.find(Some(layer), part, Suffix::Bias) {
        Some(bias) => b.graph.like(Op::AddId, &[y, bias, chosen]),
        None => y,
    })
}
