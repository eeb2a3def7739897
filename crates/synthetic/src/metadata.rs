//! The keys by which llama.cpp reads each architecture's figures back (`load_arch_hparams` of `src/models/*.cpp`).

use crate::shape::{Architecture, Shape};
use crate::writer::Value;
use mixture::FileType;

/// Version of the block layouts, `GGML_QNT_VERSION` of `ggml/include/ggml.h`.
const QUANTIZATION_VERSION: u32 = 2;

struct Keys<'a> {
    shape: &'a Shape,
    keys: Vec<(String, Value)>,
}

impl Keys<'_> {
    fn add(&mut self, key: &str, value: impl Into<Value>) {
        self.keys.push((format!("{}.{key}", self.shape.architecture), value.into()));
    }
    /// A count that [`Shape::check`] has found to fit.
    fn count(&mut self, key: &str, value: u64) {
        self.add(key, u32::try_from(value).unwrap_or(u32::MAX));
    }
}

/// Metadata without the tokenizer.
pub(crate) fn metadata(shape: &Shape, file_type: FileType, parameters: u64) -> Vec<(String, Value)> {
    let keys = general(&shape.name, shape.architecture.name(), file_type, parameters);
    let mut keys = Keys { shape, keys };
    keys.count("block_count", shape.n_layer);
    keys.count("context_length", shape.n_ctx);
    keys.count("embedding_length", shape.n_embd);
    keys.count("vocab_size", shape.n_vocab);
    if shape.architecture == Architecture::Mamba {
        mamba(&mut keys);
    } else {
        transformer(&mut keys);
    }
    keys.keys
}

/// What every file states.
pub(crate) fn general(name: &str, architecture: &str, file_type: FileType, parameters: u64) -> Vec<(String, Value)> {
    let keys = [
        ("general.architecture", Value::from(architecture)),
        ("general.type", "model".into()),
        ("general.name", format!("synthetic {}", engine_safe(name)).into()),
        ("general.size_label", size_label(parameters).into()),
        ("general.quantization_version", QUANTIZATION_VERSION.into()),
        ("general.file_type", file_type.id().into()),
    ];
    keys.map(|(key, value)| (key.to_owned(), value)).into()
}

/// The name without what would make llama.cpp expect the tokens of the real Phi-3 (`src/llama-vocab.cpp:3152`).
fn engine_safe(name: &str) -> String {
    name.replace("phi-3", "phi 3").replace("phi3", "phi 3")
}

fn size_label(parameters: u64) -> String {
    match parameters {
        n if n >= 1_000_000_000 => format!("{:.1}B", n as f64 / 1e9),
        n => format!("{:.0}M", n as f64 / 1e6),
    }
}

fn mamba(keys: &mut Keys<'_>) {
    let Shape { d_conv, d_inner, d_state, dt_rank, .. } = *keys.shape;
    keys.count("feed_forward_length", 0);
    keys.count("attention.head_count", 0);
    keys.count("ssm.conv_kernel", d_conv);
    keys.count("ssm.inner_size", d_inner);
    keys.count("ssm.state_size", d_state);
    keys.count("ssm.time_step_rank", dt_rank);
    keys.add("attention.layer_norm_rms_epsilon", 1e-5_f32);
}

fn transformer(keys: &mut Keys<'_>) {
    use Architecture::{DeepSeek2, Gemma3, GptOss, Qwen2, Qwen3, Qwen3Moe};
    let shape = keys.shape;
    keys.count("feed_forward_length", shape.n_ff);
    keys.count("attention.head_count", shape.n_head);
    keys.count("attention.head_count_kv", shape.kv_heads());
    keys.add("rope.freq_base", shape.rope_base);
    let small = matches!(shape.architecture, Qwen2 | Qwen3 | Qwen3Moe | Gemma3);
    keys.add("attention.layer_norm_rms_epsilon", if small { 1e-6_f32 } else { 1e-5 });
    if shape.architecture == DeepSeek2 {
        latent(keys);
    } else {
        if shape.head_dim > 0 {
            keys.count("attention.key_length", shape.head_dim);
            keys.count("attention.value_length", shape.head_dim);
        }
        if !matches!(shape.architecture, Qwen3 | Qwen3Moe | Gemma3 | GptOss) {
            keys.count("rope.dimension_count", shape.head_width());
        }
    }
    if shape.n_expert > 0 {
        keys.count("expert_count", shape.n_expert);
        keys.count("expert_used_count", shape.n_expert_used);
        if shape.n_ff_exp > 0 {
            keys.count("expert_feed_forward_length", shape.n_ff_exp);
        }
    }
    if shape.window > 0 {
        keys.count("attention.sliding_window", shape.window);
    }
    if shape.rope_linear > 0.0 {
        keys.add("rope.scaling.type", "linear");
        keys.add("rope.scaling.factor", shape.rope_linear);
    }
    if shape.architecture == GptOss {
        yarn(keys, 32.0);
    }
}

fn latent(keys: &mut Keys<'_>) {
    let Shape { kv_lora, q_lora, rope_dim, nope_dim, v_dim, n_dense_lead, n_expert_shared, expert_bias, .. } = *keys.shape;
    keys.count("attention.key_length", kv_lora + rope_dim);
    keys.count("attention.value_length", kv_lora);
    keys.count("attention.key_length_mla", nope_dim + rope_dim);
    keys.count("attention.value_length_mla", v_dim);
    keys.count("attention.kv_lora_rank", kv_lora);
    if q_lora > 0 {
        keys.count("attention.q_lora_rank", q_lora);
    }
    keys.count("rope.dimension_count", rope_dim);
    keys.count("leading_dense_block_count", n_dense_lead);
    keys.count("expert_shared_count", n_expert_shared);
    keys.add("expert_weights_scale", 1.0_f32);
    yarn(keys, 40.0);
    keys.add("rope.scaling.yarn_log_multiplier", 0.0707_f32);
    if expert_bias {
        // The router's sigmoid, `LLAMA_EXPERT_GATING_FUNC_TYPE_SIGMOID`.
        keys.count("expert_gating_func", 2);
    }
}

fn yarn(keys: &mut Keys<'_>, factor: f32) {
    keys.add("rope.scaling.type", "yarn");
    keys.add("rope.scaling.factor", factor);
    keys.count("rope.scaling.original_context_length", 4096);
}
