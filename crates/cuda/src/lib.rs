//! BitNet's layers on NVIDIA GPUs through CUDA: the same integers as `kernels` computes on the CPU.
//!
//! * [`list`], [`Gpu`]: the devices of the driver, and one that is open with its compiled kernels
//! * [`QuantizedLinear`]: packed weights in the device's memory
//! * [`Arena`]: input, tokens in 8 bits and output of a batch, one buffer for all layers, sized by `workspace`
//! * [`Stack`]: whole layers of a model with their keys and values, in three buffers
//!
//! Nothing is linked: the driver (`libcuda`) and NVRTC, which compiles the kernels for the device that is there, are loaded at run time. A machine
//! without a driver has an empty list; one without NVRTC is told where it is to be had. The kernels in `kernels/` are compiled for the CPU as well,
//! behind a pretended driver (`tests/pretended`), so that everything but the GPU itself is tested without one.
#![deny(unsafe_code)]

mod arena;
mod device;
mod error;
mod ffi;
mod head;
mod kernel;
mod linear;
mod memory;
#[cfg(test)]
#[path = "../tests/pretended/mod.rs"]
mod pretended;
mod stack;

pub use arena::Arena;
pub use bitnet::Sizes;
pub use device::{Adapter, Gpu, list};
pub use error::GpuError;
pub use kernel::{SOURCE, compile};
pub use linear::{KERNEL, QuantizedLinear, TILE};
pub use memory::ALIGNMENT;
pub use stack::Stack;
