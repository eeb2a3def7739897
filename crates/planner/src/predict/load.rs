//! What each processor has to read and compute for a pass, from where the layers and experts lie.

use crate::inventory::Inventory;
use footprint::{Pattern, Target};
use spec::{Model, Settings};

/// Work of one processor in one pass.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PoolLoad {
    /// Bytes of weights read.
    pub(crate) weights: f64,
    /// Elements of weights that one token multiplies with.
    pub(crate) elements: f64,
    /// Bytes of cache and state read.
    pub(crate) cache: f64,
    /// Layers.
    pub(crate) layers: f64,
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

/// Work per processor, devices first and the host last, of a pass over `tokens` tokens (one in decode) at `depth`.
pub(crate) fn loads(
    inventory: &Inventory,
    settings: &Settings,
    layer_devices: &[Option<usize>],
    moved: &[Moved],
    devices: usize,
    tokens: u32,
    depth: u32,
) -> Vec<PoolLoad> {
    let mut pools = vec![PoolLoad::default(); devices + 1];
    let slot = |device: Option<usize>| device.filter(|&d| d < devices).unwrap_or(devices);
    for (i, layer) in inventory.layers.iter().enumerate().filter(|(_, layer)| layer.computed) {
        let device = layer_devices.get(i).copied().flatten();
        let home = slot(device);
        pools[home].weights += layer.dense.as_f64();
        pools[home].elements += layer.dense_elements as f64;
        pools[home].layers += 1.0;
        let experts = slot(experts_home(i, device, settings));
        pools[experts].weights += layer.experts.as_f64() * layer.expert_share_of(tokens);
        pools[experts].elements += layer.expert_elements as f64 * layer.expert_share();
        let cache = if settings.kv_offload { home } else { devices };
        pools[cache].cache += layer.cache_read(settings, depth).as_f64();
    }
    let output = slot(layer_devices.last().copied().flatten());
    pools[output].weights += inventory.output.as_f64();
    // Prefill computes the logits of one token only, whatever the length of the batch.
    pools[output].elements += inventory.output_elements as f64 / f64::from(tokens.max(1));
    for tensor in moved {
        let Some(layer) = inventory.layers.get(tensor.layer).filter(|layer| layer.computed) else { continue };
        let device = layer_devices.get(tensor.layer).copied().flatten();
        let from = slot(if tensor.expert { experts_home(tensor.layer, device, settings) } else { device });
        let (bytes, elements) = match tensor.expert {
            true => (tensor.bytes * layer.expert_share_of(tokens), tensor.elements * layer.expert_share()),
            false => (tensor.bytes, tensor.elements),
        };
        for (pool, sign) in [(from, -1.0), (slot(tensor.to), 1.0)] {
            pools[pool].weights = (pools[pool].weights + sign * bytes).max(0.0);
            pools[pool].elements = (pools[pool].elements + sign * elements).max(0.0);
        }
    }
    pools
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
