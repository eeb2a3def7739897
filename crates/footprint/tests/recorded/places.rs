//! Ours beside the engine's, place by place: the host first, then every device.

use super::Figures;
use footprint::{DeviceRequirement, Requirement, Target};
use spec::{Bytes, Known};

/// Weights, caches with state, and compute of every place.
pub fn ours(need: &Requirement) -> Vec<[Known<Bytes>; 3]> {
    let host = &need.host;
    let weights = host.weights_anonymous.plus(&host.weights_repacked).plus(&host.weights_mapped);
    let host = [weights, host.kv_cache.plus(&host.state), host.compute.clone()];
    let device = |place: &DeviceRequirement| [place.weights.clone(), place.kv_cache.plus(&place.state), place.compute.clone()];
    std::iter::once(host).chain(need.devices.iter().map(device)).collect()
}

/// The same as the engine's breakdown tells it. Whatever is no device's is the host's.
pub fn engines(target: &Target, figures: &Figures) -> Vec<[u64; 3]> {
    let is_device = |name: &str| target.devices.iter().any(|device| device.name == name);
    let sum = |of: &dyn Fn(&str) -> bool| {
        let buffers = figures.buffers.iter().filter(|(name, _)| of(name)).map(|(_, sizes)| sizes);
        buffers.fold([0; 3], |sum, sizes| [sum[0] + sizes[0], sum[1] + sizes[1], sum[2] + sizes[2]])
    };
    let host = sum(&|name| !is_device(name));
    std::iter::once(host).chain(target.devices.iter().map(|device| sum(&|name| name == device.name))).collect()
}
