//! What a tensor does, as far as the rules care, and whether it may be quantised at all.
//!
//! Mirrors `tensor_get_category` and `tensor_allows_quantization` of `src/llama-quant.cpp` (llama.cpp v0.6.0-dev, crate
//! llama-cpp-sys-2 0.1.161).

/// What a tensor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Category {
    Output,
    TokenEmbedding,
    /// V, fused QKV and the joint KV projection of latent attention: the tensors that suffer most.
    AttentionV,
    AttentionK,
    AttentionQ,
    AttentionOutput,
    FeedForwardUp,
    FeedForwardGate,
    FeedForwardDown,
    Other,
}

impl Category {
    pub(crate) fn of(name: &str) -> Self {
        // Upstream asks in this order and takes the first.
        const PARTS: [(&str, Category); 9] = [
            ("attn_qkv.weight", Category::AttentionV),
            ("attn_kv_b.weight", Category::AttentionV),
            ("attn_v.weight", Category::AttentionV),
            ("attn_k.weight", Category::AttentionK),
            ("attn_q.weight", Category::AttentionQ),
            ("attn_output.weight", Category::AttentionOutput),
            ("ffn_up", Category::FeedForwardUp),
            ("ffn_gate", Category::FeedForwardGate),
            ("ffn_down", Category::FeedForwardDown),
        ];
        match name {
            "output.weight" => Self::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Self::TokenEmbedding,
            _ => PARTS.iter().find(|(part, _)| name.contains(part)).map_or(Self::Other, |(_, category)| *category),
        }
    }

    /// A block of the feed-forward part, dense or of experts.
    pub(crate) fn is_feed_forward(self) -> bool {
        matches!(self, Self::FeedForwardUp | Self::FeedForwardGate | Self::FeedForwardDown)
    }
}

/// Parts of names that keep a tensor as it is, whatever the architecture.
const KEPT: &[&str] = &[
    "_norm.weight",
    // Routers and routing tables.
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    // Gemma 3n.
    "altup",
    "laurel",
    "per_layer_model_proj",
    // Small convolutions.
    "ssm_conv1d",
    "shortconv.conv.weight",
    // Small projections of an indexer.
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    // RWKV's small matrices.
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    // Relative positions of T5.
    "attn_rel_b.weight",
    // Projectors.
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
];

/// Parts of names that keep a tensor of `glm5-next` as it is.
const KEPT_GLM5_NEXT: &[&str] = &[
    "hc_",
    "indexer.attn_q_b",
    "indexer.attn_k",
    "indexer.proj",
    "indexer_compressor_gate",
    "indexer_compressor_ape",
    "ssm_f_a.weight",
    "ssm_f_b.weight",
    "ssm_g_a.weight",
    "ssm_g_b.weight",
    "ssm_beta.weight",
    "attn_kv_a_mqa.weight",
    "attn_k_b.weight",
    "attn_v_b.weight",
];

/// Whether `llama-quantize` changes the type of such a tensor; others keep the type that they have.
///
/// ```
/// assert!(mixture::quantizable("llama", "blk.0.ffn_up.weight", [64, 64, 1, 1]));
/// assert!(!mixture::quantizable("llama", "blk.0.ffn_norm.weight", [64, 1, 1, 1]));
/// ```
pub fn quantizable(architecture: &str, name: &str, shape: [u64; 4]) -> bool {
    let [_, rest @ ..] = shape;
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    rest.iter().any(|&extent| extent > 1)
        && name.ends_with("weight")
        && name != "position_embd.weight"
        && name != "token_types.weight"
        && !has(KEPT)
        && !(architecture == "glm5-next" && has(KEPT_GLM5_NEXT))
}
