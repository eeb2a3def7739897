//! Tensor types of ggml and the geometry of their blocks.
//!
//! Ids, names and sizes: `ggml/include/ggml.h:389-433`, `ggml/src/ggml-common.h` and the type table of
//! `ggml/src/ggml.c` in ggml 0.26 (llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161). Of ik_llama.cpp: `ggml/include/ggml.h`
//! and the type table of `ggml/src/ggml.c` at 8337e4cd; its `ggml_row_size` (ggml.c:4808) adds a header to each row.

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
    (
        llama_cpp { $($variant:ident = $id:literal, $name:literal, $weights:literal, $bytes:literal;)* }
        bitnet_fork { $($fork:ident = $fork_id:literal, $fork_name:literal, $fork_weights:literal, $fork_bytes:literal;)* }
        ik_fork { $($ik:ident = $ik_id:literal, $ik_name:literal, $ik_weights:literal, $ik_bytes:literal, $ik_header:literal;)* }
        hugging_face { $($hub:ident = $hub_id:literal, $hub_name:literal, $hub_weights:literal, $hub_bytes:literal;)* }
    ) => {
        /// The type of a tensor's elements, spelt as ggml spells it.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum QuantType {
            $(#[doc = concat!("`", $name, "`: ", $weights, " weights in ", $bytes, " bytes.")] $variant,)*
            $(#[doc = concat!("`", $fork_name, "` of the BitNet fork: ", $fork_weights, " weights in ", $fork_bytes, " bytes.")] $fork,)*
            $(#[doc = concat!("`", $ik_name, "` of ik_llama.cpp: ", $ik_weights, " weights in ", $ik_bytes, " bytes, and ", $ik_header, " bytes per row.")] $ik,)*
            $(#[doc = concat!("`", $hub_name, "` of safetensors: ", $hub_weights, " weights of as many rows in ", $hub_bytes, " byte; no GGUF file has it.")] $hub,)*
        }

        impl QuantType {
            /// Every type of llama.cpp, in the order of their ids.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// Types that only the BitNet fork of llama.cpp has. Their ids mean other types, or none, in llama.cpp itself.
            pub const BITNET_FORK: &'static [Self] = &[$(Self::$fork,)*];
            /// Types that only ik_llama.cpp has, in the order of their ids, which no type of llama.cpp shares.
            pub const IK_FORK: &'static [Self] = &[$(Self::$ik,)*];
            /// Types that packed safetensors have and no GGUF file. Their ids are beyond those of GGUF files.
            pub const HUGGING_FACE: &'static [Self] = &[$(Self::$hub,)*];

            /// The type with this id in a GGUF file; `None` for ids that were removed or are not known.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }
            /// The type with this id in a file of the BitNet fork, where it is one of [`QuantType::BITNET_FORK`].
            pub const fn from_bitnet_fork_id(id: u32) -> Option<Self> {
                match id { $($fork_id => Some(Self::$fork),)* _ => None }
            }
            /// The type with this id in a file of ik_llama.cpp, where it is one of [`QuantType::IK_FORK`].
            pub const fn from_ik_fork_id(id: u32) -> Option<Self> {
                match id { $($ik_id => Some(Self::$ik),)* _ => None }
            }
            /// The id in a GGUF file.
            pub const fn id(self) -> u32 {
                match self { $(Self::$variant => $id,)* $(Self::$fork => $fork_id,)* $(Self::$ik => $ik_id,)* $(Self::$hub => $hub_id,)* }
            }
            /// ggml's name, as `-ctk` takes it and logs show it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* $(Self::$fork => $fork_name,)* $(Self::$ik => $ik_name,)* $(Self::$hub => $hub_name,)* }
            }
            /// The geometry of one block.
            #[inline]
            pub const fn block(self) -> Block {
                match self {
                    $(Self::$variant => Block { weights: $weights, bytes: Bytes::new($bytes) },)*
                    $(Self::$fork => Block { weights: $fork_weights, bytes: Bytes::new($fork_bytes) },)*
                    $(Self::$ik => Block { weights: $ik_weights, bytes: Bytes::new($ik_bytes) },)*
                    $(Self::$hub => Block { weights: $hub_weights, bytes: Bytes::new($hub_bytes) },)*
                }
            }
            /// What stands before the blocks of each row: the row's scale, in types of ik_llama.cpp.
            #[inline]
            pub const fn row_header(self) -> Bytes {
                match self { $(Self::$ik => Bytes::new($ik_header),)* _ => Bytes::ZERO }
            }
            /// True for [`QuantType::IK_FORK`]: llama.cpp loads no such tensor, ik_llama.cpp does.
            #[inline]
            pub const fn is_ik_fork(self) -> bool {
                match self { $(Self::$ik => true,)* _ => false }
            }
        }
    };
}

quant_types! {
    llama_cpp {
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
    bitnet_fork {
        I2_S = 36, "i2_s", 4, 1;
        I8_S = 37, "i8_s", 1, 1;
        TL1 = 38, "tl1", 4, 1;
        TL2 = 39, "tl2", 24, 5;
    }
    ik_fork {
        Q6_0 = 133, "q6_0", 32, 26, 0;
        IQ1_BN = 134, "iq1_bn", 64, 13, 2;
        IQ2_BN = 135, "iq2_bn", 64, 16, 4;
        IQ2_K = 137, "iq2_k", 256, 76, 0;
        IQ3_K = 138, "iq3_k", 256, 110, 0;
        IQ4_K = 139, "iq4_k", 256, 144, 0;
        IQ5_K = 140, "iq5_k", 256, 176, 0;
        IQ6_K = 141, "iq6_k", 256, 212, 0;
        IQ4_KS = 144, "iq4_ks", 256, 136, 4;
        IQ2_KS = 145, "iq2_ks", 256, 70, 2;
        IQ4_KSS = 146, "iq4_kss", 256, 128, 4;
        Q8_KV = 151, "q8_KV", 32, 32, 8;
        IQ5_KS = 152, "iq5_ks", 256, 168, 4;
        IQ2_KT = 153, "iq2_kt", 256, 68, 4;
        IQ3_KT = 154, "iq3_kt", 256, 100, 4;
        IQ4_KT = 155, "iq4_kt", 256, 128, 4;
        IQ3_KS = 156, "iq3_ks", 256, 102, 2;
        IQ2_KL = 157, "iq2_kl", 256, 86, 2;
        IQ1_KT = 158, "iq1_kt", 256, 56, 4;
        Q4_0_R8 = 202, "q4_0_r8", 32, 18, 0;
        Q5_0_R4 = 206, "q5_0_r4", 32, 22, 0;
        Q8_0_R8 = 208, "q8_0_r8", 32, 34, 0;
        Q2_K_R4 = 210, "q2_k_r4", 256, 84, 0;
        Q3_K_R4 = 211, "q3_k_r4", 256, 110, 0;
        Q4_K_R4 = 212, "q4_k_r4", 256, 144, 0;
        Q5_K_R4 = 213, "q5_k_r4", 256, 176, 0;
        Q6_K_R4 = 214, "q6_k_r4", 256, 210, 0;
        IQ2_XXS_R4 = 216, "iq2_xxs_r4", 256, 66, 0;
        IQ2_XS_R4 = 217, "iq2_xs_r4", 256, 74, 0;
        IQ3_XXS_R4 = 218, "iq3_xxs_r4", 256, 98, 0;
        IQ1_S_R4 = 219, "iq1_s_r4", 32, 6, 2;
        IQ4_NL_R4 = 220, "iq4_nl_r4", 32, 18, 0;
        IQ3_S_R4 = 221, "iq3_s_r4", 256, 110, 0;
        IQ2_S_R4 = 222, "iq2_s_r4", 256, 82, 0;
        IQ4_XS_R8 = 223, "iq4_xs_r8", 256, 136, 0;
        IQ1_M_R4 = 229, "iq1_m_r4", 32, 7, 2;
        BF16_R16 = 230, "bf16_r16", 1, 2, 0;
        Q6_0_R4 = 233, "q6_0_r4", 32, 26, 0;
        IQ2_BN_R4 = 335, "iq2_bn_r4", 64, 16, 4;
        IQ2_K_R4 = 337, "iq2_k_r4", 256, 76, 0;
        IQ3_K_R4 = 338, "iq3_k_r4", 256, 110, 0;
        IQ4_K_R4 = 339, "iq4_k_r4", 256, 144, 0;
        IQ5_K_R4 = 340, "iq5_k_r4", 256, 176, 0;
        IQ4_KS_R4 = 344, "iq4_ks_r4", 256, 136, 4;
        IQ5_KS_R4 = 352, "iq5_ks_r4", 256, 168, 4;
        MXFP4_R8 = 353, "mxfp4_r8", 32, 17, 0;
        Q8_K_R16 = 397, "q8_k_r16", 256, 258, 0;
        Q8_KV_R8 = 398, "q8_KV_r8", 32, 32, 4;
        Q8_K_R8 = 399, "q8_k_r8", 256, 258, 0;
    }
    hugging_face {
        HF_U2 = 0xffff_ff02, "hf_u2", 4, 1;
    }
}

/// What stands behind the packed weights of a tensor of the fork: its scale, and padding.
const BITNET_TAIL: u64 = 32;

impl QuantType {
    /// The size of a row of `columns` elements; `None` where a row is not a whole number of blocks or passes 2^64.
    ///
    /// ```
    /// use spec::{Bytes, QuantType};
    /// assert_eq!(QuantType::Q4_K.row_bytes(4096), Some(Bytes::new(2304)));
    /// assert_eq!(QuantType::Q4_K.row_bytes(100), None);
    /// ```
    #[inline]
    pub fn row_bytes(self, columns: u64) -> Option<Bytes> {
        let block = self.block();
        if !columns.is_multiple_of(block.weights) {
            return None;
        }
        if columns == 0 {
            return Some(Bytes::ZERO);
        }
        self.row_header().checked_add(block.bytes.checked_mul(columns / block.weights)?)
    }

    /// The size of a tensor of these extents, fastest first; `None` where a row is not a whole number of blocks, or the size
    /// passes 2^64.
    ///
    /// Types of the BitNet fork are not packed row by row, and have a tail of 32 bytes with the scale: `i2_s` and `tl1` two
    /// bits per weight; `tl2` five bits per three weights but for the last 256 columns, which take two per weight
    /// (`ggml_nbytes` of `ggml/src/ggml.c` of the fork, branch merge-dev at 406a5036). `hf_u2` has the weights of four rows in one
    /// byte, a quarter of all rows apart (transformers 5.23.0, `integrations/bitnet.py:pack_weights`); its scale is another tensor.
    ///
    /// ```
    /// use spec::{Bytes, QuantType};
    /// assert_eq!(QuantType::Q8_0.tensor_bytes([64, 2, 1, 1]), Some(Bytes::new(136)));
    /// assert_eq!(QuantType::I2_S.tensor_bytes([2560, 640, 1, 1]), Some(Bytes::new(409_632)));
    /// assert_eq!(QuantType::TL2.tensor_bytes([2560, 640, 1, 1]), Some(Bytes::new(348_192)));
    /// assert_eq!(QuantType::HF_U2.tensor_bytes([2560, 640, 1, 1]), Some(Bytes::new(409_600)));
    /// ```
    pub fn tensor_bytes(self, shape: [u64; 4]) -> Option<Bytes> {
        if self == Self::HF_U2 {
            let [columns, rows, ..] = shape;
            return columns.checked_mul(rows / 4).filter(|_| rows.is_multiple_of(4) && shape[2..] == [1, 1]).map(Bytes::new);
        }
        if !self.is_bitnet_fork() {
            let [columns, rows @ ..] = shape;
            return rows.iter().try_fold(self.row_bytes(columns)?, |bytes, &extent| bytes.checked_mul(extent));
        }
        let packed = self.bitnet_packed(shape)?;
        let tail = if self == Self::I8_S { 0 } else { BITNET_TAIL };
        packed.checked_add(tail).map(Bytes::new)
    }

    /// The weights of a tensor of the fork without its tail.
    fn bitnet_packed(self, [columns, rows, planes, cubes]: [u64; 4]) -> Option<u64> {
        let rows = rows.checked_mul(planes)?.checked_mul(cubes)?;
        match self {
            Self::I2_S | Self::TL1 => Some(columns.checked_mul(rows)? / 4),
            // Rounded down at each step, as C does.
            Self::TL2 => {
                let threes = (columns.checked_sub(256)?.checked_mul(rows)? / 3).checked_mul(5)? / 8;
                let twos = (256_u64.checked_mul(rows)? / 2).checked_mul(4)? / 8;
                threes.checked_add(twos)?.checked_next_multiple_of(32)
            }
            _ => columns.checked_mul(rows),
        }
    }

    /// True for [`QuantType::BITNET_FORK`]: no llama.cpp loads such a tensor.
    pub const fn is_bitnet_fork(self) -> bool {
        matches!(self, Self::I2_S | Self::I8_S | Self::TL1 | Self::TL2)
    }

    /// True for types that only the BitNet engine of this program computes: [`QuantType::BITNET_FORK`] and [`QuantType::HUGGING_FACE`].
    pub const fn is_foreign_ternary(self) -> bool {
        self.is_bitnet_fork() || matches!(self, Self::HF_U2)
    }

    /// True for types whose elements share block scales.
    #[inline]
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
        let mut known = Self::ALL.iter().chain(Self::BITNET_FORK).chain(Self::IK_FORK).copied();
        known.find(|ty| ty.name().eq_ignore_ascii_case(name)).ok_or_else(|| ParseQuantTypeError(name.to_owned()))
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
    fn types_of_the_fork_share_ids_with_others() {
        for &ty in QuantType::BITNET_FORK {
            assert_eq!(QuantType::from_bitnet_fork_id(ty.id()), Some(ty));
            assert_ne!(QuantType::from_id(ty.id()), Some(ty));
            assert_eq!(ty.name().parse(), Ok(ty));
        }
        assert_eq!(QuantType::from_bitnet_fork_id(40), None);
    }

    /// Rows of `ggml_row_size` of ik_llama.cpp.
    #[test]
    fn types_of_ik_llama_cpp_have_headers_and_ids_of_their_own() {
        for &ty in QuantType::IK_FORK {
            assert_eq!((QuantType::from_ik_fork_id(ty.id()), QuantType::from_id(ty.id())), (Some(ty), None));
            assert_eq!((ty.name().parse(), ty.is_ik_fork()), (Ok(ty), true));
        }
        assert_eq!(QuantType::IQ4_KS.row_bytes(7168), Some(Bytes::new(28 * 136 + 4)));
        assert_eq!(QuantType::IQ4_KS.tensor_bytes([256, 3, 2, 1]), Some(Bytes::new(6 * 140)));
        assert_eq!((QuantType::IQ2_K.row_bytes(512), QuantType::IQ2_KS.row_bytes(0)), (Some(Bytes::new(152)), Some(Bytes::ZERO)));
        assert_eq!(QuantType::IQ1_S_R4.row_bytes(32), Some(Bytes::new(8)));
    }

    /// Sizes of the fork's own packers for shapes of a 2B model.
    #[test]
    fn tensors_of_the_fork_have_a_tail() {
        let tl2 = |columns, rows| QuantType::TL2.tensor_bytes([columns, rows, 1, 1]).map(Bytes::get);
        assert_eq!(tl2(2560, 2560), Some(1_392_672));
        assert_eq!(tl2(2560, 6912), Some(3_760_160));
        assert_eq!(tl2(6912, 2560), Some(3_713_760));
        assert_eq!(tl2(128, 1), None);
        let i2 = QuantType::I2_S.tensor_bytes([2560, 6912, 1, 1]);
        assert_eq!((i2, QuantType::TL1.tensor_bytes([2560, 6912, 1, 1])), (Some(Bytes::new(4_423_712)), i2));
        for &ty in QuantType::BITNET_FORK {
            assert_eq!(ty.tensor_bytes([u64::MAX; 4]), None);
        }
    }

    #[test]
    fn packed_safetensors_pack_rows_and_have_no_id_of_a_file() {
        let packed = |columns, rows| QuantType::HF_U2.tensor_bytes([columns, rows, 1, 1]).map(Bytes::get);
        assert_eq!((packed(6912, 2560), packed(3, 8), packed(128, 6)), (Some(4_423_680), Some(6), None));
        assert_eq!(packed(u64::MAX, 8), None);
        for &ty in QuantType::HUGGING_FACE {
            let id = ty.id();
            assert_eq!((QuantType::from_id(id), QuantType::from_bitnet_fork_id(id), QuantType::from_ik_fork_id(id)), (None, None, None));
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
