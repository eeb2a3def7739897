//! What each processor has to read and compute for a pass, from where the layers and experts lie.

use crate::inventory::{Inventory, LayerLoad};
use footprint::{Pattern, Target};
use spec::{Model, QuantType, Settings};

/// Work of one processor in one pass. Pairs are of the dense weights and of the experts'.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PoolLoad {
    /// Bytes of weights read.
    pub(crate) weights: [f64; 2],
    /// Operations with weights of all tokens, a multiply-add being two.
    pub(crate) operations: [f64; 2],
    /// Bytes of cache and state read, by all sequences.
    pub(crate) cache: f64,
    /// Operations of attention of all tokens.
    pub(crate) attention: f64,
    /// Layers; a half for one whose other half is elsewhere.
    pub(crate) layers: f64,
}

impl PoolLoad {
    /// Bytes of weights read.
    pub(crate) fn all_weights(&self) -> f64 {
        self.weights[0] + self.weights[1]
    }
}

/// Tokens that pass together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pass {
    /// Tokens of all sequences.
    pub(crate) tokens: u32,
    /// Sequences that they belong to.
    pub(crate) sequences: u32,
    /// Tokens in the context of each before them.
    pub(crate) depth: u32,
    /// Tokens of which the logits are computed.
    pub(crate) outputs: u32,
}

impl Pass {
    /// One token of each of `sequences` sequences.
    pub(crate) const fn decode(depth: u32, sequences: u32) -> Self {
        let tokens = if sequences == 0 { 1 } else { sequences };
        Self { tokens, sequences: tokens, depth, outputs: tokens }
    }
}

/// A tensor that an override puts elsewhere than its layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Moved {
    pub(crate) layer: usize,
    pub(crate) expert: bool,
    pub(crate) bytes: f64,
    pub(crate) elements: f64,
    /// Its new device; `None` is the host.
    pub(crate) to: Option<usize>,
}

/// Layer tensors that `tensor_overrides` put into another buffer; patterns that are no regular expressions match nothing
/// (validation refuses them).
pub(crate) fn moved_by_overrides(model: &Model, target: &Target, settings: &Settings) -> Vec<Moved> {
    let rules: Vec<(Pattern, Option<usize>)> = settings
        .tensor_overrides
        .iter()
        .filter_map(|rule| {
            let device = target.devices.iter().position(|device| device.name == rule.buffer);
            Some((Pattern::new(&rule.pattern).ok()?, device))
        })
        .collect();
    if rules.is_empty() {
        return Vec::new();
    }
    let moved = model.tensors.iter().filter_map(|tensor| {
        let layer = tensor.layer()? as usize;
        let (_, to) = rules.iter().find(|(pattern, _)| pattern.is_match(&tensor.name).unwrap_or(false))?;
        Some(Moved { layer, expert: tensor.is_expert(), bytes: tensor.bytes.as_f64(), elements: tensor.elements() as f64, to: *to })
    });
    moved.collect()
}

/// Where the routed experts of layer `i` lie: with its layer, or on the host for the first `n_cpu_moe` layers.
fn experts_home(i: usize, layer: Option<usize>, settings: &Settings) -> Option<usize> {
    if (i as u64) < u64::from(settings.n_cpu_moe) { None } else { layer }
}

const DENSE: usize = 0;
const EXPERTS: usize = 1;

/// What reading cached rows costs: their bytes, but for quantised ones at least those of F16 rows, for what fewer bytes save goes into
/// unpacking (eight bits: 5 to 24 % either way at 32768 tokens, four bits a quarter slower, in sweeps of four RTX 3090).
fn cache_cost(layer: &LayerLoad, settings: &Settings) -> f64 {
    let row = |ty: QuantType, width: u64| match ty {
        QuantType::F32 => 4.0 * width as f64,
        QuantType::F16 | QuantType::BF16 | QuantType::Q8_0 => 2.0 * width as f64,
        _ => 2.5 * width as f64,
    };
    row(settings.cache_type_k, layer.k_width) + row(settings.cache_type_v, layer.v_width)
}

/// Where things lie.
#[derive(Clone, Copy)]
pub(crate) struct Placed<'a> {
    /// Device of each layer and of the output; `None` is the host.
    pub(crate) layer_devices: &'a [Option<usize>],
    /// Tensors elsewhere than their layer.
    pub(crate) moved: &'a [Moved],
    /// Devices of the target.
    pub(crate) devices: usize,
}

/// Work per processor of a pass, devices first and the host last.
pub(crate) fn loads(inventory: &Inventory, settings: &Settings, placed: Placed<'_>, pass: Pass, pools: &mut Vec<PoolLoad>) {
    let Placed { layer_devices, moved, devices } = placed;
    pools.clear();
    pools.resize(devices + 1, PoolLoad::default());
    let slot = |device: Option<usize>| device.filter(|&d| d < devices).unwrap_or(devices);
    let tokens = f64::from(pass.tokens);
    let each = tokens / f64::from(pass.sequences.max(1));
    // Layers are mostly alike, and the power is what costs.
    let mut share = (None, 0.0);
    let mut visited = |layer: &LayerLoad| {
        if share.0 != Some(layer.routing) {
            share = (Some(layer.routing), layer.expert_share_of(pass.tokens));
        }
        share.1
    };
    for (i, layer) in inventory.layers.iter().enumerate().filter(|(_, layer)| layer.computed) {
        let device = layer_devices.get(i).copied().flatten();
        let home = slot(device);
        pools[home].weights[DENSE] += layer.dense.as_f64();
        pools[home].operations[DENSE] += 2.0 * layer.dense_elements as f64 * tokens;
        pools[home].layers += 1.0;
        if !layer.experts.is_zero() {
            let experts = slot(experts_home(i, device, settings));
            pools[experts].weights[EXPERTS] += layer.experts.as_f64() * visited(layer);
            pools[experts].operations[EXPERTS] += 2.0 * layer.expert_elements as f64 * layer.expert_share() * tokens;
            pools[experts].layers += if experts == home { 0.0 } else { 0.5 };
        }
        let cache = &mut pools[if settings.kv_offload { home } else { devices }];
        let seen = f64::from(layer.seen(pass.depth, settings));
        cache.cache += f64::from(pass.sequences) * (cache_cost(layer, settings) * seen + layer.state.as_f64());
        // A prompt's tokens see each other, on average half of them.
        let whole = f64::from(pass.depth) + each / 2.0;
        let mean = layer.reach(settings).map_or(whole, |reach| whole.min(f64::from(reach)));
        cache.attention += 4.0 * layer.query_width as f64 * tokens * mean;
    }
    let output = slot(layer_devices.last().copied().flatten());
    pools[output].weights[DENSE] += inventory.output.as_f64();
    pools[output].operations[DENSE] += 2.0 * inventory.output_elements as f64 * f64::from(pass.outputs);
    for tensor in moved {
        let Some(layer) = inventory.layers.get(tensor.layer).filter(|layer| layer.computed) else { continue };
        let device = layer_devices.get(tensor.layer).copied().flatten();
        let from = slot(if tensor.expert { experts_home(tensor.layer, device, settings) } else { device });
        let (group, bytes, elements) = match tensor.expert {
            true => (EXPERTS, tensor.bytes * visited(layer), tensor.elements * layer.expert_share()),
            false => (DENSE, tensor.bytes, tensor.elements),
        };
        for (pool, sign) in [(from, -1.0), (slot(tensor.to), 1.0)] {
            let pool = &mut pools[pool];
            pool.weights[group] = (pool.weights[group] + sign * bytes).max(0.0);
            pool.operations[group] = (pool.operations[group] + sign * 2.0 * elements * tokens).max(0.0);
        }
    }
}

/// Changes of processor within one token.
pub(crate) fn hops(inventory: &Inventory, settings: &Settings, layer_devices: &[Option<usize>]) -> f64 {
    let mut hops = 0.0;
    // The embedding is looked up on the host.
    let mut before = None;
    for (i, layer) in inventory.layers.iter().enumerate().filter(|(_, layer)| layer.computed) {
        let device = layer_devices.get(i).copied().flatten();
        hops += f64::from(device != before);
        before = device;
        let away = !layer.experts.is_zero() && experts_home(i, device, settings) != device;
        hops += if away { 2.0 } else { 0.0 };
        let cache_away = !settings.kv_offload && device.is_some() && layer.k_width > 0;
        hops += if cache_away { 2.0 } else { 0.0 };
    }
    hops + f64::from(layer_devices.last().copied().flatten() != before)
}
