//! Projectors, adapters and control vectors: tensors of their own files.

use super::{Beside, Companions, Host};
use crate::error::FootprintError;
use crate::parts::Component;
use crate::placement::Home;
use crate::target::Device;
use crate::weights::HOST_ALIGNMENT;
use spec::model::{MetaValue, Tensor};
use spec::{Attachment, Bytes, Known, QuantType};
use std::collections::BTreeMap;

const ADAPTER: &str = "tensors of the adapter beside those that they change (src/llama-adapter.cpp:155-340)";
/// llama-server 0.7.0 on a CPU, Llama 3.2 1B (68.52 MiB with and without) and the demonstration model (14.52 MiB), 512 tokens: rank
/// 16 on gate, up, down and query, rank 256 on gate, rank 512 on down and on all; a control vector added nothing either.
const COMPUTED: &str = "recorded loads of gated models took no more with adapters; at most one product of the widest adapted matrix";
const PROJECTOR: &str = "tensors of the projector's file on one device (tools/mtmd/clip.cpp:3642)";
const CONTROL: &str = "one F32 row per layer but the first (src/llama-adapter.cpp:34-86)";

impl Host<'_> {
    /// Bytes of a tensor in the memory of a place.
    fn padded(&self, device: Option<usize>, ty: QuantType, width: u64, bytes: Bytes) -> Bytes {
        match device.and_then(|device| self.case.target.devices.get(device)) {
            Some(device) => device.backend.padded(ty, width, bytes),
            None => bytes.pad_to(HOST_ALIGNMENT),
        }
    }
}

/// A projector lies whole on the device that is named for it, else on the first, or on the host; its scheduler reserves the graph of
/// one image when it is loaded, and a larger one when a larger image comes (`tools/mtmd/clip.cpp:3735-3815`).
pub(super) fn projector(host: &Host<'_>, file: &Attachment, companions: &Companions, beside: &mut Beside) -> Result<(), FootprintError> {
    let device = match &companions.projector_device {
        _ if companions.projector_on_host => None,
        Some(name) => Some(host.case.target.device(name)?),
        None => host.placement.devices.first().copied().filter(|_| host.case.settings.n_gpu_layers > 0),
    };
    let bytes = file.tensors.iter().map(|tensor| host.padded(device, tensor.ty, tensor.shape[0], tensor.bytes)).sum();
    beside.fixed(device, Component::Projector, Known::exact(bytes, PROJECTOR));
    let compute = projector_compute(file, device.and_then(|device| host.case.target.devices.get(device)));
    beside.fixed(device, Component::ProjectorCompute, compute);
    Ok(())
}

/// Projectors that see one image or tile of the trained size at a time, and of whose reservation loads of llama.cpp 0.7.0 were
/// recorded (`tests/companions.rs`).
const RECORDED: &[&str] = &["gemma3", "idefics3", "internvl", "mlp"];

/// Figures of a vision transformer.
struct Vision {
    patches: f64,
    n_embd: f64,
    n_ff: f64,
    n_head: f64,
    image: f64,
    projected: f64,
}

/// Activations of one image: the widest block of a transformer over its patches. Of projectors that were not recorded neither
/// the graph nor the size of the largest image is known: hence their interval.
fn projector_compute(file: &Attachment, on: Option<&Device>) -> Known<Bytes> {
    let modality = if file.uint("clip.vision.embedding_length").is_some() { "vision" } else { "audio" };
    let figure = |key: &str| file.uint(&format!("clip.{modality}.{key}")).map(|value| value as f64);
    let Some(n_embd) = figure("embedding_length") else {
        return Known::unknown("the projector's file does not state its width (clip.*.embedding_length)");
    };
    let n_ff = figure("feed_forward_length").unwrap_or(4.0 * n_embd);
    let sizes = figure("image_size").zip(figure("patch_size")).filter(|(_, patch)| *patch > 0.0);
    let class = f64::from(u8::from(file.tensors.iter().any(|tensor| tensor.name == "v.class_embd")));
    let patches = sizes.map_or(1500.0, |(image, patch)| (image / patch).floor().powi(2) + class);
    let kind = match file.metadata.get("clip.projector_type") {
        Some(MetaValue::Text(kind)) => kind.as_str(),
        _ => "",
    };
    if let (Some((image, _)), true) = (sizes, RECORDED.contains(&kind)) {
        let (n_head, projected) = (figure("attention.head_count").unwrap_or(1.0), figure("projection_dim").unwrap_or(n_embd));
        return one_image(&Vision { patches, n_embd, n_ff, n_head, image, projected }, kind, on);
    }
    let value = Bytes::from_f64(patches * 4.0 * (2.0 * n_ff + 4.0 * n_embd));
    Known::estimated(value, value.scale(0.25), value.scale(4.0), "activations of one image of the trained size; not simulated")
}

/// What is alive at once of a block (`tools/mtmd/clip.cpp:330-540`): five rows of the stream where attention is computed, or the
/// inner row and two of the stream beside a gap of a third; in `mlp`, two projected rows at the end.
fn one_image(vision: &Vision, kind: &str, on: Option<&Device>) -> Known<Bytes> {
    let &Vision { patches, n_embd, n_ff, n_head, image, projected } = vision;
    let bytes = |elements: f64| Bytes::from_f64(elements * 4.0);
    let at_end = if kind == "mlp" { 2.0 * projected } else { 0.0 };
    let value = bytes(patches * (5.0 * n_embd).max(n_ff + 3.0 * n_embd).max(at_end));
    let low = bytes(patches * (4.0 * n_embd).max(n_ff + 2.0 * n_embd).max(at_end)).min(value);
    // Gaps: the image, one more row, and the projection turned over in 16 bits.
    let gaps = bytes(3.0 * image * image + patches * n_embd + n_embd * projected / 2.0);
    // Without a kernel for the width of its heads a device computes attention in full.
    let attention = match on {
        Some(device) if device.backend.name != "CUDA" => bytes(n_head * patches * patches),
        _ => Bytes::ZERO,
    };
    let source = "the widest block over one image with fused attention (clip.cpp:330-540); within the interval of recorded loads";
    Known::estimated(value, low, value + gaps + attention, source)
}

/// An adapter's pairs lie where the weights lie that they change; beside repacked weights in plain host memory.
pub(super) fn adapter(host: &Host<'_>, file: &Attachment, beside: &mut Beside) -> Result<(), FootprintError> {
    if file.architecture != host.case.model.architecture {
        let problem = format!("it is made for {:?}, the model is {:?}", file.architecture, host.case.model.architecture);
        return Err(FootprintError::Adapter { problem });
    }
    let mut pairs: BTreeMap<&str, [Option<&Tensor>; 2]> = BTreeMap::new();
    for tensor in &file.tensors {
        let (name, half) = match tensor.name.strip_suffix(".lora_a") {
            Some(name) => (name, 0),
            None => match tensor.name.strip_suffix(".lora_b") {
                Some(name) => (name, 1),
                // Norms are not adapted, and are left out without a word.
                None if tensor.name.ends_with("_norm.weight") => continue,
                None => return Err(FootprintError::Adapter { problem: format!("tensor {:?} is no half of a pair", tensor.name) }),
            },
        };
        pairs.entry(name).or_default()[half] = Some(tensor);
    }
    let homes: BTreeMap<&str, (&Tensor, Home)> =
        host.case.model.tensors.iter().zip(&host.placement.homes).map(|(tensor, &home)| (tensor.name.as_str(), (tensor, home))).collect();
    let mut widest: BTreeMap<Option<usize>, u64> = BTreeMap::new();
    for (name, pair) in pairs {
        let refused = |problem: String| Err(FootprintError::Adapter { problem });
        let [Some(a), Some(b)] = pair else { return refused(format!("the pair of {name:?} lacks a half")) };
        let Some(&(base, home)) = homes.get(name) else { return refused(format!("the model has no {name:?}")) };
        // The embedding is looked up, so its halves are exchanged (src/llama-adapter.cpp:303-315).
        let fits = match name {
            "token_embd.weight" => base.shape[0] == b.shape[1] && base.shape[1] == a.shape[1],
            _ => base.shape[0] == a.shape[0] && base.shape[1] == b.shape[1] && a.shape[1] == b.shape[0],
        };
        if !fits {
            return refused(format!("the pair of {name:?} does not fit its shape"));
        }
        let device = home.device();
        let bytes = [a, b].map(|half| host.padded(device, half.ty, half.shape[0], half.bytes));
        beside.fixed(device, Component::Adapters, Known::exact(bytes.iter().sum(), ADAPTER));
        // Products of matrices on the host are computed by the first device where batches are offloaded to it.
        let offloaded = host.placement.devices.first().copied().filter(|_| device.is_none() && host.case.settings.op_offload);
        for place in std::iter::once(device).chain(offloaded.map(Some)) {
            let width = widest.entry(place).or_default();
            *width = (*width).max(b.shape[1]);
        }
    }
    for (device, width) in widest {
        // The graph is reserved anew with the adapters; their products are alive while the gated block has room for one more.
        let product = QuantType::F32.row_bytes(width).unwrap_or(Bytes::MAX).times(u64::from(host.case.context.n_ubatch));
        let compute = Known::estimated(Bytes::ZERO, Bytes::ZERO, product, COMPUTED);
        beside.add(device, Component::AdapterCompute, compute.clone(), compute);
    }
    Ok(())
}

/// Control vectors are summed: one row per layer from the second on, on the layer's device.
pub(super) fn control_vectors(host: &Host<'_>, files: &[Attachment], beside: &mut Beside) -> Result<(), FootprintError> {
    for file in files {
        let other = file.tensors.iter().find(|tensor| tensor.elements() != host.case.model.n_embd);
        if let Some(tensor) = other {
            let problem = format!("{:?} has {} elements, the model's stream {}", tensor.name, tensor.elements(), host.case.model.n_embd);
            return Err(FootprintError::ControlVector { problem });
        }
    }
    if files.is_empty() {
        return Ok(());
    }
    let row = QuantType::F32.row_bytes(host.case.model.n_embd).unwrap_or(Bytes::MAX);
    for layer in 1..host.case.model.n_layer() {
        let device = host.placement.layer_device(layer);
        let bytes = host.padded(device, QuantType::F32, host.case.model.n_embd, row);
        beside.fixed(device, Component::ControlVectors, Known::exact(bytes, CONTROL));
    }
    Ok(())
}
