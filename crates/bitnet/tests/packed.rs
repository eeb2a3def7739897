//! Folders as the model's owner publishes them: packed safetensors and `config.json`, read by `formats`, against transformers' own logits.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod models;

use bitnet::memory::requirement;
use bitnet::{CacheType, ConfigError, LoadOptions, Options, Sampler, Sampling, Session, WeightError, Weights};
use bytes::Bytes as Data;
use formats::huggingface::{Config, HuggingFaceError, LINEAR_CLASS, plan};
use formats::safetensors;
use half::bf16;
use models::{Case, Written, cases, embedding, norm, scale, weights};
use serde_json::{Value, json};
use spec::{Bytes, Model, QuantType};
use std::sync::Arc;

/// Largest difference of a logit, as for GGUF files.
const BOUND: f32 = 1e-5;

/// How a folder is written.
#[derive(Clone, Copy, Debug)]
struct Folder {
    /// Files that the tensors are spread over.
    parts: usize,
    /// Embedding in bf16, as published; the cases' values need 11 bits, so that they are rounded then.
    bf16: bool,
}

const WHOLE: Folder = Folder { parts: 1, bf16: false };

/// A tensor: name, type, extents, data.
type Stored = (String, &'static str, Vec<usize>, Vec<u8>);

fn floats(values: &[f32], short: bool) -> (&'static str, Vec<u8>) {
    match short {
        true => ("BF16", values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect()),
        false => ("F32", values.iter().flat_map(|x| x.to_le_bytes()).collect()),
    }
}

/// The tensors that `oracle/record.py` gives to transformers.
fn stored(case: &Case, folder: Folder) -> Vec<Stored> {
    let (e, q, kv, ff) = (case.n_embd, case.n_head * case.head_dim, case.n_head_kv * case.head_dim, case.n_ff);
    let mut list = Vec::new();
    let (ty, data) = floats(&embedding(case.seed, case.n_vocab * e), folder.bf16);
    list.push(("model.embed_tokens.weight".to_owned(), ty, vec![case.n_vocab, e], data));
    let vector = |theirs: String, ours: &str, width: usize| {
        let (ty, data) = floats(&norm(case.seed, ours, width), false);
        (format!("{theirs}.weight"), ty, vec![width], data)
    };
    list.push(vector("model.norm".into(), "output_norm", e));
    for i in 0..case.n_layer {
        let norms = [
            ("input_layernorm", "attn_norm", e),
            ("post_attention_layernorm", "ffn_norm", e),
            ("self_attn.attn_sub_norm", "attn_sub_norm", q),
            ("mlp.ffn_sub_norm", "ffn_sub_norm", ff),
        ];
        list.extend(norms.map(|(theirs, ours, width)| vector(format!("model.layers.{i}.{theirs}"), &format!("blk.{i}.{ours}"), width)));
        for (theirs, ours, rows, columns) in [
            ("self_attn.q_proj", "attn_q", q, e),
            ("self_attn.k_proj", "attn_k", kv, e),
            ("self_attn.v_proj", "attn_v", kv, e),
            ("self_attn.o_proj", "attn_output", e, q),
            ("mlp.gate_proj", "ffn_gate", ff, e),
            ("mlp.up_proj", "ffn_up", ff, e),
            ("mlp.down_proj", "ffn_down", e, ff),
        ] {
            let (theirs, ours) = (format!("model.layers.{i}.{theirs}"), format!("blk.{i}.{ours}"));
            let weights = weights(case.seed, &ours, rows * columns);
            let quarter = rows / 4 * columns;
            let packed = (0..quarter).map(|at| (0..4).map(|part| ((weights[at + part * quarter] + 1) as u8) << (2 * part)).sum()).collect();
            list.push((format!("{theirs}.weight"), "U8", vec![rows / 4, columns], packed));
            let scale = scale(case.seed, &ours);
            // bf16 holds the scales of the cases, but not their inverses.
            let multiplies = case.linear_class == "autobitlinear";
            let (ty, data) = floats(&[if multiplies { scale } else { 1.0 / scale }], multiplies);
            list.push((format!("{theirs}.weight_scale"), ty, vec![1], data));
        }
    }
    list
}

fn config(case: &Case) -> Value {
    json!({
        "architectures": ["BitNetForCausalLM"], "hidden_act": case.hidden_act, "hidden_size": case.n_embd, "head_dim": case.head_dim,
        "intermediate_size": case.n_ff, "num_hidden_layers": case.n_layer, "num_attention_heads": case.n_head,
        "num_key_value_heads": case.n_head_kv, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": case.rope_base,
        "tie_word_embeddings": true, "vocab_size": case.n_vocab,
        "quantization_config": {"quant_method": "bitnet", "linear_class": case.linear_class, "quantization_mode": "offline"},
    })
}

/// One safetensors file.
fn file(tensors: &[Stored]) -> Data {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend(bytes);
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat().into()
}

fn described(config: &Value, files: &[Data]) -> Result<Model, HuggingFaceError> {
    let headers: Vec<_> = files.iter().map(|file| safetensors::read(file, Bytes::new(file.len() as u64)).unwrap()).collect();
    plan(&Config::parse(config.to_string().as_bytes()).unwrap(), &headers, None)
}

fn files(case: &Case, folder: Folder) -> Vec<Data> {
    let stored = stored(case, folder);
    stored.chunks(stored.len().div_ceil(folder.parts)).map(file).collect()
}

/// Logits after each token of the case.
fn logits(case: &Case, model: &Model, files: &[Data]) -> Vec<Vec<f32>> {
    let weights = Arc::new(Weights::load(model, files, &LoadOptions::default()).unwrap());
    let mut session = Session::new(weights, Options { n_ctx: 40, n_ubatch: 5, cache: CacheType::F32, threads: 1 }).unwrap();
    case.tokens.iter().map(|token| session.extend(&[*token]).unwrap().to_vec()).collect()
}

fn worst(case: &Case, config: &Value, folder: Folder) -> f32 {
    let files = files(case, folder);
    let found = logits(case, &described(config, &files).unwrap(), &files);
    let argmax = |logits: &[f32]| Sampler::new(Sampling::default()).next(logits);
    let worst = found.iter().flatten().zip(case.logits.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    for (found, expected) in found.iter().zip(&case.logits) {
        assert!(worst > BOUND || argmax(found) == argmax(expected));
    }
    worst
}

#[test]
fn packed_folders_give_the_logits_of_transformers() {
    let linear_classes: Vec<String> = cases().iter().map(|case| case.linear_class.clone()).collect();
    assert!(linear_classes.contains(&"bitlinear".to_owned()) && linear_classes.contains(&"autobitlinear".to_owned()));
    for case in cases() {
        for parts in [1, 3] {
            let worst = worst(&case, &config(&case), Folder { parts, ..WHOLE });
            assert!(worst <= BOUND, "seed {}, {}, {parts} files: {worst}", case.seed, case.linear_class);
        }
    }
}

/// In bf16, as published: the same bits as a GGUF file with the same embedding, whose scales are the same numbers.
#[test]
fn packed_folders_in_bf16_are_the_same_model_as_a_gguf_file() {
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.linear_class == "autobitlinear").collect();
    for case in &cases {
        let files = files(case, Folder { bf16: true, ..WHOLE });
        let gguf = case.build(Written { embedding: QuantType::BF16, ..Written::default() });
        let packed = logits(case, &described(&config(case), &files).unwrap(), &files);
        assert_eq!(packed, logits(case, &gguf.model, &[gguf.data]), "seed {}", case.seed);
    }
    assert!(cases.len() >= 3);
}

/// The direction of the scale is all that tells the two classes of layers apart: the other one is wrong by a thousand times the bound.
#[test]
fn a_scale_in_the_wrong_direction_shows() {
    for case in cases() {
        let mut config = config(&case);
        let other = if case.linear_class == "bitlinear" { "autobitlinear" } else { "bitlinear" };
        config["quantization_config"]["linear_class"] = other.into();
        let worst = worst(&case, &config, WHOLE);
        assert!(worst > 1e-2, "seed {}: {worst}", case.seed);
    }
}

#[test]
fn a_class_that_is_not_stated_is_the_default_of_transformers_and_a_model_without_it_is_refused() {
    let case = cases().into_iter().find(|case| case.linear_class == "bitlinear").unwrap();
    let mut config = config(&case);
    config["quantization_config"].as_object_mut().unwrap().remove("linear_class");
    assert!(worst(&case, &config, WHOLE) <= BOUND);
    let files = files(&case, WHOLE);
    let mut model = described(&config, &files).unwrap();
    model.metadata.remove(LINEAR_CLASS);
    let error = Weights::load(&model, &files, &LoadOptions::default()).unwrap_err();
    assert_eq!(error, WeightError::Config(ConfigError::Missing(LINEAR_CLASS.to_owned())));
}

/// Sizes of the file to the byte, and what is copied of it as the counting allocator of `memory.rs` sees it.
#[test]
fn packed_bytes_are_those_of_the_file_and_copies_those_of_the_kernels() {
    for case in cases() {
        let files = files(&case, Folder { bf16: true, parts: 2 });
        let model = described(&config(&case), &files).unwrap();
        let data: u64 = files.iter().zip(&model.files).map(|(file, about)| file.len() as u64 - about.data_offset.get()).sum();
        assert_eq!(model.tensors.iter().map(|tensor| tensor.bytes.get()).sum::<u64>(), data);
        let ternary = model.tensors.iter().filter(|tensor| tensor.ty == QuantType::HF_U2);
        assert!(ternary.clone().all(|tensor| QuantType::HF_U2.tensor_bytes(tensor.shape) == Some(tensor.bytes)));
        assert_eq!(ternary.count(), 7 * case.n_layer);
        let load = LoadOptions::default();
        let predicted = requirement(&model, &load, &Options::default()).unwrap();
        let mut loaded = None;
        let counted = allocation_counter::measure(|| loaded = Some(Weights::load(&model, &files, &load).unwrap()));
        assert_eq!(loaded.unwrap().copied_bytes(), predicted.weights_copied.get(), "seed {}", case.seed);
        // Repacking needs no second copy on the way: the peak is what stays, but for lists and handles.
        let structures = model.tensors.len() as u64 * 512;
        for bytes in [counted.bytes_current as u64, counted.bytes_max] {
            assert!(bytes.checked_sub(predicted.weights_copied.get()).unwrap() <= structures, "seed {}: {bytes}", case.seed);
        }
    }
}

#[test]
fn folders_that_are_something_else_are_refused_by_name() {
    let case = &cases()[0];
    let whole = files(case, WHOLE);
    let error = |change: &dyn Fn(&mut Value)| {
        let mut config = config(case);
        change(&mut config);
        described(&config, &whole).unwrap_err().to_string()
    };
    assert_eq!(
        error(&|config| config["quantization_config"]["quantization_mode"] = "online".into()),
        "weights in 16 bits that become ternary as they are used (quantization_mode online), which no engine here does"
    );
    assert_eq!(
        error(&|config| config["architectures"] = json!(["LlamaForCausalLM"])),
        "ternary weights of a LlamaForCausalLM: the engine for them computes BitNetForCausalLM"
    );
    assert_eq!(
        error(&|config| config["hidden_act"] = "gelu".into()),
        "config.json: hidden_act is no function of BitNet (relu2, silu): gelu"
    );
    assert_eq!(
        error(&|config| config["rope_scaling"] = json!({"rope_type": "yarn", "factor": 2.0})),
        "config.json: rope_type is no rotary embedding of BitNet (default): yarn"
    );
    assert_eq!(error(&|config| config["tie_word_embeddings"] = false.into()), "no file has what becomes the tensor output.weight");
    assert_eq!(
        error(&|config| config["num_hidden_layers"] = 1.into()),
        "BitNetForCausalLM has no place for the tensor model.layers.1.input_layernorm.weight"
    );
    let changed = |change: &dyn Fn(&mut Vec<Stored>)| {
        let mut stored = stored(case, WHOLE);
        change(&mut stored);
        described(&config(case), &[file(&stored)]).unwrap_err().to_string()
    };
    let gate = |stored: &[Stored]| stored.iter().position(|(name, ..)| name == "model.layers.1.mlp.gate_proj.weight").unwrap();
    assert_eq!(
        changed(&|stored| {
            let at = gate(stored);
            stored[at].1 = "F8_E4M3";
        }),
        "tensor model.layers.1.mlp.gate_proj.weight should be U8, packed; it is F8_E4M3"
    );
    assert_eq!(
        changed(&|stored| {
            let at = gate(stored);
            stored.remove(at + 1);
        }),
        "no file has what becomes the tensor blk.1.ffn_gate.weight_scale"
    );
    assert_eq!(
        changed(&|stored| stored[2].0 = "model.layers.0.self_attn.q_proj.bias".into()),
        "BitNetForCausalLM has no place for the tensor model.layers.0.self_attn.q_proj.bias"
    );
}
