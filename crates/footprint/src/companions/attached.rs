//! Projectors, adapters and control vectors: tensors of their own files.

use super::{Beside, Host};
use crate::error::FootprintError;
use crate::parts::Component;
use crate::placement::Home;
use crate::weights::HOST_ALIGNMENT;
use spec::model::Tensor;
use spec::{Attachment, Bytes, Known, QuantType};
use std::collections::BTreeMap;

const ADAPTER: &str = "tensors of the adapter beside those that they change (src/llama-adapter.cpp:155-340)";
const PROJECTOR: &str = "tensors of the projector's file on one device (tools/mtmd/clip.cpp:3642)";
const CONTROL: &str = "one F32 row per layer but the first (src/llama-adapter.cpp:34-86)";

impl Host<'_> {
    /// Bytes of a tensor in the memory of a place.
    fn padded(&self, device: Option<usize>, ty: QuantType, width: u64, bytes: Bytes) -> Bytes {
        match device.and_then(|device| self.target.devices.get(device)) {
            Some(device) => device.backend.padded(ty, width, bytes),
            None => bytes.pad_to(HOST_ALIGNMENT),
        }
    }
}

/// A projector lies whole on the first device, or on the host; its scheduler reserves the graph of one image when it is
/// loaded, and a larger one when a larger image comes (`tools/mtmd/clip.cpp:3735-3815`).
pub(super) fn projector(host: &Host<'_>, file: &Attachment, on_host: bool, beside: &mut Beside) {
    let device = host.placement.devices.first().copied().filter(|_| !on_host && host.settings.n_gpu_layers > 0);
    let bytes = file.tensors.iter().map(|tensor| host.padded(device, tensor.ty, tensor.shape[0], tensor.bytes)).sum();
    beside.fixed(device, Component::Projector, Known::exact(bytes, PROJECTOR));
    let compute = projector_compute(file);
    beside.fixed(device, Component::ProjectorCompute, compute);
}

/// Activations of one image: the widest block of a transformer over its patches, and its attention. The size of the largest
/// image is decided per projector, and most resize: hence the interval.
fn projector_compute(file: &Attachment) -> Known<Bytes> {
    let modality = if file.uint("clip.vision.embedding_length").is_some() { "vision" } else { "audio" };
    let figure = |key: &str| file.uint(&format!("clip.{modality}.{key}")).map(|value| value as f64);
    let Some(n_embd) = figure("embedding_length") else {
        return Known::unknown("the projector's file does not state its width (clip.*.embedding_length)");
    };
    let n_ff = figure("feed_forward_length").unwrap_or(4.0 * n_embd);
    let patches = match (figure("image_size"), figure("patch_size")) {
        (Some(image), Some(patch)) if patch > 0.0 => (image / patch).powi(2),
        _ => 1500.0,
    };
    let value = Bytes::from_f64(patches * 4.0 * (2.0 * n_ff + 4.0 * n_embd));
    Known::estimated(value, value.scale(0.25), value.scale(4.0), "activations of one image of the trained size; not simulated")
}

/// An adapter's pairs lie where the weights lie that they change; beside repacked weights in plain host memory.
pub(super) fn adapter(host: &Host<'_>, file: &Attachment, beside: &mut Beside) -> Result<(), FootprintError> {
    if file.architecture != host.model.architecture {
        let problem = format!("it is made for {:?}, the model is {:?}", file.architecture, host.model.architecture);
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
        host.model.tensors.iter().zip(&host.placement.homes).map(|(tensor, &home)| (tensor.name.as_str(), (tensor, home))).collect();
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
        let width = widest.entry(device).or_default();
        *width = (*width).max(b.shape[1]);
    }
    for (device, width) in widest {
        // The graph that was reserved has no adapters; with them one product more is alive.
        let product = QuantType::F32.row_bytes(width).unwrap_or(Bytes::MAX).times(u64::from(host.context.n_ubatch));
        let peak = Known::estimated(product, Bytes::ZERO, product.times(2), "one product more per adapted matrix; not simulated");
        beside.add(device, Component::AdapterCompute, Known::exact(Bytes::ZERO, "reserved without adapters"), peak);
    }
    Ok(())
}

/// Control vectors are summed: one row per layer from the second on, on the layer's device.
pub(super) fn control_vectors(host: &Host<'_>, files: &[Attachment], beside: &mut Beside) -> Result<(), FootprintError> {
    for file in files {
        let other = file.tensors.iter().find(|tensor| tensor.elements() != host.model.n_embd);
        if let Some(tensor) = other {
            let problem = format!("{:?} has {} elements, the model's stream {}", tensor.name, tensor.elements(), host.model.n_embd);
            return Err(FootprintError::ControlVector { problem });
        }
    }
    if files.is_empty() {
        return Ok(());
    }
    let row = QuantType::F32.row_bytes(host.model.n_embd).unwrap_or(Bytes::MAX);
    for layer in 1..host.model.n_layer() {
        let device = host.placement.layer_device(layer);
        let bytes = host.padded(device, QuantType::F32, host.model.n_embd, row);
        beside.fixed(device, Component::ControlVectors, Known::exact(bytes, CONTROL));
    }
    Ok(())
}
