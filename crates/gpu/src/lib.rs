//! BitNet's layers on GPUs: the same integers as `kernels` computes on the CPU.
//!
//! * [`list`], [`Gpu`]: adapters and one that is open; software never counts as a GPU unless it is asked for by name
//! * [`Memory`]: what a device has free now, where its driver tells
//! * [`QuantizedLinear`]: packed weights in the device's memory, in as many buffers as its limits ask for
//! * [`Arena`]: input, tokens in 8 bits and output of a batch, one buffer for all layers, sized by `workspace`
//! * [`Stack`]: whole layers of a model with their keys and values, and its output head
//!
//! Nothing is built in: drivers are loaded at run time, and a machine without them has an empty list.
#![deny(unsafe_code)]

mod arena;
mod device;
mod error;
mod head;
mod linear;
mod memory;
mod pipelines;
mod stack;
mod step;

pub use arena::Arena;
pub use bitnet::Sizes;
pub use device::{Adapter, Gpu, Kind, list};
pub use error::GpuError;
pub use linear::{KERNEL, QuantizedLinear, TILE};
pub use memory::Memory;
pub use stack::Stack;
