//! BitNet b1.58 as its owners publish it in safetensors: ternary weights of four rows in one byte, described where they lie.
//!
//! Such a folder is not converted first: the BitNet engine of this program reads it as it is. So tensors keep their files and offsets, and
//! only their names are those of a GGUF file. The format is that of transformers 5.23.0: `integrations/bitnet.py` (`pack_weights`,
//! `BitLinear`, `AutoBitLinear`), `models/bitnet/configuration_bitnet.py`.

use super::config::{Config, shown};
use super::error::HuggingFaceError;
use super::family::{Family, NONE, ROTARY, VOCAB};
use super::keys;
use crate::describe::describe;
use crate::gguf::{DEFAULT_ALIGNMENT, Gguf, TensorInfo, Value};
use crate::safetensors::{Entry, Safetensors};
use spec::model::MetaValue;
use spec::{Model, QuantType};
use std::collections::{BTreeMap, BTreeSet};

/// The key of [`Model::metadata`] that says what a weight scale does: `autobitlinear` multiplies by it, `bitlinear` divides by it.
pub const LINEAR_CLASS: &str = "quantization_config.linear_class";

/// What [`Model::file_type`] calls such files.
const FILE_TYPE: &str = "packed ternary";

/// The one class that the engine computes; others that are packed so have other layers.
const CLASS: &str = "BitNetForCausalLM";
/// ReLU² between gate and up.
const RELU2: Family = Family { architecture: "bitnet-b1.58", classes: &[CLASS], keys: &[VOCAB, ROTARY], ..NONE };
/// SiLU, as in the models of 2024.
const SILU: Family = Family { architecture: "bitnet", ..RELU2 };

/// Base of the rotary angles where `config.json` states none.
const ROPE_BASE: f64 = 500_000.0;

/// Dense tensors of a layer, without `.weight`.
const NORMS: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.attn_sub_norm", "attn_sub_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.ffn_sub_norm", "ffn_sub_norm"),
];
/// Ternary tensors of a layer, without `.weight` and `.weight_scale`.
const LINEARS: &[(&str, &str)] = &[
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// The model in these files, whose linear layers are packed.
pub(super) fn packed(config: &Config, parts: &[Safetensors], n_layer: u64) -> Result<Model, HuggingFaceError> {
    if config.class() != CLASS {
        return Err(HuggingFaceError::Packed { class: config.class().to_owned() });
    }
    let linear = linear_class(config)?;
    refuse_other_positions(config)?;
    let mut metadata = keys::metadata(config, family(config)?, n_layer)?;
    metadata.insert(LINEAR_CLASS.to_owned(), text(linear));
    let base = format!("{}.rope.freq_base", family(config)?.architecture);
    metadata.entry(base).or_insert(Value::Scalar(MetaValue::Float(ROPE_BASE)));
    let mut list = List { config, n_layer, seen: BTreeSet::new() };
    let tables = parts.iter().map(|part| list.table(part)).collect::<Result<Vec<_>, _>>()?;
    list.complete()?;
    let mut model = describe(&files(parts, tables, metadata))?;
    model.file_type = Some(FILE_TYPE.to_owned());
    Ok(model)
}

fn text(text: &str) -> Value {
    Value::Scalar(MetaValue::Text(text.to_owned()))
}

fn family(config: &Config) -> Result<&'static Family, HuggingFaceError> {
    match config.text(&["hidden_act"]) {
        None | Some("relu2") => Ok(&RELU2),
        Some("silu") => Ok(&SILU),
        Some(other) => Err(bad("hidden_act", "function of BitNet (relu2, silu)", other)),
    }
}

fn bad(key: &str, expected: &'static str, found: &str) -> HuggingFaceError {
    HuggingFaceError::BadValue { key: key.to_owned(), expected, found: found.to_owned() }
}

/// What the weight scale does; `bitlinear` where nothing is stated (`BitNetQuantConfig`, `utils/quantization_config.py`).
fn linear_class(config: &Config) -> Result<&'static str, HuggingFaceError> {
    let stated = |key: &str| config.get(&["quantization_config"]).and_then(|quantization| quantization.get(key));
    match stated("linear_class") {
        None => Ok("bitlinear"),
        Some(class) if class == "bitlinear" => Ok("bitlinear"),
        Some(class) if class == "autobitlinear" => match stated("quantization_mode") {
            Some(mode) if mode == "online" => Err(HuggingFaceError::Online),
            _ => Ok("autobitlinear"),
        },
        Some(other) => Err(bad("linear_class", "class of ternary layers (bitlinear, autobitlinear)", &shown(other))),
    }
}

/// The engine turns halves of heads by plain angles.
fn refuse_other_positions(config: &Config) -> Result<(), HuggingFaceError> {
    match config.rope_type().as_deref() {
        None | Some("default") => Ok(()),
        Some(other) => Err(bad("rope_type", "rotary embedding of BitNet (default)", other)),
    }
}

struct List<'a> {
    config: &'a Config,
    n_layer: u64,
    /// Names so far, of all files.
    seen: BTreeSet<String>,
}

impl List<'_> {
    fn table(&mut self, part: &Safetensors) -> Result<Vec<TensorInfo>, HuggingFaceError> {
        let mut table = Vec::new();
        for entry in &part.tensors {
            table.extend(self.entry(entry)?);
        }
        Ok(table)
    }

    /// `None` for what is in the file and not in the model: a head beside the table that it is tied to.
    fn entry(&mut self, entry: &Entry) -> Result<Option<TensorInfo>, HuggingFaceError> {
        let unknown = || HuggingFaceError::UnknownTensor { class: self.config.class().to_owned(), tensor: entry.name.clone() };
        let (name, ty, shape) = match entry.name.as_str() {
            "lm_head.weight" if self.tied() => return Ok(None),
            "model.embed_tokens.weight" => ("token_embd.weight".to_owned(), float(entry)?, extents(entry, 2)?),
            "lm_head.weight" => ("output.weight".to_owned(), float(entry)?, extents(entry, 2)?),
            "model.norm.weight" => ("output_norm.weight".to_owned(), float(entry)?, extents(entry, 1)?),
            _ => self.of_layer(entry)?.ok_or_else(unknown)?,
        };
        if !self.seen.insert(name.clone()) {
            return Err(HuggingFaceError::DuplicateTensor { tensor: name });
        }
        Ok(Some(TensorInfo { name, ty, shape, bytes: entry.bytes, offset: entry.offset }))
    }

    fn of_layer(&self, entry: &Entry) -> Result<Option<(String, QuantType, [u64; 4])>, HuggingFaceError> {
        let split = || {
            let (layer, rest) = entry.name.strip_prefix("model.layers.")?.split_once('.')?;
            let (stem, suffix) = rest.rsplit_once('.')?;
            Some((layer.parse::<u64>().ok().filter(|&layer| layer < self.n_layer)?, stem, suffix))
        };
        let Some((layer, stem, suffix)) = split() else { return Ok(None) };
        let ours = |names: &[(&str, &str)]| names.iter().find(|(theirs, _)| *theirs == stem).map(|(_, ours)| format!("blk.{layer}.{ours}"));
        Ok(match (ours(NORMS), ours(LINEARS), suffix) {
            (Some(name), _, "weight") => Some((format!("{name}.weight"), float(entry)?, extents(entry, 1)?)),
            (_, Some(name), "weight") => Some((format!("{name}.weight"), ternary(entry)?, unpacked(entry)?)),
            (_, Some(name), "weight_scale") => {
                let shape = if entry.shape.is_empty() { [1; 4] } else { extents(entry, 1)? };
                Some((format!("{name}.weight_scale"), float(entry)?, shape))
            }
            _ => None,
        })
    }

    fn tied(&self) -> bool {
        self.config.flag("tie_word_embeddings")
    }

    /// That every matrix has its scale, and the stream a head.
    fn complete(&self) -> Result<(), HuggingFaceError> {
        let head = (!self.tied()).then(|| "output.weight".to_owned());
        let scales = (0..self.n_layer).flat_map(|layer| LINEARS.iter().map(move |(_, ours)| format!("blk.{layer}.{ours}.weight_scale")));
        match scales.chain(head).find(|name| !self.seen.contains(name)) {
            Some(tensor) => Err(HuggingFaceError::MissingTensor { tensor }),
            None => Ok(()),
        }
    }
}

/// The type of a dense tensor.
fn float(entry: &Entry) -> Result<QuantType, HuggingFaceError> {
    match entry.dtype.as_str() {
        "F32" => Ok(QuantType::F32),
        "F16" => Ok(QuantType::F16),
        "BF16" => Ok(QuantType::BF16),
        other => Err(HuggingFaceError::BadType { tensor: entry.name.clone(), found: other.to_owned(), expected: "F32, F16 or BF16" }),
    }
}

fn ternary(entry: &Entry) -> Result<QuantType, HuggingFaceError> {
    match entry.dtype.as_str() {
        "U8" => Ok(QuantType::HF_U2),
        other => Err(HuggingFaceError::BadType { tensor: entry.name.clone(), found: other.to_owned(), expected: "U8, packed" }),
    }
}

/// Extents of a tensor of so many dimensions, fastest first.
fn extents(entry: &Entry, dimensions: usize) -> Result<[u64; 4], HuggingFaceError> {
    match *entry.shape.as_slice() {
        [columns] if dimensions == 1 => Ok([columns, 1, 1, 1]),
        [rows, columns] if dimensions == 2 => Ok([columns, rows, 1, 1]),
        _ => Err(bad_shape(entry, format!("{dimensions} dimensions"))),
    }
}

fn bad_shape(entry: &Entry, expected: String) -> HuggingFaceError {
    HuggingFaceError::BadShape { tensor: entry.name.clone(), shape: entry.shape.clone(), expected }
}

/// Extents of the weights of a packed matrix, which has a quarter of their rows.
fn unpacked(entry: &Entry) -> Result<[u64; 4], HuggingFaceError> {
    let [columns, quarter, ..] = extents(entry, 2)?;
    let rows = quarter.checked_mul(4).filter(|rows| rows.checked_mul(columns).is_some());
    rows.map(|rows| [columns, rows, 1, 1]).ok_or_else(|| bad_shape(entry, "the address space".to_owned()))
}

/// The files as parts of one model, as those of a split GGUF file are.
fn files(parts: &[Safetensors], tables: Vec<Vec<TensorInfo>>, mut metadata: BTreeMap<String, Value>) -> Vec<Gguf> {
    let uint = |number: usize| Value::Scalar(MetaValue::Uint(number as u64));
    let file = |(number, (part, tensors)): (usize, (&Safetensors, Vec<TensorInfo>))| {
        let mut metadata = std::mem::take(&mut metadata);
        if parts.len() > 1 {
            metadata.insert("split.no".to_owned(), uint(number));
            metadata.insert("split.count".to_owned(), uint(parts.len()));
        }
        let (data_offset, file_size) = (part.data_offset, part.file_size);
        Gguf { version: 3, metadata, tensors, alignment: DEFAULT_ALIGNMENT, data_offset, file_size }
    };
    parts.iter().zip(tables).enumerate().map(file).collect()
}
