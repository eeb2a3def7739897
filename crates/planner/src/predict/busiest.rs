//! The processor that a configuration waits for, as the speed model takes it: where a run is slow, it is looked at first.

use super::processor;
use footprint::{Requirement, Target};
use roofline::{Class, Conditions, Parameters, Switch};
use spec::settings::FlashAttention;
use spec::{Machine, Settings};

/// The processor that a configuration waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Busiest {
    /// Its place in the target's devices; `None` is the host.
    pub device: Option<usize>,
    /// Its class.
    pub class: Class,
    /// How the engine runs on it.
    pub conditions: Conditions,
}

/// The host where it has layers or experts, for its memory is the slower one; else the device with the most layers, the first of equals.
pub fn busiest(machine: &Machine, target: &Target, settings: &Settings, requirement: &Requirement) -> Busiest {
    let homes = &requirement.layer_devices;
    let held = |device: usize| homes.iter().filter(|home| **home == Some(device)).count();
    let on_host = homes.iter().any(Option::is_none) || settings.n_cpu_moe > 0;
    let device = (0..target.devices.len()).rev().max_by_key(|&device| held(device)).filter(|_| !on_host);
    let parameters = Parameters::fitted();
    let of_device =
        device.and_then(|device| processor::devices(machine, target, parameters, requirement.own_kernels).into_iter().nth(device));
    let processor = of_device.unwrap_or_else(|| processor::host(machine, parameters, requirement.own_kernels));
    let flash_attention = if settings.flash_attn == FlashAttention::Off { Switch::Off } else { processor.conditions.flash_attention };
    Busiest { device, class: processor.device.class, conditions: Conditions { flash_attention, ..processor.conditions } }
}
