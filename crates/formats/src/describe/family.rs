//! Which rules each architecture follows.
//!
//! Names: `LLM_ARCH_NAMES` of `src/llama-arch.cpp`; rules: `load_arch_hparams` of `src/models/*.cpp` and
//! `llama_model::create_memory` of `src/llama-model.cpp` (llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161).

use super::window::{Pattern, Rule};

/// How the layers of a family mix tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Family {
    /// Attention in every layer, some perhaps through a window.
    Transformer(Rule),
    /// Attention with its window, where the last layers read the cache of earlier ones (Gemma 3n and 4).
    SharedCache(Rule),
    /// Multi-head latent attention.
    Latent,
    /// The same over tokens that an indexer has chosen.
    IndexedLatent,
    /// A window, and compressed rows beyond it.
    Compressed,
    /// A recurrence in every layer.
    Recurrent,
    /// Attention and recurrence in alternation.
    Hybrid(Layout),
    /// No cache: encoders and diffusion models.
    Encoder(Rule),
}

/// Which layers of a hybrid are recurrent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Layout {
    /// Those without key/value heads.
    WithoutKvHeads(Rule),
    /// Those without key/value heads and without feed-forward block; with the latter, neither.
    WithoutKvHeadsOrFeedForward,
    /// All but every n-th, unless the key `attention.recurrent_layers` says otherwise.
    AllButEvery(u32),
    /// All, beside attention.
    Both,
    /// Those without key/value heads; the others have latent attention.
    LatentWithKvHeads,
}

/// The rules of an architecture; `None` where it is not known.
pub(super) fn family(architecture: &str) -> Option<Family> {
    use Family::{Compressed, Encoder, Hybrid, IndexedLatent, Latent, Recurrent, SharedCache, Transformer};
    let period = |layers: u32| Pattern::Period { layers, full_first: false };
    let full_first = |layers: u32| Pattern::Period { layers, full_first: true };
    Some(match architecture {
        "llama" | "deci" | "baichuan" | "falcon" | "grok" | "gpt2" | "gptneox" | "mpt" | "starcoder" | "refact" | "bloom" | "stablelm"
        | "qwen" | "qwen2" | "qwen2moe" | "qwen2vl" | "qwen3" | "qwen3moe" | "qwen3vl" | "qwen3vlmoe" | "phi2" | "phi3" | "phimoe"
        | "plamo" | "codeshell" | "orion" | "internlm2" | "minicpm" | "minicpm3" | "gemma" | "starcoder2" | "xverse" | "command-r"
        | "dbrx" | "olmo" | "olmoe" | "openelm" | "arctic" | "deepseek" | "deepseek2-ocr" | "chatglm" | "glm4" | "glm4moe" | "bitnet"
        | "bitnet-25" | "bitnet-b1.58" | "jais" | "jais2" | "nemotron" | "exaone" | "granite" | "granitemoe" | "chameleon" | "plm"
        | "bailingmoe" | "bailingmoe2" | "dots1" | "arcee" | "ernie4_5" | "ernie4_5-moe" | "hunyuan-moe" | "hunyuan-dense"
        | "hunyuan_vl" | "hy_v3" | "paddleocr" | "smollm3" | "seed_oss" | "grovemoe" | "apertus" | "minimax-m2" | "cogvlm"
        | "pangu-embedded" | "mistral3" | "maincoder" | "llama-embed" => Transformer(Rule::None),
        "gemma3" => Transformer(Rule::Optional(period(6))),
        "gemma2" => Transformer(Rule::Default(4096, period(2))),
        "gpt-oss" => Transformer(Rule::Required(period(2))),
        "cohere2" | "exaone-moe" | "muse-glimmer" => Transformer(Rule::Required(period(4))),
        "cohere2moe" => Transformer(Rule::Required(full_first(4))),
        "olmo2" | "afmoe" | "mellum" => Transformer(Rule::Optional(period(4))),
        "laguna" => Transformer(Rule::Optional(full_first(4))),
        "plamo3" => Transformer(Rule::Optional(period(8))),
        "smallthinker" => Transformer(Rule::Fixed(4096, full_first(4))),
        "llama4" => Transformer(Rule::UnlessZero(8192, period(4))),
        "exaone4" => Transformer(Rule::With64Layers(4096, period(4))),
        "granite_swa" | "maple" | "mimo2" | "spark2_5" | "step35" => Transformer(Rule::Required(Pattern::Listed)),
        "gemma3n" => SharedCache(Rule::Required(period(5))),
        "gemma4" => SharedCache(Rule::Required(Pattern::Listed)),
        "deepseek2" | "mistral4" => Latent,
        "deepseek32" | "glm-dsa" => IndexedLatent,
        "deepseek4" => Compressed,
        "mamba" | "mamba2" | "rwkv6" | "rwkv6qwen2" | "rwkv7" | "arwkv7" => Recurrent,
        "jamba" | "granitehybrid" | "plamo2" | "lfm2moe" => Hybrid(Layout::WithoutKvHeads(Rule::None)),
        "lfm2" => Hybrid(Layout::WithoutKvHeads(Rule::Optional(Pattern::All))),
        "nemotron_h" | "nemotron_h_moe" => Hybrid(Layout::WithoutKvHeadsOrFeedForward),
        "qwen3next" | "qwen35" | "qwen35moe" => Hybrid(Layout::AllButEvery(4)),
        "minimax-01" => Hybrid(Layout::AllButEvery(8)),
        "kimi-linear" => Hybrid(Layout::LatentWithKvHeads),
        "falcon-h1" => Hybrid(Layout::Both),
        "bert" | "jina-bert-v2" | "jina-bert-v3" | "nomic-bert" | "nomic-bert-moe" | "neo-bert" | "eurobert" | "dream" | "llada"
        | "llada-moe" | "rnd1" => Encoder(Rule::None),
        "gemma-embedding" => Encoder(Rule::Required(period(6))),
        "modern-bert" => Encoder(Rule::Optional(full_first(3))),
        _ => return None,
    })
}
