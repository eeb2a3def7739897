//! Families whose layers have embeddings of their own: Gemma 3n and 4.

use super::super::blocks::attention::Style;
use super::super::blocks::embedding::Scaling;
use super::super::blocks::experts::{Dense, Routing};
use super::super::decoder::{Copies, Decoder, Logits, Outputs};
use super::{LLAMA, nonzero};
use spec::Model;

pub(super) fn decoder(model: &Model) -> Option<Decoder> {
    let gemma = Decoder {
        embedding: Scaling::PerToken,
        attention: Style { value_norm: true, factors_in_windows: false, ..LLAMA.attention },
        logits: Logits::SoftCapped,
        ..LLAMA
    };
    Some(match model.architecture.as_str() {
        "gemma3n" => Decoder { copies: Copies::Alternating, ..gemma },
        "gemma4" => Decoder {
            routing: Routing { dense: Dense::OwnNorms, ..LLAMA.routing },
            outputs: Outputs::AfterOutputNorm,
            logits: if nonzero(model, "final_logit_softcapping") { Logits::SoftCapped } else { Logits::Plain },
            ..gemma
        },
        _ => return None,
    })
}
