//! Placement on one rung: closed sums propose layers per device, the exact requirement corrects what the sums leave out,
//! and the largest placement that fits is found in a few steps.

use super::layers::{assign, balanced};
use super::needs::Needs;
use super::refusal::{Rejected, Rejection};
use super::site::{Candidate, Reach, Rung, Site};
use super::verdict::Pool;
use footprint::Requirement;
use spec::settings::{FlashAttention, LoadMode, SplitMode};
use spec::{Bytes, Settings};

/// Exact evaluations that one placement may take.
const STEPS: usize = 8;

/// Micro-batch for host weights that the GPU computes over: each micro-batch copies them once, so a larger one is worth its
/// memory (512 to 2048: prefill ×2.6 in public sweeps).
const LARGE_UBATCH: u32 = 2048;

/// What placing came to.
pub(crate) type Placed = Result<Candidate, Vec<Rejected>>;

impl Site<'_> {
    /// The best placement on a rung.
    pub(crate) fn place(&self, rung: &Rung) -> Placed {
        let base = self.base(rung);
        if let Some(rejected) = self.ruled_out(rung, &base) {
            return Err(vec![rejected]);
        }
        let placed = self.place_as(rung, &base);
        let Err(mut tried) = placed else { return placed };
        for relaxed in self.relaxed(rung, &base, &tried) {
            match self.place_as(rung, &relaxed) {
                Ok(candidate) => return Ok(candidate),
                Err(more) => tried.extend(more),
            }
        }
        Err(tried)
    }

    fn place_as(&self, rung: &Rung, base: &Settings) -> Placed {
        if !self.wants_devices() {
            let settings = Settings { n_gpu_layers: self.request.pins.n_gpu_layers.unwrap_or(0), ..base.clone() };
            return self.fixed(rung, &self.pinned(settings));
        }
        if self.nothing_to_place() {
            return self.fixed(rung, base);
        }
        let reach = |base: &Settings| match rung.reach {
            Reach::Devices => self.whole(rung, base),
            Reach::Anywhere => self.hybrid(rung, base),
        };
        let placed = reach(base);
        let all =
            |candidate: &Candidate| candidate.settings.n_gpu_layers >= self.inventory.offloadable() && candidate.settings.n_cpu_moe == 0;
        if !self.may_read_mapped_weights(base) || placed.as_ref().is_ok_and(all) {
            return placed;
        }
        // A device that maps its weights holds all of the file from the first of them to the last; read, only its own.
        match (placed, reach(&Settings { load_mode: LoadMode::None, ..base.clone() })) {
            (Ok(mapped), Ok(read)) => Ok(faster(Some(mapped), read)),
            (Ok(candidate), Err(_)) | (Err(_), Ok(candidate)) => Ok(candidate),
            (Err(mut tried), Err(more)) => {
                tried.extend(more);
                Err(tried)
            }
        }
    }

    /// True where a device would map its weights and may read them instead.
    fn may_read_mapped_weights(&self, base: &Settings) -> bool {
        let maps = self.target.devices.iter().any(|device| device.backend.maps_weights);
        maps && base.load_mode == LoadMode::Auto && self.request.pins.load_mode.is_none()
    }

    /// Ways to need less without giving up what the use case asks for: no rearranged copies where the host is short (as
    /// much must stay in memory without them, but it can be dropped and read again), no host weights copied to a GPU that
    /// is short.
    fn relaxed(&self, rung: &Rung, base: &Settings, tried: &[Rejected]) -> Vec<Settings> {
        let short = |host: bool| {
            tried.iter().any(|rejected| match &rejected.rejection {
                Rejection::DoesNotFit { pool, .. } => (*pool == Pool::Host) == host,
                _ => false,
            })
        };
        let pins = &self.request.pins;
        let without_copies = rung.disk && base.repack && pins.repack.is_none() && self.request.profile.repack && short(true);
        let without_offload = base.op_offload && pins.op_offload.is_none() && !self.target.devices.is_empty() && short(false);
        let mut relaxed = Vec::new();
        if without_copies {
            relaxed.push(Settings { repack: false, ..base.clone() });
        }
        if without_offload {
            relaxed.push(Settings { op_offload: false, repack: base.repack && !without_copies, ..base.clone() });
        }
        relaxed
    }

    /// What no placement can change, from sums alone: weights and cache that must lie somewhere.
    fn ruled_out(&self, rung: &Rung, base: &Settings) -> Option<Rejected> {
        if rung.disk || !self.moved.is_empty() {
            return None;
        }
        let cache: Bytes = self.inventory.layers.iter().map(|layer| layer.cache(base)).sum();
        let layers: Bytes = self.inventory.layers.iter().map(|layer| layer.dense + layer.experts).sum();
        let devices = self.pools.device_limit();
        if rung.reach == Reach::Devices && base.n_cpu_moe == 0 && self.request.pins.n_gpu_layers.is_none() {
            let needs = layers + self.inventory.output + if base.kv_offload { cache } else { Bytes::ZERO };
            if needs > devices {
                let whole = Settings { n_gpu_layers: self.inventory.offloadable(), ..base.clone() };
                return Some(self.rejected(&whole, Rejection::DoesNotFit { pool: self.device_pool(), needs, limit: devices }));
            }
        }
        let output = if self.inventory.tied { Bytes::ZERO } else { self.inventory.output };
        let on_devices = if self.wants_devices() { self.pools.own_device_limit() } else { Bytes::ZERO };
        let needs = (layers + output + self.inventory.input + cache).saturating_sub(on_devices);
        let limit = self.pools.host.with_files.filter(|&limit| needs > limit)?;
        Some(self.rejected_anywhere(base, Rejection::DoesNotFit { pool: Pool::Host, needs, limit }))
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

    /// One evaluation of settings in which nothing is left to place.
    fn fixed(&self, rung: &Rung, settings: &Settings) -> Placed {
        self.fill(rung, settings, &|_| Some(settings.clone()))
    }

    /// Everything on one device, the fastest that holds it, else on all of them.
    fn whole(&self, rung: &Rung, base: &Settings) -> Placed {
        let mut tried = Vec::new();
        for device in self.single_devices() {
            let one = Settings { split_mode: SplitMode::None, main_gpu: device, ..base.clone() };
            match self.fill(rung, &one, &|capacities| self.all_on_devices(&one, capacities)) {
                Ok(candidate) => return Ok(candidate),
                Err(more) => tried.extend(more),
            }
        }
        self.fill(rung, base, &|capacities| self.all_on_devices(base, capacities)).map_err(|more| {
            tried.extend(more);
            tried
        })
    }

    /// Single devices worth trying, fastest first; none where there is only one, or the user has decided.
    fn single_devices(&self) -> Vec<u32> {
        let pins = &self.request.pins;
        if self.pools.devices.len() < 2 || pins.tensor_split.is_some() || pins.split_mode.is_some() {
            return Vec::new();
        }
        let mut devices: Vec<usize> = match pins.main_gpu {
            Some(main) => vec![main as usize],
            None => (0..self.pools.devices.len()).collect(),
        };
        devices.retain(|&device| self.pools.devices.get(device).is_some_and(|pool| pool.limit.is_some()));
        let order = |&a: &usize, &b: &usize| {
            let faster = self.predictor.bandwidth(b).total_cmp(&self.predictor.bandwidth(a));
            faster.then(self.pools.devices[b].limit.cmp(&self.pools.devices[a].limit)).then(a.cmp(&b))
        };
        devices.sort_by(order);
        devices.into_iter().filter_map(|device| u32::try_from(device).ok()).collect()
    }

    /// Devices first, the rest on the host; with a large micro-batch where the GPU computes over host weights.
    fn hybrid(&self, rung: &Rung, base: &Settings) -> Placed {
        let placed = self.stretched(self.spill(rung, base)?, rung);
        let pins = &self.request.pins;
        let larger = LARGE_UBATCH.min(base.n_ctx).min(pins.n_batch.unwrap_or(LARGE_UBATCH));
        if pins.n_ubatch.is_some() || !base.op_offload || larger <= base.n_ubatch {
            return Ok(placed);
        }
        let large = Settings { n_ubatch: larger, n_batch: base.n_batch.max(larger), ..base.clone() };
        match self.spill(rung, &large) {
            Ok(other) if other.seconds < placed.seconds => Ok(self.stretched(other, rung)),
            _ => Ok(placed),
        }
    }

    /// The same placement with as much context as the use case wants, where that much fits beside it.
    fn stretched(&self, placed: Candidate, rung: &Rung) -> Candidate {
        if self.request.pins.n_ctx.is_some() || rung.n_ctx < self.needs.enough {
            return placed;
        }
        let longer = Needs::halvings(self.needs.want, rung.n_ctx).into_iter().filter(|&n_ctx| n_ctx > rung.n_ctx);
        let stretched = longer.into_iter().find_map(|n_ctx| {
            let settings = Settings { n_ctx, ..placed.settings.clone() };
            let evaluated = self.evaluate(&settings, rung);
            let residency = evaluated.outcome.ok().filter(|residency| *residency <= placed.residency)?;
            self.candidate(settings, evaluated.requirement?, residency).ok()
        });
        stretched.unwrap_or(placed)
    }

    /// As much on devices as fits: experts leave first, then whole layers.
    fn spill(&self, rung: &Rung, base: &Settings) -> Placed {
        self.fill(rung, base, &|capacities| {
            let experts = if self.request.pins.n_cpu_moe.is_some() { 0 } else { self.inventory.layers_to_last_experts() };
            for n_cpu_moe in 0..=experts {
                let settings = Settings { n_cpu_moe: base.n_cpu_moe.max(n_cpu_moe), ..base.clone() };
                if let Some(settings) = self.all_on_devices(&settings, capacities) {
                    return Some(settings);
                }
            }
            if self.request.pins.n_gpu_layers.is_some() {
                return None;
            }
            let settings = Settings { n_cpu_moe: base.n_cpu_moe.max(experts), ..base.clone() };
            (0..self.inventory.offloadable()).rev().find_map(|n| self.spread(&settings, n, capacities))
        })
    }

    /// All layers (or as many as are pinned) on devices.
    fn all_on_devices(&self, base: &Settings, capacities: &[f64]) -> Option<Settings> {
        let n = self.request.pins.n_gpu_layers.map_or(self.inventory.offloadable(), |n| n.min(self.inventory.offloadable()));
        self.spread(base, n, capacities)
    }

    /// `n` layers over the devices by capacity; `None` where the sums say that they do not fit.
    fn spread(&self, base: &Settings, n: u32, capacities: &[f64]) -> Option<Settings> {
        let mut settings = self.pinned(Settings { n_gpu_layers: n, ..base.clone() });
        let free_split = capacities.len() > 1 && settings.split_mode == SplitMode::Layer && self.request.pins.tensor_split.is_none();
        if free_split && n > 0 {
            let loads = self.layer_loads(&settings);
            let first = loads.len().saturating_sub(n as usize);
            let counts = balanced(&loads[first..], capacities)?;
            settings.tensor_split = counts.into_iter().map(|count| count as f64).collect();
            return Some(settings);
        }
        let loads = self.device_loads(&settings, &self.layer_devices(&settings));
        loads.iter().zip(capacities).all(|(load, capacity)| *load == 0.0 || load <= capacity).then_some(settings)
    }

    /// Weights and cache of each layer and, last, of the output, where they are on a device.
    fn layer_loads(&self, settings: &Settings) -> Vec<f64> {
        let layers = self.inventory.layers.iter().zip(0_u32..).map(|(layer, i)| {
            let experts = if i < settings.n_cpu_moe { Bytes::ZERO } else { layer.experts };
            let cache = if settings.kv_offload { layer.cache(settings) } else { Bytes::ZERO };
            (layer.dense + experts + cache).as_f64()
        });
        layers.chain([self.inventory.output.as_f64()]).collect()
    }

    /// The device of each layer and of the output under `settings`.
    fn layer_devices(&self, settings: &Settings) -> Vec<Option<usize>> {
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
    fn device_loads(&self, settings: &Settings, layer_devices: &[Option<usize>]) -> Vec<f64> {
        let mut loads = vec![0.0; self.target.devices.len()];
        for (load, device) in self.layer_loads(settings).into_iter().zip(layer_devices) {
            if let Some(total) = device.and_then(|device| loads.get_mut(device)) {
                *total += load;
            }
        }
        loads
    }

    /// Proposes, evaluates and corrects until a proposal repeats. The correction of a device is what its exact
    /// requirement has beyond the sums: compute buffers, the driver, padding.
    pub(crate) fn fill(&self, rung: &Rung, base: &Settings, propose: &dyn Fn(&[f64]) -> Option<Settings>) -> Placed {
        let limits: Vec<f64> = self.pools.devices.iter().map(|device| device.limit.unwrap_or(Bytes::ZERO).as_f64()).collect();
        let mut beyond = vec![self.compute_guess(base); limits.len()];
        let (mut best, mut tried): (Option<Candidate>, Vec<Rejected>) = (None, Vec::new());
        let mut seen: Vec<Settings> = Vec::new();
        for step in 0..STEPS {
            let capacities: Vec<f64> = limits.iter().zip(&beyond).map(|(limit, beyond)| limit - beyond).collect();
            // The first guess may be too careful: let the exact requirement say so.
            let proposal = propose(&capacities).or_else(|| if step == 0 { propose(&limits) } else { None });
            let Some(settings) = proposal.filter(|settings| !seen.contains(settings)) else { break };
            seen.push(settings.clone());
            let evaluated = self.evaluate(&settings, rung);
            let Some(requirement) = evaluated.requirement else {
                tried.extend(evaluated.outcome.err().map(|rejection| self.rejected(&settings, rejection)));
                break;
            };
            self.correct(&mut beyond, &settings, &requirement);
            match evaluated.outcome.and_then(|residency| self.candidate(settings.clone(), requirement, residency)) {
                Ok(candidate) => best = Some(faster(best, candidate)),
                // Of the proposals of one search, the last is the one that came nearest.
                Err(rejection) => tried = vec![self.rejected(&settings, rejection)],
            }
        }
        if best.is_none() && tried.is_empty() {
            let needs: f64 = self.layer_loads(base).iter().sum();
            let rejection =
                Rejection::DoesNotFit { pool: self.device_pool(), needs: Bytes::from_f64(needs), limit: self.pools.device_limit() };
            let whole = Settings { n_gpu_layers: self.inventory.offloadable(), ..base.clone() };
            tried.push(self.rejected(&self.pinned(whole), rejection));
        }
        best.ok_or(tried)
    }

    fn correct(&self, beyond: &mut [f64], settings: &Settings, requirement: &Requirement) {
        let sums = self.device_loads(settings, &requirement.layer_devices);
        for ((beyond, device), sum) in beyond.iter_mut().zip(&requirement.devices).zip(sums) {
            if let Some(total) = device.total().high() {
                *beyond = total.as_f64() - sum;
            }
        }
    }

    /// A first guess of what a device needs beyond weights and cache: activations of the widest block, masks, logits, and
    /// one copied tensor where the GPU computes over host weights. The exact requirement replaces it.
    fn compute_guess(&self, settings: &Settings) -> f64 {
        let tokens = f64::from(settings.n_ubatch.min(settings.n_ctx));
        let cells = f64::from(settings.n_ctx);
        let block = self.inventory.activation_width as f64 * tokens * 4.0;
        let mask = cells * tokens * if settings.flash_attn == FlashAttention::Off { 36.0 } else { 2.0 };
        let logits = self.inventory.n_vocab as f64 * f64::from(settings.n_parallel) * 4.0;
        let copied = if settings.op_offload { self.inventory.largest_tensor.as_f64() } else { 0.0 };
        let runtime = self.target.devices.first().and_then(|device| device.backend.runtime.high().copied());
        block + mask + logits + copied + runtime.unwrap_or(Bytes::ZERO).as_f64()
    }
}

/// The faster of two; the first where they tie.
fn faster(best: Option<Candidate>, candidate: Candidate) -> Candidate {
    match best {
        Some(best) if best.residency < candidate.residency || best.seconds <= candidate.seconds => best,
        _ => candidate,
    }
}
