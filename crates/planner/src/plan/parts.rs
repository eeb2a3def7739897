//! Parts of layers in what whole layers leave of devices: tensors that the host would hold, by `tensor_overrides`.
//!
//! Layers go to devices whole and the experts of a layer together, so that of each device less than one of these is left over. A last
//! step behind the search: it begins at what was found, takes what fits device by device, and is undone where it wins too little.

use super::joint::{Frame, Ways};
use super::objective::Worth;
use super::site::{Candidate, Rung, Site};
use spec::settings::{SplitMode, TensorOverride};
use spec::{Bytes, Settings};
use std::collections::BTreeMap;

/// What parts must win in time to be worth their rules.
const LEAST: f64 = 1.02;

/// Exact evaluations that finding parts that fit may take.
const ROUNDS: usize = 3;

/// By how much more time without parts what another way led to is looked at, and how many of them are.
const NEAR: f64 = 1.5;
const OTHERS: usize = 16;

/// Layers of which a device takes parts.
const LAYERS: usize = 4;

/// Smaller tensors cost more in copies between processors than they save.
const SMALL: Bytes = Bytes::from_mib(1);

/// A matrix of a layer's feed-forward part that lies on the host.
struct Part {
    layer: u32,
    /// Its name without layer and ending: `ffn_up_exps`.
    stem: String,
    bytes: f64,
    /// Where the rest of its layer is.
    beside: Option<usize>,
}

impl Ways<'_> {
    /// What was chosen, with parts of layers in what it leaves of devices; or what another wanted way led to, where that is better with
    /// them. What computes without copies of host weights leaves more room.
    pub(crate) fn filled(&self, chosen: Candidate, wanted: impl Fn(&Frame) -> bool) -> Candidate {
        let enough = Worth { seconds: chosen.worth.seconds * NEAR, ..chosen.worth };
        let found = self.found(wanted);
        let own = found.iter().find(|(site, rung, _)| site.devices == chosen.settings.devices && rung.n_ctx == chosen.settings.n_ctx);
        let mut best = match own {
            Some((site, rung, _)) => site.filled(chosen, rung),
            None => chosen,
        };
        let near = found.iter().filter(|(_, _, other)| other.worth.total_cmp(&enough).is_lt());
        for (site, rung, other) in near.take(OTHERS) {
            let filled = site.filled((**other).clone(), rung);
            if filled.worth.better_than(&best.worth, LEAST) {
                best = filled;
            }
        }
        best
    }
}

impl Site<'_> {
    /// The candidate with parts of layers in what it leaves of devices, where that is faster.
    pub(crate) fn filled(&self, found: Candidate, rung: &Rung) -> Candidate {
        let parts = if self.may_fill(&found) { self.parts(&found) } else { Vec::new() };
        let mut left: Vec<f64> = self.left_on_devices(&found.requirement).into_iter().map(|left| left.max(0.0)).collect();
        for _ in 0..ROUNDS {
            let taken = self.taken(&parts, &left);
            if taken.is_empty() {
                break;
            }
            let settings = Settings { tensor_overrides: self.rules(&parts, &taken), ..found.settings.clone() };
            let evaluated = self.evaluate(&settings, rung);
            let Some(requirement) = evaluated.requirement else { break };
            match evaluated.outcome {
                Ok(residency) => {
                    let filled = self.candidate(settings, requirement, residency);
                    return if filled.worth.better_than(&found.worth, LEAST) { filled } else { found };
                }
                Err(_) => {
                    // What a device took and did not use up may have been too little for the next part: less than it took is what helps.
                    let mut took = vec![0.0; left.len()];
                    for (&part, &device) in &taken {
                        if let (Some(took), Some(part)) = (took.get_mut(device), parts.get(part)) {
                            *took += part.bytes;
                        }
                    }
                    let over = self.left_on_devices(&requirement);
                    for ((left, took), over) in left.iter_mut().zip(took).zip(over).filter(|(_, over)| *over < 0.0) {
                        *left = (left.min(took) + over).max(0.0);
                    }
                }
            }
        }
        found
    }

    /// True where the user has left open what lies where, and devices with memory of their own take whole layers.
    fn may_fill(&self, found: &Candidate) -> bool {
        let pins = &self.request.pins;
        let free = pins.tensor_overrides.is_none();
        let settings = &found.settings;
        let whole = settings.split_mode == SplitMode::Layer || settings.split_mode == SplitMode::None;
        let own = self.target.devices.iter().all(|device| !device.shares_host);
        free && whole && own && settings.n_gpu_layers > 0 && self.wants_devices() && self.on_host(found)
    }

    /// What each device has left; less than nothing where it has too little.
    pub(crate) fn left_on_devices(&self, requirement: &footprint::Requirement) -> Vec<f64> {
        let left = |(pool, needs): (&super::pools::Allowance, &footprint::DeviceRequirement)| {
            let used = !needs.runtime.get().is_some_and(|runtime| runtime.is_zero()) || needs.compute.get().is_some_and(|c| !c.is_zero());
            match (pool.limit, needs.total().high()) {
                (Some(limit), Some(needs)) if used => limit.as_f64() - needs.as_f64(),
                _ => 0.0,
            }
        };
        self.pools.devices.iter().zip(&requirement.devices).map(left).collect()
    }

    /// Matrices on the host, those first that are nearest to the layers on devices. Of layers that a pinned number leaves to the host
    /// none, and no experts that another one does.
    fn parts(&self, found: &Candidate) -> Vec<Part> {
        let pins = &self.request.pins;
        let part = |tensor: &spec::model::Tensor| {
            let layer = tensor.layer()?;
            let beside = *found.requirement.layer_devices.get(layer as usize)?;
            let on_host = beside.is_none() || tensor.is_expert() && layer < found.settings.n_cpu_moe;
            let kept =
                beside.is_none() && pins.n_gpu_layers.is_some() || tensor.is_expert() && pins.n_cpu_moe.is_some_and(|first| layer < first);
            let (_, stem) = tensor.name.strip_suffix(".weight")?.split_once('.')?.1.split_once('.')?;
            let matrix = ["up", "gate", "down", "gate_up"].iter().any(|name| stem == format!("ffn_{name}"));
            let fits = on_host && !kept && tensor.bytes >= SMALL && (matrix || tensor.is_expert()) && layer < self.model.n_layer();
            fits.then(|| Part { layer, stem: stem.to_owned(), bytes: tensor.bytes.as_f64(), beside })
        };
        let mut parts: Vec<Part> = self.model.tensors.iter().filter_map(part).collect();
        parts.sort_by(|a, b| b.layer.cmp(&a.layer).then(b.bytes.total_cmp(&a.bytes)).then(a.stem.cmp(&b.stem)));
        parts
    }

    /// What each device takes: parts of its own layers first, the fastest device before the others.
    fn taken(&self, parts: &[Part], left: &[f64]) -> BTreeMap<usize, usize> {
        let mut taken = BTreeMap::new();
        for &device in &self.by_speed {
            let mut room = left.get(device).copied().unwrap_or(0.0);
            let mut layers: Vec<u32> = Vec::new();
            for own in [true, false] {
                for (index, part) in parts.iter().enumerate().filter(|(_, part)| (part.beside == Some(device)) == own) {
                    let known = layers.contains(&part.layer);
                    if part.bytes <= room && !taken.contains_key(&index) && (known || layers.len() < LAYERS) {
                        room -= part.bytes;
                        taken.insert(index, device);
                        layers.extend((!known).then_some(part.layer));
                    }
                }
            }
        }
        taken
    }

    /// One rule for each layer and device.
    fn rules(&self, parts: &[Part], taken: &BTreeMap<usize, usize>) -> Vec<TensorOverride> {
        let mut stems: BTreeMap<(u32, usize), Vec<&str>> = BTreeMap::new();
        for (&index, &device) in taken {
            if let Some(part) = parts.get(index) {
                stems.entry((part.layer, device)).or_default().push(&part.stem);
            }
        }
        let rule = |((layer, device), stems): ((u32, usize), Vec<&str>)| {
            let buffer = self.target.devices.get(device)?.name.clone();
            Some(TensorOverride { pattern: format!(r"blk\.{layer}\.({})\.", stems.join("|")), buffer })
        };
        stems.into_iter().filter_map(rule).collect()
    }
}
