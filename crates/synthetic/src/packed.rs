//! Folders of BitNet b1.58 as Hugging Face publishes it: packed safetensors, `config.json`, and a byte-level vocabulary. Exact shapes,
//! random ternary weights, text that is noise.

use crate::bitnet::published;
use crate::file::{Content, File, TensorSpec, content};
use crate::shape::Shape;
use crate::tensors;
use crate::tokenizer::byte_level::{CHAT_TEMPLATE, MARKS, table};
use serde_json::{Map, Value, json};
use spec::{Bytes, QuantType};

/// How packed layers use their scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinearClass {
    /// Outputs are multiplied by it, as in BitNet b1.58 2B-4T.
    #[default]
    AutoBitLinear,
    /// Outputs are divided by it.
    BitLinear,
}

/// A folder: its weights, and its texts by file name.
#[derive(Clone, Debug, PartialEq)]
pub struct Folder {
    /// `model.safetensors`.
    pub weights: File,
    /// The other files.
    pub texts: Vec<(&'static str, String)>,
}

/// The name of the weights in a [`Folder`].
pub const WEIGHTS: &str = "model.safetensors";

/// How texts are cut: Llama 3's pattern.
const PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The folder of this name, one of [`crate::bitnets`] with a byte-level vocabulary; `None` for other names.
///
/// ```
/// let folder = synthetic::packed("bitnet-b1.58-2b-4t", Default::default()).unwrap();
/// let ternary = folder.weights.tensors.iter().filter(|tensor| tensor.ty == spec::QuantType::HF_U2);
/// assert_eq!(ternary.map(|tensor| tensor.bytes.get()).sum::<u64>(), 521_011_200);
/// ```
pub fn packed(name: &str, class: LinearClass) -> Option<Folder> {
    let shape = published(name)?;
    let texts = vec![
        ("config.json", text(&config(&shape, class))),
        ("tokenizer.json", text(&tokenizer(shape.n_vocab))),
        ("tokenizer_config.json", text(&tokenizer_config())),
        ("generation_config.json", text(&json!({"bos_token_id": begin(&shape), "eos_token_id": [begin(&shape) + 1, begin(&shape) + 9]}))),
    ];
    Some(Folder { weights: weights(&shape, class), texts })
}

fn text(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The first of the marks, which ends the regular tokens.
fn begin(shape: &Shape) -> u64 {
    shape.n_vocab.saturating_sub(MARKS)
}

fn config(shape: &Shape, class: LinearClass) -> Value {
    json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2", "hidden_size": shape.n_embd,
        "intermediate_size": shape.n_ff, "num_hidden_layers": shape.n_layer, "num_attention_heads": shape.n_head,
        "num_key_value_heads": shape.n_head_kv, "max_position_embeddings": shape.n_ctx, "rms_norm_eps": 1e-5, "rope_theta": shape.rope_base,
        "tie_word_embeddings": true, "vocab_size": shape.n_vocab, "bos_token_id": begin(shape), "eos_token_id": begin(shape) + 1,
        "torch_dtype": "bfloat16",
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": match class { LinearClass::AutoBitLinear => "autobitlinear", LinearClass::BitLinear => "bitlinear" },
            "quantization_mode": "offline",
        },
    })
}

fn tokenizer_config() -> Value {
    json!({"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "chat_template": CHAT_TEMPLATE})
}

fn tokenizer(n_vocab: u64) -> Value {
    let (tokens, merges) = table(n_vocab);
    let regular = tokens.len().saturating_sub(MARKS as usize);
    let special = |(id, content): (usize, &String)| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let marks: Vec<Value> = tokens.iter().enumerate().skip(regular).map(special).collect();
    let vocab: Map<String, Value> = tokens.iter().take(regular).enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let merges: Vec<Value> = merges.iter().filter_map(|merge| merge.split_once(' ')).map(|(left, right)| json!([left, right])).collect();
    let begin = tokens.get(regular);
    let (mark, text) =
        (json!({"SpecialToken": {"id": begin, "type_id": 0}}), |id: &str, ty: u8| json!({"Sequence": {"id": id, "type_id": ty}}));
    let bytes = |prefix: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": prefix});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": marks, "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": false},
            bytes(false),
        ]},
        "post_processor": {
            "type": "TemplateProcessing", "single": [mark, text("A", 0)], "pair": [mark, text("A", 0), mark, text("B", 1)],
            "special_tokens": {begin.cloned().unwrap_or_default(): {"id": begin, "ids": [regular], "tokens": [begin]}},
        },
        "decoder": bytes(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": true, "vocab": vocab, "merges": merges,
        },
    })
}

/// Names on the hub of what stands in a layer, without `.weight`.
const LAYER: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_sub_norm", "self_attn.attn_sub_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_sub_norm", "mlp.ffn_sub_norm"),
    ("ffn_down", "mlp.down_proj"),
];

/// The name on the hub of a tensor of a GGUF file, without `.weight`.
fn hub_name(ours: &str) -> Option<String> {
    let stem = ours.strip_suffix(".weight")?;
    match stem {
        "token_embd" => return Some("model.embed_tokens".to_owned()),
        "output_norm" => return Some("model.norm".to_owned()),
        _ => {}
    }
    let (layer, part) = stem.strip_prefix("blk.")?.split_once('.')?;
    let (_, theirs) = LAYER.iter().find(|(ours, _)| *ours == part)?;
    Some(format!("model.layers.{layer}.{theirs}"))
}

/// One tensor, or a packed matrix and its scale.
fn stored(name: &str, shape: &[u64], class: LinearClass) -> Vec<TensorSpec> {
    let Some(theirs) = hub_name(name) else { return Vec::new() };
    let tensor = |name: String, ty: QuantType, shape: &[u64], content: Content| {
        let mut extents = [1; 4];
        extents.iter_mut().zip(shape).for_each(|(extent, &given)| *extent = given);
        let bytes = ty.tensor_bytes(extents).unwrap_or_default();
        TensorSpec { name, ty, shape: shape.to_vec(), bytes, offset: Bytes::ZERO, content }
    };
    let wanted = content(name, shape, QuantType::F32);
    match (shape, wanted) {
        ([_, _], Content::Noise { deviation }) if name != "token_embd.weight" => {
            let scale = deviation / crate::noise::TERNARY_DEVIATION;
            let scale = if class == LinearClass::BitLinear { 1.0 / scale } else { scale };
            vec![
                tensor(format!("{theirs}.weight"), QuantType::HF_U2, shape, wanted),
                tensor(format!("{theirs}.weight_scale"), QuantType::BF16, &[1], Content::Constant(scale)),
            ]
        }
        _ => vec![tensor(format!("{theirs}.weight"), QuantType::BF16, shape, wanted)],
    }
}

fn weights(shape: &Shape, class: LinearClass) -> File {
    let plain = tensors::tensors(shape);
    let mut tensors: Vec<TensorSpec> = plain.iter().flat_map(|tensor| stored(&tensor.name, &tensor.shape, class)).collect();
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = Bytes::ZERO;
    for tensor in &mut tensors {
        tensor.offset = end;
        end += tensor.bytes;
        let mut extents: Vec<u64> = tensor.shape.iter().rev().copied().collect();
        if let (QuantType::HF_U2, Some(rows)) = (tensor.ty, extents.first_mut()) {
            *rows /= 4;
        }
        let dtype = if tensor.ty == QuantType::HF_U2 { "U8" } else { "BF16" };
        let about = json!({"dtype": dtype, "shape": extents, "data_offsets": [tensor.offset.get(), end.get()]});
        header.insert(tensor.name.clone(), about);
    }
    let mut header = Value::Object(header).to_string();
    // As the format's own writer does it: data at a multiple of eight.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let header = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let start = Bytes::new(header.len() as u64);
    tensors.iter_mut().for_each(|tensor| tensor.offset += start);
    File { header, tensors, size: start + end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Fill;

    fn tiny(class: LinearClass) -> Folder {
        packed("bitnet-b1.58-tiny", class).unwrap()
    }

    #[test]
    fn the_2b_model_has_the_published_tensors() {
        let folder = packed("bitnet-b1.58-2b-4t", LinearClass::default()).unwrap();
        let data: u64 = folder.weights.tensors.iter().map(|tensor| tensor.bytes.get()).sum();
        // 2,084,044,800 ternary weights in quarters, 328,335,360 of the table and 440,320 of norms in bf16, and 210 scales.
        assert_eq!((folder.weights.tensors.len(), data), (332 + 210, 521_011_200 + 2 * (328_335_360 + 440_320 + 210)));
        assert!(packed("bitnet-b1.58-3b", LinearClass::default()).is_none(), "its vocabulary is SentencePiece");
    }

    #[test]
    fn weights_are_ternary_and_scales_have_their_direction() {
        let bytes = |class: LinearClass, end: &str| {
            let folder = tiny(class);
            let tensor = folder.weights.tensors.iter().find(|tensor| tensor.name.ends_with(end)).unwrap();
            let mut bytes = vec![0xff; tensor.bytes.get() as usize];
            folder.weights.read_at(Fill::Random { seed: 1 }, tensor.offset.get(), &mut bytes);
            bytes
        };
        let codes = bytes(LinearClass::default(), "layers.1.self_attn.q_proj.weight");
        assert!(codes.iter().all(|byte| byte & byte >> 1 & 0x55 == 0) && codes.iter().any(|byte| *byte != codes[0]));
        let scale = |class| {
            let bytes = bytes(class, "layers.1.self_attn.q_proj.weight_scale");
            f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16)
        };
        let (times, over) = (scale(LinearClass::AutoBitLinear), scale(LinearClass::BitLinear));
        assert!((times * 16.0 * 0.71 - 1.0).abs() < 1e-2 && (times * over - 1.0).abs() < 2e-2, "{times} {over}");
        assert_eq!(bytes(LinearClass::default(), "layers.0.input_layernorm.weight")[..4], [0x80, 0x3f, 0x80, 0x3f]);
    }
}
