//! Families of attention and dense feed-forward blocks.

use super::super::blocks::attention::{Heads, Rotation, Style, has_windows};
use super::super::blocks::embedding::Scaling;
use super::super::blocks::feed_forward::Activation;
use super::super::builder::Norm;
use super::super::decoder::{Decoder, Logits, Outputs, PostNorms, Residual, Term};
use super::super::weights::Part;
use super::{LLAMA, nonzero, number, positions_by_sections, routing};
use spec::Model;
use spec::model::{FeedForward, Mixer};

/// With norms that subtract the mean, as GPT had them.
const GPT: Decoder = Decoder { norm: Norm::Layer, ..LLAMA };
/// No rotation of positions: they are learned, or a bias of the attention scores that takes no memory (ALiBi).
const UNROTATED: Style = Style { rotation: Rotation::Never, ..LLAMA.attention };

pub(super) fn decoder(model: &Model) -> Option<Decoder> {
    Some(match model.architecture.as_str() {
        "llama" | "qwen2" | "qwen3" | "internlm2" | "exaone" | "xverse" | "chatglm" | "qwen" | "ernie4_5" | "apertus"
        | "pangu-embedded" | "plamo3" | "spark2_5" => Decoder { routing: routing(model), ..LLAMA },
        // The engine drops attention where no feed-forward block follows; no published model has such layers.
        "deci" if model.layers.iter().all(|layer| layer.mixer == Mixer::None || layer.feed_forward != FeedForward::None) => LLAMA,
        "baichuan" if model.n_layer() == 32 => LLAMA,
        "baichuan" | "refact" => Decoder { attention: UNROTATED, ..LLAMA },
        "starcoder2" | "codeshell" | "orion" | "stablelm" => GPT,
        "gpt2" | "starcoder" | "bloom" | "jais" => Decoder { attention: UNROTATED, ..GPT },
        "mpt" => Decoder { attention: Style { clamp: nonzero(model, "attention.clamp_kqv"), ..UNROTATED }, ..GPT },
        "arcee" => Decoder { activation: Activation::Twice, ..LLAMA },
        "nemotron" | "jais2" => Decoder { activation: Activation::Twice, ..GPT },
        "phi3" => Decoder {
            attention: Style { query_scale: true, ..LLAMA.attention },
            residual: Residual::Sequential { stream_first: [false, true] },
            routing: routing(model),
            ..LLAMA
        },
        "openelm" => Decoder {
            attention: Style { heads: Heads::Whole, ..LLAMA.attention },
            residual: Residual::Sequential { stream_first: [true, false] },
            ..LLAMA
        },
        "seed_oss" => Decoder { feed_forward_norm: Part::AttnPostNorm, ..LLAMA },
        "bitnet" | "bitnet-25" | "bitnet-b1.58" => Decoder { tied_head: true, ..LLAMA },
        "smollm3" => Decoder { attention: Style { rotation: Rotation::AllButEvery(4), ..LLAMA.attention }, ..LLAMA },
        "hunyuan-dense" | "hunyuan_vl" => {
            let attention = Style { late_head_norms: true, positions_per_token: positions_by_sections(model), ..LLAMA.attention };
            Decoder { attention, ..LLAMA }
        }
        "qwen2vl" | "paddleocr" => Decoder { attention: Style { positions_per_token: 4, ..LLAMA.attention }, ..LLAMA },
        "qwen3vl" => Decoder {
            attention: Style { positions_per_token: 4, ..LLAMA.attention },
            deepstack: model.arch_uint("n_deepstack_layers").unwrap_or(0),
            ..LLAMA
        },
        "mistral3" => {
            let temperature = nonzero(model, "attention.temperature_scale");
            Decoder { attention: Style { temperature, ..LLAMA.attention }, routing: routing(model), ..LLAMA }
        }
        "glm4" => {
            let attention = Style { positions_per_token: positions_by_sections(model), ..LLAMA.attention };
            Decoder { attention, post_norms: PostNorms::Both, ..LLAMA }
        }
        "olmo" => {
            let attention = Style { clamp: nonzero(model, "attention.clamp_kqv"), ..LLAMA.attention };
            Decoder { norm: Norm::Unweighted, attention, ..LLAMA }
        }
        "maincoder" => Decoder { attention: Style { late_head_norms: true, ..LLAMA.attention }, ..LLAMA },
        "cogvlm" => Decoder { outputs: Outputs::All, ..LLAMA },
        "chameleon" if super::flag(model, "swin_norm") != Some(true) => {
            let attention = Style { mean_head_norms: true, ..LLAMA.attention };
            Decoder { attention, logits: Logits::WithoutImages, ..LLAMA }
        }
        "olmo2" => Decoder { attention: Style { heads: Heads::AfterNorms, ..LLAMA.attention }, ..LLAMA },
        "exaone4" => {
            let rotation = if has_windows(model) { Rotation::Windowed } else { Rotation::EveryLayer };
            Decoder { attention: Style { rotation, ..LLAMA.attention }, ..LLAMA }
        }
        "gemma" | "gemma2" | "gemma3" => gemma(model),
        "granite" | "minicpm" => granite(model),
        // Pictures that come with further embeddings of some layers are another graph.
        "granite_swa" if !has_deepstack(model) => {
            Decoder { attention: Style { rotation: Rotation::Listed, ..LLAMA.attention }, ..granite(model) }
        }
        "muse-glimmer" => Decoder {
            embedding: Scaling::Normed,
            attention: Style { rotation: Rotation::Windowed, ..LLAMA.attention },
            outputs: Outputs::AfterPostNorm,
            post_norms: PostNorms::Neither,
            logits: if nonzero(model, "final_logit_softcapping") { Logits::ScaledAndSoftCapped } else { Logits::Scaled },
            ..LLAMA
        },
        "command-r" | "cohere2" => cohere(model),
        "phi2" => Decoder {
            attention: Style { query_scale: true, ..LLAMA.attention },
            residual: Residual::Parallel([Term::Attention, Term::FeedForward, Term::Stream]),
            ..GPT
        },
        "falcon" => Decoder { residual: Residual::Parallel([Term::FeedForward, Term::Attention, Term::Stream]), ..GPT },
        "plamo" => Decoder { residual: Residual::Parallel([Term::FeedForward, Term::Attention, Term::Stream]), ..LLAMA },
        "gptneox" if super::flag(model, "use_parallel_residual") == Some(true) => {
            Decoder { residual: Residual::Parallel([Term::FeedForward, Term::Stream, Term::Attention]), ..GPT }
        }
        "gptneox" => GPT,
        _ => return None,
    })
}

fn gemma(model: &Model) -> Decoder {
    let capped = nonzero(model, "final_logit_softcapping");
    let (embedding, soft_cap, capped) = match model.architecture.as_str() {
        "gemma" => (Scaling::Factor, false, false),
        "gemma2" => (Scaling::Factor, true, true),
        _ => (Scaling::PerToken, false, capped),
    };
    let logits = if capped { Logits::SoftCapped } else { Logits::Plain };
    Decoder { embedding, attention: Style { query_scale: true, soft_cap, ..LLAMA.attention }, logits, ..LLAMA }
}

/// Scaled embeddings, residuals and logits; MiniCPM scales where its file does not say.
fn granite(model: &Model) -> Decoder {
    let scaled = |key: &str| number(model, key).map_or(model.architecture == "minicpm", |factor| factor != 0.0);
    let unrotated = super::flag(model, "rope.scaling.finetuned") == Some(false) && model.architecture == "granite";
    Decoder {
        embedding: if scaled("embedding_scale") { Scaling::Factor } else { Scaling::None },
        attention: if unrotated { UNROTATED } else { LLAMA.attention },
        residual_scale: scaled("residual_scale"),
        logits: Logits::Scaled,
        routing: routing(model),
        ..LLAMA
    }
}

/// True where the file adds further embeddings to those of some layers (`deepstack_mapping`).
fn has_deepstack(model: &Model) -> bool {
    let mapping = model.arrays.get(&format!("{}.deepstack_mapping", model.architecture));
    mapping.is_some_and(|mapping| mapping.iter().any(|&index| index >= 0.0))
}

/// Both blocks read one norm; Command R7B rotates positions in its windowed layers only.
fn cohere(model: &Model) -> Decoder {
    let rotation = if model.architecture == "cohere2" { Rotation::Windowed } else { Rotation::EveryLayer };
    Decoder {
        attention: Style { rotation, ..LLAMA.attention },
        residual: Residual::Parallel([Term::FeedForward, Term::Stream, Term::Attention]),
        logits: if nonzero(model, "logit_scale") { Logits::Scaled } else { Logits::Plain },
        ..GPT
    }
}
