//! What slows a machine down at this moment.

use super::gpu::PcieLink;
use crate::known::Known;

/// What slows a machine down at this moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// Where the power comes from.
    pub power: Known<PowerSource>,
    /// The system's power profile: `performance`, `balanced`, `power-saver`.
    pub power_profile: Known<String>,
    /// What chooses the frequency of the cores: `performance`, `powersave`, `schedutil`.
    pub governor: Known<String>,
    /// Hottest sensor of the processor, in degrees Celsius.
    pub cpu_temperature_c: Known<f64>,
    /// True where the processor runs below what it could because of heat or power.
    pub cpu_throttled: Known<bool>,
    /// Per GPU, parallel to [`Facts::gpus`](super::Facts::gpus).
    pub gpus: Vec<GpuCondition>,
}

impl Conditions {
    /// Nothing known, and why not.
    pub fn unknown(gpus: usize, why: &'static str) -> Self {
        Self {
            power: Known::unknown(why),
            power_profile: Known::unknown(why),
            governor: Known::unknown(why),
            cpu_temperature_c: Known::unknown(why),
            cpu_throttled: Known::unknown(why),
            gpus: vec![GpuCondition::unknown(why); gpus],
        }
    }
}

/// Where the power comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerSource {
    /// The mains, or a machine without a battery.
    Mains,
    /// A battery with this much left, in per cent.
    Battery(u32),
}

/// How a GPU is at this moment.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuCondition {
    /// Share of time in which it computed, 0 to 1.
    pub utilisation: Known<f64>,
    /// Its temperature in degrees Celsius.
    pub temperature_c: Known<f64>,
    /// Power drawn, in watts.
    pub power_watts: Known<f64>,
    /// The link as it runs now; idle GPUs slow it down.
    pub link: Known<PcieLink>,
    /// Why it runs below its clock: `thermal`, `power`; empty where nothing slows it.
    pub throttled: Known<String>,
    /// True where it is powered down, and was left so: questions that wake it were not asked.
    pub asleep: bool,
}

impl GpuCondition {
    /// Nothing known, and why not.
    pub fn unknown(why: &'static str) -> Self {
        Self {
            utilisation: Known::unknown(why),
            temperature_c: Known::unknown(why),
            power_watts: Known::unknown(why),
            link: Known::unknown(why),
            throttled: Known::unknown(why),
            asleep: false,
        }
    }
}
