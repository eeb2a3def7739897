//! Linear layers with weights of −1, 0 and 1 on the CPU, as BitNet b1.58 defines them (W1.58A8), and the dense output head.
//!
//! * [`TernaryMatrix`]: packed weights, in place in a mapped file where their layout allows it
//! * [`Activations`]: tokens in 8 bits, each with a scale of its own
//! * [`Kernel`]: the instructions to compute with, which only exist where the processor has them
//! * [`QuantizedLinear`]: weights × tokens, over the threads of a [`Pool`]
//! * [`DenseMatrix`]: f32, f16, bf16 or `q8_0` weights × one token, for the output head
//!
//! Sums over 8-bit products are exact integers, so every kernel gives the same bits as the plain one. Of a head in `q8_0` the products
//! of a lane of a block are exact integers too, with the token in 16 bits; floats are added in one fixed order by all of them.

mod activation;
mod block16;
mod chunks;
mod dense;
mod kernel;
mod layout;
mod linear;
mod lookup;
mod map;
mod matrix;
mod pool;
mod simd;
mod vector;

pub use activation::Activations;
pub use chunks::CHUNK;
pub use dense::{DenseError, DenseMatrix, DenseScratch, DenseType};
pub use kernel::{AmxError, Kernel};
pub use layout::Layout;
pub use linear::QuantizedLinear;
pub use lookup::{LookUp, Tiles};
pub use map::map;
pub use matrix::{MatrixError, NARROWEST, TernaryMatrix};
pub use pool::{ColumnsMut, Pool, Table, Tables};
pub use simd::expect;
