//! The one place of this crate with unsafe code: CUDA's driver and NVRTC behind functions that anyone can call.
//!
//! cudarc panics where a library or a function of it is missing, so both are asked for before anything of theirs is called; what is called is in
//! `FUNCTIONS` of each file.

#![allow(unsafe_code)]

mod compiler;
mod driver;

pub(crate) use compiler::Compiler;
pub(crate) use driver::{Context, Device, Driver, Function, Memory, Refusal};
