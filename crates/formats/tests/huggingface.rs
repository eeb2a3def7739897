//! Models as the hub stores them against the GGUF files that the same shapes are: figures, layers, tensors, bytes.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use formats::huggingface::{Config, HuggingFaceError, plan};
use formats::{FileType, Safetensors, describe, gguf, safetensors};
use serde_json::{Value, json};
use spec::model::MetaValue;
use spec::{Bytes, Model, QuantType};
use std::collections::BTreeMap;
use synthetic::{Architecture, Options, Shape, Vocabulary, preset, presets};

/// A tensor as the hub stores it: name and extents, slowest first.
type Stored = (String, Vec<u64>);

fn config(shape: &Shape) -> Value {
    let mut config = json!({
        "hidden_size": shape.n_embd, "num_hidden_layers": shape.n_layer, "num_attention_heads": shape.n_head,
        "num_key_value_heads": shape.n_head_kv, "intermediate_size": shape.n_ff, "vocab_size": shape.n_vocab,
        "max_position_embeddings": shape.n_ctx, "rms_norm_eps": 1e-5, "rope_theta": shape.rope_base,
        "tie_word_embeddings": shape.tied, "architectures": [class(shape)],
    });
    let mut set = |key: &str, value: Value| config[key] = value;
    if shape.head_dim > 0 {
        set("head_dim", shape.head_dim.into());
    }
    if shape.rope_freqs {
        set("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0}));
    }
    if shape.window > 0 {
        set("sliding_window", shape.window.into());
    }
    if shape.n_expert > 0 {
        set(if shape.architecture == Architecture::DeepSeek2 { "n_routed_experts" } else { "num_local_experts" }, shape.n_expert.into());
        set("num_experts_per_tok", shape.n_expert_used.into());
    }
    match shape.architecture {
        Architecture::Phi3 => set("rope_scaling", json!({"original_max_position_embeddings": 4096})),
        Architecture::Qwen3Moe => set("moe_intermediate_size", shape.n_ff_exp.into()),
        Architecture::DeepSeek2 => {
            for (key, value) in [
                ("kv_lora_rank", shape.kv_lora),
                ("qk_rope_head_dim", shape.rope_dim),
                ("qk_nope_head_dim", shape.nope_dim),
                ("v_head_dim", shape.v_dim),
                ("moe_intermediate_size", shape.n_ff_exp),
                ("n_shared_experts", shape.n_expert_shared),
                ("first_k_dense_replace", shape.n_dense_lead),
                ("num_key_value_heads", shape.n_head),
            ] {
                set(key, value.into());
            }
            set("q_lora_rank", if shape.q_lora > 0 { shape.q_lora.into() } else { Value::Null });
            if shape.expert_bias {
                set("scoring_func", "sigmoid".into());
            }
        }
        Architecture::Mamba => {
            for (key, value) in [
                ("intermediate_size", shape.d_inner),
                ("state_size", shape.d_state),
                ("conv_kernel", shape.d_conv),
                ("time_step_rank", shape.dt_rank),
            ] {
                set(key, value.into());
            }
        }
        _ => {}
    }
    config
}

fn class(shape: &Shape) -> &'static str {
    match shape.architecture {
        Architecture::Llama if shape.n_expert > 0 => "MixtralForCausalLM",
        Architecture::Llama => "LlamaForCausalLM",
        Architecture::Qwen2 => "Qwen2ForCausalLM",
        Architecture::Qwen3 => "Qwen3ForCausalLM",
        Architecture::Qwen3Moe => "Qwen3MoeForCausalLM",
        Architecture::Gemma3 => "Gemma3ForCausalLM",
        Architecture::Phi3 => "Phi3ForCausalLM",
        Architecture::DeepSeek2 => "DeepseekV3ForCausalLM",
        Architecture::GptOss => "GptOssForCausalLM",
        Architecture::Mamba => "MambaForCausalLM",
        Architecture::BitNet => "BitNetForCausalLM",
    }
}

fn stored(shape: &Shape) -> Vec<Stored> {
    let mut list = Vec::new();
    let mamba = shape.architecture == Architecture::Mamba;
    let root = if mamba { "backbone" } else { "model" };
    let mut push = |name: String, extents: &[u64]| list.push((name, extents.to_vec()));
    push(format!("{root}.{}.weight", if mamba { "embeddings" } else { "embed_tokens" }), &[shape.n_vocab, shape.n_embd]);
    push(format!("{root}.{}.weight", if mamba { "norm_f" } else { "norm" }), &[shape.n_embd]);
    if !shape.tied {
        push("lm_head.weight".into(), &[shape.n_vocab, shape.n_embd]);
    }
    for layer in 0..shape.n_layer {
        let mut push = |name: &str, extents: &[u64]| push(format!("{root}.layers.{layer}.{name}"), extents);
        if mamba {
            recurrent(shape, &mut push);
        } else {
            push("input_layernorm.weight", &[shape.n_embd]);
            push("post_attention_layernorm.weight", &[shape.n_embd]);
            attention(shape, &mut push);
            feed_forward(shape, layer, &mut push);
        }
    }
    list
}

fn recurrent(shape: &Shape, push: &mut dyn FnMut(&str, &[u64])) {
    let Shape { n_embd, d_inner, d_state, d_conv, dt_rank, .. } = *shape;
    push("norm.weight", &[n_embd]);
    push("mixer.A_log", &[d_inner, d_state]);
    push("mixer.D", &[d_inner]);
    push("mixer.conv1d.weight", &[d_inner, 1, d_conv]);
    push("mixer.conv1d.bias", &[d_inner]);
    push("mixer.in_proj.weight", &[2 * d_inner, n_embd]);
    push("mixer.x_proj.weight", &[dt_rank + 2 * d_state, d_inner]);
    push("mixer.dt_proj.weight", &[d_inner, dt_rank]);
    push("mixer.dt_proj.bias", &[d_inner]);
    push("mixer.out_proj.weight", &[n_embd, d_inner]);
}

fn attention(shape: &Shape, push: &mut dyn FnMut(&str, &[u64])) {
    use Architecture::{Gemma3, GptOss, Phi3, Qwen2, Qwen3, Qwen3Moe};
    let Shape { n_embd, n_head, n_head_kv, kv_lora, q_lora, rope_dim, nope_dim, v_dim, .. } = *shape;
    let width = shape.head_width();
    match shape.architecture {
        Architecture::DeepSeek2 => {
            let key = nope_dim + rope_dim;
            if q_lora == 0 {
                push("self_attn.q_proj.weight", &[n_head * key, n_embd]);
            } else {
                push("self_attn.q_a_proj.weight", &[q_lora, n_embd]);
                push("self_attn.q_a_layernorm.weight", &[q_lora]);
                push("self_attn.q_b_proj.weight", &[n_head * key, q_lora]);
            }
            push("self_attn.kv_a_proj_with_mqa.weight", &[kv_lora + rope_dim, n_embd]);
            push("self_attn.kv_a_layernorm.weight", &[kv_lora]);
            push("self_attn.kv_b_proj.weight", &[n_head * (nope_dim + v_dim), kv_lora]);
            return push("self_attn.o_proj.weight", &[n_embd, n_head * v_dim]);
        }
        Phi3 => push("self_attn.qkv_proj.weight", &[(n_head + 2 * n_head_kv) * width, n_embd]),
        _ => {
            for (letter, heads) in [("q", n_head), ("k", n_head_kv), ("v", n_head_kv)] {
                push(&format!("self_attn.{letter}_proj.weight"), &[heads * width, n_embd]);
                if matches!(shape.architecture, Qwen2 | GptOss) {
                    push(&format!("self_attn.{letter}_proj.bias"), &[heads * width]);
                }
            }
        }
    }
    push("self_attn.o_proj.weight", &[n_embd, n_head * width]);
    match shape.architecture {
        GptOss => {
            push("self_attn.o_proj.bias", &[n_embd]);
            push("self_attn.sinks", &[n_head]);
        }
        Qwen3 | Qwen3Moe | Gemma3 => {
            push("self_attn.q_norm.weight", &[width]);
            push("self_attn.k_norm.weight", &[width]);
        }
        _ => {}
    }
    if shape.architecture == Gemma3 {
        push("pre_feedforward_layernorm.weight", &[n_embd]);
        push("post_feedforward_layernorm.weight", &[n_embd]);
    }
}

fn feed_forward(shape: &Shape, layer: u64, push: &mut dyn FnMut(&str, &[u64])) {
    let Shape { n_embd, n_ff, n_expert, n_expert_shared, .. } = *shape;
    let width = shape.expert_width();
    if n_expert == 0 || layer < shape.n_dense_lead {
        match shape.architecture {
            Architecture::Phi3 => push("mlp.gate_up_proj.weight", &[2 * n_ff, n_embd]),
            _ => {
                push("mlp.gate_proj.weight", &[n_ff, n_embd]);
                push("mlp.up_proj.weight", &[n_ff, n_embd]);
            }
        }
        return push("mlp.down_proj.weight", &[n_embd, n_ff]);
    }
    match shape.architecture {
        Architecture::GptOss => {
            push("mlp.router.weight", &[n_expert, n_embd]);
            push("mlp.router.bias", &[n_expert]);
            push("mlp.experts.gate_up_proj", &[n_expert, n_embd, 2 * width]);
            push("mlp.experts.gate_up_proj_bias", &[n_expert, 2 * width]);
            push("mlp.experts.down_proj", &[n_expert, width, n_embd]);
            return push("mlp.experts.down_proj_bias", &[n_expert, n_embd]);
        }
        Architecture::Llama => {
            push("block_sparse_moe.gate.weight", &[n_expert, n_embd]);
            for expert in 0..n_expert {
                push(&format!("block_sparse_moe.experts.{expert}.w1.weight"), &[width, n_embd]);
                push(&format!("block_sparse_moe.experts.{expert}.w2.weight"), &[n_embd, width]);
                push(&format!("block_sparse_moe.experts.{expert}.w3.weight"), &[width, n_embd]);
            }
            return;
        }
        _ => {}
    }
    push("mlp.gate.weight", &[n_expert, n_embd]);
    if shape.expert_bias {
        push("mlp.gate.e_score_correction_bias", &[n_expert]);
    }
    let blocks = (0..n_expert).map(|expert| (format!("mlp.experts.{expert}"), width));
    let shared = (n_expert_shared > 0).then(|| ("mlp.shared_experts".to_owned(), width * n_expert_shared));
    for (block, width) in blocks.chain(shared) {
        push(&format!("{block}.gate_proj.weight"), &[width, n_embd]);
        push(&format!("{block}.up_proj.weight"), &[width, n_embd]);
        push(&format!("{block}.down_proj.weight"), &[n_embd, width]);
    }
}

/// Headers of `count` files that hold these tensors, read back.
fn files(tensors: &[Stored], dtype: &str, count: usize) -> Vec<Safetensors> {
    let parts = tensors.chunks(tensors.len().div_ceil(count));
    parts
        .map(|part| {
            let (mut end, mut header) = (0, String::from("{\"__metadata__\":{\"format\":\"pt\"}"));
            for (name, shape) in part {
                let start = end;
                end += shape.iter().product::<u64>() * 2;
                header += &format!(",{}:{}", json!(name), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}));
            }
            header.push('}');
            let bytes = [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes()].concat();
            safetensors::read(&bytes, Bytes::new(bytes.len() as u64 + end)).unwrap()
        })
        .collect()
}

fn from_hub(shape: &Shape, quant: Option<FileType>) -> Result<Model, HuggingFaceError> {
    let config = Config::parse(config(shape).to_string().as_bytes())?;
    plan(&config, &files(&stored(shape), "F16", 3), quant)
}

fn from_gguf(shape: &Shape, file_type: FileType) -> Model {
    let options = Options { vocabulary: Vocabulary::None, ..Options::default() };
    let file = synthetic::gguf(shape, file_type, &options).unwrap();
    describe(&[gguf::read(&file.header, file.size).unwrap()]).unwrap()
}

/// Everything of a model that the engine's memory follows from, as text.
fn facts(model: &Model) -> (String, BTreeMap<String, String>) {
    let tensors =
        model.tensors.iter().map(|tensor| (tensor.name.clone(), format!("{} {:?} {}", tensor.ty, tensor.shape, tensor.bytes.get())));
    let Model { architecture, n_embd, n_vocab, layers, n_layer_nextn, encoder, tied_embeddings, file_type, .. } = model;
    // Conversion writes a context of 2^20 for every Mamba.
    let context = if architecture == "mamba" { None } else { model.n_ctx_train };
    let facts =
        format!("{architecture} {n_embd} {n_vocab} {n_layer_nextn} {encoder} {tied_embeddings} {file_type:?} {context:?} {layers:?}");
    (facts, tensors.collect())
}

#[test]
fn a_model_of_the_hub_is_the_gguf_file_that_it_becomes() {
    let mut compared = 0;
    for mut shape in presets().filter(|shape| shape.architecture != Architecture::BitNet) {
        // Experts one by one are a quarter of a million tensors in the largest; a few layers say the same.
        if shape.n_expert > 100 {
            shape.n_layer = 5;
        }
        let expected = from_gguf(&shape, FileType::F16);
        let found = from_hub(&shape, None).unwrap_or_else(|error| panic!("{}: {error}", shape.name));
        assert_eq!(facts(&found), facts(&expected), "{}", shape.name);
        for quant in [FileType::Q4_K_M, FileType::Q2_K, FileType::Q8_0, FileType::IQ4_XS] {
            let found = from_hub(&shape, Some(quant)).unwrap();
            let expected = from_gguf(&shape, quant);
            assert_eq!(facts(&found), facts(&expected), "{} {quant}", shape.name);
            compared += 1;
        }
    }
    assert!(compared >= 150, "only {compared} compared");
}

#[test]
fn figures_that_the_engine_reads_are_written_under_the_same_keys() {
    // Left out by design or by the shapes: names, sizes, the tokenizer; figures that the shapes do not state.
    let ours = ["general.", "tokenizer.", "quantize."];
    for name in ["llama-3.1-8b", "qwen2.5-7b", "qwen3-30b-a3b", "gemma3-4b", "phi-4", "deepseek-v2-lite", "gpt-oss-20b", "mamba-130m"] {
        let shape = preset(name).unwrap();
        let (found, expected) =
            (from_hub(&Shape { n_layer: shape.n_layer, ..shape.clone() }, None).unwrap(), from_gguf(&shape, FileType::F16));
        for (key, value) in &expected.metadata {
            let counted = matches!(value, MetaValue::Uint(_)) && !ours.iter().any(|prefix| key.starts_with(prefix));
            let rope = key.contains("rope.") || key.ends_with("vocab_size") || key == "mamba.context_length";
            if counted && !rope {
                assert_eq!(found.metadata.get(key), Some(value), "{name}: {key}");
            }
        }
    }
}

#[test]
fn stored_experts_of_gpt_oss_stay_as_they_are() {
    let shape = Shape { n_layer: 2, ..preset("gpt-oss-20b").unwrap() };
    let Shape { n_embd, n_expert, .. } = shape;
    let width = shape.expert_width();
    let mut tensors = stored(&shape);
    let experts = |name: &str| name.ends_with("experts.gate_up_proj") || name.ends_with("experts.down_proj");
    let packed: Vec<Stored> = tensors
        .iter()
        .filter(|(name, _)| experts(name))
        .flat_map(|(name, _)| {
            let (rows, columns) = if name.ends_with("gate_up_proj") { (2 * width, n_embd) } else { (n_embd, width) };
            [
                (format!("{name}_blocks"), vec![n_expert, rows, columns / 32, 16]),
                (format!("{name}_scales"), vec![n_expert, rows, columns / 32]),
            ]
        })
        .collect();
    tensors.retain(|(name, _)| !experts(name));
    tensors.extend(packed);
    let config = Config::parse(config(&shape).to_string().as_bytes()).unwrap();
    let parts = files(&tensors, "BF16", 1);
    let model = plan(&config, &parts, None).unwrap();
    assert_eq!(model.file_type.as_deref(), Some("MXFP4_MOE"));
    let gate = model.tensor("blk.1.ffn_gate_exps.weight").unwrap();
    assert_eq!((gate.ty, gate.shape), (QuantType::MXFP4, [n_embd, width, n_expert, 1]));
    assert_eq!(model.tensor("blk.1.attn_q.weight").unwrap().ty, QuantType::BF16);
    let found = plan(&config, &parts, Some(FileType::MXFP4_MOE)).unwrap();
    assert_eq!(facts(&found), facts(&from_gguf(&shape, FileType::MXFP4_MOE)));
    let error = plan(&config, &parts, Some(FileType::Q4_K_M)).unwrap_err();
    insta::assert_snapshot!(error, @"tensor blk.0.ffn_gate_exps.weight is already mxfp4, and llama-quantize does not make q5_0 of it");
    assert!(error.hint().unwrap().contains("--quant MXFP4_MOE"));
}

#[test]
fn what_cannot_be_converted_says_why() {
    let shape = Shape { n_layer: 2, ..preset("mixtral-8x7b").unwrap() };
    let good = config(&shape);
    let tensors = stored(&shape);
    let error = |change: &dyn Fn(&mut Value), tensors: &[Stored]| {
        let mut config = good.clone();
        change(&mut config);
        let config = Config::parse(config.to_string().as_bytes());
        config.and_then(|config| plan(&config, &files(tensors, "BF16", 1), None)).unwrap_err().to_string()
    };
    insta::assert_snapshot!(error(&|config| config["architectures"] = json!(["RotaryTransformer"]), &tensors)[..59], @"architecture not known here: RotaryTransformer; there are L");
    insta::assert_snapshot!(error(&|config| config["architectures"] = json!([]), &tensors), @"config.json has no architectures");
    insta::assert_snapshot!(error(&|config| config["num_hidden_layers"] = json!("two"), &tensors), @r#"config.json: n_layers or num_hidden_layers or n_layer or num_layers is no count of at most 32 bits: "two""#);
    insta::assert_snapshot!(error(&|config| config["num_hidden_layers"] = json!(4_294_967_295_u32), &tensors), @"config.json: num_hidden_layers is no count of at most 512: 4294967295");
    insta::assert_snapshot!(error(&|config| config["vocab_size"] = Value::Null, &tensors), @"config.json has no vocab_size");
    insta::assert_snapshot!(error(&|config| config["num_attention_heads"] = json!(0), &tensors), @"config.json: num_attention_heads is no count above zero: 0");
    insta::assert_snapshot!(error(&|config| config["quantization_config"] = json!({"quant_method": "gptq"}), &tensors), @"weights quantised by gptq");
    insta::assert_snapshot!(error(&|_| {}, &tensors[..tensors.len() - 1]), @"7 of 8 experts are there: blk.1.ffn_up_exps.weight");
    let with = |name: &str, shape: &[u64]| [tensors.clone(), vec![(name.to_owned(), shape.to_vec())]].concat();
    insta::assert_snapshot!(error(&|_| {}, &with("model.layers.0.mlp.banana", &[4])), @"MixtralForCausalLM has no place for the tensor model.layers.0.mlp.banana");
    insta::assert_snapshot!(error(&|_| {}, &with("backbone.norm_f.weight", &[4])), @"tensor stands twice: output_norm.weight");
    insta::assert_snapshot!(Config::parse(b"{\n1}").unwrap_err(), @"config.json, byte 2: key must be a string");
    insta::assert_snapshot!(Config::parse(b"[]").unwrap_err(), @"config.json, byte 0: no object");
}
