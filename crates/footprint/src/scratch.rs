//! What a backend allocates for itself when it computes, outside every buffer: the difference between load and peak.
//!
//! No engine reports it, and it depends on the card's kernels, so every figure is an estimate from the sizes of the
//! operands. Its checks are the driver's figures of real runs (`tests/logged.rs`): dense models added 42 to 191 MiB on
//! Vulkan, one with routed experts 1,872 MiB.

use crate::placement::{Home, Placement};
use crate::requirement::ResolvedContext;
use crate::roles::{Roles, Use};
use crate::target::Device;
use spec::model::{FeedForward, Mixer, Tensor};
use spec::{Bytes, Known, Model, QuantType, Settings};

/// The operands of one device's products that scratch is made for.
#[derive(Clone, Copy, Debug, Default)]
struct Operands {
    /// Elements of the widest activations of one micro-batch.
    activations: u64,
    /// Elements of the largest matrix of a layer.
    matrix: u64,
    /// Elements of the largest stack of experts.
    stack: u64,
    /// Elements of the largest matrix in a type that has no kernel for whole batches.
    unpacked: u64,
}

/// What backend scratch takes at peak on device `index` of the target. Nothing where the device computes nothing.
pub(crate) fn scratch(
    roles: &Roles,
    model: &Model,
    settings: &Settings,
    context: &ResolvedContext,
    placement: &Placement,
    index: usize,
    device: &Device,
) -> Known<Bytes> {
    let operands = operands(roles, model, settings, context, placement, index);
    let f16 = |elements: u64| Bytes::new(elements.saturating_mul(2));
    let q8 = |elements: u64| Bytes::new(elements.saturating_add(elements / 8));
    let mib = Bytes::from_mib;
    match device.backend.name.as_str() {
        "FAKE" => Known::exact(Bytes::ZERO, "a pretended device"),
        _ if operands.activations == 0 => Known::exact(Bytes::ZERO, "the device multiplies nothing"),
        "CUDA" | "ROCm" => {
            let value = q8(operands.activations) + f16(operands.unpacked) + cache_copies(model, settings, context);
            let source = "pool: activations as Q8_1, F16 copies of matrices without integer kernels and of a quantised cache (ggml-cuda.cu:425-640, mmq.cu; cards since Turing)";
            Known::estimated(value, Bytes::ZERO, value.times(2) + mib(64), source)
        }
        "Vulkan" => {
            // Stacks of experts may be copied as F16 (the one run that was measured took twice that).
            let value = f16(operands.activations) + f16(operands.stack) + mib(16);
            let high = f16(operands.activations).times(3) + f16(operands.stack).times(2) + mib(160);
            Known::estimated(
                value,
                Bytes::ZERO,
                high,
                "prealloc_x, prealloc_y, prealloc_split_k (ggml-vulkan.cpp:6348-6423, 7412-7508, 12146-12171)",
            )
        }
        "SYCL" => {
            let value = f16(operands.matrix) + f16(operands.activations);
            Known::estimated(
                value,
                Bytes::ZERO,
                value.times(2) + mib(64),
                "pool: F16 copies of matrix and activations (ggml-sycl.cpp, ggml_sycl_op_mul_mat_sycl)",
            )
        }
        "Metal" => {
            Known::estimated(mib(8), Bytes::ZERO, mib(64), "scratch is part of the buffers (ggml-metal.cpp:220-253); command buffers grow")
        }
        _ => {
            let high = f16(operands.activations).times(3) + f16(operands.stack).times(2) + f16(operands.matrix) + mib(160);
            Known::estimated(
                f16(operands.activations),
                Bytes::ZERO,
                high,
                "a backend whose scratch is not known: the widest of those that are",
            )
        }
    }
}

fn operands(roles: &Roles, model: &Model, settings: &Settings, context: &ResolvedContext, placement: &Placement, index: usize) -> Operands {
    let tokens = u64::from(context.n_ubatch.min(context.n_ctx));
    let first = placement.devices.first() == Some(&index);
    let computes = |home: Home| home == Home::Device(index) || (settings.op_offload && first && home == Home::Host);
    let used = model.layers.iter().filter_map(|layer| match &layer.feed_forward {
        FeedForward::Experts(experts) => Some(u64::from(experts.used)),
        _ => None,
    });
    let used = used.max().unwrap_or(1);
    let mut operands = Operands::default();
    let placed = model.tensors.iter().zip(roles.iter()).zip(&placement.homes);
    for ((tensor, role), _) in placed.filter(|(_, home)| computes(**home)) {
        let kind = role.used;
        // Only layers see whole batches.
        if !role.in_layer || !matches!(kind, Use::MulMat | Use::Stack { .. } | Use::MulMatId) {
            continue;
        }
        let elements = elements(tensor);
        let rows = if kind == Use::MulMatId && tensor.name.contains("_down_") { tokens.saturating_mul(used) } else { tokens };
        operands.activations = operands.activations.max(tensor.shape[0].saturating_mul(rows));
        if kind == Use::MulMatId {
            operands.stack = operands.stack.max(if tensor.ty.is_quantized() { elements } else { 0 });
        } else {
            operands.matrix = operands.matrix.max(elements);
            operands.unpacked = operands.unpacked.max(if matches!(tensor.ty, QuantType::IQ1_M) { elements } else { 0 });
        }
    }
    operands
}

fn elements(tensor: &Tensor) -> u64 {
    tensor.shape.iter().fold(1, |product: u64, &extent| product.saturating_mul(extent))
}

/// F16 copies of one layer's quantised cache, where the engine takes them from the pool.
fn cache_copies(model: &Model, settings: &Settings, context: &ResolvedContext) -> Bytes {
    if context.rules.attention_scratch || !context.flash_attn {
        return Bytes::ZERO;
    }
    let width = |mixer: &Mixer| match mixer {
        Mixer::Attention(a) | Mixer::Both(a, _) => {
            let of = |ty: QuantType, width: u64| if ty.is_quantized() { width } else { 0 };
            of(settings.cache_type_k, a.k_width()).saturating_add(of(settings.cache_type_v, a.v_width()))
        }
        _ => 0,
    };
    let widest = model.layers.iter().map(|layer| width(&layer.mixer)).max().unwrap_or(0);
    Bytes::new(widest.saturating_mul(u64::from(context.n_ctx)).saturating_mul(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{attention, context, model, target};
    use crate::profile::{EngineProfile, Rules};
    use crate::target::Backend;

    fn tensor(name: &str, shape: [u64; 4]) -> Tensor {
        let bytes = QuantType::Q4_K.row_bytes(shape[0]).unwrap().times(shape[1] * shape[2]);
        Tensor { name: name.into(), ty: QuantType::Q4_K, shape, bytes, file: 0, offset: Bytes::ZERO }
    }

    fn peak(tensors: Vec<Tensor>, backend: Backend, n_gpu_layers: u32) -> Known<Bytes> {
        let mut model = model([attention(8, 64, None)]);
        model.tensors = tensors;
        let mut target = target(&[24]);
        target.devices[0].backend = backend;
        let settings = Settings { n_gpu_layers, op_offload: false, ..Settings::default() };
        let placement = crate::placement::place(&model, &settings, &target, &EngineProfile::bundled()).unwrap();
        scratch(&Roles::of(&model), &model, &settings, &context(8192, 2048), &placement, 0, &target.devices[0])
    }

    #[test]
    fn experts_on_vulkan_may_be_copied_whole() {
        let dense = peak(vec![tensor("blk.0.ffn_down.weight", [12288, 4096, 1, 1])], Backend::vulkan(false, None), 99);
        let high = dense.high().copied().unwrap();
        assert!(high >= Bytes::from_mib(191) && high <= Bytes::from_mib(400), "{dense}");
        let experts = peak(vec![tensor("blk.0.ffn_gate_up_exps.weight", [2816, 1408, 128, 1])], Backend::vulkan(false, None), 99);
        assert!(experts.high().copied() >= Some(Bytes::from_mib(1872)), "{experts}");
    }

    #[test]
    fn a_device_without_weights_and_a_pretended_one_take_nothing() {
        let down = || vec![tensor("blk.0.ffn_down.weight", [12288, 4096, 1, 1])];
        assert_eq!(peak(down(), Backend::cuda(false), 0).get(), Some(Bytes::ZERO));
        assert_eq!(peak(down(), Backend::pretended(false), 99).get(), Some(Bytes::ZERO));
        assert!(peak(down(), Backend::cuda(false), 99).get() > Some(Bytes::ZERO));
    }

    #[test]
    fn older_engines_copy_a_quantised_cache_from_the_pool() {
        let model = model([attention(8, 128, None)]);
        let settings = Settings { cache_type_k: QuantType::Q8_0, cache_type_v: QuantType::Q8_0, ..Settings::default() };
        assert_eq!(cache_copies(&model, &settings, &context(8192, 512)), Bytes::ZERO);
        let older = ResolvedContext { rules: Rules { attention_scratch: false, ..Rules::CURRENT }, ..context(8192, 512) };
        assert_eq!(cache_copies(&model, &settings, &older), Bytes::from_mib(32));
    }
}
