//! The ladder: from what the use case wants down to what still makes sense. The first tier on which the model fits has the plan, and
//! within a tier everything is chosen together.

use super::gate::Gate;
use super::needs::Needs;
use super::refusal::Rejected;
use super::request::{DevicePreference, DiskPolicy};
use super::site::{Candidate, Reach, Residency, Rung, Site};
use spec::model::Mixer;
use spec::settings::FlashAttention;
use spec::{Bytes, Known, QuantType, Settings};

/// The plan's settings, and the rung on which they were found.
pub(crate) struct Found {
    pub(crate) candidate: Candidate,
    pub(crate) rung: Rung,
    /// What did not fit before.
    pub(crate) tried: Vec<Rejected>,
    /// What the engine itself would do, where that is known.
    pub(crate) gate: Option<Gate>,
}

/// By how much the host must be faster before a use case that puts devices first leaves layers on it.
const CLEARLY: f64 = 1.05;

/// Types that a cache is quantised to, finest first. Two types of one size are not both there: the one with fewer artefacts is.
const QUANTISED: [QuantType; 5] = [QuantType::Q8_0, QuantType::Q5_1, QuantType::Q5_0, QuantType::Q4_1, QuantType::Q4_0];

impl Site<'_> {
    /// The first tier with a plan that keeps the bounds on speed; where none does, the first with a plan. Finished, and the engine's own
    /// choice where that is as good. Else everything that was tried.
    pub(crate) fn search(&self) -> Result<Found, Vec<Rejected>> {
        let found = self.gated(self.find()?);
        let chosen = self.of(&found.candidate.settings.devices);
        Ok(Found { candidate: chosen.as_ref().unwrap_or(self).finish(found.candidate, &found.rung), ..found })
    }

    /// The same without looking at the engine's own choice.
    pub(crate) fn find(&self) -> Result<Found, Vec<Rejected>> {
        let others = self.lineups();
        let mut tried = Vec::new();
        let mut first: Option<Found> = None;
        let mut devices_first = true;
        for tier in self.tiers() {
            let only_devices = tier.iter().all(|rung| rung.reach == Reach::Devices);
            if only_devices && !devices_first {
                continue;
            }
            match self.settled(&others, &tier) {
                Ok(candidate) if only_devices && self.host_is_faster(&others, &tier, &candidate) => devices_first = false,
                Ok(candidate) => {
                    let keeps = candidate.worth.behind <= 1.0;
                    if keeps || first.is_none() {
                        let rung = self.rung_of(&tier, &candidate);
                        let site = others.iter().find(|site| site.devices == candidate.settings.devices).unwrap_or(self);
                        let candidate = site.held(candidate);
                        first = Some(Found { candidate, rung, tried: tried.clone(), gate: None });
                    }
                    if keeps {
                        break;
                    }
                }
                Err(more) => tried.extend(more),
            }
        }
        first.ok_or(tried)
    }

    /// True where a use case puts devices first for speed, and what leaves layers on the host and nothing else is clearly faster.
    fn host_is_faster(&self, others: &[Site<'_>], tier: &[Rung], candidate: &Candidate) -> bool {
        if self.request.preferences.device == DevicePreference::Gpu {
            return false;
        }
        let anywhere: Vec<Rung> = tier.iter().map(|rung| Rung { reach: Reach::Anywhere, ..*rung }).collect();
        self.settled(others, &anywhere).is_ok_and(|other| other.worth.better_than(&candidate.worth, CLEARLY))
    }

    /// The rung of a tier that a candidate is on.
    fn rung_of(&self, tier: &[Rung], candidate: &Candidate) -> Rung {
        let n_ctx = candidate.settings.n_ctx;
        let found = tier.iter().find(|rung| rung.n_ctx == n_ctx).or(tier.last());
        found.copied().unwrap_or(Rung { n_ctx, cache: candidate.settings.cache_type_k, reach: Reach::Anywhere, disk: false })
    }

    /// Every rung in order, none twice.
    pub(crate) fn rungs(&self) -> Vec<Rung> {
        self.tiers().into_iter().flatten().collect()
    }

    /// What is given up, tier by tier: nothing; then precision of the cache, as far as the use case allows; then context; then weights in
    /// memory. Where the GPU alone is wished for, the first three come before layers on the CPU.
    pub(crate) fn tiers(&self) -> Vec<Vec<Rung>> {
        let Needs { want, enough, floor, gpu_first, .. } = self.contexts();
        let full = self.request.pins.cache_type_k.unwrap_or(QuantType::F16);
        let quantised = self.quantised_caches();
        let coarsest = quantised.last().copied().unwrap_or(full);
        let below: Vec<u32> = Needs::halvings(enough, floor).into_iter().filter(|&n_ctx| n_ctx < enough).collect();
        let mut tiers: Vec<Vec<Rung>> = Vec::new();
        let mut add = |contexts: &[u32], cache, reach, disk| {
            let known = |rung: &Rung| tiers.iter().flatten().any(|other| other == rung);
            let rungs = contexts.iter().map(|&n_ctx| Rung { n_ctx: self.apart(n_ctx, cache), cache, reach, disk });
            let new: Vec<Rung> = rungs.filter(|rung| !known(rung)).collect();
            if !new.is_empty() {
                tiers.push(new);
            }
        };
        let contexts = Needs::halvings(want, enough);
        let devices_first = (self.wants_devices() && gpu_first).then_some(Reach::Devices);
        for reach in devices_first.into_iter().chain([Reach::Anywhere]) {
            add(&contexts, full, reach, false);
            quantised.iter().for_each(|&cache| add(&contexts, cache, reach, false));
            below.iter().for_each(|&n_ctx| add(&[n_ctx], coarsest, reach, false));
        }
        if self.request.preferences.disk != DiskPolicy::Never {
            add(&[enough], full, Reach::Anywhere, true);
            add(&[floor], coarsest, Reach::Anywhere, true);
        }
        tiers
    }

    /// The use case's contexts; a pinned one is all three.
    fn contexts(&self) -> Needs {
        match self.request.pins.n_ctx {
            Some(n_ctx) => Needs { want: n_ctx, enough: n_ctx, floor: n_ctx, ..self.needs },
            None => self.needs,
        }
    }

    /// Types that the cache may be quantised to, finest first: no coarser than the floor, nothing pinned against them, and blocks that
    /// divide every head.
    pub(crate) fn quantised_caches(&self) -> Vec<QuantType> {
        let pins = &self.request.pins;
        let free = pins.cache_type_k.is_none() && pins.cache_type_v.is_none() && pins.flash_attn != Some(FlashAttention::Off);
        let cached = self.inventory.layers.iter().any(|layer| layer.k_width > 0);
        let size = |ty: QuantType| ty.row_bytes(256).map_or(u64::MAX, Bytes::get);
        let floor = size(self.needs.cache_floor);
        let allowed = QUANTISED.into_iter().filter(|&ty| free && cached && size(ty) >= floor && self.divides(ty));
        allowed.collect()
    }

    /// True where the blocks of a type divide what every layer caches.
    fn divides(&self, ty: QuantType) -> bool {
        let block = ty.block().weights;
        self.model.layers.iter().all(|layer| match &layer.mixer {
            Mixer::Attention(a) | Mixer::Both(a, _) => {
                u64::from(a.head_dim_k).is_multiple_of(block) && u64::from(a.head_dim_v).is_multiple_of(block)
            }
            Mixer::Mla(mla) => (u64::from(mla.kv_lora_rank) + u64::from(mla.rope_dim)).is_multiple_of(block),
            Mixer::Compressed(attention) => u64::from(attention.head_dim).is_multiple_of(block),
            Mixer::Recurrent(_) | Mixer::None => true,
        })
    }
    /// Bounds what the server may still take later: prompt cache and checkpoints get at most half of what is left of the
    /// host's memory.
    fn finish(&self, candidate: Candidate, rung: &Rung) -> Candidate {
        let spare = self.spare_host(&candidate);
        let pins = &self.request.pins;
        let default = Settings::default();
        let mut settings = candidate.settings.clone();
        if pins.cache_ram_mib.is_none() && self.request.profile.bitnet.is_none() {
            let half = u32::try_from(spare.scale(0.5).get() >> 20).unwrap_or(u32::MAX);
            // Steps of 256 MiB; less than one is not worth having.
            settings.cache_ram_mib = default.cache_ram_mib.min(half / 256 * 256);
        }
        if settings == candidate.settings {
            return candidate;
        }
        let evaluated = self.evaluate(&settings, rung);
        match (evaluated.requirement, evaluated.outcome) {
            (Some(requirement), Ok(residency)) => self.candidate(settings, requirement, residency),
            _ => candidate,
        }
    }

    /// Host memory under the limit that nothing of the plan needs to stay in; unlimited where the limit is not known.
    pub(crate) fn spare_host(&self, candidate: &Candidate) -> Bytes {
        if candidate.residency == Residency::FromDisk {
            return Bytes::ZERO;
        }
        let left = |limit: Option<Bytes>, used: Known<Bytes>| {
            limit.map_or(Bytes::MAX, |limit| limit.saturating_sub(used.high().copied().unwrap_or(Bytes::MAX)))
        };
        let (host, requirement) = (&self.pools.host, &candidate.requirement);
        left(host.with_files, requirement.resident()).min(left(host.limit, requirement.held()))
    }
}
