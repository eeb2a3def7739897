//! Families with a recurrence, alone or beside attention.

use super::super::blocks::attention::{Heads, Rotation, Style};
use super::super::blocks::embedding::Scaling;
use super::super::blocks::experts::Routing;
use super::super::blocks::feed_forward::Activation;
use super::super::builder::Norm;
use super::super::decoder::{Decoder, Logits, Outputs, PostNorms, Residual};
use super::super::weights::Part;
use super::{LLAMA, flag, nonzero, routing};
use spec::Model;

/// Attention layers do not rotate: the recurrence tells positions apart.
const UNROTATED: Style = Style { rotation: Rotation::Never, ..LLAMA.attention };
/// The stream comes first in both sums.
const STREAM_FIRST: Residual = Residual::Sequential { stream_first: [true, true] };

pub(super) fn decoder(model: &Model) -> Option<Decoder> {
    Some(match model.architecture.as_str() {
        "mamba" | "mamba2" => LLAMA,
        "qwen3next" => qwen(Style { heads: Heads::Gated { cut: true }, ..LLAMA.attention }, routing(model)),
        "qwen35" | "qwen35moe" => {
            let attention = Style { heads: Heads::Gated { cut: false }, positions_per_token: 4, ..LLAMA.attention };
            qwen(attention, routing(model))
        }
        "lfm2" | "lfm2moe" => Decoder { residual: STREAM_FIRST, routing: routing(model), ..LLAMA },
        "nemotron_h" | "nemotron_h_moe" => Decoder {
            attention: UNROTATED,
            activation: Activation::Twice,
            routing: Routing { normalized: flag(model, "expert_weights_norm") == Some(true), ..routing(model) },
            outputs: Outputs::AfterOutputNorm,
            ..LLAMA
        },
        "granitehybrid" => Decoder {
            embedding: if nonzero(model, "embedding_scale") { Scaling::Factor } else { Scaling::None },
            attention: if flag(model, "rope.scaling.finetuned") == Some(false) { UNROTATED } else { LLAMA.attention },
            routing: routing(model),
            residual_scale: nonzero(model, "residual_scale"),
            logits: if nonzero(model, "logit_scale") { Logits::Scaled } else { Logits::Plain },
            ..LLAMA
        },
        "falcon-h1" => Decoder { outputs: Outputs::AfterAttention, ..LLAMA },
        "jamba" => {
            Decoder { attention: UNROTATED, routing: Routing { normalized: false, ..routing(model) }, residual: STREAM_FIRST, ..LLAMA }
        }
        "plamo2" => Decoder { post_norms: PostNorms::Both, ..LLAMA },
        "rwkv6" | "rwkv7" => Decoder { norm: Norm::Layer, ..LLAMA },
        "rwkv6qwen2" | "arwkv7" => LLAMA,
        "kimi-linear" => Decoder { attention: UNROTATED, routing: routing(model), ..LLAMA },
        "minimax-01" => Decoder { routing: routing(model), residual: Residual::ScaledNormed, ..LLAMA },
        _ => return None,
    })
}

/// Attention with gates of its own in every fourth layer, gated delta nets in the others.
fn qwen(attention: Style, routing: Routing) -> Decoder {
    Decoder { attention, feed_forward_norm: Part::AttnPostNorm, routing, outputs: Outputs::AfterOutputNorm, ..LLAMA }
}
