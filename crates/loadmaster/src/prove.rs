//! PROVE: asks the engine itself what settings would take, on GPUs that it pretends to have.

use crate::Error;
use crate::advise::bundled_rules;
use crate::launch::Interrupts;
use crate::launch::bundled::{self, BundledOptions};
use crate::receipt::{Proof, proof};
use footprint::Target;
use spec::{Model, Settings};
use std::path::Path;

/// Compares what loadmaster computes for `settings` with the bundled engine's own dry run on pretended devices of the
/// target's sizes. Takes 0.1 to 1 s, nearly all of it for the vocabulary; no memory of the model's size is allocated.
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
    let target = Target {
        cpu_features: bundled::cpu_features().unwrap_or_else(|| target.cpu_features.clone()),
        cpu_arch: std::env::consts::ARCH.to_owned(),
        ..target.clone()
    };
    let expected = footprint::dry_run(model, settings, &target, &bundled_rules().profile).map_err(Error::Settings)?;
    let dry = bundled::dry_run(path, settings, &target.devices, expected.context.n_outputs, options, interrupts)?;
    Ok(proof(&expected, dry))
}
