//! The tensors of each architecture, as llama.cpp loads them.
//!
//! Names and extents: `load_arch_tensors` of `src/models/*.cpp` (llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161).
//! Order: those outside any layer first, then layer by layer; `llama-quantize` sees them in that order too.

use crate::shape::{Architecture, Shape};

/// A tensor without its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) name: String,
    /// Extents, fastest first.
    pub(crate) shape: Vec<u64>,
}

struct List<'a> {
    shape: &'a Shape,
    tensors: Vec<Plain>,
    /// `blk.N.`, empty outside layers.
    prefix: String,
}

impl List<'_> {
    fn push(&mut self, name: &str, shape: &[u64]) {
        self.tensors.push(Plain { name: format!("{}{name}", self.prefix), shape: shape.to_vec() });
    }
}

/// Every tensor of the model. Figures that are zero give tensors without elements: [`Shape::check`] comes first.
pub(crate) fn tensors(shape: &Shape) -> Vec<Plain> {
    let mut list = List { shape, tensors: Vec::new(), prefix: String::new() };
    list.push("token_embd.weight", &[shape.n_embd, shape.n_vocab]);
    list.push("output_norm.weight", &[shape.n_embd]);
    if !shape.tied {
        list.push("output.weight", &[shape.n_embd, shape.n_vocab]);
    }
    if shape.rope_freqs {
        list.push("rope_freqs.weight", &[shape.head_width() / 2]);
    }
    for layer in 0..shape.n_layer {
        list.prefix = format!("blk.{layer}.");
        list.push("attn_norm.weight", &[shape.n_embd]);
        if shape.architecture == Architecture::Mamba {
            mamba(&mut list);
        } else {
            attention(&mut list);
            feed_forward(&mut list, layer);
        }
    }
    list.tensors
}

/// `src/models/mamba.cpp`
fn mamba(list: &mut List<'_>) {
    let Shape { n_embd, d_inner, d_state, d_conv, dt_rank, .. } = *list.shape;
    list.push("ssm_in.weight", &[n_embd, 2 * d_inner]);
    list.push("ssm_conv1d.weight", &[d_conv, d_inner]);
    list.push("ssm_conv1d.bias", &[d_inner]);
    list.push("ssm_x.weight", &[d_inner, dt_rank + 2 * d_state]);
    list.push("ssm_dt.weight", &[dt_rank, d_inner]);
    list.push("ssm_dt.bias", &[d_inner]);
    list.push("ssm_a", &[d_state, d_inner]);
    list.push("ssm_d", &[d_inner]);
    list.push("ssm_out.weight", &[d_inner, n_embd]);
}

fn attention(list: &mut List<'_>) {
    use Architecture::{BitNet, DeepSeek2, Gemma3, GptOss, Phi3, Qwen2, Qwen3, Qwen3Moe};
    let architecture = list.shape.architecture;
    match architecture {
        DeepSeek2 => return latent_attention(list),
        Phi3 => {
            let Shape { n_embd, n_head, n_head_kv, .. } = *list.shape;
            let width = list.shape.head_width();
            list.push("attn_qkv.weight", &[n_embd, (n_head + 2 * n_head_kv) * width]);
        }
        _ => {
            let heads = [("q", list.shape.n_head), ("k", list.shape.n_head_kv), ("v", list.shape.n_head_kv)];
            for (letter, count) in heads {
                let rows = count * list.shape.head_width();
                list.push(&format!("attn_{letter}.weight"), &[list.shape.n_embd, rows]);
                if matches!(architecture, Qwen2 | GptOss) {
                    list.push(&format!("attn_{letter}.bias"), &[rows]);
                }
            }
        }
    }
    let Shape { n_embd, n_head, n_ff, .. } = *list.shape;
    let width = list.shape.head_width();
    list.push("attn_output.weight", &[n_head * width, n_embd]);
    match architecture {
        GptOss => {
            list.push("attn_output.bias", &[n_embd]);
            list.push("attn_sinks.weight", &[n_head]);
        }
        Qwen3 | Qwen3Moe | Gemma3 => {
            list.push("attn_q_norm.weight", &[width]);
            list.push("attn_k_norm.weight", &[width]);
        }
        BitNet => {
            list.push("attn_sub_norm.weight", &[n_embd]);
            list.push("ffn_sub_norm.weight", &[n_ff]);
        }
        _ => {}
    }
    if architecture == Gemma3 {
        list.push("post_attention_norm.weight", &[n_embd]);
        list.push("post_ffw_norm.weight", &[n_embd]);
    }
}

/// `src/models/deepseek2.cpp`, with the latent projection split into its K and V parts as conversion does since 2025.
fn latent_attention(list: &mut List<'_>) {
    let Shape { n_embd, n_head, kv_lora, q_lora, rope_dim, nope_dim, v_dim, .. } = *list.shape;
    let key = nope_dim + rope_dim;
    list.push("attn_kv_a_norm.weight", &[kv_lora]);
    if q_lora == 0 {
        list.push("attn_q.weight", &[n_embd, n_head * key]);
    } else {
        list.push("attn_q_a_norm.weight", &[q_lora]);
        list.push("attn_q_a.weight", &[n_embd, q_lora]);
        list.push("attn_q_b.weight", &[q_lora, n_head * key]);
    }
    list.push("attn_kv_a_mqa.weight", &[n_embd, kv_lora + rope_dim]);
    list.push("attn_k_b.weight", &[nope_dim, kv_lora, n_head]);
    list.push("attn_v_b.weight", &[kv_lora, v_dim, n_head]);
    list.push("attn_output.weight", &[n_head * v_dim, n_embd]);
}

fn feed_forward(list: &mut List<'_>, layer: u64) {
    let Shape { n_embd, n_ff, n_expert, .. } = *list.shape;
    let norm = if list.shape.architecture == Architecture::GptOss { "post_attention_norm.weight" } else { "ffn_norm.weight" };
    list.push(norm, &[n_embd]);
    if n_expert > 0 && layer >= list.shape.n_dense_lead {
        experts(list);
    } else if list.shape.architecture == Architecture::Phi3 {
        list.push("ffn_up.weight", &[n_embd, 2 * n_ff]);
        list.push("ffn_down.weight", &[n_ff, n_embd]);
    } else {
        list.push("ffn_gate.weight", &[n_embd, n_ff]);
        list.push("ffn_up.weight", &[n_embd, n_ff]);
        list.push("ffn_down.weight", &[n_ff, n_embd]);
    }
}

fn experts(list: &mut List<'_>) {
    let Shape { n_embd, n_expert, n_expert_shared, .. } = *list.shape;
    let width = list.shape.expert_width();
    list.push("ffn_gate_inp.weight", &[n_embd, n_expert]);
    list.push("ffn_gate_exps.weight", &[n_embd, width, n_expert]);
    list.push("ffn_down_exps.weight", &[width, n_embd, n_expert]);
    list.push("ffn_up_exps.weight", &[n_embd, width, n_expert]);
    if list.shape.architecture == Architecture::GptOss {
        list.push("ffn_gate_inp.bias", &[n_expert]);
        list.push("ffn_gate_exps.bias", &[width, n_expert]);
        list.push("ffn_down_exps.bias", &[n_embd, n_expert]);
        list.push("ffn_up_exps.bias", &[width, n_expert]);
    }
    if list.shape.expert_bias {
        list.push("exp_probs_b.bias", &[n_expert]);
    }
    if n_expert_shared > 0 {
        let shared = width * n_expert_shared;
        list.push("ffn_gate_shexp.weight", &[n_embd, shared]);
        list.push("ffn_down_shexp.weight", &[shared, n_embd]);
        list.push("ffn_up_shexp.weight", &[n_embd, shared]);
    }
}
