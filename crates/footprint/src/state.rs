//! Recurrent state: bytes per device.
//!
//! Upstream: `src/llama-memory-recurrent.cpp:70-125`. Each layer keeps one row per sequence of its convolution or shift
//! state and of its recurrent state, in F32, in the memory of the layer unless KV offload is off. The rows do not depend
//! on the context. Attention over compressed rows keeps the tokens of incomplete ones likewise. Where drafts are rolled back, each sequence keeps as many rows more as tokens are drafted (`n_rs_seq`).

use crate::compressed::{Pending, pending};
use crate::kv_cache::{ByPlace, trunk_layers};
use crate::requirement::ResolvedContext;
use crate::target::Target;
use spec::model::{Mixer, Recurrent};
use spec::{Bytes, Model, QuantType, Settings};

/// Bytes of all recurrent states.
pub fn state(model: &Model, settings: &Settings, target: &Target, context: &ResolvedContext, layer_devices: &[Option<usize>]) -> ByPlace {
    let mut sum = ByPlace::new(target);
    let sequences = u64::from(settings.n_parallel.max(1)) * u64::from(context.n_states);
    for (index, layer) in model.layers.iter().enumerate().take(trunk_layers(model)) {
        if let Mixer::Recurrent(r) | Mixer::Both(_, r) = &layer.mixer {
            let device = layer_devices.get(index).copied().flatten().filter(|_| settings.kv_offload);
            sum.add(QuantType::F32, r.r_elements, sequences, device, target);
            sum.add(QuantType::F32, r.s_elements, sequences, device, target);
        }
        if let Mixer::Compressed(attention) = &layer.mixer {
            let device = layer_devices.get(index).copied().flatten().filter(|_| settings.kv_offload);
            for Pending { width, tokens } in pending(attention) {
                let rows = tokens.saturating_mul(sequences);
                sum.add(QuantType::F32, width, rows, device, target);
                sum.add(QuantType::F32, width, rows, device, target);
            }
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
            Mixer::Compressed(attention) => pending(attention).map(|kept| row(kept.width).times(kept.tokens.saturating_mul(2))).sum(),
            _ => Bytes::ZERO,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{attention, context, model, recurrent, target};

    /// A 27B hybrid logged 149.62 MiB for one sequence and 598.50 MiB for four: 48 of 64 layers keep 3 × 10240 and
    /// 128 × 6144 elements.
    #[test]
    fn a_hybrid_keeps_state_in_its_recurrent_layers_only() {
        let model = model((0..64).map(|i| if i % 4 == 3 { attention(4, 256, None) } else { recurrent(3 * 10240, 128 * 6144) }));
        let layers = vec![Some(0); 65];
        let sum = |n_parallel, kv_offload| {
            state(&model, &Settings { n_parallel, kv_offload, ..Settings::default() }, &target(&[24]), &context(4096, 512), &layers)
        };
        assert_eq!(format!("{:.2}", sum(1, true).devices[0].as_mib()), "149.62");
        assert_eq!(format!("{:.2}", sum(4, true).devices[0].as_mib()), "598.50");
        assert_eq!(sum(4, false).host, sum(4, true).devices[0]);
        assert_eq!(per_sequence(&model), sum(1, true).devices[0]);
    }
}
