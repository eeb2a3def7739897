//! Sums over the processors of a target: central seconds for a search, and times with intervals for people.

use super::costs::Costs;
use super::load::{Moved, Pass, Placed, PoolLoad, hops, loads};
use super::processor::{self, CORE_BANDWIDTH, DISK, DISK_ASSUMPTION, HELD, HOP, Processor, SPREAD_OVER_NODES};
use super::range::Range;
use super::state::HostState;
use super::times::{PoolTimes, Shared, Times};
use super::{Basis, OWN_SOURCE, Prediction, SOURCE};
use crate::inventory::Inventory;
use crate::target::gpu_of;
use footprint::{Device, Target};
use roofline::{Parameters, Phase};
use spec::settings::{CpuMask, Numa};
use spec::{Machine, Settings};
use std::cell::RefCell;

/// Rates of every processor of a target for one model; independent of the model's placement.
pub(crate) struct Predictor<'a> {
    machine: &'a Machine,
    inventory: &'a Inventory,
    devices: Vec<(Processor, Costs)>,
    /// With one core at work.
    host: (Processor, Costs),
    /// CPUs of the fastest of several kinds of core.
    fast: Option<CpuMask>,
    /// Rate of copies from the host to each device.
    links: Vec<Range>,
    scratch: RefCell<Scratch>,
}

/// What every evaluation writes into, so that none allocates.
#[derive(Default)]
struct Scratch {
    loads: Vec<PoolLoad>,
    times: Vec<PoolTimes>,
}

/// One configuration as the sums see it.
#[derive(Clone, Copy)]
pub(crate) struct Configuration<'a> {
    pub(crate) settings: &'a Settings,
    /// Device of each layer and of the output; `None` is the host.
    pub(crate) layer_devices: &'a [Option<usize>],
    pub(crate) moved: &'a [Moved],
    pub(crate) state: &'a HostState,
}

/// Batches from which on host weights are copied to the first GPU and multiplied there (`ggml-cuda.cu:5739-5758`).
const OFFLOADED_FROM: u32 = 32;

impl<'a> Predictor<'a> {
    pub(crate) fn new(machine: &'a Machine, target: &Target, inventory: &'a Inventory) -> Self {
        Self::with_parameters(machine, target, inventory, Parameters::fitted())
    }

    pub(crate) fn with_parameters(machine: &'a Machine, target: &Target, inventory: &'a Inventory, parameters: &Parameters) -> Self {
        let costs = |processor: Processor| {
            let costs = Costs::of(&processor, inventory, parameters);
            (processor, costs)
        };
        let devices: Vec<_> = processor::devices(machine, target, parameters, inventory.own_kernels).into_iter().map(costs).collect();
        let link = |(i, (device, (gpu, _))): (usize, (&Device, &(Processor, Costs)))| match device.shares_host {
            // What is copied is read and written in one memory.
            true => gpu.bandwidth.scale(0.5),
            false => processor::link(gpu_of(machine, target, i)),
        };
        let links = target.devices.iter().zip(&devices).enumerate().map(link).collect();
        let host = costs(processor::host(machine, parameters, inventory.own_kernels));
        Self { machine, inventory, devices, host, fast: processor::fast_cpus(machine), links, scratch: RefCell::default() }
    }

    /// The same for these devices alone, in this order.
    pub(crate) fn only(&self, places: &[usize]) -> Self {
        let devices = places.iter().filter_map(|&place| self.devices.get(place).cloned()).collect();
        let links = places.iter().filter_map(|&place| self.links.get(place).copied()).collect();
        let &Self { machine, inventory, ref host, ref fast, .. } = self;
        Self { machine, inventory, devices, host: host.clone(), fast: fast.clone(), links, scratch: RefCell::default() }
    }

    /// True where two devices take the same time for everything.
    pub(crate) fn alike(&self, a: usize, b: usize) -> bool {
        let of = |place: usize| self.devices.get(place).map(|(_, costs)| costs).zip(self.links.get(place));
        of(a) == of(b)
    }

    /// What rates rest on, in words.
    pub(crate) fn source(&self) -> &'static str {
        if self.inventory.own_kernels { OWN_SOURCE } else { SOURCE }
    }

    /// Speed of a configuration, decode at `depth`.
    pub(crate) fn speed(
        &self,
        settings: &Settings,
        layer_devices: &[Option<usize>],
        moved: &[Moved],
        state: &HostState,
        depth: u32,
    ) -> Prediction {
        let configuration = Configuration { settings, layer_devices, moved, state };
        let decode = self.decode(configuration, Pass::decode(depth, 1));
        let tokens = micro_batch(settings);
        let prefill = self.prompt(configuration, 0, tokens);
        Prediction {
            decode: decode.rate(1.0, self.source()),
            prefill: prefill.rate(f64::from(tokens), self.source()),
            depth,
            basis: self.basis(configuration),
            decode_bottleneck: decode.bottleneck(),
            prefill_bottleneck: prefill.bottleneck(),
            decode_parts: decode.parts(),
            assumptions: self.assumptions(configuration),
        }
    }

    /// Time of one step of decode, or of one that verifies drafted tokens.
    pub(crate) fn decode(&self, configuration: Configuration<'_>, pass: Pass) -> Times {
        let mut scratch = self.scratch.borrow_mut();
        scratch.times.clear();
        let shared = self.add_step(configuration, pass, &mut scratch);
        self.times(Phase::Decode, &scratch.times, &shared, configuration.settings)
    }

    /// Time of reading `tokens` tokens of one sequence that has `depth` of them already.
    pub(crate) fn prompt(&self, configuration: Configuration<'_>, depth: u32, tokens: u32) -> Times {
        let mut scratch = self.scratch.borrow_mut();
        scratch.times.clear();
        let shared = self.add_prompt(configuration, depth, tokens, &mut scratch);
        self.times(Phase::Prefill, &scratch.times, &shared, configuration.settings)
    }

    /// Central seconds of [`Predictor::decode`], without words, intervals or allocation.
    pub(crate) fn decode_seconds(&self, configuration: Configuration<'_>, pass: Pass) -> f64 {
        let mut scratch = self.scratch.borrow_mut();
        scratch.times.clear();
        let shared = self.add_step(configuration, pass, &mut scratch);
        scratch.times.iter().map(PoolTimes::total).sum::<f64>() + shared.total()
    }

    /// Central seconds of [`Predictor::prompt`], without words, intervals or allocation.
    pub(crate) fn prompt_seconds(&self, configuration: Configuration<'_>, depth: u32, tokens: u32) -> f64 {
        let mut scratch = self.scratch.borrow_mut();
        scratch.times.clear();
        let shared = self.add_prompt(configuration, depth, tokens, &mut scratch);
        scratch.times.iter().map(PoolTimes::total).sum::<f64>() + shared.total()
    }

    /// Costs of the host with the threads of `settings`.
    fn host_costs(&self, settings: &Settings) -> Costs {
        let cores = |threads, mask| processor::cores_at_work(self.machine, threads, mask);
        let [decode, prefill] = [cores(settings.threads, &settings.cpu_mask), cores(settings.threads_batch, &settings.cpu_mask_batch)];
        let mut costs = self.host.1.with_cores(decode, prefill);
        // Runs on this machine have told what their threads wait.
        let [decode, prefill] = self.host.0.measured;
        costs.decode = costs.decode.scaled(self.held(settings));
        costs.decode.launch *= if decode { 1.0 } else { processor::waiting(settings.threads) };
        costs.prefill.launch *= if prefill { 1.0 } else { processor::waiting(settings.threads_batch) };
        costs
    }

    /// True where a strategy for NUMA nodes decides where threads run.
    fn is_spread(&self, settings: &Settings) -> bool {
        settings.numa != Numa::None && processor::nodes(self.machine) > 1
    }

    /// By which factor a mask shortens what the host does in decode.
    fn held(&self, settings: &Settings) -> f64 {
        // Runs on this machine were as its threads were.
        if !self.host.0.measured[0] && processor::is_held(self.machine, self.fast.as_ref(), settings) { processor::HELD.mid } else { 1.0 }
    }

    fn costs<'b>(&'b self, pool: usize, host: &'b Costs) -> &'b Costs {
        self.devices.get(pool).map_or(host, |(_, costs)| costs)
    }

    fn add_step(&self, configuration: Configuration<'_>, pass: Pass, scratch: &mut Scratch) -> Shared {
        let Configuration { settings, layer_devices, moved, state } = configuration;
        let Scratch { loads: pools, times } = scratch;
        let placed = Placed { layer_devices, moved, devices: self.devices.len() };
        loads(self.inventory, settings, placed, pass, pools);
        times.resize(pools.len(), PoolTimes::default());
        let host = self.host_costs(settings);
        let missing = state.read_from_disk();
        let mut shared = Shared { hops: HOP.scale(hops(self.inventory, settings, layer_devices)), ..Shared::NONE };
        for (pool, load) in pools.iter().enumerate() {
            let (costs, on_host) = (self.costs(pool, &host), pool == self.devices.len());
            // What comes from disk passes through memory as well, in a time that the disk hides.
            let present = if on_host { 1.0 - missing.mid } else { 1.0 };
            let slowest = match on_host && !self.host.0.measured[0] {
                true => self.seconds_per_byte(settings.threads, &settings.cpu_mask) * self.held(settings),
                false => 0.0,
            };
            let many = if pass.tokens > 1 { costs.prefill_arithmetic(f64::from(pass.tokens)) } else { [f64::INFINITY; 2] };
            for (group, many) in many.into_iter().enumerate() {
                let bytes = load.weights[group] * present;
                let weights = (bytes * costs.decode.weights[group]).max(bytes * slowest);
                // Several tokens are multiplied as a prompt's are where that is cheaper, but never for less than one token.
                let one = costs.decode.arithmetic[group];
                let arithmetic = load.operations[group] * one.min(many).max(one / f64::from(pass.tokens));
                times[pool].add(weights, arithmetic);
            }
            let flash = usize::from(state.flash_attention);
            times[pool].cache += load.cache * costs.decode.cache[flash].max(slowest);
            times[pool].attention += load.attention * costs.decode.attention[flash];
            times[pool].launch += load.layers * costs.decode.launch;
            if on_host {
                shared.disk = missing.scale(load.all_weights()).over(DISK);
            }
        }
        let output = self.costs(layer_devices.last().copied().flatten().unwrap_or(usize::MAX), &host);
        shared.fixed = FIXED_OFF.scale(output.decode.fixed);
        shared
    }

    fn add_prompt(&self, configuration: Configuration<'_>, depth: u32, tokens: u32, scratch: &mut Scratch) -> Shared {
        let (settings, tokens) = (configuration.settings, tokens.max(1));
        let ubatch = micro_batch(settings);
        let (full, rest) = (tokens / ubatch, tokens % ubatch);
        scratch.times.resize(self.devices.len() + 1, PoolTimes::default());
        let host = self.host_costs(settings);
        let mut shared = Shared::NONE;
        if full > 0 {
            // Attention grows evenly from one micro-batch to the next: all of them cost what the middle one does.
            let middle = depth.saturating_add((full - 1).saturating_mul(ubatch) / 2);
            let pass = Pass { tokens: ubatch, sequences: 1, depth: middle, outputs: u32::from(rest == 0) };
            self.add_micro_batch(configuration, pass, f64::from(full), &host, scratch, &mut shared);
        }
        if rest > 0 {
            let pass = Pass { tokens: rest, sequences: 1, depth: depth.saturating_add(full * ubatch), outputs: 1 };
            self.add_micro_batch(configuration, pass, 1.0, &host, scratch, &mut shared);
        }
        let output = self.costs(configuration.layer_devices.last().copied().flatten().unwrap_or(usize::MAX), &host);
        shared.fixed = FIXED_OFF.scale(output.prefill.fixed);
        shared
    }

    /// `count` micro-batches like this one.
    fn add_micro_batch(
        &self,
        configuration: Configuration<'_>,
        pass: Pass,
        count: f64,
        host: &Costs,
        scratch: &mut Scratch,
        shared: &mut Shared,
    ) {
        let Configuration { settings, layer_devices, moved, state } = configuration;
        let Scratch { loads: pools, times } = scratch;
        let placed = Placed { layer_devices, moved, devices: self.devices.len() };
        loads(self.inventory, settings, placed, pass, pools);
        let hops = hops(self.inventory, settings, layer_devices) * count;
        shared.hops = shared.hops.plus(HOP.scale(hops));
        let tokens = f64::from(pass.tokens);
        for (pool, load) in pools.iter().enumerate() {
            let (costs, on_host) = (self.costs(pool, host), pool == self.devices.len());
            // Not those in rearranged copies.
            let offloads =
                on_host && !self.inventory.own_kernels && settings.op_offload && pass.tokens >= OFFLOADED_FROM && !self.devices.is_empty();
            let offloaded = if offloads { 1.0 - state.repacked } else { 0.0 };
            let slowest = match on_host && !self.host.0.measured[1] {
                true => self.seconds_per_byte(settings.threads_batch, &settings.cpu_mask_batch),
                false => 0.0,
            };
            for (group, arithmetic) in costs.prefill_arithmetic(tokens).into_iter().enumerate() {
                let bytes = load.weights[group] * (1.0 - offloaded) * count;
                let weights = (bytes * costs.prefill.weights[group]).max(bytes * slowest);
                times[pool].add(weights, load.operations[group] * arithmetic * (1.0 - offloaded) * count);
            }
            times[pool].attention += load.attention * costs.prefill.attention[usize::from(state.flash_attention)] * count;
            times[pool].launch += load.layers * costs.prefill.launch * count;
            if let (true, Some((_, gpu)), Some(link)) = (offloaded > 0.0, self.devices.first(), self.links.first()) {
                shared.link = shared.link.plus(link.time_for(load.all_weights() * offloaded * count));
                let arithmetic = gpu.prefill_arithmetic(tokens);
                let seconds = (0..2).map(|group| load.operations[group] * arithmetic[group]).sum::<f64>();
                times[0].borrowed += seconds * offloaded * count;
            }
            if on_host {
                shared.disk = shared.disk.plus(state.read_from_disk().scale(load.all_weights() * count).over(DISK));
            }
        }
    }

    /// The least that a byte takes with this many threads, whatever the memory could do.
    fn seconds_per_byte(&self, threads: u32, mask: &CpuMask) -> f64 {
        1.0 / (CORE_BANDWIDTH.mid * processor::cores_at_work(self.machine, threads, mask).max(1.0))
    }

    fn times(&self, phase: Phase, pools: &[PoolTimes], shared: &Shared, settings: &Settings) -> Times {
        let mut times = Times::default();
        for (pool, seconds) in pools.iter().enumerate() {
            let processor = self.devices.get(pool).map_or(&self.host.0, |(processor, _)| processor);
            let off = off(processor, phase, seconds);
            let off = if pool == self.devices.len() && self.is_spread(settings) { off.over(SPREAD_OVER_NODES) } else { off };
            times.add_pool(&processor.name, seconds, off);
        }
        times.add_shared(shared);
        times
    }

    /// Processors that anything is computed on.
    fn used(&self, configuration: Configuration<'_>) -> impl Iterator<Item = &Processor> {
        let Configuration { settings, layer_devices, moved, .. } = configuration;
        let on_host = layer_devices.iter().any(Option::is_none) || settings.n_cpu_moe > 0 || !moved.is_empty() || !settings.kv_offload;
        let devices = self.devices.iter().enumerate().filter(|(i, _)| layer_devices.contains(&Some(*i)));
        devices.map(|(_, (processor, _))| processor).chain(on_host.then_some(&self.host.0))
    }

    fn assumptions(&self, configuration: Configuration<'_>) -> Vec<String> {
        let assumed =
            self.used(configuration).filter(|processor| !processor.measured[0]).filter_map(|processor| processor.assumption.clone());
        let on_host = self.used(configuration).any(|processor| *processor == self.host.0);
        let held = (on_host && self.held(configuration.settings) < 1.0).then(|| {
            let [least, middle, most] = [HELD.high, HELD.mid, HELD.low].map(|factor| (1.0 - factor) * 100.0);
            format!("threads held to the fast cores take {middle:.0} % less time in decode ({least:.0} to {most:.0} % in public runs)")
        });
        let spread = (on_host && self.is_spread(configuration.settings)).then(|| {
            let [low, high] = [SPREAD_OVER_NODES.low, SPREAD_OVER_NODES.high];
            format!(
                "what --numa {} does is not predicted: {low:.1} to {high:.0} times the speed in public runs",
                configuration.settings.numa
            )
        });
        assumed.chain(held).chain(spread).chain((configuration.state.missing > 0.0).then(|| DISK_ASSUMPTION.to_owned())).collect()
    }

    /// That of the processor that least is known of.
    fn basis(&self, configuration: Configuration<'_>) -> Basis {
        let of = |processor: &Processor| match (&processor.assumption, processor.class_known) {
            _ if processor.measured[0] => Basis::Machine,
            (None, true) => Basis::Class,
            _ => Basis::Prior,
        };
        self.used(configuration).map(of).min().unwrap_or(Basis::Prior)
    }
}

impl PoolTimes {
    /// Reading and arithmetic that overlap.
    fn add(&mut self, weights: f64, arithmetic: f64) {
        let whole = roofline::overlap([weights, arithmetic].into_iter());
        self.weights += whole * roofline::share(weights, whole);
        self.arithmetic += whole * roofline::share(arithmetic, whole);
    }
}

/// Tokens that are computed at once.
pub(crate) fn micro_batch(settings: &Settings) -> u32 {
    settings.n_ubatch.min(settings.n_batch).min(settings.n_ctx).max(1)
}

/// Sampling and the host's loop differ more than what a device does: with the vocabulary, the samplers, the program around.
const FIXED_OFF: Range = Range::new(0.5, 1.0, 5.0);

/// How far a central second on a processor is off to either side: what the fit is off on devices that it had not seen, and what is not
/// known of this one's bandwidth and arithmetic, as deviations that have nothing to do with each other.
fn off(processor: &Processor, phase: Phase, times: &PoolTimes) -> Range {
    let total = times.total();
    if total <= 0.0 {
        return Range::new(1.0, 1.0, 1.0);
    }
    let formula = processor.off[usize::from(phase == Phase::Prefill)];
    let read = (times.weights + times.cache) / total;
    let (slow, fast) = processor.bandwidth.logarithms();
    // What runs have told is no longer a question of the bandwidth.
    let known = processor.measured[usize::from(phase == Phase::Prefill)];
    let (slow, fast) = if known { (0.0, 0.0) } else { (slow, fast) };
    // Where the units are not known, their rate follows from the class and the bandwidth.
    let computed = if processor.device.vector.is_none() && !known { 0.7 * (1.0 - read - times.launch / total).max(0.0) } else { 0.0 };
    let side = |formula: f64, bandwidth: f64| (formula.powi(2) + (read * bandwidth).powi(2) + computed.powi(2)).sqrt();
    Range::around(1.0, -side(formula.low, fast), side(formula.high, slow))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GpuSupport, Request, plan, target};

    #[test]
    fn seconds_for_a_search_are_those_of_the_parts() {
        let machine = probe::describe("cores=8,ram=64GiB,gpu=8GiB@300GB/s").unwrap();
        let shape = synthetic::preset("qwen3-30b-a3b").unwrap();
        let file = synthetic::gguf(&shape, synthetic::FileType::Q4_K_M, &synthetic::Options::default()).unwrap();
        let model = formats::describe(&[formats::gguf::read(&file.header, file.size).unwrap()]).unwrap();
        let target = target(&machine, &GpuSupport::Native);
        let plan = plan(&machine, &model, &target, &Request::default()).unwrap();
        let inventory = Inventory::of(&model);
        let predictor = Predictor::new(&machine, &target, &inventory);
        let state = HostState::of(None, &plan.requirement);
        let (settings, layer_devices) = (&plan.settings, plan.requirement.layer_devices.as_slice());
        let configuration = Configuration { settings, layer_devices, moved: &[], state: &state };
        let same = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
        same(
            predictor.decode_seconds(configuration, Pass::decode(3000, 2)),
            predictor.decode(configuration, Pass::decode(3000, 2)).total().mid,
        );
        same(predictor.prompt_seconds(configuration, 100, 5000), predictor.prompt(configuration, 100, 5000).total().mid);
        // A prompt in two halves costs what it costs in one piece, but for what is paid per prompt.
        let ubatch = micro_batch(settings);
        let whole = predictor.prompt_seconds(configuration, 0, 2 * ubatch);
        let halves = predictor.prompt_seconds(configuration, 0, ubatch) + predictor.prompt_seconds(configuration, ubatch, ubatch);
        assert!((whole / halves - 1.0).abs() < 0.01, "{whole} {halves}");
    }
}
