//! PROVE: asks the engine itself what settings would take, on GPUs that it pretends to have.

use crate::Error;
use crate::advise::bundled_rules;
use crate::launch::Interrupts;
use crate::launch::bundled::{self, BundledOptions};
use crate::receipt::{Proof, proof};
use footprint::{Backend, Device, Target};
use spec::{Model, Settings};
use std::path::Path;

/// Compares what loadmaster computes for `settings` with the bundled engine's own dry run on pretended devices of the
/// target's sizes. Takes 0.1 to 1 s, nearly all of it for the vocabulary; no memory of the model's size is allocated.
///
/// Pretended devices align and pad as CUDA does. What a real backend adds to that (copies of a quantised cache for fused
/// attention, fusions, kernels that are missing) is on neither side.
///
/// Which weights the engine repacks follows the CPU that it runs on, so both sides are computed for this machine's CPU.
///
/// # Errors
/// No bundled engine, settings that an engine refuses, or a launch that fails.
pub fn prove(
    path: &Path,
    model: &Model,
    settings: &Settings,
    target: &Target,
    options: &BundledOptions,
    interrupts: &Interrupts,
) -> Result<Proof, Error> {
    let target = pretend(target);
    let expected = footprint::dry_run(model, settings, &target, &bundled_rules().profile).map_err(Error::Settings)?;
    let dry = bundled::dry_run(path, settings, &target.devices, expected.context.n_outputs, options, interrupts)?;
    Ok(proof(&expected, dry))
}

/// The target as the engine is made to see it: pretended devices, and the CPU that it runs on.
pub(crate) fn pretend(target: &Target) -> Target {
    Target {
        devices: target.devices.iter().map(pretended).collect(),
        idle: Vec::new(),
        cpu_features: bundled::cpu_features().unwrap_or_else(|| target.cpu_features.clone()),
        cpu_arch: std::env::consts::ARCH.to_owned(),
    }
}

/// The device as the engine is made to see it.
fn pretended(device: &Device) -> Device {
    let Backend { pipeline, host_buffer, .. } = device.backend;
    Device { backend: Backend { host_buffer, ..Backend::pretended(pipeline) }, ..device.clone() }
}
