//! Descriptions of well-formed headers whose keys and tensors make no sense: every architecture, every rule.
#![no_main]

use formats::{analyze, describe, gguf};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use spec::{Bytes, QuantType};
use synthetic::writer::{Header, TensorEntry, Value};

const ARCHITECTURES: &[&str] = &[
    "llama",
    "gemma2",
    "gemma3",
    "gemma3n",
    "gemma4",
    "gpt-oss",
    "llama4",
    "exaone4",
    "smallthinker",
    "mimo2",
    "deepseek2",
    "mamba",
    "mamba2",
    "rwkv7",
    "jamba",
    "lfm2",
    "nemotron_h",
    "qwen3next",
    "minimax-01",
    "falcon-h1",
    "bert",
    "modern-bert",
    "novel",
];

const KEYS: &[&str] = &[
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.key_length_swa",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.shared_kv_layers",
    "attention.kv_lora_rank",
    "attention.q_lora_rank",
    "attention.key_length_mla",
    "attention.value_length_mla",
    "attention.recurrent_layers",
    "full_attention_interval",
    "rope.dimension_count",
    "feed_forward_length",
    "expert_count",
    "expert_used_count",
    "expert_shared_count",
    "nextn_predict_layers",
    "ssm.conv_kernel",
    "ssm.inner_size",
    "ssm.state_size",
    "ssm.time_step_rank",
    "ssm.group_count",
    "wkv.head_size",
    "token_shift_count",
    "shortconv.l_cache",
    "kda.head_dim",
    "vocab_size",
    "context_length",
    "embedding_length",
];

const TENSORS: &[&str] = &[
    "token_embd.weight",
    "output.weight",
    "blk.0.ffn_down.weight",
    "blk.0.ffn_down_exps.weight",
    "blk.1.ffn_down_shexp.weight",
    "blk.1.ffn_up_exps.bias",
    "blk.1.ssm_in.weight",
    "blk.2.attn_k.weight",
    "blk.4294967295.ffn_down.weight",
    "blk.x.ffn_down.weight",
];

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let architecture = u.choose(ARCHITECTURES)?;
    let layers = u.int_in_range(0..=6_u32)?;
    let mut header = Header::new();
    let mut add = |key: String, value: Value| {
        if header.metadata.iter().all(|(have, _)| *have != key) {
            header.metadata.push((key, value));
        }
    };
    add("general.architecture".to_owned(), (*architecture).into());
    add(format!("{architecture}.block_count"), layers.into());
    for _ in 0..u.int_in_range(0..=24)? {
        let key = u.choose(KEYS)?;
        add(format!("{architecture}.{key}"), value(u, layers)?);
    }
    for key in ["context_length", "embedding_length", "attention.head_count"] {
        add(format!("{architecture}.{key}"), 64_u32.into());
    }
    let mut offset = 0;
    for _ in 0..u.int_in_range(1..=8)? {
        let name = (*u.choose(TENSORS)?).to_owned();
        let shape = vec![u.int_in_range(0..=300_u64)?, u.int_in_range(0..=300)?, u.int_in_range(0..=9)?];
        if header.tensors.iter().any(|have: &TensorEntry| have.name == name) {
            continue;
        }
        let bytes = shape.iter().product::<u64>() * 4;
        header.tensors.push(TensorEntry { name, shape, type_id: QuantType::F32.id(), offset });
        offset = (offset + bytes).next_multiple_of(32);
    }
    let bytes = header.encode();
    let size = Bytes::new(bytes.len() as u64 + offset);
    let read = gguf::read(&bytes, size).expect("the header is well formed");
    if let Ok(model) = describe(&[read]) {
        assert_eq!(model.layers.len(), layers as usize);
        let analysis = analyze(&model);
        assert!(analysis.active_parameters <= analysis.parameters);
        let _ = (analysis.decode_ops(u64::MAX), analysis.batch_bytes(u64::MAX), analysis.intensity(3));
    }
    Ok(())
}

/// A small number, an extreme one, a list as long as there are layers or not, or no number at all.
fn value(u: &mut Unstructured<'_>, layers: u32) -> Result<Value> {
    Ok(match u.int_in_range(0..=7)? {
        0..=3 => u.int_in_range(0..=16_u32)?.into(),
        4 => u.arbitrary::<u32>()?.into(),
        5 => u.arbitrary::<i64>()?.into(),
        6 => {
            let length = if u.arbitrary()? { layers } else { u.int_in_range(0..=8)? };
            let items = (0..length).map(|_| u.int_in_range(0..=5_u32)).collect::<Result<Vec<_>>>()?;
            Value::array(items)
        }
        _ => "text".into(),
    })
}
