//! Architecture families, each a short declaration over [`super::decoder`].
//!
//! To add one: compare its file under `src/models/` of llama.cpp with `llama.cpp` there, say what differs in a
//! [`Decoder`], and record an oracle case. Tensors that a file may or may not have need no declaration.

use super::blocks::attention::Style;
use super::blocks::embedding::Scaling;
use super::blocks::experts::Routing;
use super::decoder::{Decoder, Logits};
use super::weights::Part;
use spec::Model;
use spec::model::MetaValue;

/// Llama, which most families resemble.
pub(super) const LLAMA: Decoder = Decoder {
    embedding: Scaling::None,
    attention: Style { query_scale: false, soft_cap: false },
    feed_forward_norm: Part::FfnNorm,
    routing: Routing { softmax_of_chosen: false, normalized: true, scaled: false, groups: None },
    residual_scale: false,
    residual_first: false,
    late_outputs: false,
    tied_head: false,
    logits: Logits::Plain,
};

/// The graph of this model's family; `None` where it is not declared.
pub(super) fn decoder(model: &Model) -> Option<Decoder> {
    let weight_scale = number(model, "expert_weights_scale").unwrap_or(0.0);
    let routing = Routing { scaled: weight_scale != 0.0 && weight_scale != 1.0, ..LLAMA.routing };
    Some(match model.architecture.as_str() {
        "llama" | "qwen2" | "qwen3" | "qwen3moe" | "mamba" => Decoder { routing, ..LLAMA },
        "phi3" => Decoder { attention: Style { query_scale: true, ..LLAMA.attention }, residual_first: true, routing, ..LLAMA },
        "bitnet" => Decoder { tied_head: true, ..LLAMA },
        "gemma" => gemma(Scaling::Factor, false, Logits::Plain),
        "gemma2" => gemma(Scaling::Factor, true, Logits::SoftCapped),
        "gemma3" => {
            let capped = number(model, "final_logit_softcapping").is_some_and(|cap| cap != 0.0);
            gemma(Scaling::PerToken, false, if capped { Logits::SoftCapped } else { Logits::Plain })
        }
        "granite" => Decoder {
            embedding: if nonzero(model, "embedding_scale") { Scaling::Factor } else { Scaling::None },
            residual_scale: nonzero(model, "residual_scale"),
            logits: Logits::Scaled,
            routing,
            ..LLAMA
        },
        "gpt-oss" => Decoder {
            feed_forward_norm: Part::AttnPostNorm,
            routing: Routing { softmax_of_chosen: true, normalized: false, ..routing },
            late_outputs: true,
            ..LLAMA
        },
        "deepseek2" => deepseek2(model, routing),
        _ => return None,
    })
}

fn gemma(embedding: Scaling, soft_cap: bool, logits: Logits) -> Decoder {
    Decoder { embedding, attention: Style { query_scale: true, soft_cap }, logits, ..LLAMA }
}

fn deepseek2(model: &Model, routing: Routing) -> Decoder {
    let groups = model.arch_uint("expert_group_count").filter(|&groups| groups > 1);
    let used = model.arch_uint("expert_group_used_count").unwrap_or(1);
    let normalized = matches!(metadata(model, "expert_weights_norm"), Some(MetaValue::Bool(true)));
    Decoder { routing: Routing { normalized, groups: groups.map(|groups| (groups, used)), ..routing }, ..LLAMA }
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
