//! Encoders: attention over the batch without a cache, and embeddings in place of logits.

use super::super::blocks::attention::{Rotation, Style};
use super::super::blocks::embedding::Scaling;
use super::super::blocks::experts::Routing;
use super::super::blocks::feed_forward::Activation;
use super::super::builder::Norm;
use super::super::decoder::{Decoder, Residual};
use super::{LLAMA, routing};
use spec::Model;

/// Norms after the blocks, and learned positions or a bias of the scores.
const BERT: Decoder =
    Decoder { norm: Norm::Layer, attention: Style { rotation: Rotation::Never, ..LLAMA.attention }, residual: Residual::Normed, ..LLAMA };

/// Llama without a cache: all tokens of a text are guessed again and again.
const DIFFUSION: Decoder = Decoder { head_without_cache: true, ..LLAMA };

pub(super) fn decoder(model: &Model) -> Option<Decoder> {
    Some(match model.architecture.as_str() {
        "bert" | "jina-bert-v2" => BERT,
        "nomic-bert-moe" => {
            let routing = Routing { normalized: false, activation: Activation::Once, ..routing(model) };
            Decoder { attention: LLAMA.attention, routing, ..BERT }
        }
        "eurobert" | "neo-bert" => LLAMA,
        "dream" | "llada" => DIFFUSION,
        "llada-moe" => Decoder { routing: Routing { normalized: false, ..routing(model) }, ..DIFFUSION },
        "rnd1" => Decoder { routing: routing(model), ..DIFFUSION },
        "nomic-bert" | "jina-bert-v3" => Decoder { attention: LLAMA.attention, ..BERT },
        "modern-bert" if model.arch_uint("decision.block_count").unwrap_or(0) == 0 => Decoder { norm: Norm::Layer, ..LLAMA },
        "gemma-embedding" => Decoder { embedding: Scaling::PerToken, attention: Style { query_scale: true, ..LLAMA.attention }, ..LLAMA },
        _ => return None,
    })
}
