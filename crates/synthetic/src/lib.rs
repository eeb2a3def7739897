//! Model files with exact shapes and no trained weights, for tests, the demonstration and questions about models that
//! one does not have.
//!
//! A file is a value: its header in memory, its tensor data computed on demand, so that a 400 GB file costs nothing
//! until somebody writes it. Pure: the caller does the writing, or the feature `write` does.
//!
//! ```
//! use synthetic::{Fill, FileType, Options, gguf, preset};
//! let mut shape = preset("qwen3-0.6b").unwrap();
//! shape.n_layer = 2;
//! let file = gguf(&shape, FileType::Q4_K_M, &Options::default()).unwrap();
//! let mut start = [0; 4];
//! file.read_at(Fill::Random { seed: 1 }, 0, &mut start);
//! assert_eq!(&start, b"GGUF");
//! ```
#![forbid(unsafe_code)]

mod bitnet;
mod file;
mod metadata;
mod noise;
mod outline;
mod packed;
mod preset;
mod shape;
mod tensors;
mod tokenizer;
mod types;
#[cfg(feature = "write")]
pub mod write;
pub mod writer;

pub use bitnet::{bitnet, bitnets};
pub use file::{Content, File, Fill, Options, Override, TensorSpec, Vocabulary, fill, gguf, outline_file, shards};
pub use mixture::{self, FileType, ParseFileTypeError};
pub use outline::{Outline, OutlineError, outline, outlines};
pub use packed::{Folder, LinearClass, WEIGHTS, packed};
pub use preset::{demo, preset, presets};
pub use shape::{Architecture, Shape, ShapeError};
