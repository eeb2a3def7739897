//! Compute buffers from closed forms, for graphs that are not declared.
//!
//! The forms were found on logged buffers of full offload (dense with and without flash attention, hybrids, experts); the
//! intervals cover what the simulation of declared families yields under the same settings.

use super::ComputeBuffers;
use crate::kv_cache::cells;
use crate::placement::Placement;
use crate::{ResolvedContext, Target};
use spec::model::{FeedForward, Mixer};
use spec::settings::SplitMode;
use spec::{Bytes, Known, Model, QuantType, Settings};

/// The figures that closed forms are made of, as floats: they are estimates.
struct Figures {
    n_embd: f64,
    /// Widest feed-forward block, or of the experts that a token visits.
    n_ff: f64,
    n_expert_used: f64,
    n_vocab: f64,
    n_head: f64,
    n_tokens: f64,
    n_outputs: f64,
    /// Cells that the masks cover, over all caches.
    mask_cells: f64,
    cells: f64,
    flash_attn: bool,
}

impl Figures {
    fn of(model: &Model, settings: &Settings, context: &ResolvedContext) -> Self {
        let (mut n_ff, mut used, mut heads) = (0, 0, 0);
        for layer in &model.layers {
            match &layer.feed_forward {
                FeedForward::Dense { n_ff: width } => n_ff = n_ff.max(*width),
                FeedForward::Experts(experts) => {
                    used = used.max(experts.used);
                    n_ff = n_ff.max(experts.n_ff.saturating_mul(u64::from(experts.used))).max(experts.n_ff_shared);
                }
                FeedForward::None => {}
            }
            heads = heads.max(match &layer.mixer {
                Mixer::Attention(attention) | Mixer::Both(attention, _) => attention.n_head,
                Mixer::Mla(mla) => mla.n_head,
                Mixer::Compressed(attention) => attention.n_head,
                Mixer::Recurrent(_) | Mixer::None => 0,
            });
        }
        let caches = cells(model, settings, context);
        let windows = if caches.window < caches.full { caches.window } else { 0 };
        Self {
            n_embd: model.n_embd as f64,
            // A recurrence alone expands the stream about as a feed-forward block does.
            n_ff: n_ff.max(model.n_embd.saturating_mul(2)) as f64,
            n_expert_used: f64::from(used),
            n_vocab: model.n_vocab as f64,
            n_head: f64::from(heads),
            n_tokens: f64::from(context.n_ctx.min(context.n_ubatch)),
            n_outputs: f64::from(context.n_outputs),
            mask_cells: f64::from(caches.full) + f64::from(windows),
            cells: if heads > 0 { f64::from(caches.full) } else { 0.0 },
            flash_attn: context.flash_attn,
        }
    }

    fn masks(&self) -> f64 {
        let element = if self.flash_attn { 2.0 } else { 4.0 };
        if self.cells > 0.0 { self.mask_cells * self.n_tokens * element } else { 0.0 }
    }
    /// Activations at the widest point of a layer, or the logits.
    fn activations(&self) -> f64 {
        let row = 4.0 * self.n_tokens;
        let block = (3.0 * self.n_ff + 3.0 * self.n_embd) * row;
        let experts = (2.0 * self.n_expert_used + 3.0) * self.n_embd * row;
        let scores = if self.flash_attn { 0.0 } else { (self.n_head * self.cells + 4.0 * self.n_embd) * row };
        block.max(experts).max(scores).max(self.logits())
    }
    fn logits(&self) -> f64 {
        (self.n_vocab + self.n_embd) * self.n_outputs * 4.0
    }
    /// Embeddings of the batch, looked up and given.
    fn embeddings(&self) -> f64 {
        3.0 * self.n_embd * self.n_tokens * 4.0
    }
}

/// Estimates with wide intervals, and why they are no more.
pub(super) fn buffers(
    model: &Model,
    settings: &Settings,
    target: &Target,
    placement: &Placement,
    context: &ResolvedContext,
    reason: &str,
) -> ComputeBuffers {
    let figures = Figures::of(model, settings, context);
    let source = format!("closed forms over widths and context: {reason}");
    let between = |[value, low, high]: [f64; 3]| {
        let [value, low, high] = [value, low, high].map(Bytes::from_f64);
        Known::estimated(value, low, high, source.clone())
    };
    let plan = Plan::of(model, settings, placement, context);
    let mut devices = vec![Known::exact(Bytes::ZERO, "the engine does not use this device"); target.devices.len()];
    for &used in &placement.devices {
        if let Some(slot) = devices.get_mut(used) {
            *slot = between(plan.device(&figures, used));
        }
    }
    ComputeBuffers { host: between(plan.host(&figures)), devices, graph: None, flash_attn: context.flash_attn }
}

/// What of a placement decides where activations are.
struct Plan<'a> {
    placement: &'a Placement,
    /// Some layer's weights are on the host, by layer or by rule.
    host_weights: bool,
    /// Large batches over them are computed on the first device.
    op_offload: bool,
    /// The largest of them.
    largest_host_weight: f64,
    /// One layer's cache, where it is copied: from the host to a device, or to F16 for flash attention.
    layer_cache: f64,
    pipeline: bool,
}

impl<'a> Plan<'a> {
    fn of(model: &Model, settings: &Settings, placement: &'a Placement, context: &ResolvedContext) -> Self {
        let (layers_on_host, largest) = (placement.layer_devices.iter().any(Option::is_none), largest_host_weight(model, placement));
        let caches = cells(model, settings, context);
        let row = |width: u64, ty: QuantType| width as f64 * ty.bits_per_weight() / 8.0;
        let cache = model.layers.iter().map(|layer| match &layer.mixer {
            Mixer::Attention(a) | Mixer::Both(a, _) => row(a.k_width(), settings.cache_type_k) + row(a.v_width(), settings.cache_type_v),
            Mixer::Mla(mla) => 2.0 * row(u64::from(mla.kv_lora_rank) + u64::from(mla.rope_dim), settings.cache_type_k),
            Mixer::Compressed(attention) => 2.0 * row(u64::from(attention.head_dim), settings.cache_type_k),
            Mixer::Recurrent(_) | Mixer::None => 0.0,
        });
        let cast = context.flash_attn && [settings.cache_type_k, settings.cache_type_v].contains(&QuantType::F32);
        let cells = f64::from(caches.full) * f64::from(caches.streams);
        Self {
            placement,
            host_weights: layers_on_host || largest > 0.0,
            op_offload: settings.op_offload,
            largest_host_weight: largest,
            layer_cache: if settings.kv_offload && !layers_on_host && !cast { 0.0 } else { cache.fold(0.0, f64::max) * cells },
            pipeline: placement.devices.len() > 1 && !layers_on_host && settings.split_mode == SplitMode::Layer,
        }
    }

    /// Value, low and high of a device.
    fn device(&self, figures: &Figures, device: usize) -> [f64; 3] {
        let layers = self.placement.layer_devices.split_last().map_or(&[][..], |(_, layers)| layers);
        let holds_layers = layers.contains(&Some(device));
        let offloads = self.op_offload && self.host_weights && self.placement.devices.first() == Some(&device);
        let passing = figures.embeddings() + figures.logits();
        let value = figures.activations() + figures.masks();
        let copies = if self.pipeline { 3.0 * (figures.masks() + figures.embeddings()) } else { 0.0 };
        let brought = self.largest_host_weight + self.layer_cache;
        let high = 1.6 * value + passing + copies + 2.0 * brought;
        match (holds_layers, offloads) {
            (true, _) => [value + if offloads { self.largest_host_weight } else { 0.0 }, 0.25 * value, high],
            (false, true) => [value + self.largest_host_weight, 0.0, high],
            (false, false) => [0.5 * passing, 0.0, 2.0 * passing + copies + self.largest_host_weight],
        }
    }

    /// Value, low and high of the host.
    fn host(&self, figures: &Figures) -> [f64; 3] {
        let inputs = figures.embeddings() + figures.masks();
        let all = figures.activations() + inputs;
        let copies = if self.pipeline { 4.0 * inputs } else { 0.0 };
        if self.placement.devices.is_empty() {
            return [all, 0.4 * all, 1.6 * all];
        }
        let computes = self.host_weights || self.layer_cache > 0.0;
        let value = if self.host_weights && !self.op_offload { all } else { inputs };
        let high = if computes { 1.6 * all + self.layer_cache } else { 2.0 * inputs };
        [value, 0.1 * inputs, high + copies]
    }
}

/// The largest weight of a layer in plain host memory: a GPU copies it in where it computes large batches over it.
fn largest_host_weight(model: &Model, placement: &Placement) -> f64 {
    let tensors = model.tensors.iter().zip(&placement.homes);
    let on_host = tensors.filter(|&(tensor, &home)| home.device().is_none() && tensor.layer().is_some());
    on_host.map(|(tensor, _)| tensor.bytes.as_f64()).fold(0.0, f64::max)
}
