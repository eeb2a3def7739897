//! The bundled llama.cpp behind a small safe API.
//!
//! * [`dry_run`]: what a model needs per device and buffer type, to the byte, without allocating it
//! * [`Session`]: a model that is loaded, generates and is timed
//! * [`child`]: the same as a child process; [`protocol`] is its language
//! * [`build_info`]: what the engine was built for, and what of that a machine lacks

pub mod child;
pub mod protocol;

mod build_info;
mod dry;
mod engine;
mod error;
mod generate;
mod log;
mod memory;
mod params;
mod session;
mod shim;

pub use build_info::{BuildInfo, build_info};
pub use dry::{dry_run, dry_run_here, load_run, load_run_here};
pub use error::LlamaError;
pub use session::{Cancel, Session};
