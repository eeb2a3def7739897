//! Ways to give layers to devices: chains of placements from nothing on devices to everything, each step with a little more there than
//! the one before, and the sums that say how far along a chain memory may reach.

use super::layers::assign;
use super::site::Site;
use crate::inventory::Inventory;
use spec::settings::SplitMode;
use spec::{Bytes, Settings};

/// Which devices layers go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Route {
    /// As the settings say: one device, or a split that the user has pinned.
    AsSet,
    /// One device alone.
    One(u32),
    /// Several: the fastest is filled first, the slowest gets the rest.
    FastestFirst,
    /// Several: each filled to the same share of its memory.
    Balanced,
    /// None.
    Host,
}

/// Layers on devices, and layers whose experts stay on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Step {
    pub(crate) n_gpu_layers: u32,
    pub(crate) n_cpu_moe: u32,
}

/// What leaves devices first where memory is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leaving {
    /// Experts, then what is left of the layers.
    Experts,
    /// Whole layers.
    Layers,
}

/// Weights and cache of consecutive layers, and of the output behind them, in constant time.
pub(crate) struct Sums {
    dense: Vec<f64>,
    experts: Vec<f64>,
    cache: Vec<f64>,
    output: f64,
}

/// Halvings that resolve a share of a device to less than a layer of any model.
const HALVINGS: usize = 14;

impl Sums {
    /// Of a model under these settings, wherever its layers are. Trailing layers that only predict further tokens are not loaded unless
    /// a draft context asks for them: sums are never more than what is needed.
    pub(crate) fn new(inventory: &Inventory, settings: &Settings) -> Self {
        let prefix = |of: &dyn Fn(&crate::inventory::LayerLoad) -> Bytes| {
            let mut sum = 0.0;
            let after = inventory.layers.iter().map(|layer| {
                sum += of(layer).as_f64();
                sum
            });
            std::iter::once(0.0).chain(after.collect::<Vec<_>>()).collect::<Vec<f64>>()
        };
        Self {
            dense: prefix(&|layer| if layer.computed { layer.dense } else { Bytes::ZERO }),
            experts: prefix(&|layer| if layer.computed { layer.experts } else { Bytes::ZERO }),
            cache: prefix(&|layer| if settings.kv_offload { layer.cache(settings) } else { Bytes::ZERO }),
            output: inventory.output.as_f64(),
        }
    }

    /// Of its weights alone.
    pub(crate) fn of_weights(inventory: &Inventory) -> Self {
        Self::new(inventory, &Settings { kv_offload: false, ..Settings::default() })
    }

    /// Layers and the output.
    fn len(&self) -> usize {
        self.dense.len()
    }

    /// Bytes of `from..to` without the experts of the first `n_cpu_moe` layers.
    pub(crate) fn bytes(&self, n_cpu_moe: u32, from: usize, to: usize) -> f64 {
        let layers = self.dense.len() - 1;
        let (a, b) = (from.min(layers), to.min(layers));
        let first = (n_cpu_moe as usize).min(layers);
        let sum = |prefix: &[f64], a: usize, b: usize| prefix[b] - prefix[a];
        let output = if from <= layers && to > layers { self.output } else { 0.0 };
        sum(&self.dense, a, b) + sum(&self.experts, a.max(first), b.max(first)) + sum(&self.cache, a, b) + output
    }

    /// How many of the layers of a step each device gets, filled up to its capacity in order; `None` where they do not fit.
    fn greedy(&self, step: Step, capacities: impl Iterator<Item = f64>) -> Option<Vec<usize>> {
        let mut next = self.len().saturating_sub(step.n_gpu_layers as usize);
        let counts = capacities.map(|capacity| {
            let (mut low, mut high) = (next, self.len());
            while low < high {
                let middle = (low + high).div_ceil(2);
                if self.bytes(step.n_cpu_moe, next, middle) <= capacity { low = middle } else { high = middle - 1 }
            }
            let count = low - next;
            next = low;
            count
        });
        let counts: Vec<usize> = counts.collect();
        (next == self.len()).then_some(counts)
    }

    /// The same share of every device, as small as it can be.
    pub(crate) fn balanced(&self, step: Step, capacities: &[f64]) -> Option<Vec<usize>> {
        let at = |share: f64| self.greedy(step, capacities.iter().map(|capacity| capacity * share));
        narrowest(at)
    }

    /// The first devices of `order` full, and the last one that is needed as empty as it can be.
    pub(crate) fn fastest_first(&self, step: Step, capacities: &[f64], order: &[usize]) -> Option<Vec<usize>> {
        (1..=order.len()).find_map(|used| {
            let last = order[used - 1];
            let capacity = |device: usize, share: f64| match order[..used].contains(&device) {
                true if device == last => capacities[device] * share,
                true => capacities[device],
                false => -1.0,
            };
            narrowest(|share| self.greedy(step, (0..capacities.len()).map(|device| capacity(device, share))))
        })
    }
}

/// What `at` gives for the smallest share up to 1 for which it gives anything.
fn narrowest(at: impl Fn(f64) -> Option<Vec<usize>>) -> Option<Vec<usize>> {
    let mut best = at(1.0)?;
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let share = (low + high) / 2.0;
        match at(share) {
            Some(counts) => (best, high) = (counts, share),
            None => low = share,
        }
    }
    Some(best)
}

impl Site<'_> {
    /// The settings of a step: as far as `capacities` allow; `None` where the sums say that it does not fit.
    pub(crate) fn at(&self, base: &Settings, route: Route, step: Step, sums: &Sums, capacities: &[f64]) -> Option<Settings> {
        let Step { n_gpu_layers, n_cpu_moe } = step;
        let mut settings = Settings { n_gpu_layers, n_cpu_moe, ..base.clone() };
        let start = sums.len().saturating_sub(n_gpu_layers as usize);
        match route {
            Route::Host => settings.n_gpu_layers = self.request.pins.n_gpu_layers.unwrap_or(0),
            Route::AsSet => {
                let loads = self.device_loads(&settings, sums);
                loads.iter().zip(capacities).all(|(load, capacity)| *load == 0.0 || load <= capacity).then_some(())?;
            }
            Route::One(device) => {
                (sums.bytes(n_cpu_moe, start, sums.len()) <= *capacities.get(device as usize)?).then_some(())?;
                (settings.split_mode, settings.main_gpu) = (SplitMode::None, device);
            }
            Route::FastestFirst | Route::Balanced => {
                let counts = match route {
                    Route::Balanced => sums.balanced(step, capacities)?,
                    _ => sums.fastest_first(step, capacities, &self.by_speed)?,
                };
                settings.tensor_split = counts.into_iter().map(|count| count as f64).collect();
            }
        }
        Some(self.pinned(settings))
    }

    /// The device of each layer and of the output under `settings`.
    pub(crate) fn layer_devices(&self, settings: &Settings) -> Vec<Option<usize>> {
        let n = self.inventory.layers.len() + 1;
        let devices = self.target.devices.len();
        let shares: Vec<f64> = match settings.split_mode {
            SplitMode::None => (0..devices).map(|i| if i == settings.main_gpu as usize { 1.0 } else { 0.0 }).collect(),
            _ if settings.tensor_split.is_empty() => {
                self.target.devices.iter().map(|d| d.free.get().unwrap_or(Bytes::ZERO).as_f64()).collect()
            }
            _ => (0..devices).map(|i| settings.tensor_split.get(i).copied().unwrap_or(0.0)).collect(),
        };
        assign(n, settings.n_gpu_layers, &shares)
    }

    /// Weights and cache per device, by sums.
    pub(crate) fn device_loads(&self, settings: &Settings, sums: &Sums) -> Vec<f64> {
        self.loads_of(settings, sums, &self.layer_devices(settings))
    }

    /// The same where layers lie on these devices.
    pub(crate) fn loads_of(&self, settings: &Settings, sums: &Sums, layer_devices: &[Option<usize>]) -> Vec<f64> {
        let mut loads = vec![0.0; self.target.devices.len()];
        for (i, device) in layer_devices.iter().enumerate() {
            if let Some(total) = device.and_then(|device| loads.get_mut(device)) {
                *total += sums.bytes(settings.n_cpu_moe, i, i + 1);
            }
        }
        loads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(layers: usize) -> Sums {
        let prefix: Vec<f64> = (0..=layers).map(|i| i as f64).collect();
        Sums { experts: prefix.iter().map(|sum| sum * 4.0).collect(), dense: prefix, cache: vec![0.0; layers + 1], output: 2.0 }
    }

    const fn step(n_gpu_layers: u32, n_cpu_moe: u32) -> Step {
        Step { n_gpu_layers, n_cpu_moe }
    }

    #[test]
    fn sums_count_layers_their_experts_and_the_output() {
        let sums = sums(4);
        assert_eq!(sums.bytes(0, 0, 5), 4.0 * 5.0 + 2.0);
        assert_eq!(sums.bytes(4, 0, 5), 4.0 + 2.0);
        assert_eq!(sums.bytes(2, 1, 3), 1.0 + 5.0);
        assert_eq!(sums.bytes(0, 4, 5), 2.0);
    }

    #[test]
    fn the_fastest_is_filled_first_wherever_it_stands() {
        let sums = sums(10);
        // Eleven with the output: 12 bytes without experts.
        assert_eq!(sums.fastest_first(step(11, 10), &[9.0, 6.0], &[0, 1]), Some(vec![9, 2]));
        assert_eq!(sums.fastest_first(step(11, 10), &[6.0, 9.0], &[1, 0]), Some(vec![3, 8]));
        assert_eq!(sums.fastest_first(step(11, 10), &[20.0, 9.0], &[0, 1]), Some(vec![11, 0]), "one is enough");
        assert_eq!(sums.fastest_first(step(11, 10), &[6.0, 5.0], &[0, 1]), None);
        assert_eq!(sums.balanced(step(11, 10), &[16.0, 8.0]), Some(vec![8, 3]));
        assert_eq!(sums.balanced(step(11, 10), &[8.0, 16.0]), Some(vec![4, 7]));
    }
}
