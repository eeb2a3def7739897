//! The classes that can be converted, as data: what each writes besides the keys of all, and names of its own.
//!
//! Mirrors `set_gguf_parameters` of the model classes in `conversion/*.py` and the names of `gguf-py/gguf/tensor_mapping.py`
//! (llama.cpp of 28 September 2026, the source in the npm package node-llama-cpp 3.22.1).

/// Where the value of a key comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    /// The first of these that is there, as a count or a list of counts; no key where none is.
    Count(&'static [&'static str]),
    /// As before, but the model needs it.
    Need(&'static [&'static str]),
    /// The same count for every model of the family.
    Fixed(u64),
    /// As `Count`, and this where none is there.
    Or(&'static [&'static str], u64),
    /// The first of these that is there, as a number.
    Real(&'static [&'static str]),
    /// `true` where this is.
    True(&'static str),
    /// The width of a head.
    HeadWidth,
    /// The sum of counts that are all needed.
    Sum(&'static [&'static str]),
    /// The rotary part of the width of a head.
    RotaryPart,
    /// A count of the rotary settings.
    Rope(&'static str),
    /// Which layers slide a window, out of `layer_types`; else all but every fourth where the count is four.
    Windows { every: u64 },
    /// The window, except where every layer is said to see all.
    WindowUnlessFull,
}

/// A key without its architecture, and where its value comes from.
pub(super) type Key = (&'static str, From);

/// One family of classes that become one architecture.
pub(super) struct Family {
    pub(super) architecture: &'static str,
    pub(super) classes: &'static [&'static str],
    /// Keys besides [`COMMON`], over them.
    pub(super) keys: &'static [Key],
    /// Names besides [`NAMES`], before them.
    pub(super) names: &'static [(&'static str, &'static str)],
    /// True where `head_dim` of `config.json` counts for nothing.
    pub(super) no_head_dim: bool,
    /// True where the output head is never a tensor of its own.
    pub(super) no_output: bool,
}

pub(super) const NONE: Family = Family { architecture: "", classes: &[], keys: &[], names: &[], no_head_dim: false, no_output: false };

/// Keys that most families have (`TextModel.set_gguf_parameters` of `conversion/base.py`).
pub(super) const COMMON: &[Key] = &[
    ("context_length", From::Count(&["max_position_embeddings", "n_ctx", "n_positions", "max_length", "max_sequence_length"])),
    ("embedding_length", From::Count(&["hidden_size", "n_embd", "dim"])),
    ("feed_forward_length", From::Count(&["intermediate_size", "n_inner", "hidden_dim"])),
    ("attention.head_count", From::Count(&["num_attention_heads", "n_head", "n_heads"])),
    ("attention.head_count_kv", From::Count(&["num_key_value_heads", "n_kv_heads"])),
    ("attention.layer_norm_rms_epsilon", From::Real(&["rms_norm_eps", "norm_eps"])),
    ("attention.layer_norm_epsilon", From::Real(&["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"])),
    (
        "rope.freq_base_swa",
        From::Real(&["local_rope_theta", "rope_local_theta", "rope_theta_local", "swa_rope_theta", "rope_local_base_freq"]),
    ),
    ("expert_count", From::Count(&["num_local_experts", "num_experts", "n_routed_experts"])),
    ("expert_used_count", From::Count(&["num_experts_per_tok", "num_experts_per_token", "top_k_experts"])),
    ("expert_group_count", From::Count(&["n_group"])),
    ("expert_group_used_count", From::Count(&["topk_group"])),
];

pub(super) const VOCAB: Key = ("vocab_size", From::Need(&["vocab_size"]));
pub(super) const ROTARY: Key = ("rope.dimension_count", From::HeadWidth);

const GRANITE: &[Key] = &[
    VOCAB,
    ROTARY,
    ("attention.scale", From::Real(&["attention_multiplier"])),
    ("embedding_scale", From::Real(&["embedding_multiplier"])),
    ("residual_scale", From::Real(&["residual_multiplier"])),
    ("logit_scale", From::Real(&["logits_scaling"])),
    ("expert_shared_feed_forward_length", From::Count(&["shared_intermediate_size"])),
];

/// Norms after each block and not only before it.
const SANDWICH: &[(&str, &str)] = &[
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

pub(super) const FAMILIES: &[Family] = &[
    Family {
        architecture: "llama",
        classes: &["LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "IQuestCoderForCausalLM"],
        keys: &[VOCAB, ROTARY, ("attention.key_length", From::HeadWidth), ("attention.value_length", From::HeadWidth)],
        ..NONE
    },
    Family { architecture: "qwen2", classes: &["Qwen2ForCausalLM"], ..NONE },
    Family {
        architecture: "qwen2moe",
        classes: &["Qwen2MoeForCausalLM"],
        keys: &[
            ("expert_feed_forward_length", From::Count(&["moe_intermediate_size"])),
            ("expert_shared_feed_forward_length", From::Count(&["shared_expert_intermediate_size"])),
        ],
        ..NONE
    },
    Family { architecture: "qwen3", classes: &["Qwen3ForCausalLM"], ..NONE },
    Family {
        architecture: "qwen3moe",
        classes: &["Qwen3MoeForCausalLM"],
        keys: &[
            ("expert_feed_forward_length", From::Count(&["moe_intermediate_size"])),
            ("expert_shared_feed_forward_length", From::Count(&["shared_expert_intermediate_size"])),
        ],
        ..NONE
    },
    Family { architecture: "gemma", classes: &["GemmaForCausalLM"], no_output: true, ..NONE },
    Family {
        architecture: "gemma2",
        classes: &["Gemma2ForCausalLM"],
        keys: &[
            ("attn_logit_softcapping", From::Real(&["attn_logit_softcapping"])),
            ("final_logit_softcapping", From::Real(&["final_logit_softcapping"])),
            ("attention.sliding_window", From::Need(&["sliding_window"])),
        ],
        names: SANDWICH,
        no_output: true,
        ..NONE
    },
    Family {
        architecture: "gemma3",
        classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
        keys: &[
            ("context_length", From::Or(&["max_position_embeddings"], 131_072)),
            ("attention.head_count", From::Or(&["num_attention_heads"], 8)),
            ("attention.head_count_kv", From::Or(&["num_key_value_heads"], 4)),
            ("attention.key_length", From::Or(&["head_dim"], 256)),
            ("attention.value_length", From::Or(&["head_dim"], 256)),
            ("final_logit_softcapping", From::Real(&["final_logit_softcapping"])),
            ("attention.sliding_window", From::WindowUnlessFull),
        ],
        names: SANDWICH,
        ..NONE
    },
    Family {
        architecture: "phi3",
        classes: &["Phi3ForCausalLM"],
        keys: &[
            ("attention.sliding_window", From::Or(&["sliding_window"], 0)),
            ("rope.dimension_count", From::RotaryPart),
            ("rope.scaling.original_context_length", From::Rope("original_max_position_embeddings")),
        ],
        no_head_dim: true,
        ..NONE
    },
    Family {
        architecture: "deepseek2",
        classes: &["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"],
        keys: &[
            VOCAB,
            // Latent attention is one key/value head to the engine.
            ("attention.head_count_kv", From::Fixed(1)),
            ("leading_dense_block_count", From::Or(&["first_k_dense_replace"], 0)),
            ("attention.q_lora_rank", From::Count(&["q_lora_rank"])),
            ("attention.kv_lora_rank", From::Need(&["kv_lora_rank"])),
            ("attention.key_length", From::Sum(&["kv_lora_rank", "qk_rope_head_dim"])),
            ("attention.value_length", From::Need(&["kv_lora_rank"])),
            ("attention.key_length_mla", From::Sum(&["qk_nope_head_dim", "qk_rope_head_dim"])),
            ("attention.value_length_mla", From::Need(&["v_head_dim"])),
            ("rope.dimension_count", From::Need(&["qk_rope_head_dim"])),
            ("expert_feed_forward_length", From::Need(&["moe_intermediate_size", "intermediate_size"])),
            ("expert_shared_count", From::Or(&["n_shared_experts"], 0)),
            ("expert_weights_scale", From::Real(&["routed_scaling_factor"])),
            ("expert_weights_norm", From::True("norm_topk_prob")),
        ],
        ..NONE
    },
    Family {
        architecture: "gpt-oss",
        classes: &["GptOssForCausalLM"],
        keys: &[
            ("attention.sliding_window", From::Need(&["sliding_window"])),
            ("expert_feed_forward_length", From::Need(&["intermediate_size"])),
        ],
        names: &[("post_attention_layernorm", "post_attention_norm")],
        ..NONE
    },
    Family { architecture: "granite", classes: &["GraniteForCausalLM"], keys: GRANITE, no_head_dim: true, ..NONE },
    Family {
        architecture: "granitemoe",
        classes: &["GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"],
        keys: GRANITE,
        no_head_dim: true,
        ..NONE
    },
    Family {
        architecture: "olmo2",
        classes: &["Olmo2ForCausalLM", "Olmo3ForCausalLM"],
        keys: &[
            ("attention.sliding_window", From::Count(&["sliding_window"])),
            ("attention.sliding_window_pattern", From::Windows { every: 4 }),
        ],
        names: SANDWICH,
        ..NONE
    },
    Family { architecture: "olmoe", classes: &["OlmoeForCausalLM"], ..NONE },
    Family {
        architecture: "starcoder2",
        classes: &["Starcoder2ForCausalLM"],
        names: &[("mlp.c_fc", "ffn_up"), ("mlp.c_proj", "ffn_down")],
        ..NONE
    },
    Family {
        architecture: "mamba",
        classes: &["MambaForCausalLM", "MambaLMHeadModel", "FalconMambaForCausalLM"],
        keys: &[
            // What conversion writes whatever the model: 2^20 for those who use the default.
            ("context_length", From::Fixed(1 << 20)),
            ("embedding_length", From::Need(&["hidden_size", "d_model"])),
            ("feed_forward_length", From::Fixed(0)),
            ("attention.head_count", From::Fixed(0)),
            ("ssm.conv_kernel", From::Or(&["conv_kernel", "d_conv"], 4)),
            ("ssm.state_size", From::Or(&["state_size", "d_state"], 16)),
            ("attention.layer_norm_rms_epsilon", From::Real(&["layer_norm_epsilon", "rms_norm_eps"])),
        ],
        names: &[("norm", "attn_norm")],
        ..NONE
    },
];

/// Tensors outside any layer, without `.weight` and `.bias`.
pub(super) const OUTSIDE: &[(&str, &str)] = &[
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
    ("backbone.embeddings", "token_embd"),
    ("backbone.embedding", "token_embd"),
    ("backbone.norm_f", "output_norm"),
];

/// Tensors of a layer, without `.weight` and `.bias`.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.sinks", "attn_sinks"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("self_attn.k_b_proj", "attn_k_b"),
    ("self_attn.v_b_proj", "attn_v_b"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.router", "ffn_gate_inp"),
    ("mlp.gate.e_score_correction", "exp_probs_b"),
    ("mlp.experts.gate_proj", "ffn_gate_exps"),
    ("mlp.experts.up_proj", "ffn_up_exps"),
    ("mlp.experts.down_proj", "ffn_down_exps"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("block_sparse_moe.experts.w1", "ffn_gate_exps"),
    ("block_sparse_moe.experts.w2", "ffn_down_exps"),
    ("block_sparse_moe.experts.w3", "ffn_up_exps"),
    ("block_sparse_moe.router.layer", "ffn_gate_inp"),
    ("block_sparse_moe.gate_linear", "ffn_gate_exps"),
    ("block_sparse_moe.up_linear", "ffn_up_exps"),
    ("block_sparse_moe.output_linear", "ffn_down_exps"),
    ("shared_mlp.gate_linear", "ffn_gate_shexp"),
    ("shared_mlp.up_linear", "ffn_up_shexp"),
    ("shared_mlp.output_linear", "ffn_down_shexp"),
    ("mixer.in_proj", "ssm_in"),
    ("mixer.conv1d", "ssm_conv1d"),
    ("mixer.x_proj", "ssm_x"),
    ("mixer.dt_proj", "ssm_dt"),
    ("mixer.A_log", "ssm_a"),
    ("mixer.D", "ssm_d"),
    ("mixer.out_proj", "ssm_out"),
];

/// The family of a class.
pub(super) fn family(class: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.classes.contains(&class))
}
