//! Which type llama.cpp's own tools give each tensor of a model.
//!
//! * [`FileType`]: what `llama-quantize` calls its mixtures
//! * [`types`]: the type that `llama-quantize` chooses for each tensor
//! * [`converted`]: the type in which `convert_hf_to_gguf.py` writes a tensor
//!
//! ```
//! use mixture::{Figures, FileType, Options, Tensor, types};
//! use spec::QuantType;
//! let figures = Figures { architecture: "llama", n_layer: 32, n_head: 32, n_head_kv: 8, n_expert: 0 };
//! let v = Tensor { name: "blk.0.attn_v.weight", shape: [4096, 1024, 1, 1], ty: QuantType::BF16 };
//! assert_eq!(types(&figures, &[v], FileType::Q4_K_M, &Options::default()), Ok(vec![QuantType::Q6_K]));
//! ```
#![forbid(unsafe_code)]

mod category;
mod conversion;
mod file_type;
mod rules;

pub use category::quantizable;
pub use conversion::converted;
pub use file_type::{FileType, ParseFileTypeError};
pub use rules::{Figures, MixtureError, Options, Tensor, needs_importance_matrix, types};
