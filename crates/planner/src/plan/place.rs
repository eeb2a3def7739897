//! What a placement may choose: which devices, in which order, and what leaves them first.

use super::chain::{Leaving, Route, Step};
use super::joint::SMALL_UBATCH;
use super::site::{Reach, Site};
use super::verdict::Pool;
use spec::Settings;
use spec::settings::SplitMode;

impl Site<'_> {
    /// The steps of a chain, emptiest devices first.
    pub(crate) fn chain(&self, base: &Settings, reach: Reach, leaving: Leaving) -> Vec<Step> {
        let all = self.inventory.offloadable();
        let pins = &self.request.pins;
        let most_layers = pins.n_gpu_layers.map_or(all, |n| n.min(all));
        let least_experts = base.n_cpu_moe;
        let most_experts = if pins.n_cpu_moe.is_some() { base.n_cpu_moe } else { self.inventory.layers_to_last_experts() };
        let step = |n_gpu_layers, n_cpu_moe| Step { n_gpu_layers, n_cpu_moe };
        if reach == Reach::Devices {
            return vec![step(most_layers, least_experts)];
        }
        let first = if pins.n_gpu_layers.is_some() { most_layers } else { 1 };
        match leaving {
            Leaving::Layers => (first..=most_layers).map(|n| step(n, least_experts)).collect(),
            Leaving::Experts => {
                let dense = (first..most_layers).map(|n| step(n, most_experts));
                dense.chain((least_experts..=most_experts).rev().map(|m| step(most_layers, m))).collect()
            }
        }
    }

    /// The chains worth following: with experts on devices both, else whole layers.
    pub(crate) fn leavings(&self, reach: Reach) -> &'static [Leaving] {
        match reach {
            Reach::Anywhere if self.inventory.has_experts() && self.request.pins.n_cpu_moe.is_none() => {
                &[Leaving::Experts, Leaving::Layers]
            }
            _ => &[Leaving::Layers],
        }
    }

    /// Ways to give layers to devices that the user's pins leave open. The smaller micro-batch is there for what devices hold: with none of them
    /// it would only put off what makes more of a difference, such as a coarser cache beside all layers on a GPU.
    pub(crate) fn routes(&self, reach: Reach, base: &Settings) -> Vec<Route> {
        let pins = &self.request.pins;
        if !self.wants_devices() {
            return vec![Route::Host];
        }
        if self.nothing_to_place() {
            return vec![Route::AsSet];
        }
        let mut routes: Vec<Route> = self.single_devices().into_iter().map(Route::One).collect();
        // The main device is the one of a model that is not split; with split layers the engine gives it no part of its own.
        let layers = pins.split_mode.is_none_or(|mode| mode == SplitMode::Layer);
        if self.pools.devices.len() > 1 && pins.tensor_split.is_none() && layers {
            routes.extend([Route::FastestFirst, Route::Balanced]);
        } else if routes.is_empty() {
            routes.push(Route::AsSet);
        }
        let smaller = pins.n_ubatch.is_none() && base.n_ubatch == SMALL_UBATCH && base.n_ubatch < base.n_batch.min(base.n_ctx);
        if reach == Reach::Anywhere && pins.n_gpu_layers.is_none() && !smaller {
            routes.push(Route::Host);
        }
        routes
    }

    /// The pool that stands for all devices.
    pub(crate) fn device_pool(&self) -> Pool {
        match self.pools.devices.as_slice() {
            [only] => only.pool.clone(),
            _ => Pool::AllDevices,
        }
    }

    /// True where the user has decided every setting that places something.
    fn nothing_to_place(&self) -> bool {
        let pins = &self.request.pins;
        let split =
            self.pools.devices.len() < 2 || pins.tensor_split.is_some() || pins.split_mode.is_some_and(|mode| mode != SplitMode::Layer);
        pins.n_gpu_layers.is_some() && (pins.n_cpu_moe.is_some() || !self.inventory.has_experts()) && split
    }

    /// Single devices worth trying, fastest first; none where there is only one, or the user has decided.
    fn single_devices(&self) -> Vec<u32> {
        let pins = &self.request.pins;
        if self.pools.devices.len() < 2 || pins.tensor_split.is_some() || pins.split_mode.is_some() {
            return Vec::new();
        }
        let mut devices: Vec<usize> = match pins.main_gpu {
            Some(main) => vec![main as usize],
            None => self.by_speed.clone(),
        };
        devices.retain(|&device| self.pools.devices.get(device).is_some_and(|pool| pool.limit.is_some()));
        devices.into_iter().filter_map(|device| u32::try_from(device).ok()).collect()
    }
}
