//! The bundled llama.cpp behind a small safe API.
//!
//! * [`dry_run`]: what a model needs per device and buffer type, to the byte, without allocating it
//! * [`child`]: the engine as a child process that loads, generates and times; [`protocol`] is its language
//! * [`build_info`]: what the engine was built for, and what of that a machine lacks

pub mod child;
pub mod protocol;

mod build;
mod dry;
mod error;

pub use build::{BuildInfo, build_info};
pub use dry::{PretendedDevice, dry_run};
pub use error::LlamaError;
