//! Families with latent attention.

use super::super::blocks::attention::Style;
use super::super::blocks::embedding::Scaling;
use super::super::blocks::experts::Routing;
use super::super::decoder::{Copies, Decoder, Logits};
use super::{LLAMA, flag, nonzero, routing};
use spec::Model;

pub(super) fn decoder(model: &Model) -> Option<Decoder> {
    Some(match model.architecture.as_str() {
        "deepseek2" | "mistral4" | "deepseek32" | "glm-dsa" => Decoder {
            attention: Style { temperature: nonzero(model, "attention.temperature_scale"), ..LLAMA.attention },
            routing: Routing { normalized: flag(model, "expert_weights_norm") == Some(true), ..routing(model) },
            ..LLAMA
        },
        "deepseek4" => Decoder {
            routing: Routing { normalized: flag(model, "expert_weights_norm") == Some(true), ..routing(model) },
            copies: Copies::HyperConnected,
            ..LLAMA
        },
        "minicpm3" => Decoder { embedding: Scaling::Factor, residual_scale: true, logits: Logits::ScaledBefore, ..LLAMA },
        _ => return None,
    })
}
