//! Any `config.json` with tensors of every name that is known: whatever it says, a model or an error.
#![no_main]

use formats::huggingface::{Config, classes, plan};
use formats::safetensors::{Entry, Safetensors};
use formats::{FileType, analyze};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use spec::Bytes;

const KEYS: &[&str] = &[
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "head_dim",
    "sliding_window",
    "sliding_window_pattern",
    "num_local_experts",
    "n_routed_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "n_shared_experts",
    "first_k_dense_replace",
    "kv_lora_rank",
    "q_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "state_size",
    "time_step_rank",
    "conv_kernel",
    "layer_types",
    "rope_scaling",
    "partial_rotary_factor",
    "tie_word_embeddings",
    "quantization_config",
];

const VALUES: &[&str] = &[
    "0",
    "1",
    "2",
    "4",
    "8",
    "64",
    "512",
    "4294967295",
    "4294967296",
    "-1",
    "0.5",
    "1e300",
    "null",
    "true",
    "\"auto\"",
    "[2,1]",
    "[\"sliding_attention\"]",
    "{\"rope_type\":\"llama3\",\"factor\":8.0}",
    "{\"type\":\"longrope\",\"long_factor\":[1.0]}",
    "{\"rope_type\":\"yarn\",\"factor\":40,\"original_max_position_embeddings\":4096}",
    "{\"quant_method\":\"fp8\"}",
    "{\"quant_method\":\"bitnet\"}",
    "{\"quant_method\":\"bitnet\",\"linear_class\":\"autobitlinear\",\"quantization_mode\":\"offline\"}",
    "{\"quant_method\":\"bitnet\",\"linear_class\":\"autobitlinear\",\"quantization_mode\":\"online\"}",
];

const NAMES: &[&str] = &[
    "model.embed_tokens.weight",
    "backbone.embeddings.weight",
    "model.norm.weight",
    "lm_head.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.q_proj.weight_scale",
    "model.layers.0.self_attn.attn_sub_norm.weight",
    "model.layers.0.self_attn.kv_b_proj.weight",
    "model.layers.1.mlp.experts.0.down_proj.weight",
    "model.layers.1.mlp.experts.1.down_proj.weight",
    "model.layers.1.mlp.experts.gate_up_proj",
    "model.layers.1.mlp.experts.down_proj_blocks",
    "model.layers.1.block_sparse_moe.input_linear.weight",
    "model.layers.0.mlp.down_proj.weight",
    "model.layers.18446744073709551615.mlp.up_proj.weight",
    "backbone.layers.0.mixer.conv1d.weight",
    "backbone.layers.0.mixer.A_log",
];

fuzz_target!(|data: &[u8]| {
    let _ = Config::parse(data);
    let _ = run(&mut Unstructured::new(data));
});

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let classes: Vec<&str> = classes().chain(["BitNetForCausalLM"]).collect();
    let mut config = format!("{{\"architectures\":[\"{}\"]", u.choose(&classes)?);
    for key in KEYS {
        if u.arbitrary()? {
            config += &format!(",\"{key}\":{}", u.choose(VALUES)?);
        }
    }
    config.push('}');
    let Ok(config) = Config::parse(config.as_bytes()) else { return Ok(()) };
    let mut tensors = Vec::new();
    for _ in 0..u.int_in_range(0..=12)? {
        let shape: Vec<u64> = (0..u.int_in_range(0..=5)?).map(|_| extent(u)).collect::<Result<_>>()?;
        let (name, dtype) = (*u.choose(NAMES)?, *u.choose(&["BF16", "BF16", "U8", "F32"])?);
        let offset = Bytes::new(u.arbitrary()?);
        tensors.push(Entry { name: name.to_owned(), dtype: dtype.to_owned(), shape, bytes: Bytes::ZERO, offset });
    }
    let part = Safetensors { tensors, data_offset: Bytes::ZERO, file_size: Bytes::ZERO };
    let quant = if u.arbitrary()? { Some(*u.choose(FileType::ALL)?) } else { None };
    if let Ok(model) = plan(&config, &[part], quant) {
        let analysis = analyze(&model);
        assert!(analysis.active_parameters <= analysis.parameters);
    }
    Ok(())
}

fn extent(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u.int_in_range(0..=5)? {
        0..=3 => u.int_in_range(0..=1024)?,
        4 => 16,
        _ => u.arbitrary()?,
    })
}
