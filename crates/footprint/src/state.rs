//! Recurrent state: bytes per device.
//!
//! Upstream: `src/llama-memory-recurrent.cpp:70-125`. Each layer keeps one row per sequence of its convolution or shift
//! state and of its recurrent state, in F32, in the memory of the layer unless KV offload is off. The rows do not depend
//! on the context.

use crate::kv_cache::{ByPlace, trunk_layers};
use crate::target::Target;
use spec::model::{Mixer, Recurrent};
use spec::{Bytes, Model, QuantType, Settings};

/// Bytes of all recurrent states.
pub fn state(model: &Model, settings: &Settings, target: &Target, layer_devices: &[Option<usize>]) -> ByPlace {
    let mut sum = ByPlace::new(target);
    let sequences = u64::from(settings.n_parallel.max(1));
    for (index, layer) in model.layers.iter().enumerate().take(trunk_layers(model)) {
        if let Mixer::Recurrent(r) | Mixer::Both(_, r) = &layer.mixer {
            let device = layer_devices.get(index).copied().flatten().filter(|_| settings.kv_offload);
            sum.add(QuantType::F32, r.r_elements, sequences, device, target);
            sum.add(QuantType::F32, r.s_elements, sequences, device, target);
        }
    }
    sum
}

/// State of one sequence over all layers: what one context checkpoint holds of it.
pub(crate) fn per_sequence(model: &Model) -> Bytes {
    let row = |elements: u64| QuantType::F32.row_bytes(elements).unwrap_or(Bytes::MAX);
    let of = |r: &Recurrent| row(r.r_elements) + row(r.s_elements);
    model
        .layers
        .iter()
        .take(trunk_layers(model))
        .map(|layer| match &layer.mixer {
            Mixer::Recurrent(r) | Mixer::Both(_, r) => of(r),
            _ => Bytes::ZERO,
        })
        .sum()
}
