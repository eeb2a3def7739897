//! Tensor types of ggml and the geometry of their blocks.
//!
//! Ids, names and sizes: `ggml/include/ggml.h:389-433`, `ggml/src/ggml-common.h` and the type table of
//! `ggml/src/ggml.c` in ggml 0.26 (llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161).

use crate::units::Bytes;
use std::fmt;
use std::str::FromStr;

/// How many weights share a block, and the block's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Weights in one block, at least 1.
    pub weights: u64,
    /// Size of one block.
    pub bytes: Bytes,
}

macro_rules! quant_types {
    ($($variant:ident = $id:literal, $name:literal, $weights:literal, $bytes:literal;)*) => {
        /// The type of a tensor's elements, spelt as ggml spells it.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum QuantType {
            $(#[doc = concat!("`", $name, "`: ", $weights, " weights in ", $bytes, " bytes.")] $variant,)*
        }

        impl QuantType {
            /// Every type, in the order of their ids.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The type with this id in a GGUF file; `None` for ids that were removed or are not known.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }
            /// The id in a GGUF file.
            pub const fn id(self) -> u32 {
                match self { $(Self::$variant => $id,)* }
            }
            /// ggml's name, as `-ctk` takes it and logs show it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
            /// The geometry of one block.
            pub const fn block(self) -> Block {
                match self { $(Self::$variant => Block { weights: $weights, bytes: Bytes::new($bytes) },)* }
            }
        }
    };
}

quant_types! {
    F32 = 0, "f32", 1, 4;
    F16 = 1, "f16", 1, 2;
    Q4_0 = 2, "q4_0", 32, 18;
    Q4_1 = 3, "q4_1", 32, 20;
    Q5_0 = 6, "q5_0", 32, 22;
    Q5_1 = 7, "q5_1", 32, 24;
    Q8_0 = 8, "q8_0", 32, 34;
    Q8_1 = 9, "q8_1", 32, 36;
    Q2_K = 10, "q2_K", 256, 84;
    Q3_K = 11, "q3_K", 256, 110;
    Q4_K = 12, "q4_K", 256, 144;
    Q5_K = 13, "q5_K", 256, 176;
    Q6_K = 14, "q6_K", 256, 210;
    Q8_K = 15, "q8_K", 256, 292;
    IQ2_XXS = 16, "iq2_xxs", 256, 66;
    IQ2_XS = 17, "iq2_xs", 256, 74;
    IQ3_XXS = 18, "iq3_xxs", 256, 98;
    IQ1_S = 19, "iq1_s", 256, 50;
    IQ4_NL = 20, "iq4_nl", 32, 18;
    IQ3_S = 21, "iq3_s", 256, 110;
    IQ2_S = 22, "iq2_s", 256, 82;
    IQ4_XS = 23, "iq4_xs", 256, 136;
    I8 = 24, "i8", 1, 1;
    I16 = 25, "i16", 1, 2;
    I32 = 26, "i32", 1, 4;
    I64 = 27, "i64", 1, 8;
    F64 = 28, "f64", 1, 8;
    IQ1_M = 29, "iq1_m", 256, 56;
    BF16 = 30, "bf16", 1, 2;
    TQ1_0 = 34, "tq1_0", 256, 54;
    TQ2_0 = 35, "tq2_0", 256, 66;
    MXFP4 = 39, "mxfp4", 32, 17;
    NVFP4 = 40, "nvfp4", 64, 36;
    Q1_0 = 41, "q1_0", 128, 18;
    Q2_0 = 42, "q2_0", 64, 18;
}

impl QuantType {
    /// The size of a row of `columns` elements; `None` where a row is not a whole number of blocks or passes 2^64.
    ///
    /// ```
    /// use spec::{Bytes, QuantType};
    /// assert_eq!(QuantType::Q4_K.row_bytes(4096), Some(Bytes::new(2304)));
    /// assert_eq!(QuantType::Q4_K.row_bytes(100), None);
    /// ```
    pub fn row_bytes(self, columns: u64) -> Option<Bytes> {
        let block = self.block();
        if !columns.is_multiple_of(block.weights) {
            return None;
        }
        block.bytes.checked_mul(columns / block.weights)
    }

    /// True for types whose elements share block scales.
    pub const fn is_quantized(self) -> bool {
        self.block().weights > 1
    }

    /// Bits per weight, scales included.
    pub fn bits_per_weight(self) -> f64 {
        let block = self.block();
        block.bytes.as_f64() * 8.0 / block.weights as f64
    }
}

impl fmt::Display for QuantType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no tensor type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseQuantTypeError(String);

impl fmt::Display for ParseQuantTypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a tensor type: {:?}; ggml knows f16, bf16, q8_0, q4_0, q4_K and others", self.0)
    }
}

impl std::error::Error for ParseQuantTypeError {}

impl FromStr for QuantType {
    type Err = ParseQuantTypeError;
    /// ggml's name in any case.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|ty| ty.name().eq_ignore_ascii_case(name)).ok_or_else(|| ParseQuantTypeError(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_lead_back_to_their_type() {
        for &ty in QuantType::ALL {
            assert_eq!(QuantType::from_id(ty.id()), Some(ty));
            assert_eq!(ty.name().parse(), Ok(ty));
            assert!(ty.block().weights >= 1 && !ty.block().bytes.is_zero());
        }
        for removed in [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
            assert_eq!(QuantType::from_id(removed), None);
        }
    }

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(QuantType::Q6_K.row_bytes(512), Some(Bytes::new(420)));
        assert_eq!(QuantType::Q6_K.row_bytes(511), None);
        assert_eq!(QuantType::F64.row_bytes(u64::MAX), None);
        assert_eq!(QuantType::Q8_0.row_bytes(0), Some(Bytes::ZERO));
    }
}
