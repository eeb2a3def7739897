//! The header of one safetensors file: names, types and extents. Tensor data is never read.
//!
//! Layout: eight bytes of length, little-endian, then so many bytes of JSON, then the data
//! (<https://huggingface.co/docs/safetensors>, "Format").

mod error;

pub use error::{SafetensorsError, SafetensorsErrorKind};

use crate::json;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use spec::Bytes;
use std::collections::BTreeSet;
use std::fmt;

/// Longest header, as the reference implementation limits it.
pub const MAX_HEADER: u64 = 100_000_000;
/// Most tensors of one file.
pub const MAX_TENSORS: usize = 1 << 20;
/// Most dimensions of a tensor.
pub const MAX_DIMENSIONS: usize = 8;
/// Longest name of a tensor.
pub const MAX_NAME: usize = 1024;
/// Bytes of the length before the header.
const LENGTH: u64 = 8;

/// The header of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Safetensors {
    /// Tensors in the order of the header.
    pub tensors: Vec<Entry>,
    /// Where tensor data begins.
    pub data_offset: Bytes,
    /// Length of the file.
    pub file_size: Bytes,
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name, e.g. `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Type of its elements as the file spells it: `BF16`, `F8_E4M3`, `U8`, ...
    pub dtype: String,
    /// Extents, slowest first as PyTorch counts them; none for a scalar.
    pub shape: Vec<u64>,
    /// Size of its data.
    pub bytes: Bytes,
    /// Where its data begins, from [`Safetensors::data_offset`] on.
    pub offset: Bytes,
}

/// Bits of an element; `None` for types that this table does not have.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 8,
        "F16" | "BF16" | "U16" | "I16" => 16,
        "F32" | "U32" | "I32" => 32,
        "F64" | "U64" | "I64" | "C64" => 64,
        _ => return None,
    })
}

/// Reads the header of a file of `file_size` out of `prefix`, its first bytes.
///
/// ```
/// use formats::safetensors::read;
/// use spec::Bytes;
/// let header = br#"{"x":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}}"#;
/// let mut file = (header.len() as u64).to_le_bytes().to_vec();
/// file.extend(header);
/// let size = Bytes::new(file.len() as u64 + 12);
/// assert_eq!(read(&file, size).unwrap().tensors[0].shape, [2, 3]);
/// ```
///
/// # Errors
/// [`SafetensorsErrorKind::NeedMore`] where the prefix ends inside the header and the file is longer: read more and call
/// again. Any other kind where the file breaks the format: it will not get better with more bytes.
pub fn read(prefix: &[u8], file_size: Bytes) -> Result<Safetensors, SafetensorsError> {
    use SafetensorsErrorKind as K;
    let file_size = file_size.get().max(prefix.len() as u64);
    let fail = |offset, kind| Err(SafetensorsError { offset, kind });
    let Some((length, rest)) = prefix.split_first_chunk::<8>() else {
        return fail(
            0,
            if file_size < LENGTH { K::Truncated { left: Bytes::new(file_size) } } else { K::NeedMore { at_least: Bytes::new(LENGTH) } },
        );
    };
    let length = u64::from_le_bytes(*length);
    if length > file_size - LENGTH {
        return fail(0, K::LengthPastEnd { declared: length, left: Bytes::new(file_size - LENGTH) });
    }
    if length > MAX_HEADER {
        return fail(0, K::TooLong { declared: length, limit: MAX_HEADER });
    }
    let end = LENGTH + length;
    let Some(text) = usize::try_from(length).ok().and_then(|length| rest.get(..length)) else {
        return fail(rest.len() as u64 + LENGTH, K::NeedMore { at_least: Bytes::new(end) });
    };
    if text.first() != Some(&b'{') {
        return fail(LENGTH, K::NoHeader);
    }
    let mut parser = serde_json::Deserializer::from_slice(text);
    let tensors = Header { data: file_size - end }.deserialize(&mut parser).and_then(|tensors| parser.end().map(|()| tensors));
    let tensors = tensors.map_err(|error| SafetensorsError {
        offset: LENGTH + json::offset(text, &error),
        kind: K::Malformed { problem: json::problem(&error) },
    })?;
    Ok(Safetensors { tensors, data_offset: Bytes::new(end), file_size: Bytes::new(file_size) })
}

/// The table of tensors, with as much data behind it.
struct Header {
    data: u64,
}

impl<'de> DeserializeSeed<'de> for Header {
    type Value = Vec<Entry>;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Header {
    type Value = Vec<Entry>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut names = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if name.len() > MAX_NAME {
                return Err(A::Error::custom(format_args!("name of a tensor longer than {MAX_NAME} bytes: {}", name.len())));
            }
            if entries.len() == MAX_TENSORS {
                return Err(A::Error::custom(format_args!("more tensors than {MAX_TENSORS}")));
            }
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("tensor stands twice: {name}")));
            }
            entries.push(map.next_value_seed(One { name, data: self.data })?);
        }
        Ok(entries)
    }
}

/// One tensor.
struct One {
    name: String,
    data: u64,
}

impl<'de> DeserializeSeed<'de> for One {
    type Value = Entry;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Entry, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for One {
    type Value = Entry;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dtype, shape and data_offsets of {}", self.name)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "dtype" => dtype = Some(map.next_value::<String>()?),
                "shape" => shape = Some(map.next_value_seed(Numbers { most: MAX_DIMENSIONS })?),
                "data_offsets" => offsets = Some(map.next_value_seed(Numbers { most: 2 })?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let Self { name, data } = self;
        let missing = |what: &str| A::Error::custom(format_args!("tensor {name} has no {what}"));
        let dtype = dtype.ok_or_else(|| missing("dtype"))?;
        let shape = shape.ok_or_else(|| missing("shape"))?;
        let Some([start, end]) = offsets.as_deref() else { return Err(missing("pair of data_offsets")) };
        let size = end.checked_sub(*start).filter(|_| *end <= data);
        let size = size.ok_or_else(|| A::Error::custom(format_args!("tensor {name} lies at {start} to {end} of {data} bytes of data")))?;
        let elements = shape.iter().try_fold(1_u64, |product, &extent| product.checked_mul(extent));
        let elements = elements.ok_or_else(|| A::Error::custom(format_args!("tensor {name} is too large: {shape:?}")))?;
        if let Some(bits) = bits(&dtype) {
            let needed = elements.checked_mul(bits).map(|bits| bits.div_ceil(8));
            if needed != Some(size) {
                return Err(A::Error::custom(format_args!("tensor {name} of {dtype} {shape:?} has {size} bytes of data")));
            }
        }
        Ok(Entry { name, dtype, shape, bytes: Bytes::new(size), offset: Bytes::new(*start) })
    }
}

/// A short list of numbers.
struct Numbers {
    most: usize,
}

impl<'de> DeserializeSeed<'de> for Numbers {
    type Value = Vec<u64>;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u64>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Numbers {
    type Value = Vec<u64>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} whole numbers", self.most)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u64>, A::Error> {
        let mut numbers = Vec::new();
        while let Some(number) = seq.next_element()? {
            if numbers.len() == self.most {
                return Err(A::Error::custom(format_args!("more numbers than {}", self.most)));
            }
            numbers.push(number);
        }
        Ok(numbers)
    }
}

/// The names of the files that an index (`model.safetensors.index.json`) lists, in order.
///
/// ```
/// let index = br#"{"metadata":{},"weight_map":{"a":"model-00002-of-00002.safetensors","b":"model-00001-of-00002.safetensors"}}"#;
/// assert_eq!(formats::safetensors::index(index).unwrap(), ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
/// ```
///
/// # Errors
/// No JSON, no object `weight_map` of names, or a name that leads out of the folder.
pub fn index(text: &[u8]) -> Result<Vec<String>, SafetensorsError> {
    let malformed = |offset, problem: String| SafetensorsError { offset, kind: SafetensorsErrorKind::Malformed { problem } };
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| malformed(json::offset(text, &error), json::problem(&error)))?;
    let map = value.get("weight_map").and_then(serde_json::Value::as_object);
    let map = map.filter(|map| !map.is_empty()).ok_or_else(|| malformed(0, "no object weight_map".to_owned()))?;
    let mut files = BTreeSet::new();
    for file in map.values() {
        let file = file.as_str().ok_or_else(|| malformed(0, format!("weight_map names no file: {file}")))?;
        if file.is_empty() || file.contains(['/', '\\']) || file == ".." {
            return Err(malformed(0, format!("weight_map names a file outside the folder: {file}")));
        }
        files.insert(file.to_owned());
    }
    Ok(files.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str) -> Vec<u8> {
        [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes()].concat()
    }

    fn error(header: &str, data: u64) -> String {
        let bytes = file(header);
        read(&bytes, Bytes::new(bytes.len() as u64 + data)).unwrap_err().to_string()
    }

    #[test]
    fn tensors_keep_the_order_of_the_header() {
        let bytes = file(
            r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]},"a":{"data_offsets":[8,12],"shape":[],"dtype":"F32"}}   "#,
        );
        let read = read(&bytes, Bytes::new(bytes.len() as u64 + 12)).unwrap();
        let names: Vec<_> = read.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.bytes.get())).collect();
        assert_eq!(names, [("b", 8), ("a", 4)]);
        assert_eq!(read.data_offset.get(), bytes.len() as u64);
    }

    #[test]
    fn a_prefix_asks_for_the_rest() {
        let bytes = file(r#"{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#);
        let size = Bytes::new(bytes.len() as u64 + 4);
        for cut in 0..bytes.len() {
            let need = read(&bytes[..cut], size).unwrap_err().need_more().unwrap();
            assert!(need.get() > cut as u64 && need <= size);
        }
        assert!(read(&bytes, size).is_ok());
    }

    #[test]
    fn no_length_is_believed_and_each_error_knows_its_byte() {
        insta::assert_snapshot!(error(r#"{"x":{"dtype":"U8","shape":[5],"data_offsets":[0,4]}}"#, 4), @r#"byte 59: malformed header: tensor x of U8 [5] has 4 bytes of data"#);
        insta::assert_snapshot!(error(r#"{"x":{"dtype":"U8","shape":[5],"data_offsets":[0,5]}}"#, 4), @"byte 59: malformed header: tensor x lies at 0 to 5 of 4 bytes of data");
        insta::assert_snapshot!(error(r#"{"x":{"dtype":"U8","shape":[9,18446744073709551615],"data_offsets":[0,4]}}"#, 4), @"byte 80: malformed header: tensor x is too large: [9, 18446744073709551615]");
        insta::assert_snapshot!(error(r#"{"x":{"dtype":"U8","shape":[-1],"data_offsets":[0,4]}}"#, 4), @"byte 37: malformed header: invalid value: integer `-1`, expected u64");
        insta::assert_snapshot!(error(r#"{"x":7}"#, 4), @"byte 13: malformed header: invalid type: integer `7`, expected dtype, shape and data_offsets of x");
        insta::assert_snapshot!(error("[]", 4), @"byte 8: no safetensors header: it should begin with {");
        insta::assert_snapshot!(error(r#"{"x":{"dtype":"U8""#, 4), @"byte 25: malformed header: EOF while parsing an object");
        let long = read(&u64::MAX.to_le_bytes(), Bytes::new((1 << 30) + 8)).unwrap_err();
        insta::assert_snapshot!(long, @"byte 0: header longer than the 1.00 GiB left of the file: 18446744073709551615 bytes stated");
        assert!(long.hint().is_some());
        let long = read(&(1_u64 << 30).to_le_bytes(), Bytes::from_gib(2)).unwrap_err();
        insta::assert_snapshot!(long, @"byte 0: header longer than 100000000 bytes: 1073741824");
        insta::assert_snapshot!(read(b"abc", Bytes::new(3)).unwrap_err(), @"byte 0: the file ends inside the header, left 3 B");
    }

    #[test]
    fn an_index_names_files_of_its_own_folder() {
        let error = |text: &str| index(text.as_bytes()).unwrap_err().to_string();
        insta::assert_snapshot!(error("{}"), @"byte 0: malformed header: no object weight_map");
        insta::assert_snapshot!(error(r#"{"weight_map":{"a":"../x"}}"#), @"byte 0: malformed header: weight_map names a file outside the folder: ../x");
        insta::assert_snapshot!(error("{\n\"a\" 1}"), @"byte 6: malformed header: expected `:`");
    }
}
