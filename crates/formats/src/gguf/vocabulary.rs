//! The vocabulary of a file, which [`read`](super::read) steps over: for engines that compute in this program.

use super::error::{GgufError, GgufErrorKind};
use super::metadata::{self, ElementType, Value};
use super::{MAX_KEY, MAX_METADATA, MAX_STRING, MAX_TENSORS, magic, tensors};
use crate::reader::Reader;
use spec::Bytes;
use spec::model::MetaValue;
use spec::vocabulary::{TokenKind, Vocabulary};

/// Longest chat template; real ones have some thousands of bytes.
pub const MAX_TEMPLATE: usize = 1 << 20;

/// Most tokens or merges that are kept; real vocabularies have up to some 500,000.
pub const MAX_TOKENS: u64 = 1 << 22;

/// Reads the vocabulary of a file of `file_size` out of `prefix`, its first bytes; empty where the file has none.
///
/// # Errors
/// As [`read`](super::read), and lists that are no vocabulary.
pub fn vocabulary(prefix: &[u8], file_size: Bytes) -> Result<Vocabulary, GgufError> {
    let mut reader = Reader::new(prefix, file_size);
    magic::version(&mut reader, prefix)?;
    reader.count("tensors", tensors::MIN_ENTRY, MAX_TENSORS)?;
    let n_metadata = reader.count("metadata pairs", metadata::MIN_PAIR, MAX_METADATA)?;
    let mut found = Vocabulary::default();
    for _ in 0..n_metadata {
        let key = reader.text("key", MAX_KEY)?;
        let element = metadata::element_type(&mut reader, key)?;
        let Some(part) = key.strip_prefix("tokenizer.") else {
            metadata::value(&mut reader, key, element)?;
            continue;
        };
        match (part, element) {
            ("ggml.tokens", ElementType::Array) => found.tokens = texts(&mut reader, key)?,
            ("ggml.merges", ElementType::Array) => found.merges = texts(&mut reader, key)?,
            ("ggml.scores", ElementType::Array) => found.scores = numbers(&mut reader, key)?.map(|score| score as f32).collect(),
            ("ggml.token_type", ElementType::Array) => {
                found.kinds = numbers(&mut reader, key)?.map(|id| TokenKind::from_id(id as i64).unwrap_or_default()).collect();
            }
            ("chat_template", ElementType::Text) => found.chat_template = Some(template(&mut reader)?),
            _ => {
                let value = metadata::value(&mut reader, key, element)?;
                set(&mut found, part, &value);
            }
        }
    }
    Ok(found)
}

/// Takes over a value of one key.
fn set(found: &mut Vocabulary, part: &str, value: &Value) {
    let Value::Scalar(value) = value else { return };
    let id = match value {
        MetaValue::Uint(id) => u32::try_from(*id).ok(),
        MetaValue::Int(id) => u32::try_from(*id).ok(),
        _ => None,
    };
    match (part, value) {
        ("ggml.model", MetaValue::Text(text)) => found.model.clone_from(text),
        ("ggml.pre", MetaValue::Text(text)) => found.pre = Some(text.clone()),
        ("ggml.bos_token_id", _) => found.bos = id,
        ("ggml.eos_token_id", _) => found.eos = id,
        ("ggml.eot_token_id", _) => found.eot = id,
        ("ggml.unknown_token_id", _) => found.unknown = id,
        ("ggml.add_bos_token", MetaValue::Bool(add)) => found.add_bos = Some(*add),
        ("ggml.add_space_prefix", MetaValue::Bool(add)) => found.add_space_prefix = Some(*add),
        _ => {}
    }
}

/// Type and length of a list whose elements take `least` bytes at least.
fn list(reader: &mut Reader<'_>, key: &str, least: impl Fn(ElementType) -> Option<u64>) -> Result<(ElementType, u64), GgufError> {
    let start = reader.offset();
    let element = metadata::element_type(reader, key)?;
    let least = least(element);
    let least = least.ok_or_else(|| GgufError { offset: start, kind: GgufErrorKind::OtherList { key: key.to_owned(), found: element } })?;
    Ok((element, reader.count("tokens", least, MAX_TOKENS)?))
}

/// Texts as they are; what is not UTF-8 is marked as such.
fn texts(reader: &mut Reader<'_>, key: &str) -> Result<Vec<String>, GgufError> {
    let (_, length) = list(reader, key, |element| (element == ElementType::Text).then_some(8))?;
    (0..length).map(|_| Ok(String::from_utf8_lossy(reader.string("token", MAX_STRING)?).into_owned())).collect()
}

fn numbers<'a>(reader: &mut Reader<'a>, key: &str) -> Result<impl Iterator<Item = f64> + use<'a>, GgufError> {
    let (element, length) = list(reader, key, ElementType::width)?;
    let width = element.width().unwrap_or(1);
    let bytes = reader.take(length * width, "list of the vocabulary")?;
    Ok(bytes.chunks_exact(width as usize).map(move |one| metadata::number(element, one)))
}

fn template(reader: &mut Reader<'_>) -> Result<String, GgufError> {
    let bytes = reader.string("chat template", MAX_TEMPLATE as u64)?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}
