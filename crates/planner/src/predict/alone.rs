//! A configuration that one processor runs alone, as the speed model takes it: what a run is held against, and learned from.

use super::costs::{quant, shape};
use super::processor::{self, Processor};
use crate::inventory::Inventory;
use footprint::{Requirement, Target};
use roofline::{Conditions, Device, Parameters, Shape, Switch};
use spec::settings::CpuMask;
use spec::{Machine, Model, Settings};

/// One processor with all of a model's work.
#[derive(Clone, Debug, PartialEq)]
pub struct Alone {
    /// The processor, its units being those of the threads at work in decode; its identity is this machine's.
    pub decode: Device,
    /// The same in prefill.
    pub prefill: Device,
    /// The model.
    pub shape: Shape,
    /// How it is run.
    pub conditions: Conditions,
    /// Tokens of a micro-batch.
    pub ubatch: f64,
}

/// Under which name effects of a processor of this machine are known: no device of any table has it.
pub(super) fn identity(processor: &str) -> String {
    format!("this machine|{processor}")
}

/// What runs alone under these settings; `None` where processors share the work, or weights come from disk.
pub fn alone(machine: &Machine, model: &Model, target: &Target, settings: &Settings, requirement: &Requirement) -> Option<Alone> {
    let computed = requirement.layer_devices.iter();
    let first = *requirement.layer_devices.first()?;
    let shared = computed.clone().any(|device| *device != first);
    let moved = !settings.tensor_overrides.is_empty() || (first.is_some() && (settings.n_cpu_moe > 0 || !settings.kv_offload));
    // A prompt over host weights would be computed on the GPU.
    let offloaded = first.is_none() && settings.op_offload && !target.devices.is_empty();
    let state = super::HostState::of(crate::plan::pools::room_on_host(machine, None), requirement);
    if shared || moved || offloaded || state.missing > 0.0 {
        return None;
    }
    let parameters = Parameters::fitted();
    let Processor { device, conditions, name, .. } = match first {
        Some(index) => processor::devices(machine, target, parameters, requirement.own_kernels).into_iter().nth(index)?,
        None => processor::host(machine, parameters, requirement.own_kernels),
    };
    let with = |threads: u32, mask: &CpuMask| {
        let cores = if first.is_none() { processor::cores_at_work(machine, threads, mask) } else { 1.0 };
        Device { vector: device.vector.map(|rate| rate * cores), identity: Some(identity(&name)), ..device.clone() }
    };
    let inventory = Inventory::required(model, requirement);
    let flash_attention = if state.flash_attention { Switch::On } else { Switch::Off };
    Some(Alone {
        decode: with(settings.threads, &settings.cpu_mask),
        prefill: with(settings.threads_batch, &settings.cpu_mask_batch),
        shape: shape(&inventory, quant(inventory.quants[0])),
        conditions: Conditions { flash_attention, ..conditions },
        ubatch: f64::from(super::predictor::micro_batch(settings)),
    })
}
