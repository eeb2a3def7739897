//! PREDICT: a first, simple estimate of speed. Bytes over bandwidth and operations over rates, summed over the processors
//! that a token passes one after another; every rate has an interval and a source, and the intervals are wide.

mod load;
mod rates;

use crate::inventory::Inventory;
use crate::target::gpu_of;
use footprint::{Device, Requirement, Target};
pub(crate) use load::{Moved, moved_by_overrides};
use load::{PoolLoad, hops, loads};
use rates::{DISK, DISK_ASSUMPTION, HOP, PER_TOKEN, Range, Rates};
use spec::{Bytes, Known, Machine, Model, Settings, TokensPerSec};
use std::time::Duration;

/// What limits a phase most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bottleneck {
    /// Reading weights and cache from memory.
    Bandwidth,
    /// Arithmetic.
    Compute,
    /// Copies between host and GPU.
    Link,
    /// Reading weights from the file because they do not stay in memory.
    Disk,
    /// Fixed cost per layer and token: launches and synchronisation.
    Launch,
}

impl Bottleneck {
    /// The word for it: `bandwidth`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bandwidth => "bandwidth",
            Self::Compute => "compute",
            Self::Link => "link",
            Self::Disk => "disk",
            Self::Launch => "launch",
        }
    }
}

impl std::fmt::Display for Bottleneck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// One part of the time of a phase.
#[derive(Clone, Debug, PartialEq)]
pub struct TimePart {
    /// What takes it: `weights on CUDA0`, `KV cache on host`.
    pub what: String,
    /// The kind of cost.
    pub bottleneck: Bottleneck,
    /// Central estimate of the time per token.
    pub time: Duration,
}

/// Speed of one configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Tokens per second of one sequence while generating, at [`Prediction::depth`].
    pub decode: Known<TokensPerSec>,
    /// Tokens per second over the first micro-batch of a prompt.
    pub prefill: Known<TokensPerSec>,
    /// Tokens in the context for which `decode` holds.
    pub depth: u32,
    /// What limits decode.
    pub decode_bottleneck: Bottleneck,
    /// What limits prefill.
    pub prefill_bottleneck: Bottleneck,
    /// The parts of decode's time per token, largest first.
    pub decode_parts: Vec<TimePart>,
    /// Rates that were assumed rather than known, with what the assumption spans.
    pub assumptions: Vec<String>,
}

/// Estimates the speed of `settings`, whose requirement is `requirement`, at `depth` tokens of context.
///
/// Decode time is the sum over processors of active weights ÷ effective bandwidth, cache ÷ a lower one, and a fixed cost
/// per layer, plus hops between processors. Where mapped weights do not fit beside the anonymous memory, they are read
/// from disk: at least the share that is missing, at most all of them, because a cyclic scan evicts what it needs next.
pub fn predict(
    machine: &Machine,
    model: &Model,
    target: &Target,
    settings: &Settings,
    requirement: &Requirement,
    depth: u32,
) -> Prediction {
    let inventory = Inventory::of(model);
    let moved = moved_by_overrides(model, target, settings);
    let state = HostState::of(machine.effective_memory_available().get(), requirement);
    Predictor::new(machine, target, &inventory).speed(settings, &requirement.layer_devices, &moved, &state, depth)
}

/// How the host's weights lie in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HostState {
    /// Share of the mapped weights that does not fit into memory.
    pub(crate) missing: f64,
    /// Share of the host's weights that lies in rearranged copies: the GPU never computes over those.
    pub(crate) repacked: f64,
    pub(crate) flash_attention: bool,
}

impl HostState {
    /// With this much host memory for the program; as if there were enough where that is not known.
    pub(crate) fn of(memory: Option<Bytes>, requirement: &Requirement) -> Self {
        let host = &requirement.host;
        let bytes = |known: &Known<Bytes>| known.get().unwrap_or(Bytes::ZERO).as_f64();
        let mapped = bytes(&host.weights_mapped);
        let copies = bytes(&host.weights_repacked);
        let all = mapped.max(bytes(&host.weights_anonymous)).max(copies).max(1.0);
        // Pages that a device has mapped as well are held there.
        let alone = mapped - bytes(&host.mapped_shared);
        let missing = match memory {
            Some(memory) if mapped > 0.0 => {
                let room = memory.saturating_sub(requirement.held().get().unwrap_or(Bytes::ZERO)).as_f64();
                ((alone - room) / mapped).clamp(0.0, 1.0)
            }
            _ => 0.0,
        };
        Self { missing, repacked: (copies / all).min(1.0), flash_attention: requirement.context.flash_attn }
    }
}

/// Rates of every processor of a target; independent of the model's placement.
pub(crate) struct Predictor<'a> {
    machine: &'a Machine,
    target: &'a Target,
    inventory: &'a Inventory,
    gpus: Vec<Rates>,
    link: Range,
}

/// Sums of one phase by kind of cost, and in total.
#[derive(Default)]
struct Times {
    parts: Vec<(String, Bottleneck, Range)>,
}

impl Times {
    fn add(&mut self, what: impl Into<String>, bottleneck: Bottleneck, time: Range) {
        if time.high > 0.0 {
            self.parts.push((what.into(), bottleneck, time));
        }
    }
    fn total(&self) -> Range {
        self.parts.iter().fold(Range::new(0.0, 0.0, 0.0), |sum, (_, _, time)| sum.plus(*time))
    }
    /// The kind of cost with the largest central sum.
    fn bottleneck(&self) -> Bottleneck {
        use Bottleneck::{Bandwidth, Compute, Disk, Launch, Link};
        let sum = |kind| self.parts.iter().filter(|part| part.1 == kind).map(|part| part.2.mid).sum::<f64>();
        let kinds = [Bandwidth, Compute, Link, Disk, Launch];
        kinds.into_iter().max_by(|a, b| sum(*a).total_cmp(&sum(*b)).then(b.cmp(a))).unwrap_or(Bandwidth)
    }
    fn parts(&self) -> Vec<TimePart> {
        let mut parts: Vec<TimePart> = self
            .parts
            .iter()
            .map(|(what, bottleneck, time)| TimePart { what: what.clone(), bottleneck: *bottleneck, time: seconds(time.mid) })
            .collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.time));
        parts
    }
    /// Tokens per second where this time passes for `tokens` tokens.
    fn rate(&self, tokens: f64, source: &'static str) -> Known<TokensPerSec> {
        let time = self.total();
        let rate = |seconds: f64| TokensPerSec::new(tokens / seconds);
        match (rate(time.high), rate(time.mid), rate(time.low)) {
            (Some(low), Some(mid), Some(high)) => Known::estimated(mid, low, high, source),
            _ => Known::unknown("the model's file gives nothing to compute"),
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

impl<'a> Predictor<'a> {
    pub(crate) fn new(machine: &'a Machine, target: &'a Target, inventory: &'a Inventory) -> Self {
        let rates = |(i, device): (usize, &Device)| match (gpu_of(machine, target, i), device.shares_host) {
            (gpu, true) => rates::integrated(&device.name, gpu, machine),
            (gpu, false) => rates::gpu(&device.name, device.total.get(), gpu),
        };
        let gpus: Vec<Rates> = target.devices.iter().enumerate().map(rates).collect();
        let link = match (target.devices.first(), gpus.first()) {
            // What is copied is read and written in one memory.
            (Some(device), Some(gpu)) if device.shares_host => gpu.bandwidth.scale(0.5),
            _ => rates::link(gpu_of(machine, target, 0)),
        };
        Self { machine, target, inventory, gpus, link }
    }

    /// Central bandwidth of a device, to order devices by.
    pub(crate) fn bandwidth(&self, device: usize) -> f64 {
        self.gpus.get(device).map_or(0.0, |rates| rates.bandwidth.mid)
    }

    pub(crate) fn speed(
        &self,
        settings: &Settings,
        layer_devices: &[Option<usize>],
        moved: &[Moved],
        state: &HostState,
        depth: u32,
    ) -> Prediction {
        let host = rates::host(self.machine, settings.threads, settings.threads_batch);
        let decode = self.decode(settings, layer_devices, moved, state, depth, &host);
        let tokens = settings.n_ubatch.min(settings.n_batch).min(settings.n_ctx).max(1);
        let prefill = self.prefill(settings, layer_devices, moved, state, tokens, &host);
        let on_host = layer_devices.iter().any(Option::is_none) || settings.n_cpu_moe > 0 || !moved.is_empty();
        let used = |device: usize| layer_devices.contains(&Some(device));
        let mut assumptions: Vec<String> =
            self.gpus.iter().enumerate().filter(|(i, _)| used(*i)).filter_map(|(_, rates)| rates.assumption.clone()).collect();
        assumptions.extend(host.assumption.filter(|_| on_host));
        assumptions.extend((state.missing > 0.0).then(|| DISK_ASSUMPTION.to_owned()));
        Prediction {
            decode: decode.rate(1.0, "bytes over bandwidth per processor; first estimate, not calibrated on this machine"),
            prefill: prefill.rate(f64::from(tokens), "operations over rate per processor; first estimate, not calibrated on this machine"),
            depth,
            decode_bottleneck: decode.bottleneck(),
            prefill_bottleneck: prefill.bottleneck(),
            decode_parts: decode.parts(),
            assumptions,
        }
    }

    fn decode(
        &self,
        settings: &Settings,
        layer_devices: &[Option<usize>],
        moved: &[Moved],
        state: &HostState,
        depth: u32,
        host: &Rates,
    ) -> Times {
        let mut times = Times::default();
        times.add("sampling and the host's loop", Bottleneck::Launch, PER_TOKEN);
        let pools = loads(self.inventory, settings, layer_devices, moved, self.gpus.len(), 1, depth);
        for (pool, load) in pools.iter().enumerate() {
            let (name, rates) = self.pool(pool, host);
            let on_host = pool == self.gpus.len();
            let missing = if on_host { missing(state) } else { Range::new(0.0, 0.0, 0.0) };
            // What comes from disk passes through memory as well, in a time that the disk hides.
            let present = Range::new(1.0 - missing.high, 1.0 - missing.mid, 1.0 - missing.low);
            let weights = Range::new(load.weights * present.low, load.weights * present.mid, load.weights * present.high);
            times.add(format!("weights on {name}"), Bottleneck::Bandwidth, over(weights, rates.bandwidth));
            times.add("weights from disk", Bottleneck::Disk, over(missing.scale(load.weights), DISK));
            let cache_rate = rates.bandwidth.scale(rates::cache_efficiency(state.flash_attention));
            times.add(format!("cache on {name}"), Bottleneck::Bandwidth, cache_rate.time_for(load.cache));
            times.add(format!("layers on {name}"), Bottleneck::Launch, rates.per_layer.scale(load.layers));
        }
        times.add("hops between processors", Bottleneck::Launch, HOP.scale(hops(self.inventory, settings, layer_devices)));
        times
    }

    fn prefill(
        &self,
        settings: &Settings,
        layer_devices: &[Option<usize>],
        moved: &[Moved],
        state: &HostState,
        tokens: u32,
        host: &Rates,
    ) -> Times {
        let mut times = Times::default();
        let pools = loads(self.inventory, settings, layer_devices, moved, self.gpus.len(), tokens, 0);
        for (pool, load) in pools.iter().enumerate() {
            let (name, rates) = self.pool(pool, host);
            let on_host = pool == self.gpus.len();
            // Host weights are copied to the first GPU for batches of 32 and more (`ggml-cuda.cu:5739-5758`), unless they
            // lie in rearranged copies.
            let offloaded =
                if on_host && settings.op_offload && tokens >= 32 && !self.gpus.is_empty() { 1.0 - state.repacked } else { 0.0 };
            self.add_computed(&mut times, &name, rates, load, tokens, 1.0 - offloaded);
            if let (true, Some(gpu)) = (offloaded > 0.0, self.gpus.first()) {
                times.add("weights copied to the GPU", Bottleneck::Link, self.link.time_for(load.weights * offloaded));
                let operations = 2.0 * load.elements * f64::from(tokens) * offloaded;
                times.add("host weights computed on the GPU", Bottleneck::Compute, gpu.compute.time_for(operations));
            }
            if on_host {
                times.add("weights from disk", Bottleneck::Disk, over(missing(state).scale(load.weights), DISK));
            }
            times.add(format!("layers on {name}"), Bottleneck::Launch, rates.per_layer.scale(load.layers));
        }
        times
    }

    /// Arithmetic or memory, whichever takes longer.
    fn add_computed(&self, times: &mut Times, name: &str, rates: &Rates, load: &PoolLoad, tokens: u32, share: f64) {
        let compute = rates.compute.time_for(2.0 * load.elements * f64::from(tokens) * share);
        let memory = rates.bandwidth.time_for(load.weights * share);
        if compute.mid >= memory.mid {
            times.add(format!("arithmetic on {name}"), Bottleneck::Compute, compute);
        } else {
            times.add(format!("weights on {name}"), Bottleneck::Bandwidth, memory);
        }
    }

    fn pool<'b>(&'b self, pool: usize, host: &'b Rates) -> (String, &'b Rates) {
        match (self.gpus.get(pool), self.target.devices.get(pool)) {
            (Some(rates), Some(device)) => (device.name.clone(), rates),
            _ => ("host".to_owned(), host),
        }
    }
}

/// Share of the mapped weights read from disk for each pass: at least what does not fit, at most everything.
fn missing(state: &HostState) -> Range {
    if state.missing > 0.0 { Range::new(state.missing, (1.0 + state.missing) / 2.0, 1.0) } else { Range::new(0.0, 0.0, 0.0) }
}

/// The time for an uncertain amount at an uncertain rate.
fn over(amount: Range, rate: Range) -> Range {
    Range::new(amount.low / rate.high, amount.mid / rate.mid, amount.high / rate.low)
}
