//! Placements over several devices that are near one that fits: layers move from device to device while that is faster, and where devices
//! differ also between them and the host, as do the experts of a layer.
//!
//! Sums propose splits with a guess of what compute buffers take, and that differs from split to split. Here one that is known to fit is
//! where one starts, and the exact requirement has the last word.

use super::joint::Frame;
use super::site::{Candidate, Reach, Site};
use crate::predict::HostState;
use spec::Settings;

/// Exact evaluations that better placements may take.
const LOOKS: usize = 12;

/// Share of what a device takes beyond weights and cache that a layer more or less may free.
const FREED: f64 = 0.25;

impl Site<'_> {
    /// The candidate, or a faster one that a chain of moves leads to, each of which fits and is faster than the one before.
    pub(crate) fn improved(&self, found: Candidate, frame: &Frame) -> Candidate {
        let mut best = found;
        let mut seen = Vec::new();
        while seen.len() < LOOKS {
            let faster = self.faster_neighbours(&best, frame).into_iter().find(|settings| !seen.contains(settings));
            let Some(settings) = faster else { break };
            let evaluated = self.evaluate(&settings, &frame.rung);
            if let (Some(requirement), Ok(residency)) = (evaluated.requirement, evaluated.outcome) {
                let candidate = self.candidate(settings.clone(), requirement, residency);
                if candidate.worth.total_cmp(&best.worth).is_lt() {
                    best = candidate;
                }
            }
            seen.push(settings);
        }
        best
    }

    /// The same with the output alone on another device: one that is slower at layers, for what starting them takes, may read it faster.
    pub(crate) fn output_apart(&self, settings: &Settings, frame: &Frame, limits: &[f64]) -> Vec<Settings> {
        let split = &settings.tensor_split;
        let Some(holder) = split.iter().rposition(|&count| count >= 1.0).filter(|_| !self.all_alike()) else { return Vec::new() };
        let layers = self.inventory.layers.len();
        let output = frame.sums.bytes(0, layers, layers + 1);
        let others = (holder + 1..split.len()).filter(|&device| output <= limits[device]);
        others.map(|device| Counts::of(settings, self.inventory.offloadable()).one(holder, device, 1).settings(settings)).collect()
    }

    fn all_alike(&self) -> bool {
        (1..self.target.devices.len()).all(|device| self.alike(0, device))
    }

    /// Placements near one: between devices that are alike layers move and nothing else, for which is how a chain gives them out.
    fn neighbours(&self, found: &Candidate, frame: &Frame) -> Vec<Settings> {
        let pins = &self.request.pins;
        let anywhere = frame.rung.reach == Reach::Anywhere;
        let experts =
            (anywhere && pins.n_cpu_moe.is_none() && self.inventory.has_experts()).then(|| self.inventory.layers_to_last_experts());
        let open = Open { layers: anywhere && pins.n_gpu_layers.is_none(), experts };
        let counts = Counts::of(&found.settings, self.inventory.offloadable());
        let near = if self.all_alike() { counts.moved(Open { layers: false, experts: None }) } else { counts.near(open) };
        near.into_iter().map(|counts| counts.settings(&found.settings)).collect()
    }

    /// Placements near one that are faster and may fit, the fastest first.
    fn faster_neighbours(&self, found: &Candidate, frame: &Frame) -> Vec<Settings> {
        let state = HostState::of(self.pools.host.with_files, &found.requirement);
        let loads = self.loads_of(&found.settings, &frame.sums, &found.requirement.layer_devices);
        let left = self.left_on_devices(&found.requirement);
        let most = |device: usize| {
            let beyond = found.requirement.devices.get(device).and_then(|device| device.total().high().copied());
            let beyond = beyond.map_or(0.0, |total| (total.as_f64() - loads[device]).max(0.0));
            let limit = self.pools.devices[device].limit.map_or(0.0, |limit| limit.as_f64());
            if loads[device] > 0.0 { loads[device] + left[device] + beyond * FREED } else { limit }
        };
        let mut faster = Vec::new();
        for settings in self.neighbours(found, frame) {
            let devices = self.layer_devices(&settings);
            let load = self.loads_of(&settings, &frame.sums, &devices);
            if (0..load.len()).any(|device| load[device] > loads[device] && load[device] > most(device)) {
                continue;
            }
            let worth = self.worth(&settings, &self.timing(&settings, &devices, &self.moved, &state));
            if worth.better_than(&found.worth, super::joint::SAME) {
                faster.push((worth, settings));
            }
        }
        faster.sort_by(|a, b| a.0.total_cmp(&b.0));
        faster.into_iter().map(|(_, settings)| settings).collect()
    }
}

/// Where the layers of a placement are: so many on each device, the rest on the host, and the experts of the first ones there too.
#[derive(Clone, Debug, PartialEq)]
struct Counts {
    /// Per device, then what the host has.
    places: Vec<u32>,
    n_cpu_moe: u32,
}

/// What of a placement may change.
#[derive(Clone, Copy)]
struct Open {
    /// Layers between devices and host.
    layers: bool,
    /// Experts of so many layers; `None` where they stay.
    experts: Option<u32>,
}

impl Counts {
    fn of(settings: &Settings, offloadable: u32) -> Self {
        // Shares are counts (`Site::at`).
        let on_devices = settings.tensor_split.iter().map(|&share| share as u32);
        let host = offloadable.saturating_sub(settings.n_gpu_layers);
        Self { places: on_devices.chain([host]).collect(), n_cpu_moe: settings.n_cpu_moe }
    }

    fn settings(&self, base: &Settings) -> Settings {
        let devices = &self.places[..self.places.len() - 1];
        let on_devices: u32 = devices.iter().sum();
        // Shares of nothing are no shares, and no command line takes them.
        let tensor_split = if on_devices == 0 { Vec::new() } else { devices.iter().map(|&count| f64::from(count)).collect() };
        // A pin may ask for more layers than there are.
        let n_gpu_layers = if self.places.last() == Some(&0) { base.n_gpu_layers.max(on_devices) } else { on_devices };
        Settings { tensor_split, n_gpu_layers, n_cpu_moe: self.n_cpu_moe, ..base.clone() }
    }

    /// With one, two, four, ... layers elsewhere.
    fn moved(&self, open: Open) -> Vec<Self> {
        let places = self.places.len() - usize::from(!open.layers);
        let pairs = (0..places).flat_map(|from| (0..places).map(move |to| (from, to))).filter(|(from, to)| from != to);
        let moved = |(from, to): (usize, usize)| {
            let sizes = (0..u32::BITS).map(|power| 1_u32 << power).take_while(move |&size| size <= self.places[from]);
            sizes.map(move |size| self.one(from, to, size))
        };
        pairs.flat_map(moved).collect()
    }

    fn one(&self, from: usize, to: usize, size: u32) -> Self {
        let mut places = self.places.clone();
        places[from] -= size;
        places[to] += size;
        Self { places, n_cpu_moe: self.n_cpu_moe }
    }

    /// With one layer elsewhere, or the experts of one layer.
    fn stepped(&self, open: Open) -> Vec<Self> {
        let places = self.places.len() - usize::from(!open.layers);
        let pairs = (0..places).flat_map(|from| (0..places).map(move |to| (from, to)));
        let mut all: Vec<Self> =
            pairs.filter(|&(from, to)| from != to && self.places[from] > 0).map(|(from, to)| self.one(from, to, 1)).collect();
        if let Some(most) = open.experts {
            let counts = [self.n_cpu_moe.checked_sub(1), self.n_cpu_moe.checked_add(1).filter(|&count| count <= most)];
            all.extend(counts.into_iter().flatten().map(|n_cpu_moe| Self { n_cpu_moe, places: self.places.clone() }));
        }
        all
    }

    /// What is near: several layers elsewhere, or two single steps.
    fn near(&self, open: Open) -> Vec<Self> {
        let mut all = self.moved(open);
        for step in self.stepped(open) {
            for second in step.stepped(open).into_iter().chain([step]) {
                if second != *self && !all.contains(&second) {
                    all.push(second);
                }
            }
        }
        all
    }
}
