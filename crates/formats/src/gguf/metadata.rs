//! Metadata: scalars and short arrays of numbers are kept, vocabularies are stepped over.

use super::error::{GgufError, GgufErrorKind};
use super::{DEFAULT_ALIGNMENT, MAX_ARRAY, MAX_KEPT_ARRAY, MAX_KEPT_TEXT, MAX_KEY, MAX_NESTING, MAX_STRING};
use crate::reader::Reader;
use spec::Bytes;
use spec::model::MetaValue;
use std::collections::BTreeMap;

/// Fewest bytes of a pair: an empty key, a type and a value of one byte.
pub(super) const MIN_PAIR: u64 = 8 + 4 + 1;

/// Type of a value or of the elements of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// 8 bits, unsigned.
    U8,
    /// 8 bits, signed.
    I8,
    /// 16 bits, unsigned.
    U16,
    /// 16 bits, signed.
    I16,
    /// 32 bits, unsigned.
    U32,
    /// 32 bits, signed.
    I32,
    /// Single precision.
    F32,
    /// One byte.
    Bool,
    /// Length and bytes.
    Text,
    /// Type, length and elements.
    Array,
    /// 64 bits, unsigned.
    U64,
    /// 64 bits, signed.
    I64,
    /// Double precision.
    F64,
}

impl ElementType {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Text,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(id as usize).copied()
    }

    /// Size of one element; `None` for strings and arrays.
    pub(super) fn width(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }
}

/// A value of metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number, a boolean or a string of at most [`MAX_KEPT_TEXT`] bytes.
    Scalar(MetaValue),
    /// A longer string, which is not kept.
    LongText {
        /// Its length.
        length: Bytes,
    },
    /// An array.
    Array(Array),
}

impl Value {
    /// The value in a few words, for messages.
    pub fn summary(&self) -> String {
        match self {
            Self::Scalar(MetaValue::Uint(number)) => number.to_string(),
            Self::Scalar(MetaValue::Int(number)) => number.to_string(),
            Self::Scalar(MetaValue::Float(number)) => number.to_string(),
            Self::Scalar(MetaValue::Bool(flag)) => flag.to_string(),
            Self::Scalar(MetaValue::Text(text)) if text.len() <= 64 => format!("{text:?}"),
            Self::Scalar(MetaValue::Text(text)) => format!("a string of {} bytes", text.len()),
            Self::LongText { length } => format!("a string of {length}"),
            Self::Array(array) => format!("an array of {}", array.length),
        }
    }
}

/// An array of metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Type of its elements.
    pub element: ElementType,
    /// How many elements it has.
    pub length: u64,
    /// The elements, of arrays of numbers and booleans of at most [`MAX_KEPT_ARRAY`] elements.
    pub numbers: Option<Vec<f64>>,
}

/// The metadata of a file.
pub(super) struct Metadata {
    pub(super) values: BTreeMap<String, Value>,
    pub(super) alignment: u64,
}

pub(super) fn read(reader: &mut Reader<'_>, count: u64) -> Result<Metadata, GgufError> {
    let mut values = BTreeMap::new();
    let mut alignment = DEFAULT_ALIGNMENT;
    for _ in 0..count {
        let start = reader.offset();
        let refuse = |kind| Err(GgufError { offset: start, kind });
        let key = reader.text("key", MAX_KEY)?;
        if key.is_empty() {
            return refuse(GgufErrorKind::EmptyKey);
        }
        if values.contains_key(key) {
            return refuse(GgufErrorKind::DuplicateKey { key: key.to_owned() });
        }
        let element = element_type(reader, key)?;
        let value = value(reader, key, element)?;
        if key == "general.alignment" {
            alignment = match &value {
                Value::Scalar(MetaValue::Uint(power)) if element == ElementType::U32 && power.is_power_of_two() => *power,
                other => return refuse(GgufErrorKind::BadAlignment { found: other.summary() }),
            };
        }
        values.insert(key.to_owned(), value);
    }
    Ok(Metadata { values, alignment })
}

pub(super) fn element_type(reader: &mut Reader<'_>, key: &str) -> Result<ElementType, GgufError> {
    let start = reader.offset();
    let id = reader.u32("value type")?;
    ElementType::from_id(id).ok_or_else(|| GgufError { offset: start, kind: GgufErrorKind::UnknownValueType { key: key.to_owned(), id } })
}

pub(super) fn value(reader: &mut Reader<'_>, key: &str, element: ElementType) -> Result<Value, GgufError> {
    match element {
        ElementType::Array => array(reader, key, MAX_NESTING).map(Value::Array),
        ElementType::Text => {
            let bytes = reader.string("string", MAX_STRING)?;
            if bytes.len() > MAX_KEPT_TEXT {
                return Ok(Value::LongText { length: Bytes::new(bytes.len() as u64) });
            }
            // Values are shown, never looked up: what is not UTF-8 is shown as such.
            Ok(Value::Scalar(MetaValue::Text(String::from_utf8_lossy(bytes).into_owned())))
        }
        number => {
            let bytes = reader.take(number.width().unwrap_or(0), "value")?;
            Ok(Value::Scalar(scalar(number, bytes)))
        }
    }
}

/// A number or boolean out of its own bytes.
fn scalar(element: ElementType, bytes: &[u8]) -> MetaValue {
    let raw = bytes.iter().rev().fold(0_u64, |raw, &byte| (raw << 8) | u64::from(byte));
    // Shifting a value to the top and back extends its sign.
    let unused = 64 - 8 * bytes.len() as u32;
    let signed = || (raw << (unused % 64)) as i64 >> (unused % 64);
    match element {
        ElementType::I8 | ElementType::I16 | ElementType::I32 | ElementType::I64 => MetaValue::Int(signed()),
        ElementType::F32 => MetaValue::Float(f64::from(f32::from_bits(raw as u32))),
        ElementType::F64 => MetaValue::Float(f64::from_bits(raw)),
        ElementType::Bool => MetaValue::Bool(raw != 0),
        _ => MetaValue::Uint(raw),
    }
}

pub(super) fn number(element: ElementType, bytes: &[u8]) -> f64 {
    match scalar(element, bytes) {
        MetaValue::Uint(value) => value as f64,
        MetaValue::Int(value) => value as f64,
        MetaValue::Float(value) => value,
        MetaValue::Bool(flag) => f64::from(u8::from(flag)),
        MetaValue::Text(_) => f64::NAN,
    }
}

fn array(reader: &mut Reader<'_>, key: &str, nesting: u32) -> Result<Array, GgufError> {
    let start = reader.offset();
    if nesting == 0 {
        let kind = GgufErrorKind::NestedTooDeep { key: key.to_owned(), limit: MAX_NESTING };
        return Err(GgufError { offset: start, kind });
    }
    let element = element_type(reader, key)?;
    // A string has at least its length, an array its type and length.
    let least = match element {
        ElementType::Text => 8,
        ElementType::Array => 12,
        other => other.width().unwrap_or(1),
    };
    let length = reader.count("array elements", least, MAX_ARRAY)?;
    let mut numbers = None;
    match element.width() {
        Some(width) => {
            let bytes = reader.take(length * width, "array")?;
            if length <= MAX_KEPT_ARRAY {
                numbers = Some(bytes.chunks_exact(width as usize).map(|one| number(element, one)).collect());
            }
        }
        None if element == ElementType::Text => {
            for _ in 0..length {
                reader.string("string of an array", MAX_STRING)?;
            }
        }
        None => {
            for _ in 0..length {
                array(reader, key, nesting - 1)?;
            }
        }
    }
    Ok(Array { element, length, numbers })
}
