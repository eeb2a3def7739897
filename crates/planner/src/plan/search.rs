//! The ladder: from what the use case wants down to what still makes sense, the first rung on which the model fits.

use super::needs::Needs;
use super::refusal::Rejected;
use super::request::DiskPolicy;
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
}

impl Site<'_> {
    /// The first rung with a plan that keeps the bounds on speed, finished; where none does, the one that comes nearest; else everything
    /// that was tried.
    pub(crate) fn search(&self) -> Result<Found, Vec<Rejected>> {
        let mut tried = Vec::new();
        let mut nearest: Option<(f64, Found)> = None;
        for rung in self.rungs() {
            match self.place(&rung) {
                Ok(candidate) => {
                    let behind = self.behind(&candidate);
                    if nearest.as_ref().is_none_or(|(least, _)| behind < *least) {
                        nearest = Some((behind, Found { candidate, rung, tried: tried.clone() }));
                    }
                    if behind <= 1.0 {
                        break;
                    }
                }
                Err(more) => tried.extend(more),
            }
        }
        let (_, found) = nearest.ok_or(tried)?;
        Ok(Found { candidate: self.finish(found.candidate, &found.rung), ..found })
    }

    /// By which factor a candidate misses the bound on speed that it misses most; 1 where it keeps all.
    fn behind(&self, candidate: &Candidate) -> f64 {
        let of = |rate: &spec::Known<spec::TokensPerSec>| rate.get().map_or(0.0, |rate| rate.get());
        let read = f64::from(self.needs.workload.computed()) / of(&candidate.prediction.prefill);
        let first = self.needs.first_token.map_or(1.0, |bound| read / bound);
        let slow = self.needs.min_decode.map_or(1.0, |bound| bound / of(&candidate.prediction.decode));
        first.max(slow).max(1.0)
    }

    /// Rungs in order, none twice.
    pub(crate) fn rungs(&self) -> Vec<Rung> {
        let Needs { want, enough, floor, gpu_first, .. } = self.contexts();
        let full = self.request.pins.cache_type_k.unwrap_or(QuantType::F16);
        let quantised = self.may_quantise_cache().then_some(QuantType::Q8_0);
        let below: Vec<u32> = Needs::halvings(enough, floor).into_iter().filter(|&n_ctx| n_ctx < enough).collect();
        let mut rungs: Vec<Rung> = Vec::new();
        let mut add = |n_ctx, cache, reach, disk| {
            let rung = Rung { n_ctx, cache, reach, disk };
            if !rungs.contains(&rung) {
                rungs.push(rung);
            }
        };
        let devices = self.wants_devices();
        if devices || gpu_first {
            Needs::halvings(want, enough).into_iter().for_each(|n_ctx| add(n_ctx, full, Reach::Devices, false));
        }
        if devices && gpu_first {
            quantised.into_iter().for_each(|cache| add(enough, cache, Reach::Devices, false));
            below.iter().for_each(|&n_ctx| add(n_ctx, quantised.unwrap_or(full), Reach::Devices, false));
        }
        // With layers on the host every token of context costs speed: what is enough is taken at once.
        let from = if devices { enough } else { want };
        Needs::halvings(from, enough).into_iter().for_each(|n_ctx| add(n_ctx, full, Reach::Anywhere, false));
        quantised.into_iter().for_each(|cache| add(enough, cache, Reach::Anywhere, false));
        below.iter().for_each(|&n_ctx| add(n_ctx, quantised.unwrap_or(full), Reach::Anywhere, false));
        if self.request.preferences.disk != DiskPolicy::Never {
            add(enough, full, Reach::Anywhere, true);
            add(floor, quantised.unwrap_or(full), Reach::Anywhere, true);
        }
        rungs
    }

    /// The use case's contexts; a pinned one is all three.
    fn contexts(&self) -> Needs {
        match self.request.pins.n_ctx {
            Some(n_ctx) => Needs { want: n_ctx, enough: n_ctx, floor: n_ctx, ..self.needs },
            None => self.needs,
        }
    }

    /// True where the cache may go down to q8_0: the use case allows it, the user has pinned nothing against it, and its
    /// blocks divide every head.
    fn may_quantise_cache(&self) -> bool {
        let pins = &self.request.pins;
        let free = pins.cache_type_k.is_none() && pins.cache_type_v.is_none() && pins.flash_attn != Some(FlashAttention::Off);
        let block = QuantType::Q8_0.block().weights;
        let divides = self.model.layers.iter().all(|layer| match &layer.mixer {
            Mixer::Attention(a) | Mixer::Both(a, _) => {
                u64::from(a.head_dim_k).is_multiple_of(block) && u64::from(a.head_dim_v).is_multiple_of(block)
            }
            Mixer::Mla(mla) => (u64::from(mla.kv_lora_rank) + u64::from(mla.rope_dim)).is_multiple_of(block),
            Mixer::Compressed(attention) => u64::from(attention.head_dim).is_multiple_of(block),
            Mixer::Recurrent(_) | Mixer::None => true,
        });
        let cached = self.inventory.layers.iter().any(|layer| layer.k_width > 0);
        self.needs.cache_floor != QuantType::F16 && free && divides && cached
    }

    /// Bounds what the server may still take later: prompt cache and checkpoints get at most half of what is left of the
    /// host's memory.
    fn finish(&self, candidate: Candidate, rung: &Rung) -> Candidate {
        let spare = self.spare_host(&candidate);
        let pins = &self.request.pins;
        let default = Settings::default();
        let mut settings = candidate.settings.clone();
        if pins.cache_ram_mib.is_none() {
            let half = u32::try_from(spare.scale(0.5).get() >> 20).unwrap_or(u32::MAX);
            // Steps of 256 MiB; less than one is not worth having.
            settings.cache_ram_mib = default.cache_ram_mib.min(half / 256 * 256);
        }
        if settings == candidate.settings {
            return candidate;
        }
        let evaluated = self.evaluate(&settings, rung);
        match (evaluated.requirement, evaluated.outcome) {
            (Some(requirement), Ok(residency)) => self.candidate(settings, requirement, residency).unwrap_or(candidate),
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
