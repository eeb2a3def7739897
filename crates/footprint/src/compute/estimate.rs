//! Compute buffers from closed forms, for graphs that are not declared.
//!
//! The forms were found on logged buffers of full offload (dense with and without flash attention, hybrids, experts); the
//! intervals cover what the simulation of declared families yields under the same settings.

use super::ComputeBuffers;
use crate::kv_cache::cells;
use crate::placement::{Home, Placement};
use crate::{ResolvedContext, Target};
use spec::model::{FeedForward, Mixer};
use spec::settings::SplitMode;
use spec::{Bytes, Known, Model, Settings};

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
        let logits = (self.n_vocab + self.n_embd) * self.n_outputs * 4.0;
        block.max(experts).max(scores).max(logits)
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
    let between = |value: f64, low: f64, high: f64| {
        let [value, low, high] = [value, low, high].map(Bytes::from_f64);
        Known::estimated(value, low, high, source.clone())
    };
    let layers_on_host = placement.layer_devices.iter().any(Option::is_none);
    let masks = figures.masks();
    let offloaded = offloaded_weights(model, settings, placement);
    let pipeline = placement.devices.len() > 1 && !layers_on_host && settings.split_mode == SplitMode::Layer;
    let copies = if pipeline { 3.0 * (masks + figures.embeddings()) } else { 0.0 };

    let value = figures.activations() + masks;
    let device = between(value + offloaded, 0.4 * value, 1.6 * value + figures.embeddings() + copies + 1.5 * offloaded);
    let unused = Known::exact(Bytes::ZERO, "the engine does not use this device");
    let mut devices = vec![unused; target.devices.len()];
    for &used in &placement.devices {
        if let Some(slot) = devices.get_mut(used) {
            *slot = device.clone();
        }
    }
    let inputs = figures.embeddings() + masks;
    let host = if placement.devices.is_empty() || layers_on_host {
        let value = figures.activations() + inputs;
        let low = if placement.devices.is_empty() { 0.4 * value } else { 0.2 * inputs };
        between(value, low, 1.6 * value + copies)
    } else {
        between(inputs, 0.3 * inputs, 2.0 * inputs + copies)
    };
    ComputeBuffers { host, devices, graph: None, flash_attn: context.flash_attn }
}

/// The largest weight on the host, which a GPU copies in where it computes large batches over host weights.
fn offloaded_weights(model: &Model, settings: &Settings, placement: &Placement) -> f64 {
    if !settings.op_offload || placement.devices.is_empty() {
        return 0.0;
    }
    let on_host = |home: Home| matches!(home, Home::Host | Home::HostPinned(_));
    let tensors = model.tensors.iter().zip(&placement.homes).filter(|&(tensor, &home)| on_host(home) && tensor.layer().is_some());
    tensors.map(|(tensor, _)| tensor.bytes.as_f64()).fold(0.0, f64::max)
}
