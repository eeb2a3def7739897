//! Compute buffers: the graph of one micro-batch, its splits over devices, and where each tensor of it lies.

use crate::placement::Placement;
use crate::{EngineProfile, GraphSize, ResolvedContext, Target};
use spec::{Bytes, Known, Model, Settings};

/// The scheduler's compute buffers.
#[derive(Clone, Debug, PartialEq)]
pub struct ComputeBuffers {
    /// In host memory.
    pub host: Known<Bytes>,
    /// Per device, parallel to [`Target::devices`].
    pub devices: Vec<Known<Bytes>>,
    /// Size of the prefill graph, where it was simulated.
    pub graph: Option<GraphSize>,
}

/// The compute buffers of one configuration.
pub fn buffers(
    _model: &Model,
    _settings: &Settings,
    target: &Target,
    _profile: &EngineProfile,
    _placement: &Placement,
    _context: &ResolvedContext,
) -> ComputeBuffers {
    let unknown = || Known::unknown("this architecture's graph is not simulated");
    ComputeBuffers { host: unknown(), devices: target.devices.iter().map(|_| unknown()).collect(), graph: None }
}
