//! What a plan gives up against what the use case asks for.

use super::request::DevicePreference;
use super::search::Found;
use super::site::{Residency, Site};
use super::verdict::{Downgrade, Pool, Strategy, Verdict};
use footprint::Requirement;
use spec::{Bytes, QuantType, Settings};

/// What is lost with a cache of this type.
fn precision_lost(ty: QuantType) -> String {
    match ty.bits_per_weight() {
        bits if bits >= 8.0 => format!("a loss of quality in {ty} that is hard to measure"),
        _ => format!("quality in {ty}: most with tools, long contexts and rare words"),
    }
}

impl Site<'_> {
    /// The verdict over a plan: each setting that is below what the use case asks for, by the user's own choice excepted.
    pub(crate) fn verdict(&self, found: &Found) -> Verdict {
        let steps: Vec<Downgrade> = [
            self.context_step(found),
            self.cache_step(found),
            self.layers_step(found),
            self.copies_step(found),
            self.offload_step(found),
            self.disk_step(found),
            self.first_token_step(found),
            self.decode_step(found),
        ]
        .into_iter()
        .flatten()
        .collect();
        if steps.is_empty() { Verdict::Fits } else { Verdict::FitsAfterDowngrade(steps) }
    }

    fn context_step(&self, found: &Found) -> Option<Downgrade> {
        let settings = &found.candidate.settings;
        if self.request.pins.n_ctx.is_some() || settings.n_ctx >= self.needs.enough {
            return None;
        }
        let more = Settings { n_ctx: self.needs.enough, ..settings.clone() };
        Some(Downgrade {
            setting: "n_ctx",
            from: self.needs.enough.to_string(),
            to: settings.n_ctx.to_string(),
            why: format!("the cache of {} tokens does not fit", self.needs.enough),
            saves: self.cache_saved(&more, found),
            costs: Some(format!("conversations and prompts of more than {} tokens", settings.n_ctx)),
        })
    }

    fn cache_step(&self, found: &Found) -> Option<Downgrade> {
        let settings = &found.candidate.settings;
        let pins = &self.request.pins;
        if !settings.cache_type_k.is_quantized() || pins.cache_type_k.is_some() || pins.cache_type_v.is_some() {
            return None;
        }
        let default = Settings::default();
        let more = Settings { cache_type_k: default.cache_type_k, cache_type_v: default.cache_type_v, ..settings.clone() };
        Some(Downgrade {
            setting: "cache_type_k",
            from: default.cache_type_k.to_string(),
            to: settings.cache_type_k.to_string(),
            why: "the cache does not fit in f16".to_owned(),
            saves: self.cache_saved(&more, found),
            costs: Some(format!("{}{}", precision_lost(settings.cache_type_k), self.against(&more, found))),
        })
    }

    /// How much longer a typical request takes than with `more`, had that fitted: `, requests of ~6.8 s instead of ~6.1 s`.
    /// Nothing where it takes about as long or is shorter, or where that is not known.
    fn against(&self, more: &Settings, found: &Found) -> String {
        let Some(requirement) = self.evaluate(more, &found.rung).requirement else { return String::new() };
        let without = self.candidate(more.clone(), requirement, Residency::Resident).timing.whole;
        let with = found.candidate.timing.whole;
        let longer = with / without;
        if longer.is_finite() && longer >= 1.01 { format!(", requests of ~{with:.1} s instead of ~{without:.1} s") } else { String::new() }
    }

    /// Cache that `more` would have on top, on the pool that holds most layers.
    fn cache_saved(&self, more: &Settings, found: &Found) -> Option<(Pool, Bytes)> {
        let sum = |settings: &Settings| self.inventory.layers.iter().map(|layer| layer.cache(settings)).sum::<Bytes>();
        let saved = sum(more).saturating_sub(sum(&found.candidate.settings));
        let pool = if self.strategy(&found.candidate) == Strategy::CpuOnly { Pool::Host } else { self.device_pool() };
        (!saved.is_zero()).then_some((pool, saved))
    }

    fn layers_step(&self, found: &Found) -> Option<Downgrade> {
        let settings = &found.candidate.settings;
        let wanted = self.request.preferences.device == DevicePreference::Gpu;
        if !wanted || self.request.pins.n_gpu_layers.is_some() || self.strategy(&found.candidate) == Strategy::GpuOnly {
            return None;
        }
        let all = self.inventory.offloadable();
        let to = match (settings.n_gpu_layers.min(all), settings.n_cpu_moe) {
            _ if self.target.devices.is_empty() => "none: the engine has no GPU here".to_owned(),
            (n, 0) => format!("{n}"),
            (n, experts) => format!("{n}, experts of {experts} layers on the CPU"),
        };
        let why = "the GPU was asked for, and not all layers fit on it".to_owned();
        let whole =
            Settings { n_gpu_layers: all, n_cpu_moe: 0, tensor_overrides: Vec::new(), tensor_split: Vec::new(), ..settings.clone() };
        let costs = if self.target.devices.is_empty() { String::new() } else { self.against(&whole, found) };
        let costs = costs.strip_prefix(", ").map(str::to_owned);
        let held =
            |requirement: &Requirement| requirement.devices.iter().filter_map(|device| device.total().high().copied()).sum::<Bytes>();
        let needed = self.evaluate(&whole, &found.rung).requirement.filter(|_| !self.target.devices.is_empty());
        let saved = needed.map(|needed| held(&needed).saturating_sub(held(&found.candidate.requirement)));
        let saves = saved.filter(|saved| !saved.is_zero()).map(|saved| (self.device_pool(), saved));
        Some(Downgrade { setting: "n_gpu_layers", from: all.to_string(), to, why, saves, costs })
    }

    fn copies_step(&self, found: &Found) -> Option<Downgrade> {
        let settings = &found.candidate.settings;
        if settings.repack || self.request.pins.repack.is_some() || !self.request.profile.repack {
            return None;
        }
        let copied = super::explain::repacked_with(self, settings)?;
        // Where the plan is faster for it, nothing is given up.
        let with = Settings { repack: true, ..settings.clone() };
        if self.evaluate(&with, &found.rung).outcome == Ok(Residency::Resident) {
            return None;
        }
        Some(Downgrade {
            setting: "repack",
            from: "on".to_owned(),
            to: "off".to_owned(),
            why: "rearranged copies of the host's weights cannot be dropped and read again".to_owned(),
            saves: Some((Pool::Host, copied)),
            costs: Some(format!("a slower prompt{}", self.against(&with, found))),
        })
    }

    fn offload_step(&self, found: &Found) -> Option<Downgrade> {
        let settings = &found.candidate.settings;
        let chosen = !settings.op_offload && self.request.pins.op_offload.is_none() && self.wants_devices();
        // Where it is slower, nothing is given up.
        let on = Settings { op_offload: true, ..settings.clone() };
        let short = chosen && self.evaluate(&on, &found.rung).outcome.is_err();
        let wanted = || self.in_place(&on, &found.candidate).better_than(&found.candidate.worth, 1.0);
        (short && wanted()).then(|| Downgrade {
            setting: "op_offload",
            from: "on".to_owned(),
            to: "off".to_owned(),
            why: "copies of host weights do not fit beside the layers on the GPU".to_owned(),
            saves: Some((self.device_pool(), self.inventory.largest_tensor)),
            costs: Some(format!("a slower prompt{}", self.against(&Settings { op_offload: true, ..settings.clone() }, found))),
        })
    }

    fn disk_step(&self, found: &Found) -> Option<Downgrade> {
        let candidate = &found.candidate;
        if candidate.residency == Residency::Resident {
            return None;
        }
        let resident = candidate.requirement.resident();
        let limit = self.pools.host.with_files.unwrap_or(Bytes::ZERO);
        let missing = resident.high().copied().unwrap_or(Bytes::MAX).saturating_sub(limit);
        Some(Downgrade {
            setting: "residency",
            from: "weights in memory".to_owned(),
            to: "weights read from disk".to_owned(),
            why: format!("{missing} more host memory would keep them"),
            saves: Some((Pool::Host, missing)),
            costs: Some(format!(
                "speed, as tokens wait for the disk: decode {} instead of {}",
                self.prediction(candidate).decode,
                self.resident_speed(candidate)
            )),
        })
    }

    fn first_token_step(&self, found: &Found) -> Option<Downgrade> {
        let bound = self.needs.first_token?;
        let seconds = found.candidate.timing.first_token;
        (seconds > bound).then(|| Downgrade {
            setting: "ttft",
            from: format!("at most {bound} s"),
            to: format!("~{seconds:.1} s"),
            why: format!("reading {} tokens takes at least that long in all that fits", self.needs.workload.computed()),
            saves: None,
            costs: None,
        })
    }

    fn decode_step(&self, found: &Found) -> Option<Downgrade> {
        let bound = self.needs.min_decode?;
        let rate = 1.0 / found.candidate.timing.token;
        (rate < bound).then(|| Downgrade {
            setting: "min_tps",
            from: format!("at least {bound} tok/s"),
            to: format!("~{rate:.1} tok/s"),
            why: "no plan that fits is faster".to_owned(),
            saves: None,
            costs: None,
        })
    }
}
