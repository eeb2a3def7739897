//! What of a machine's state holds models down: the facts behind advice about it, asked in one place.

use super::{GpuKind, Machine, PcieLink, PowerSource};
use crate::known::Source;
use crate::units::Bytes;

/// Processors slow down between 90 and 105 degrees Celsius.
const HOT: f64 = 92.0;

/// Power profiles that hold a processor down.
const SAVING: &[&str] = &["low-power", "power-saver", "quiet", "cool"];

/// Without Resizable BAR the host sees 256 MiB; with it all of the memory, rounded up to a power of two.
const VISIBLE: f64 = 0.9;

/// Compute capabilities of modules that are cooled by little: Jetson Nano, TX2, Xavier and Orin.
const MODULES: &[(u32, u32)] = &[(5, 3), (6, 2), (7, 2), (8, 7)];

impl Machine {
    /// What is left of the battery, in per cent, where the machine runs on it.
    pub fn on_battery(&self) -> Option<u32> {
        match self.conditions.power.get() {
            Some(PowerSource::Battery(left)) => Some(left),
            _ => None,
        }
    }

    /// The power profile, where it is one that saves, and where that was read.
    pub fn saving_profile(&self) -> Option<(&str, &Source)> {
        let known = &self.conditions.power_profile;
        let profile = known.value().filter(|profile| SAVING.contains(&profile.as_str()))?;
        Some((profile, known.source()))
    }

    /// The governor, where it is told to save power, and where that was read. Where the processor chooses its own frequency, `powersave`
    /// alone is the usual governor and slows nothing down.
    pub fn saving_governor(&self) -> Option<(&str, &Source)> {
        let known = &self.conditions.governor;
        let saves = |governor: &&String| governor.ends_with("prefers power") || governor.ends_with("prefers balance_power");
        Some((known.value().filter(saves)?, known.source()))
    }

    /// The temperature of the processor, in degrees Celsius, where it is one at which processors slow down.
    pub fn hot(&self) -> Option<f64> {
        self.conditions.cpu_temperature_c.get().filter(|degrees| *degrees >= HOT)
    }

    /// The link of a GPU with memory of its own as it runs and as it could, where it has fewer lanes. An idle link lowers its generation
    /// and keeps its lanes.
    pub fn narrow_link(&self, gpu: usize) -> Option<(PcieLink, PcieLink)> {
        let best = self.facts.gpus.get(gpu).filter(|gpu| gpu.kind == GpuKind::Discrete)?.pcie.get()?;
        let now = self.conditions.gpus.get(gpu)?.link.get()?;
        (now.lanes < best.lanes).then_some((now, best))
    }

    /// What the host addresses of the memory of a GPU, and that memory, where Resizable BAR is off.
    pub fn small_bar(&self, gpu: usize) -> Option<(Bytes, Bytes)> {
        let gpu = self.facts.gpus.get(gpu).filter(|gpu| gpu.kind == GpuKind::Discrete)?;
        let (visible, total) = (gpu.host_visible.get()?, gpu.memory_total.get()?);
        (visible.as_f64() < total.as_f64() * VISIBLE).then_some((visible, total))
    }

    /// Why a GPU runs below its clock, in its driver's words.
    pub fn gpu_throttled(&self, gpu: usize) -> Option<&str> {
        let why = self.conditions.gpus.get(gpu)?.throttled.value()?;
        (!why.is_empty()).then_some(why.as_str())
    }

    /// Memory of programs that lies in swap.
    pub fn swap_used(&self) -> Option<Bytes> {
        Some(self.facts.memory.swap_total.get()?.saturating_sub(self.free.swap.get()?))
    }

    /// True for a phone, a tablet or a module whose cooling does not hold full load for long.
    pub fn lightly_cooled(&self) -> bool {
        let module = |capability: (u32, u32)| MODULES.contains(&capability);
        let os = self.facts.platform.os.as_str();
        matches!(os, "android" | "ios") || self.facts.gpus.iter().any(|gpu| gpu.compute_capability.get().is_some_and(module))
    }
}
