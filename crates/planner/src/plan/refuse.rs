//! Building a refusal: which pins are to blame, and the nearest change that would fit.

use super::nearest::remove;
use super::pools::Allowance;
use super::refusal::{NearestChange, NoPlan, Rejected, Rejection, Short};
use super::request::DiskPolicy;
use super::site::{Reach, Rung, Site};
use super::verdict::Pool;
use crate::validate::{Context, EngineRules, Violation};
use footprint::Requirement;
use spec::{Bytes, Known, Settings};

/// Pins that cost memory or forbid what would save it, in the order in which they are tried.
const COSTLY: &[&str] = &[
    "n_ctx",
    "n_gpu_layers",
    "n_cpu_moe",
    "tensor_overrides",
    "tensor_split",
    "split_mode",
    "main_gpu",
    "n_parallel",
    "kv_unified",
    "cache_type_k",
    "cache_type_v",
    "n_ubatch",
    "n_batch",
    "flash_attn",
    "repack",
    "load_mode",
    "kv_offload",
    "op_offload",
    "swa_full",
];

/// Bits per weight of the smallest quantisation that keeps a model usable (IQ1_S: 1.56, and its larger tensors).
const FEWEST_BITS: f64 = 1.7;

impl Site<'_> {
    /// The refusal of pins that the engine would refuse in any plan; `None` where it takes them all.
    pub(crate) fn refused_pins(&self, settings: &Settings) -> Option<NoPlan> {
        let refused = self.broken_pins(settings);
        let mut pins: Vec<&'static str> = refused.iter().map(|violation| violation.setting).collect();
        pins.dedup();
        let rejected = |violation: &Violation| {
            let why = format!("{}: {}; {}", violation.setting, violation.message, violation.fix);
            self.rejected(settings, Rejection::NotPossible(why))
        };
        let nearest = self.without_pins(&pins).filter(|_| !pins.is_empty());
        (!pins.is_empty()).then(|| NoPlan {
            tried: refused.iter().map(rejected).collect(),
            nearest: nearest.into_iter().flatten().collect(),
            pins,
        })
    }

    /// The rules that pinned settings break, whatever memory there is.
    pub(crate) fn broken_pins(&self, settings: &Settings) -> Vec<Violation> {
        let engine = EngineRules { profile: self.request.profile.clone(), ..EngineRules::bundled() };
        let context = Context { machine: self.machine, model: self.model, target: &self.target, engine: &engine };
        crate::validate::refused_pins(&context, settings, &self.request.pins.names())
    }

    /// The refusal after `tried`.
    pub(crate) fn refuse(&self, mut tried: Vec<Rejected>) -> NoPlan {
        let mut seen = Vec::new();
        tried.retain(|rejected| {
            // What the engine refuses it refuses of every candidate: the first stands for all.
            let of_all = matches!(rejected.rejection, Rejection::NotPossible(_));
            let told = (if of_all { String::new() } else { rejected.what.clone() }, rejected.rejection.clone());
            let known = seen.contains(&told);
            seen.push(told);
            !known
        });
        let mut nearest = self.unpinned();
        let pins = match nearest.as_slice() {
            [] => self.all_unpinned(),
            changes => changes
                .iter()
                .filter_map(|change| if let NearestChange::Unpin { setting, .. } = change { Some(*setting) } else { None })
                .collect(),
        };
        if nearest.is_empty() && pins.is_empty() {
            nearest.extend(self.if_disk_allowed());
            nearest.extend(self.more_memory(&tried));
            nearest.extend(self.smaller_file(&tried));
        }
        NoPlan { tried, nearest, pins }
    }

    /// Pins each of which alone stands in the way.
    fn unpinned(&self) -> Vec<NearestChange> {
        let names = self.request.pins.names();
        let costly = COSTLY.iter().copied().filter(|name| names.contains(name));
        costly.filter_map(|name| self.without_pins(&[name])).flatten().collect()
    }

    /// All costly pins, where only without all of them a plan exists.
    fn all_unpinned(&self) -> Vec<&'static str> {
        let names = self.request.pins.names();
        let costly: Vec<&'static str> = COSTLY.iter().copied().filter(|name| names.contains(name)).collect();
        if costly.len() < 2 {
            return Vec::new();
        }
        let mut request = self.request.clone();
        costly.iter().for_each(|name| remove(&mut request.pins, name));
        if self.found_with(&request).is_some() { costly } else { Vec::new() }
    }

    /// The plan that reads from disk, where it was refused as too slow or was not allowed.
    fn if_disk_allowed(&self) -> Option<NearestChange> {
        let mut request = self.request.clone();
        if request.preferences.disk == DiskPolicy::Allow {
            return None;
        }
        request.preferences.disk = DiskPolicy::Allow;
        let found = self.found_with(&request)?;
        let site = Site::new(self.machine, self.model, &self.target, &request, self.inventory, self.require());
        Some(NearestChange::FromDisk { decode: site.prediction(&found.candidate).decode })
    }

    /// The least modest rung without disk: the one whose memory is asked for.
    fn least(&self) -> Option<Rung> {
        self.rungs().into_iter().rfind(|rung| rung.reach == Reach::Anywhere && !rung.disk)
    }

    /// Free memory with which the most modest rung would fit: on the host, and where devices stood in the way, there.
    fn more_memory(&self, tried: &[Rejected]) -> Option<NearestChange> {
        let rung = self.least()?;
        let mut site = self.again();
        let blocked = tried.iter().rev().find_map(|rejected| match &rejected.rejection {
            Rejection::DoesNotFit { pool, .. } => Some(pool.clone()),
            _ => None,
        })?;
        let pool = match blocked {
            Pool::Host => Pool::Host,
            pool if tried.iter().all(|rejected| !matches!(rejected.rejection, Rejection::DoesNotFit { pool: Pool::Host, .. })) => pool,
            _ => Pool::Host,
        };
        let plenty = Bytes::from_gib(16 * 1024);
        match &pool {
            Pool::Host => (site.pools.host.limit, site.pools.host.with_files) = (Some(plenty), Some(plenty)),
            _ => site.pools.devices.iter_mut().for_each(|device| device.limit = Some(plenty)),
        }
        let own = |site: &Site<'_>| site.place_with(&rung, |frame| frame.changes == 0).ok();
        let requirement = &own(&site).or_else(|| site.lineups().iter().find_map(own))?.requirement;
        // As for the limit, the lower end of what may be free.
        let short = match &pool {
            Pool::Host => {
                let have = *self.machine.effective_memory_with_files().low()?;
                vec![Short { pool, free: *requirement.resident().high()? + self.pools.host.margin, have }]
            }
            _ => self.short_devices(requirement)?,
        };
        (!short.is_empty()).then_some(NearestChange::MoreMemory(short))
    }

    /// Devices that have less than a requirement asks for.
    fn short_devices(&self, requirement: &Requirement) -> Option<Vec<Short>> {
        let mut short = Vec::new();
        for needs in &requirement.devices {
            let own = |pool: &&Allowance| matches!(&pool.pool, Pool::Device { name, .. } if *name == needs.name);
            let allowance = self.pools.devices.iter().find(own)?;
            let (free, have) = (*needs.total().high()? + allowance.margin, *allowance.free.low()?);
            if free > have {
                short.push(Short { pool: allowance.pool.clone(), free, have });
            }
        }
        Some(short)
    }

    /// The size of tensors that would leave room for the rest, where it is tensors that leave too little.
    fn smaller_file(&self, tried: &[Rejected]) -> Option<NearestChange> {
        let have = self.model.tensor_bytes();
        let over = tried.iter().filter_map(|rejected| match &rejected.rejection {
            Rejection::DoesNotFit { pool: Pool::Host, needs, limit, .. } => {
                let over = needs.saturating_sub(*limit);
                (over <= self.weights_within(&rejected.settings, *needs)).then_some(over)
            }
            _ => None,
        });
        let at_most = have.saturating_sub(over.min()?);
        let bits = at_most.as_f64() * 8.0 / self.model.parameters() as f64;
        (at_most < have && bits >= FEWEST_BITS).then_some(NearestChange::SmallerFile { at_most, have })
    }

    /// What a smaller file would take off the host's needs under settings: nothing where all layers lie in other memory, for the little that is
    /// left on the host is not what it is short of.
    fn weights_within(&self, settings: &Settings, needs: Bytes) -> Bytes {
        let Ok(requirement) = (self.require())(settings) else { return Bytes::ZERO };
        let own = requirement.devices.iter().any(|device| !device.shares_host);
        let layers = self.inventory.offloadable().saturating_sub(1) as usize;
        let all_there = requirement.layer_devices.iter().take(layers).all(Option::is_some) && settings.n_cpu_moe == 0;
        if own && all_there && settings.tensor_overrides.is_empty() {
            return Bytes::ZERO;
        }
        let high = |known: &Known<Bytes>| known.high().copied().unwrap_or(Bytes::ZERO);
        let host = &requirement.host;
        let shared: Bytes = requirement.devices.iter().filter(|device| device.shares_host).map(|device| high(&device.weights)).sum();
        let held = high(&host.weights_anonymous) + high(&host.weights_repacked) + shared;
        // What is mapped counts against another limit than what is held.
        if requirement.held().high() == Some(&needs) { held } else { held + high(&host.weights_mapped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::settings::Pins;

    #[test]
    fn every_costly_pin_can_be_removed() {
        let mut pins = Pins::from(Settings::default());
        COSTLY.iter().for_each(|name| remove(&mut pins, name));
        assert!(COSTLY.iter().all(|name| !pins.names().contains(name)));
    }
}
