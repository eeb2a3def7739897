//! Compute buffers from closed forms, for graphs that are not declared.

use super::ComputeBuffers;
use crate::placement::Placement;
use crate::{ResolvedContext, Target};
use spec::{Bytes, Known, Model, Settings};

/// An estimate with a wide interval, and why it is one.
pub(super) fn buffers(
    _model: &Model,
    _settings: &Settings,
    target: &Target,
    _placement: &Placement,
    _context: &ResolvedContext,
    reason: &str,
) -> ComputeBuffers {
    let unknown = || Known::<Bytes>::unknown(reason.to_owned());
    ComputeBuffers { host: unknown(), devices: target.devices.iter().map(|_| unknown()).collect(), graph: None }
}
