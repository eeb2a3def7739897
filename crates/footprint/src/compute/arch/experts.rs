//! Families with routed experts.

use super::super::blocks::attention::{Heads, Rotation, Style};
use super::super::blocks::embedding::Scaling;
use super::super::blocks::experts::{Dense, Probabilities, Routing, SharedGate};
use super::super::builder::Norm;
use super::super::decoder::{Decoder, Logits, Outputs, PostNorms, Residual, Term};
use super::super::weights::Part;
use super::{LLAMA, flag, nonzero, number, positions_by_sections, routing};
use spec::Model;

pub(super) fn decoder(model: &Model) -> Option<Decoder> {
    // Of families whose files say how weights are formed, and of those that never divide them by their sum.
    let stated = Routing {
        normalized: flag(model, "expert_weights_norm") == Some(true),
        probabilities: match model.arch_uint("expert_gating_func") {
            Some(SOFTMAX_OF_CHOSEN) => Probabilities::SoftmaxOfChosen,
            _ => routing(model).probabilities,
        },
        ..routing(model)
    };
    let unscaled = Routing { scaled: false, ..routing(model) };
    let raw = Routing { normalized: false, ..unscaled };
    let windows = model.arch_uint("attention.sliding_window") != Some(0);
    Some(match model.architecture.as_str() {
        "qwen3moe" => Decoder { routing: routing(model), ..LLAMA },
        "qwen3vlmoe" => Decoder {
            attention: Style { positions_per_token: 4, ..LLAMA.attention },
            deepstack: model.arch_uint("n_deepstack_layers").unwrap_or(0),
            routing: unscaled,
            ..LLAMA
        },
        "qwen2moe" => Decoder { routing: Routing { shared_gate: SharedGate::Quotient, ..raw }, ..LLAMA },
        "olmoe" => Decoder { attention: Style { heads: Heads::AfterNorms, ..LLAMA.attention }, routing: raw, ..LLAMA },
        "minimax-m2" => Decoder {
            attention: Style { heads: Heads::AfterNorms, ..LLAMA.attention },
            routing: Routing { normalized: true, scaled: false, ..stated },
            ..LLAMA
        },
        "deepseek" => Decoder { routing: Routing { normalized: false, ..routing(model) }, ..LLAMA },
        "bailingmoe" | "bailingmoe2" | "dots1" | "deepseek2-ocr" => Decoder { routing: stated, ..LLAMA },
        "ernie4_5-moe" => Decoder { routing: unscaled, ..LLAMA },
        "hunyuan-moe" => Decoder { attention: Style { late_head_norms: true, ..LLAMA.attention }, routing: unscaled, ..LLAMA },
        "glm4moe" => Decoder {
            attention: Style { positions_per_token: positions_by_sections(model), ..LLAMA.attention },
            feed_forward_norm: Part::AttnPostNorm,
            routing: stated,
            ..LLAMA
        },
        "phimoe" => Decoder {
            attention: Style { query_scale: true, ..LLAMA.attention },
            residual: Residual::Sequential { stream_first: [false, true] },
            routing: unscaled,
            ..LLAMA
        },
        "dbrx" => Decoder {
            norm: Norm::Layer,
            attention: Style { clamp: nonzero(model, "attention.clamp_kqv"), ..LLAMA.attention },
            feed_forward_norm: Part::AttnOutputNorm,
            routing: unscaled,
            ..LLAMA
        },
        "grok" => grok(model, unscaled),
        "arctic" => Decoder { routing: Routing { dense: Dense::First, ..unscaled }, ..LLAMA },
        "granitemoe" => Decoder {
            embedding: if nonzero(model, "embedding_scale") { Scaling::Factor } else { Scaling::None },
            residual_scale: nonzero(model, "residual_scale"),
            logits: Logits::Scaled,
            routing: unscaled,
            ..LLAMA
        },
        "llama4" => llama4(model, windows),
        "smallthinker" => Decoder {
            attention: Style { rotation: if windows { Rotation::AllButFirstOf(4) } else { Rotation::EveryLayer }, ..LLAMA.attention },
            routing: Routing { normalized: true, scaled: false, reads_stream: true, ..stated },
            ..LLAMA
        },
        "exaone-moe" => Decoder { attention: Style { rotation: Rotation::Windowed, ..LLAMA.attention }, routing: stated, ..LLAMA },
        "afmoe" => Decoder {
            embedding: Scaling::Factor,
            attention: Style { rotation: Rotation::AllButEvery(4), ..LLAMA.attention },
            routing: stated,
            outputs: Outputs::AfterPostNorm,
            post_norms: PostNorms::Both,
            ..LLAMA
        },
        "grovemoe" => Decoder { routing: Routing { chosen_by_sigmoid: true, ..routing(model) }, ..LLAMA },
        "mellum" => Decoder { routing: unscaled, ..LLAMA },
        "cohere2moe" => cohere2_moe(model, stated),
        "maple" => Decoder { attention: Style { rotation: Rotation::Windowed, ..LLAMA.attention }, routing: unscaled, ..LLAMA },
        "hy_v3" => Decoder { routing: stated, outputs: Outputs::AfterOutputNorm, ..LLAMA },
        "laguna" => Decoder { routing: stated, ..LLAMA },
        "mimo2" => Decoder {
            attention: Style {
                output_scale: number(model, "attention.value_scale").is_some_and(|s| s != 0.0 && s != 1.0),
                ..LLAMA.attention
            },
            routing: unscaled,
            ..LLAMA
        },
        "step35" => Decoder {
            attention: Style { factors_in_windows: false, ..LLAMA.attention },
            routing: stated,
            outputs: Outputs::BeforeOutputNorm,
            ..LLAMA
        },
        "gpt-oss" => Decoder {
            feed_forward_norm: Part::AttnPostNorm,
            routing: Routing { probabilities: Probabilities::SoftmaxOfChosen, normalized: false, ..routing(model) },
            outputs: Outputs::BeforeOutputNorm,
            ..LLAMA
        },
        _ => return None,
    })
}

/// `LLAMA_EXPERT_GATING_FUNC_TYPE_SOFTMAX_WEIGHT`.
const SOFTMAX_OF_CHOSEN: u64 = 3;

/// A dense block beside the experts where the file has one, caps everywhere.
fn grok(model: &Model, routing: Routing) -> Decoder {
    Decoder {
        embedding: Scaling::Factor,
        attention: Style { soft_cap: true, ..LLAMA.attention },
        routing: Routing { dense: Dense::ScaledSum, ..routing },
        post_norms: PostNorms::Both,
        logits: if nonzero(model, "final_logit_softcapping") { Logits::ScaledAndSoftCapped } else { Logits::Scaled },
        ..LLAMA
    }
}

/// Both blocks read one norm; positions turn in windowed and in the leading dense layers.
fn cohere2_moe(model: &Model, routing: Routing) -> Decoder {
    let dense = model.arch_uint("leading_dense_block_count").and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let root_mean_square = nonzero(model, "attention.layer_norm_rms_epsilon");
    Decoder {
        norm: if root_mean_square { Norm::RootMeanSquare } else { Norm::Layer },
        attention: Style { rotation: Rotation::WindowedOrFirst(dense), ..LLAMA.attention },
        residual: Residual::Parallel([Term::FeedForward, Term::Stream, Term::Attention]),
        routing: Routing { scaled_sum: true, ..routing },
        outputs: Outputs::AfterOutputNorm,
        logits: if nonzero(model, "logit_scale") { Logits::Scaled } else { Logits::Plain },
        ..LLAMA
    }
}

/// Chunked windows in three of four layers, which alone rotate; the others are tempered.
fn llama4(model: &Model, windows: bool) -> Decoder {
    let all_experts = model.arch_uint("expert_count") == Some(128);
    Decoder {
        attention: Style {
            rotation: if windows { Rotation::AllButEvery(4) } else { Rotation::EveryLayer },
            temperature: windows,
            plain_head_norms: !all_experts,
            ..LLAMA.attention
        },
        routing: Routing { normalized: false, weights_input: true, scaled: false, ..routing(model) },
        ..LLAMA
    }
}
