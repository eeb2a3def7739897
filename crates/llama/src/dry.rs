//! Memory per device and buffer type without allocating it.

use crate::LlamaError;
use crate::protocol::Breakdown;
use spec::{Bytes, Settings};
use std::path::Path;

/// A GPU that is not there: placement and sizes follow CUDA's rules, nothing is allocated or computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PretendedDevice {
    /// Name of the device and its buffer type; `GPU0`, `GPU1`, ... where none is given.
    pub name: Option<String>,
    /// Memory that the device claims to have, all of it free.
    pub memory: Bytes,
}

/// What llama.cpp would allocate, to the byte.
///
/// # Errors
/// The file is no model that the engine can load, or the settings name what it does not have.
pub fn dry_run(path: &Path, settings: &Settings, devices: &[PretendedDevice], n_outputs: u32) -> Result<Breakdown, LlamaError> {
    let _ = (settings, devices, n_outputs);
    Err(LlamaError::Model { path: path.to_owned(), log: "dry run is not built yet".into() })
}
