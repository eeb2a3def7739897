//! File types: what `llama-quantize` calls its mixtures.

use spec::QuantType;
use std::fmt;
use std::str::FromStr;

macro_rules! file_types {
    ($($variant:ident = $id:literal, $ty:ident;)*) => {
        /// A mixture of tensor types, spelt as `llama-quantize` spells it.
        ///
        /// Ids: `llama_ftype` of `include/llama.h`; default types: `llama_ftype_get_default_type` of
        /// `src/llama-quant.cpp` (llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161).
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FileType {
            $(#[doc = concat!("`", stringify!($variant), "`: mostly ", stringify!($ty), ".")] $variant,)*
        }

        impl FileType {
            /// Every file type.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The value of `general.file_type`.
            pub const fn id(self) -> u32 {
                match self { $(Self::$variant => $id,)* }
            }
            /// The file type with this value of `general.file_type`; `None` for one that `llama-quantize` does not make.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }
            /// The name that `llama-quantize` takes.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }
            /// The type of every tensor that no rule of the mixture treats otherwise.
            pub const fn default_type(self) -> QuantType {
                match self { $(Self::$variant => QuantType::$ty,)* }
            }
        }
    };
}

file_types! {
    F32 = 0, F32;
    F16 = 1, F16;
    Q4_0 = 2, Q4_0;
    Q4_1 = 3, Q4_1;
    Q8_0 = 7, Q8_0;
    Q5_0 = 8, Q5_0;
    Q5_1 = 9, Q5_1;
    Q2_K = 10, Q2_K;
    Q3_K_S = 11, Q3_K;
    Q3_K_M = 12, Q3_K;
    Q3_K_L = 13, Q3_K;
    Q4_K_S = 14, Q4_K;
    Q4_K_M = 15, Q4_K;
    Q5_K_S = 16, Q5_K;
    Q5_K_M = 17, Q5_K;
    Q6_K = 18, Q6_K;
    IQ2_XXS = 19, IQ2_XXS;
    IQ2_XS = 20, IQ2_XS;
    Q2_K_S = 21, Q2_K;
    IQ3_XS = 22, IQ3_S;
    IQ3_XXS = 23, IQ3_XXS;
    IQ1_S = 24, IQ1_S;
    IQ4_NL = 25, IQ4_NL;
    IQ3_S = 26, IQ3_S;
    IQ3_M = 27, IQ3_S;
    IQ2_S = 28, IQ2_XS;
    IQ2_M = 29, IQ2_S;
    IQ4_XS = 30, IQ4_XS;
    IQ1_M = 31, IQ1_M;
    BF16 = 32, BF16;
    TQ1_0 = 36, TQ1_0;
    TQ2_0 = 37, TQ2_0;
    MXFP4_MOE = 38, MXFP4;
    Q1_0 = 40, Q1_0;
    Q2_0 = 41, Q2_0;
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no file type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such file type: {name}; there are {}", FileType::ALL.iter().map(|ty| ty.name()).collect::<Vec<_>>().join(", "))]
pub struct ParseFileTypeError {
    /// What was given.
    pub name: String,
}

impl FromStr for FileType {
    type Err = ParseFileTypeError;
    /// The name in any case; `Q3_K`, `Q4_K` and `Q5_K` mean their `_M` mixtures, as for `llama-quantize`.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        const SHORT: [(&str, FileType); 3] = [("Q3_K", FileType::Q3_K_M), ("Q4_K", FileType::Q4_K_M), ("Q5_K", FileType::Q5_K_M)];
        let short = SHORT.into_iter();
        let known = Self::ALL.iter().map(|ty| (ty.name(), *ty)).chain(short);
        known
            .into_iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, ty)| ty)
            .ok_or_else(|| ParseFileTypeError { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_lead_back() {
        for &ty in FileType::ALL {
            assert_eq!(ty.name().parse(), Ok(ty));
            assert_eq!(ty.name().to_lowercase().parse(), Ok(ty));
            assert_eq!(FileType::from_id(ty.id()), Some(ty));
        }
        assert_eq!("q4_k".parse(), Ok(FileType::Q4_K_M));
        assert_eq!(FileType::from_id(4), None);
        assert!("Q9".parse::<FileType>().unwrap_err().to_string().starts_with("no such file type: Q9; there are F32, F16"));
    }
}
