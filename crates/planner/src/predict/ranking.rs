//! Central times of many configurations of one model, for comparing them.

use super::load::moved_by_overrides;
use super::predictor::{Configuration, Predictor};
use super::state::HostState;
use crate::inventory::Inventory;
use crate::workload::Workload;
use footprint::Target;
use spec::{Machine, Model, Settings};
use std::time::Duration;

/// Settings with the places that they give to layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// Device of each layer and of the output; `None` is the host.
    pub layer_devices: &'a [Option<usize>],
}

/// The central time of a request under each placement, in order; as if there were memory enough, with flash attention.
///
/// Effects of the speed model are resolved once; a placement then costs a sum over its layers.
pub fn request_seconds(
    machine: &Machine,
    model: &Model,
    target: &Target,
    workload: &Workload,
    placements: &[Placement<'_>],
) -> Vec<Duration> {
    let inventory = Inventory::of(model);
    let predictor = Predictor::new(machine, target, &inventory);
    let state = HostState { missing: 0.0, repacked: 0.0, flash_attention: true };
    let of = |placement: &Placement<'_>| {
        let &Placement { settings, layer_devices } = placement;
        let moved = moved_by_overrides(model, target, settings);
        let configuration = Configuration { settings, layer_devices, moved: &moved, state: &state };
        super::times::duration(predictor.request_seconds(configuration, workload).1)
    };
    placements.iter().map(of).collect()
}
