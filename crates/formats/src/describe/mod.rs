//! Headers to a model, by the rules of llama.cpp.
//!
//! Tensors are exact for every file. Layers follow the engine's own rules for the architectures in `family.rs`
//! ([`Support::Described`]); for all others they are guessed from generic keys ([`Support::Generic`]).

mod attachment;
mod error;
mod family;
mod feed_forward;
mod figures;
mod file_type;
mod files;
mod generic;
mod keys;
mod mixers;
mod state;
mod window;

pub use attachment::attachment;
pub use error::DescribeError;

use crate::gguf::{Gguf, Value};
use family::{Family, family};
use figures::Figures;
use keys::Keys;
use spec::model::{Layer, MetaValue, Support, Tensor, Tokenizer};
use spec::{AttachmentKind, Model};
use std::collections::BTreeMap;

/// Describes the model in these files: one header, or those of all parts of a split model in order.
///
/// # Errors
/// Files that are not one whole model, or a key that llama.cpp needs and the file lacks.
pub fn describe(files: &[Gguf]) -> Result<Model, DescribeError> {
    files::check(files)?;
    let first = files.first().ok_or(DescribeError::NoFile)?;
    let keys = Keys::new(&first.metadata)?;
    refuse_other_kinds(&keys)?;
    let tensors = files::tensors(files)?;
    if tensors.is_empty() {
        return Err(DescribeError::NoTensors);
    }
    let mut figures = Figures::read(&keys)?;
    if figures.n_layer_nextn > 0 && !predicts(&keys, &figures, &tensors) {
        figures.n_layer_nextn = 0;
    }
    let family = family(&keys.architecture);
    let mixers = match family {
        Some(family) => mixers::mixers(&keys, &figures, family)?,
        None => generic::mixers(&keys, &figures, &tensors)?,
    };
    if family.is_some() && figures.n_ctx_train.is_none() {
        return Err(DescribeError::MissingKey { key: keys.full("context_length") });
    }
    let blocks = feed_forward::feed_forward(&keys, &figures, &tensors)?;
    let layers = mixers.into_iter().zip(blocks).map(|(mixer, feed_forward)| Layer { mixer, feed_forward }).collect();
    let tokenizer = tokenizer(&keys)?;
    Ok(Model {
        support: if family.is_some() { Support::Described } else { Support::Generic },
        name: keys.text("general.name")?.map(str::to_owned),
        file_type: file_type(&keys, &tensors).map(str::to_owned),
        n_ctx_train: figures.n_ctx_train,
        n_embd: figures.n_embd.into(),
        n_vocab: n_vocab(&keys, tokenizer.as_ref(), &tensors)?,
        layers,
        n_layer_nextn: figures.n_layer_nextn,
        encoder: matches!(family, Some(Family::Encoder(_))),
        tied_embeddings: !tensors.iter().any(|tensor| tensor.name == "output.weight"),
        tensors,
        files: files::sizes(files),
        tokenizer,
        metadata: scalars(&first.metadata),
        arrays: arrays(&first.metadata),
        architecture: keys.architecture,
    })
}

/// False where a file lacks the prediction layers that it counts, and the engine then takes it to have none
/// (`src/models/deepseek4.cpp:19-25`; other families take off layers all the same).
fn predicts(keys: &Keys<'_>, figures: &Figures, tensors: &[Tensor]) -> bool {
    let projection = format!("blk.{}.nextn.eh_proj.weight", figures.n_layer());
    keys.architecture != "deepseek4" || tensors.iter().any(|tensor| tensor.name == projection)
}

/// Adapters, projectors and the like are GGUF files too.
fn refuse_other_kinds(keys: &Keys<'_>) -> Result<(), DescribeError> {
    let not_a_model = |found: &str| Err(DescribeError::NotAModel { found: found.to_owned() });
    match attachment::kind(keys)? {
        Some(AttachmentKind::Projector) => return not_a_model("a multimodal projector"),
        Some(AttachmentKind::Lora) => return not_a_model("a LoRA adapter"),
        Some(AttachmentKind::ControlVector) => return not_a_model("a control vector"),
        None => {}
    }
    match (keys.text("general.type")?, keys.architecture.as_str()) {
        (Some("imatrix"), _) => not_a_model("an importance matrix"),
        (_, "") => not_a_model("general.architecture is empty"),
        _ => Ok(()),
    }
}

fn file_type(keys: &Keys<'_>, tensors: &[Tensor]) -> Option<&'static str> {
    let id = match keys.get("general.file_type")? {
        Value::Scalar(MetaValue::Uint(id)) => *id,
        Value::Scalar(MetaValue::Int(id)) => u64::try_from(*id).ok()?,
        _ => return None,
    };
    let fork = tensors.iter().any(|tensor| tensor.ty.is_bitnet_fork());
    if fork { file_type::bitnet_fork_name(id) } else { file_type::name(id) }
}

fn tokenizer(keys: &Keys<'_>) -> Result<Option<Tokenizer>, DescribeError> {
    let Some(model) = keys.text("tokenizer.ggml.model")? else { return Ok(None) };
    let entries = |key| match keys.get(key) {
        Some(Value::Array(list)) => list.length,
        _ => 0,
    };
    let (n_tokens, n_merges) = (entries("tokenizer.ggml.tokens"), entries("tokenizer.ggml.merges"));
    let chat_template = keys.get("tokenizer.chat_template").is_some();
    Ok(Some(Tokenizer { model: model.to_owned(), n_tokens, n_merges, chat_template }))
}

/// The token list's length, else the key `vocab_size`, else the rows of the embedding.
fn n_vocab(keys: &Keys<'_>, tokenizer: Option<&Tokenizer>, tensors: &[Tensor]) -> Result<u64, DescribeError> {
    if let Some(tokens) = tokenizer.map(|tokenizer| tokenizer.n_tokens).filter(|&tokens| tokens > 0) {
        return Ok(tokens);
    }
    if let Some(size) = keys.count("vocab_size")? {
        return Ok(size.into());
    }
    let embedding = tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
    let [_, rows, ..] = embedding.ok_or_else(|| DescribeError::MissingKey { key: keys.full("vocab_size") })?.shape;
    Ok(rows)
}

fn scalars(values: &BTreeMap<String, Value>) -> BTreeMap<String, MetaValue> {
    let scalar = |(key, value): (&String, &Value)| match value {
        Value::Scalar(scalar) => Some((key.clone(), scalar.clone())),
        _ => None,
    };
    values.iter().filter_map(scalar).collect()
}

fn arrays(values: &BTreeMap<String, Value>) -> BTreeMap<String, Vec<f64>> {
    let numbers = |(key, value): (&String, &Value)| match value {
        Value::Array(array) => array.numbers.clone().map(|numbers| (key.clone(), numbers)),
        _ => None,
    };
    values.iter().filter_map(numbers).collect()
}
