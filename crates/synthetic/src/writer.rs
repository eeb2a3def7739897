//! The header of a GGUF file, byte for byte. Writes what it is told, also what no reader should accept.

/// A value of metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Type 0.
    U8(u8),
    /// Type 1.
    I8(i8),
    /// Type 2.
    U16(u16),
    /// Type 3.
    I16(i16),
    /// Type 4.
    U32(u32),
    /// Type 5.
    I32(i32),
    /// Type 6.
    F32(f32),
    /// Type 7.
    Bool(bool),
    /// Type 8.
    Text(String),
    /// Type 9; elements should be of one kind, that of the first (of the field `empty` where there is none).
    Array {
        /// The elements.
        items: Vec<Value>,
        /// Type id that an empty array states.
        empty: u32,
    },
    /// Type 10.
    U64(u64),
    /// Type 11.
    I64(i64),
    /// Type 12.
    F64(f64),
}

impl Value {
    /// An array of the given elements.
    pub fn array<T>(items: impl IntoIterator<Item = T>) -> Self
    where
        Self: From<T>,
    {
        Self::Array { items: items.into_iter().map(Self::from).collect(), empty: 4 }
    }

    /// The type id of the value.
    pub fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) => 8,
            Self::Array { .. } => 9,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::U8(value) => out.extend(value.to_le_bytes()),
            Self::I8(value) => out.extend(value.to_le_bytes()),
            Self::U16(value) => out.extend(value.to_le_bytes()),
            Self::I16(value) => out.extend(value.to_le_bytes()),
            Self::U32(value) => out.extend(value.to_le_bytes()),
            Self::I32(value) => out.extend(value.to_le_bytes()),
            Self::F32(value) => out.extend(value.to_le_bytes()),
            Self::Bool(value) => out.push(u8::from(*value)),
            Self::Text(text) => string(out, text),
            Self::Array { items, empty } => {
                out.extend(items.first().map_or(*empty, Self::type_id).to_le_bytes());
                out.extend((items.len() as u64).to_le_bytes());
                for item in items {
                    item.encode(out);
                }
            }
            Self::U64(value) => out.extend(value.to_le_bytes()),
            Self::I64(value) => out.extend(value.to_le_bytes()),
            Self::F64(value) => out.extend(value.to_le_bytes()),
        }
    }
}

macro_rules! from {
    ($($ty:ty => $variant:ident,)*) => {
        $(impl From<$ty> for Value {
            fn from(value: $ty) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

from! {
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, f32 => F32, bool => Bool, &str => Text, String => Text,
    u64 => U64, i64 => I64, f64 => F64,
}

/// One entry of the tensor table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Name.
    pub name: String,
    /// Extents, fastest first.
    pub shape: Vec<u64>,
    /// Type id; need not exist.
    pub type_id: u32,
    /// Offset of its data from the start of the data section.
    pub offset: u64,
}

/// A GGUF header.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Format version; 3 is current, 2 has the same layout.
    pub version: u32,
    /// Metadata in order.
    pub metadata: Vec<(String, Value)>,
    /// Tensor table in order.
    pub tensors: Vec<TensorEntry>,
    /// Alignment of the data section; the caller states any other than 32 as `general.alignment` too.
    pub alignment: u64,
}

impl Header {
    /// A version 3 header without content, aligned to 32.
    pub fn new() -> Self {
        Self { version: 3, metadata: Vec::new(), tensors: Vec::new(), alignment: 32 }
    }

    /// The header's bytes up to the data section.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.encode_unpadded();
        let aligned = (out.len() as u64).checked_next_multiple_of(self.alignment.max(1)).unwrap_or(out.len() as u64);
        out.resize(aligned as usize, 0);
        out
    }

    /// The header's bytes up to the end of the tensor table.
    pub fn encode_unpadded(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            string(&mut out, key);
            out.extend(value.type_id().to_le_bytes());
            value.encode(&mut out);
        }
        for tensor in &self.tensors {
            string(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for extent in &tensor.shape {
                out.extend(extent.to_le_bytes());
            }
            out.extend(tensor.type_id.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out
    }
}

impl Default for Header {
    fn default() -> Self {
        Self::new()
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_laid_out_as_the_format_says() {
        let header = Header {
            metadata: vec![("a".into(), 7_u32.into()), ("b".into(), Value::array(["x", "yz"]))],
            tensors: vec![TensorEntry { name: "t".into(), shape: vec![3], type_id: 0, offset: 0 }],
            ..Header::new()
        };
        let bytes = header.encode_unpadded();
        let mut expected = b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0".to_vec();
        expected.extend(b"\x01\0\0\0\0\0\0\0a\x04\0\0\0\x07\0\0\0");
        expected.extend(b"\x01\0\0\0\0\0\0\0b\x09\0\0\0\x08\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0x\x02\0\0\0\0\0\0\0yz");
        expected.extend(b"\x01\0\0\0\0\0\0\0t\x01\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(bytes, expected);
        assert!(header.encode().len().is_multiple_of(32) && header.encode().starts_with(&bytes));
    }
}
