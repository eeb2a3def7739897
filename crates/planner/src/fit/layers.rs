//! The steps that give layers to devices: false position between a number of layers that fits and one that does not.

use super::{DryRuns, Stop, gave_up};
use spec::Settings;
use spec::settings::TensorOverride;

/// Every tensor of routed experts.
pub(super) const ALL_EXPERTS: &str = r"blk\.\d+\.ffn_(up|down|gate_up|gate)_(ch|)exps";
/// The engine's name of plain host memory.
pub(super) const HOST: &str = "CPU";
/// Rules for tensors that the engine has room for (`llama_max_tensor_buft_overrides`), its end mark included.
const MOST_RULES: usize = 4096;

/// What of a layer stays on its device; the rest goes elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fraction {
    Attention,
    Up,
    Gate,
    /// Everything but routed experts.
    Dense,
}

impl Fraction {
    /// What leaves the device.
    fn pattern(self, layer: u32) -> String {
        let rest = match self {
            Self::Attention => "(gate|up|gate_up|down).*",
            Self::Up => "(gate|gate_up|down).*",
            Self::Gate => "down.*",
            Self::Dense => "(up|down|gate_up|gate)_(ch|)exps",
        };
        format!(r"blk\.{layer}\.ffn_{rest}")
    }
}

/// The layers of one device. Numbers wrap as the engine's do, whose assertions are off in a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layers {
    /// All of them; on the last device the output is one.
    total: u32,
    /// How many of these are there in part.
    partial: u32,
    /// What the first of those keeps; the others keep what is dense.
    first: Fraction,
    /// The rest of that first one goes to the next device instead of the host.
    to_next: bool,
}

const NONE: Layers = Layers { total: 0, partial: 0, first: Fraction::Dense, to_next: false };

impl Layers {
    fn full(&self) -> u32 {
        self.total.wrapping_sub(self.partial)
    }
}

/// Layers per device, and what each device then uses.
#[derive(Clone)]
pub(super) struct Tried {
    pub(super) layers: Vec<Layers>,
    used: Vec<i64>,
}

pub(super) struct Search<'s, 'a> {
    pub(super) dry: &'s DryRuns<'a>,
    /// Everything but where layers go.
    pub(super) base: Settings,
    /// The most that each device may use.
    pub(super) targets: Vec<i64>,
}

impl Search<'_, '_> {
    /// The engine's settings for these layers.
    pub(super) fn settings(&self, layers: &[Layers]) -> Settings {
        let total = layers.iter().fold(0_u32, |sum, on| sum.wrapping_add(on.total));
        let mut rules = Vec::new();
        let mut next = (self.dry.n_layer() + 1).wrapping_sub(total);
        for (device, on) in layers.iter().enumerate() {
            next = next.wrapping_add(on.full());
            for layer in next..next.wrapping_add(on.partial) {
                let first = layer == next;
                let fraction = if first { on.first } else { Fraction::Dense };
                let buffer = match self.dry.target.devices.get(device + 1) {
                    Some(after) if first && on.to_next => after.name.clone(),
                    _ => HOST.to_owned(),
                };
                rules.push(TensorOverride { pattern: fraction.pattern(layer), buffer });
            }
            next = next.wrapping_add(on.partial);
        }
        let tensor_split = if layers.len() > 1 { layers.iter().map(|on| f64::from(on.total)).collect() } else { Vec::new() };
        Settings { n_gpu_layers: total, tensor_split, tensor_overrides: rules, ..self.base.clone() }
    }

    fn try_layers(&self, layers: Vec<Layers>) -> Result<Tried, Stop> {
        let settings = self.settings(&layers);
        if settings.tensor_overrides.len() >= MOST_RULES {
            return gave_up(format!("llama_max_tensor_buft_overrides() == {MOST_RULES} is insufficient for model"));
        }
        let used = self.dry.measure(&settings)?.iter().map(|on| on.used).collect();
        Ok(Tried { layers, used })
    }

    fn is_last(&self, device: usize) -> bool {
        device + 1 == self.targets.len()
    }

    /// Step 3: from the last device to the first as many layers as fit; of models with experts without these.
    pub(super) fn dense(&self) -> Result<Tried, Stop> {
        let mut low = self.try_layers(vec![NONE; self.targets.len()])?;
        for device in (0..self.targets.len()).rev() {
            let given = low.layers.iter().skip(device + 1).map(|on| on.total).sum::<u32>();
            let left = (self.dry.n_layer() + 1).saturating_sub(given);
            if left == 0 {
                continue;
            }
            let mut all = low.layers.clone();
            all[device].total = left;
            if self.dry.has_experts() {
                // The output is never there in part.
                all[device].partial = if self.is_last(device) { left - 1 } else { left };
            }
            let high = self.try_layers(all)?;
            let count = |tried: &Tried| tried.layers[device].total;
            low = self.narrow(device, low, high, count, |low, step| self.with_dense(low, device, step))?;
        }
        Ok(low)
    }

    fn with_dense(&self, low: &Tried, device: usize, step: u32) -> Vec<Layers> {
        let mut layers = low.layers.clone();
        layers[device].total += step;
        if self.dry.has_experts() {
            let has_output = self.is_last(device) && layers[device].partial == 0;
            layers[device].partial += if has_output { step - 1 } else { step };
        }
        layers
    }

    /// The most that fits between `low`, which does, and `high`; `high` itself where it fits.
    fn narrow(
        &self,
        device: usize,
        mut low: Tried,
        mut high: Tried,
        count: impl Fn(&Tried) -> u32,
        more: impl Fn(&Tried, u32) -> Vec<Layers>,
    ) -> Result<Tried, Stop> {
        let target = self.targets[device];
        if high.used[device] <= target {
            return Ok(high);
        }
        loop {
            let delta = count(&high).saturating_sub(count(&low));
            if delta <= 1 {
                return Ok(low);
            }
            let test = self.try_layers(more(&low, step(delta, target - low.used[device], high.used[device] - low.used[device])))?;
            if test.used[device] <= target { low = test } else { high = test }
        }
    }

    /// Step 4: from the first device on, layers without experts become whole ones, as many as fit, and then a part of one more.
    pub(super) fn experts(&self, tried: &mut Tried) -> Result<(), Stop> {
        let devices = self.targets.len();
        // The first device that holds layers without experts.
        let mut dense = (0..devices).rev().take_while(|&device| tried.layers[device].total > 0).last().unwrap_or(devices);
        let mut device = 0;
        while device <= dense && dense < devices {
            let high = self.try_layers(self.all_whole(tried, device, dense))?;
            let count = |tried: &Tried| tried.layers[device].full();
            let before = tried.clone();
            let more = |low: &Tried, step| self.with_whole(low, device, first_dense(&low.layers, dense), step);
            *tried = self.narrow(device, before, high, count, more)?;
            dense = first_dense(&tried.layers, dense).min(devices - 1);
            self.part_of_one_more(tried, device, &mut dense)?;
            device += 1;
        }
        Ok(())
    }

    /// Every layer that lacks its experts, whole on `device`.
    fn all_whole(&self, tried: &Tried, device: usize, dense: usize) -> Vec<Layers> {
        let mut layers = tried.layers.clone();
        for from in dense..layers.len() {
            let moved = if self.is_last(from) { layers[from].total.wrapping_sub(1) } else { layers[from].total };
            layers[device].total = layers[device].total.wrapping_add(moved);
            layers[from].total = layers[from].total.wrapping_sub(moved);
            layers[from].partial = 0;
        }
        layers
    }

    /// So many more layers whole on `device`, taken from those that lack their experts.
    fn with_whole(&self, low: &Tried, device: usize, dense: usize, step: u32) -> Vec<Layers> {
        let mut layers = low.layers.clone();
        let mut left = step;
        for from in dense..layers.len() {
            let moved = left.min(layers[from].partial);
            layers[from].total = layers[from].total.wrapping_sub(moved);
            layers[from].partial -= moved;
            layers[device].total = layers[device].total.wrapping_add(moved);
            left -= moved;
            if layers[from].partial > 0 {
                break;
            }
        }
        layers
    }

    fn part_of_one_more(&self, tried: &mut Tried, device: usize, dense: &mut usize) -> Result<(), Stop> {
        if tried.layers[*dense].total <= u32::from(self.is_last(device)) {
            return Ok(());
        }
        let mut layers = tried.layers.clone();
        // The engine does not look whether there is one: without any the number wraps, and what moves is the output.
        layers[*dense].total = layers[*dense].total.wrapping_sub(1);
        layers[*dense].partial = layers[*dense].partial.wrapping_sub(1);
        layers[device].total = layers[device].total.wrapping_add(1);
        layers[device].partial = layers[device].partial.wrapping_add(1);
        let after = *dense + usize::from(layers[*dense].partial == 0);
        layers[device].to_next = !self.is_last(device);
        let mut accepts = |first: Fraction| -> Result<bool, Stop> {
            layers[device].first = first;
            let test = self.try_layers(layers.clone())?;
            let below = |device: usize| self.targets.get(device).is_none_or(|target| test.used[device] < *target);
            let fits = below(device) && below(device + 1);
            if fits {
                *tried = test;
                *dense = after;
            }
            Ok(fits)
        };
        let next = if accepts(Fraction::Up)? { Fraction::Gate } else { Fraction::Attention };
        accepts(next)?;
        Ok(())
    }
}

/// The first device from `from` on with layers that lack their experts.
fn first_dense(layers: &[Layers], from: usize) -> usize {
    (from..layers.len()).find(|&device| layers[device].partial > 0).unwrap_or(layers.len())
}

/// How many layers of `delta` a straight line says to add; the engine's own arithmetic, in which a negative number is a large one.
fn step(delta: u32, room: i64, whole: i64) -> u32 {
    let guess = i64::from(delta).wrapping_mul(room).checked_div(whole).unwrap_or(0);
    (guess as u32).clamp(1, delta - 1)
}
