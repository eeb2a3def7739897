//! Models of the Hugging Face hub: `config.json` and safetensors headers to the model that they would be as a GGUF file.
//!
//! What comes out is equal to what llama.cpp's `convert_hf_to_gguf.py` and then `llama-quantize` write, as far as
//! architecture, figures, names, extents and types of tensors go; `tests/converted.rs` holds one model of each family against
//! the converter's own output. The tokenizer is not read: its part of the file, a few
//! megabytes, is in no size. Of a model whose embedding has more rows than the tokenizer has tokens (Gemma 3 with images),
//! conversion cuts the surplus off and this does not.
//!
//! BitNet's packed safetensors (`quant_method: bitnet`) are described as they are: see [`Config::is_packed`].

mod config;
mod error;
mod family;
mod keys;
mod packed;
mod tensors;

pub use config::{Config, MAX_CONFIG};
pub use error::HuggingFaceError;
pub use packed::LINEAR_CLASS;

use crate::describe::describe;
use crate::gguf::{DEFAULT_ALIGNMENT, Gguf, TensorInfo, Value};
use crate::safetensors::Safetensors;
use mixture::{Figures, FileType, Options, Tensor, converted, needs_importance_matrix};
use spec::model::MetaValue;
use spec::{Bytes, Model, QuantType};
use std::collections::BTreeMap;
use tensors::Converted;

/// Most layers that the engine takes, `LLAMA_MAX_LAYERS` of `src/llama-hparams.h` (llama.cpp v0.6.0-dev).
const MAX_LAYERS: u64 = 512;

/// The classes that [`plan`] knows: values of `architectures` in `config.json`.
pub fn classes() -> impl Iterator<Item = &'static str> {
    family::FAMILIES.iter().flat_map(|family| family.classes.iter().copied())
}

/// The model that these files become as a GGUF file: converted to 16 bits, as the weights are, or quantised to `quant` as
/// `llama-quantize` does it. File types that need an importance matrix are planned as with one.
///
/// Of a [packed](Config::is_packed) model: the model in these very files, each tensor at its place in its file. Tensors have the names of a
/// GGUF file, ternary ones the type `hf_u2` and a scale `.weight_scale` beside them, and [`LINEAR_CLASS`] says what the scale does.
///
/// # Errors
/// A class or a tensor that is not known, figures that are missing or contradict the tensors, or a mixture that could not
/// be made.
pub fn plan(config: &Config, parts: &[Safetensors], quant: Option<FileType>) -> Result<Model, HuggingFaceError> {
    let class = config.class();
    if config.is_packed() {
        return match quant {
            Some(to) => Err(HuggingFaceError::AlreadyTernary { to }),
            None => packed::packed(config, parts, n_layer(config)?),
        };
    }
    let family = family::family(class).ok_or_else(|| HuggingFaceError::Unsupported { class: class.to_owned() })?;
    match config.quantization() {
        None | Some("fp8") => {}
        Some("mxfp4") if family.architecture == "gpt-oss" => {}
        Some(method) => return Err(HuggingFaceError::Quantized { method: method.to_owned() }),
    }
    let n_layer = n_layer(config)?;
    let mut metadata = keys::metadata(config, family, n_layer)?;
    let tensors = tensors::tensors(config, family, parts, n_layer)?;
    let wanted = sixteen_bits(parts);
    let mut table = tensors.iter().map(|tensor| entry(tensor, wanted)).collect::<Result<Vec<_>, _>>()?;
    let stored = if tensors.iter().any(|tensor| tensor.ty.is_some()) { FileType::MXFP4_MOE } else { file_type(wanted) };
    if let Some(quant) = quant {
        quantize(&mut table, &metadata, family.architecture, quant)?;
    }
    metadata.insert("general.file_type".to_owned(), Value::Scalar(MetaValue::Uint(quant.unwrap_or(stored).id().into())));
    Ok(describe(&[lay_out(table, metadata)?])?)
}

fn n_layer(config: &Config) -> Result<u64, HuggingFaceError> {
    let n_layer = config.need(&["n_layers", "num_hidden_layers", "n_layer", "num_layers"])?;
    if n_layer > MAX_LAYERS {
        let found = n_layer.to_string();
        return Err(HuggingFaceError::BadValue { key: "num_hidden_layers".to_owned(), expected: "count of at most 512", found });
    }
    Ok(n_layer)
}

/// The type that conversion chooses without being told: that of the first matrix in 16 bits, else F16.
fn sixteen_bits(parts: &[Safetensors]) -> QuantType {
    let matrices = parts.iter().flat_map(|part| &part.tensors).filter(|entry| entry.shape.len() >= 2);
    let mut types = matrices.filter_map(|entry| match entry.dtype.as_str() {
        "BF16" => Some(QuantType::BF16),
        "F16" => Some(QuantType::F16),
        _ => None,
    });
    types.next().unwrap_or(QuantType::F16)
}

fn file_type(wanted: QuantType) -> FileType {
    if wanted == QuantType::BF16 { FileType::BF16 } else { FileType::F16 }
}

/// A row of the tensor table; where it lies is not settled yet.
fn entry(tensor: &Converted, wanted: QuantType) -> Result<TensorInfo, HuggingFaceError> {
    let bad = |expected: &str| HuggingFaceError::BadShape {
        tensor: tensor.name.clone(),
        shape: tensor.shape.clone(),
        expected: expected.to_owned(),
    };
    let shape = tensor.extents().ok_or_else(|| bad("four dimensions"))?;
    let ty = tensor.ty.unwrap_or_else(|| converted(&tensor.name, shape, tensor.shape.len(), wanted));
    let bytes = size(shape, ty).ok_or_else(|| bad("the address space"))?;
    Ok(TensorInfo { name: tensor.name.clone(), ty, shape, bytes, offset: Bytes::ZERO })
}

fn size(shape: [u64; 4], ty: QuantType) -> Option<Bytes> {
    let [columns, rows @ ..] = shape;
    let bytes = rows.iter().try_fold(ty.row_bytes(columns)?, |bytes, &extent| bytes.checked_mul(extent))?;
    (bytes.get() < 1 << 62).then_some(bytes)
}

/// Changes the types as `llama-quantize` does, and the order to that in which it writes.
fn quantize(
    table: &mut [TensorInfo],
    metadata: &BTreeMap<String, Value>,
    architecture: &str,
    quant: FileType,
) -> Result<(), HuggingFaceError> {
    let count = |key: &str| match metadata.get(&format!("{architecture}.{key}")) {
        Some(Value::Scalar(MetaValue::Uint(count))) => Some(*count),
        Some(Value::Array(array)) => array.numbers.as_ref()?.first().map(|&number| number as u64),
        _ => None,
    };
    let n_head = count("attention.head_count").unwrap_or(0);
    let figures = Figures {
        architecture,
        n_layer: count("block_count").unwrap_or(0),
        n_head,
        n_head_kv: count("attention.head_count_kv").unwrap_or(n_head),
        n_expert: count("expert_count").unwrap_or(0),
    };
    let tensors: Vec<Tensor<'_>> = table.iter().map(|info| Tensor { name: &info.name, shape: info.shape, ty: info.ty }).collect();
    let mut types = mixture::types(&figures, &tensors, quant, &Options::default())?;
    if tensors.iter().zip(&types).any(|(tensor, &ty)| needs_importance_matrix(tensor.name, ty, quant)) {
        types = mixture::types(&figures, &tensors, quant, &Options { importance_matrix: true, ..Options::default() })?;
    }
    for (info, ty) in table.iter_mut().zip(types) {
        if info.ty.is_quantized() && info.ty != ty {
            return Err(HuggingFaceError::Requantized { tensor: info.name.clone(), from: info.ty, to: ty });
        }
        let too_large = || HuggingFaceError::BadShape {
            tensor: info.name.clone(),
            shape: info.shape.iter().rev().copied().collect(),
            expected: "the address space".to_owned(),
        };
        info.bytes = size(info.shape, ty).ok_or_else(too_large)?;
        info.ty = ty;
    }
    table.sort_by_cached_key(|info| {
        let layer = info.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')?.0.parse::<u64>().ok());
        (layer, info.name.clone())
    });
    Ok(())
}

/// The file of these tensors, one after another, without the header whose length the tokenizer settles.
fn lay_out(mut tensors: Vec<TensorInfo>, metadata: BTreeMap<String, Value>) -> Result<Gguf, HuggingFaceError> {
    let mut end = Bytes::ZERO;
    for info in &mut tensors {
        info.offset = end;
        let next = end.get().checked_add(info.bytes.get()).and_then(|end| end.checked_next_multiple_of(DEFAULT_ALIGNMENT));
        let next = next.filter(|&next| next < 1 << 62);
        end = Bytes::new(next.ok_or_else(|| HuggingFaceError::BadShape {
            tensor: info.name.clone(),
            shape: info.shape.iter().rev().copied().collect(),
            expected: "the address space together with the tensors before it".to_owned(),
        })?);
    }
    Ok(Gguf { version: 3, metadata, tensors, alignment: DEFAULT_ALIGNMENT, data_offset: Bytes::ZERO, file_size: end })
}
