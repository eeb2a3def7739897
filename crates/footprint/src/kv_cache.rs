//! Attention caches: bytes per device.
//!
//! Upstream: `src/llama-kv-cache.cpp:65-250` (one K and one V tensor per layer), `src/llama-kv-cache-iswa.cpp:66-96` (window
//! sizes), `src/llama-model.cpp:2358-2898` (which cache an architecture gets).

use crate::compressed::{compresses, rows};
use crate::profile::{LatentCache, Rules, WindowCells};
use crate::requirement::ResolvedContext;
use crate::target::Target;
use crate::weights::HOST_ALIGNMENT;
use spec::model::{Attention, Compressed, Mixer, Mla};
use spec::settings::FlashAttention;
use spec::{Bytes, Model, QuantType, Settings};

/// Bytes by place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByPlace {
    /// On the host.
    pub host: Bytes,
    /// Per device, parallel to [`Target::devices`].
    pub devices: Vec<Bytes>,
}

impl ByPlace {
    pub(crate) fn new(target: &Target) -> Self {
        Self { host: Bytes::ZERO, devices: vec![Bytes::ZERO; target.devices.len()] }
    }
    /// Adds a tensor of `rows` rows where its layer is, padded as its buffer pads. A row that is no whole number of blocks
    /// was refused before.
    pub(crate) fn add(&mut self, ty: QuantType, width: u64, rows: u64, device: Option<usize>, target: &Target) {
        *self.of(device) += padded(ty, width, rows, device, target);
    }
    fn of(&mut self, device: Option<usize>) -> &mut Bytes {
        match device {
            Some(device) => &mut self.devices[device],
            None => &mut self.host,
        }
    }
    /// Everything.
    pub fn total(&self) -> Bytes {
        self.host + self.devices.iter().sum()
    }
}

/// Bytes of a tensor of `rows` rows where its layer is, padded as its buffer pads.
fn padded(ty: QuantType, width: u64, rows: u64, device: Option<usize>, target: &Target) -> Bytes {
    let bytes = ty.row_bytes(width).unwrap_or(Bytes::ZERO).times(rows);
    match device {
        Some(device) => target.devices[device].backend.padded(ty, width, bytes),
        None => bytes.pad_to(HOST_ALIGNMENT),
    }
}

/// Cells per stream and number of streams of the caches of one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells {
    /// Cells of a cache over the whole context.
    pub full: u32,
    /// Cells of a cache over a sliding window; the whole context where the model slides none.
    pub window: u32,
    /// Copies of each cache: one per sequence unless they share one.
    pub streams: u32,
}

/// Sizes of the caches.
///
/// A window holds its own tokens (of every sequence, where they share the cache) and one micro-batch, in whole multiples
/// of 256 and never more than the full cache.
pub fn cells(model: &Model, settings: &Settings, context: &ResolvedContext) -> Cells {
    cells_shared(model, settings, context, settings.kv_unified && !compresses(model))
}

/// The same where the sequences share caches or do not.
pub(crate) fn cells_shared(model: &Model, settings: &Settings, context: &ResolvedContext, unified: bool) -> Cells {
    let rules = &context.rules;
    let streams = if unified { 1 } else { settings.n_parallel };
    let full = context.n_ctx_seq;
    let window = match window_of(model) {
        Some(tokens) if !settings.swa_full => {
            let sequences = if unified { settings.n_parallel } else { 1 };
            let batch = if rules.window == WindowCells::Batch { context.n_batch } else { context.n_ubatch };
            let wanted = u64::from(tokens) * u64::from(sequences) + u64::from(batch);
            let padding = if context.flash_attn { 256 } else { rules.context_padding };
            u32::try_from(wanted.min(u64::from(full)).next_multiple_of(u64::from(padding).max(1))).unwrap_or(full)
        }
        _ => full,
    };
    Cells { full, window, streams }
}

/// The window of the model's sliding layers: one size per model (`hparams.n_swa`).
fn window_of(model: &Model) -> Option<u32> {
    model.layers.iter().find_map(|layer| match &layer.mixer {
        Mixer::Compressed(a) => Some(a.window),
        mixer => attention(mixer)?.window,
    })
}

fn attention(mixer: &Mixer) -> Option<&Attention> {
    match mixer {
        Mixer::Attention(a) | Mixer::Both(a, _) => Some(a),
        _ => None,
    }
}

/// Why the caches of an architecture cannot be computed; `None` where they can.
pub fn unsupported(model: &Model) -> Option<&'static str> {
    match model.architecture.as_str() {
        "glm5-next" | "hy_v4" | "dots3note" | "minimax-m3" | "qwen4exp" => {
            Some("this architecture keeps an indexer's cache beside its attention cache, and in which layers is not modelled")
        }
        "dflash" => Some("this architecture may keep compressed caches, which are not modelled"),
        _ => None,
    }
}

/// Most that the indexers of an architecture of [`unsupported`] cache: a key per cell in every layer, in the type of K
/// (`src/llama-kv-cache-dsa.cpp:41-57`, `src/llama-model.cpp:2382-2575`).
pub(crate) fn undescribed_indexers(model: &Model, settings: &Settings, context: &ResolvedContext) -> Bytes {
    let width = model.arch_uint("attention.indexer.key_length").unwrap_or(0);
    let cells = cells(model, settings, context);
    let rows = u64::from(cells.full).saturating_mul(cells.streams.into()).saturating_mul(model.n_layer_all().into());
    settings.cache_type_k.row_bytes(width).unwrap_or(Bytes::ZERO).times(rows)
}

/// Bytes of all attention caches. In ik_llama.cpp a row of keys is a head, and values are one row (src/llama.cpp:3576-3606,
/// ddceb0a5).
pub fn kv_cache(
    model: &Model,
    settings: &Settings,
    target: &Target,
    context: &ResolvedContext,
    layer_devices: &[Option<usize>],
) -> ByPlace {
    let mut sum = ByPlace::new(target);
    if model.encoder {
        return sum;
    }
    let cells_of = |windowed, cells: Cells| u64::from(if windowed { cells.window } else { cells.full }) * u64::from(cells.streams);
    let shapes = Shapes::new(model, settings, context);
    let cells = cells(model, settings, context);
    let mut known: Vec<(_, Bytes)> = Vec::new();
    for (index, layer) in model.layers.iter().enumerate() {
        let device = layer_devices.get(index).copied().flatten().filter(|_| settings.kv_offload);
        if let Mixer::Compressed(attention) = &layer.mixer {
            let streams = u64::from(cells.streams);
            for (width, rows) in compressed_rows(attention, cells) {
                sum.add(settings.cache_type_k, width, rows.saturating_mul(streams), device, target);
            }
            continue;
        }
        if index >= trunk_layers(model) {
            break;
        }
        if let Some(Shape { k_width, v_width, index_width, windowed }) = shapes.of(&layer.mixer) {
            let n_rows = cells_of(windowed, cells);
            let (k, v) = (settings.cache_type_k, settings.cache_type_v);
            let latent = matches!(layer.mixer, Mixer::Mla(_));
            let k = if latent { latent_type([k, v], &context.rules, context.flash_attn) } else { k };
            if context.rules.ik.is_some() {
                let heads = attention(&layer.mixer).map_or(1, |shape| u64::from(shape.n_head_kv)).max(1);
                sum.add(k, k_width / heads, n_rows.saturating_mul(heads), device, target);
                sum.add(v, v_width.saturating_mul(n_rows), 1, device, target);
                continue;
            }
            // Most layers cache the same as one before.
            let tensors = [(k, k_width), (v, v_width), (k, index_width)];
            let cached = (tensors, n_rows, device);
            let bytes = match known.iter().rev().find(|(known, _)| *known == cached) {
                Some(&(_, bytes)) => bytes,
                None => {
                    let bytes = tensors.iter().map(|&(ty, width)| padded(ty, width, n_rows, device, target)).sum();
                    known.push((cached, bytes));
                    bytes
                }
            };
            *sum.of(device) += bytes;
        }
    }
    sum
}

/// Width and number of the rows of one sequence in each cache of a layer. Prediction layers have them too.
pub(crate) fn compressed_rows(attention: &Compressed, cells: Cells) -> impl Iterator<Item = (u64, u64)> {
    let width = u64::from(attention.head_dim);
    let beyond = attention.beyond.iter().flat_map(move |beyond| {
        let n = rows(u64::from(cells.full), beyond.ratio);
        [Some(width), beyond.indexer.as_ref().map(|indexer| u64::from(indexer.head_dim))].into_iter().flatten().map(move |width| (width, n))
    });
    [(width, u64::from(cells.window))].into_iter().chain(beyond)
}

/// What one layer caches per cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    /// Elements of a K row.
    pub(crate) k_width: u64,
    /// Elements of a V row; 0 without a V cache.
    pub(crate) v_width: u64,
    /// Elements of an indexer's key, cached in the type of K; 0 without an indexer (`src/llama-kv-cache-dsa.cpp:41-57`).
    pub(crate) index_width: u64,
    /// The cache covers a window only.
    pub(crate) windowed: bool,
}

/// What decides the shapes of all layers.
pub(crate) struct Shapes {
    /// Width of every V row, where all are as wide as the widest.
    v_width: Option<u64>,
    /// Layers without heads are given such a V too; only hybrids leave layers out.
    headless: bool,
    latent: LatentCache,
}

impl Shapes {
    /// Caches are made before `auto` is resolved, so only `off` stores V transposed. Then all V tensors are as wide as the
    /// widest (`TAG_V_CACHE_VARIABLE`).
    pub(crate) fn new(model: &Model, settings: &Settings, context: &ResolvedContext) -> Self {
        let transposed = settings.flash_attn == FlashAttention::Off || !context.flash_attn;
        let widest = || model.layers.iter().filter_map(|layer| attention(&layer.mixer)).map(Attention::v_width).max().unwrap_or(0);
        Self { v_width: transposed.then(widest), headless: !model.has_recurrent_state(), latent: context.rules.latent }
    }
    /// What a layer caches; `None` where it keeps no cache of its own.
    pub(crate) fn of(&self, mixer: &Mixer) -> Option<Shape> {
        match mixer {
            Mixer::Attention(a) | Mixer::Both(a, _) if a.shares_kv_of.is_none() => Some(Shape {
                k_width: a.k_width(),
                v_width: self.v_width.unwrap_or(a.v_width()),
                index_width: 0,
                windowed: a.window.is_some(),
            }),
            Mixer::Mla(m) => {
                let (k_width, v_width) = latent_widths(m, self.latent);
                let index_width = m.indexer.as_ref().filter(|indexer| indexer.own_keys).map_or(0, |indexer| u64::from(indexer.head_dim));
                Some(Shape { k_width, v_width, index_width, windowed: false })
            }
            Mixer::None if self.headless => self.v_width.map(|v_width| Shape { k_width: 0, v_width, index_width: 0, windowed: false }),
            _ => None,
        }
    }
}

/// Elements per cell of the K and the V cache of latent attention; no V cache has none.
fn latent_widths(shape: &Mla, latent: LatentCache) -> (u64, u64) {
    let (rank, heads) = (u64::from(shape.kv_lora_rank), u64::from(shape.n_head));
    let row = rank + u64::from(shape.rope_dim);
    match latent {
        LatentCache::Keys => (row, 0),
        LatentCache::KeysAndValues => (row, rank),
        LatentCache::PerHead => (heads * u64::from(shape.head_dim_k), heads * u64::from(shape.head_dim_v)),
    }
}

/// The type of cached compressed rows. With `-mla 2` or `3` and without fused attention ik_llama.cpp takes that of the values
/// (src/llama.cpp:3587, ddceb0a5).
pub(crate) fn latent_type([k, v]: [QuantType; 2], rules: &Rules, flash_attn: bool) -> QuantType {
    if !flash_attn && rules.ik.is_some_and(|ik| ik.mla > 1) { v } else { k }
}

/// Layers that the main context attends to: without the trailing prediction layers (`src/llama-model.cpp:2812-2820`).
pub(crate) fn trunk_layers(model: &Model) -> usize {
    match model.n_layer() {
        0 => model.layers.len(),
        trunk => trunk as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{attention, context, model, recurrent, target};
    use spec::model::Mla;

    /// Sizes that servers logged for gpt-oss (window 128), Gemma 4 12B (1024) and E2B (512).
    #[test]
    fn a_window_holds_itself_and_a_micro_batch() {
        let window = |tokens, n_ubatch, n_parallel, kv_unified| {
            let settings = Settings { n_parallel, kv_unified, ..Settings::default() };
            cells(&model([attention(8, 64, Some(tokens))]), &settings, &context(8192, n_ubatch)).window
        };
        assert_eq!(window(128, 512, 1, false), 768);
        assert_eq!(window(128, 2048, 1, false), 2304);
        assert_eq!(window(128, 512, 4, true), 1024);
        assert_eq!(window(1024, 2048, 4, true), 6144);
        assert_eq!(window(512, 2048, 1, false), 2560);
        assert_eq!(window(4096, 8192, 1, false), 8192);
    }

    #[test]
    fn without_flash_attention_every_v_is_as_wide_as_the_widest() {
        let model = model([attention(8, 64, None), attention(2, 64, None)]);
        let sum = |flash_attn| {
            let settings = Settings { flash_attn, ..Settings::default() };
            kv_cache(&model, &settings, &target(&[]), &context(256, 256), &[None, None, None]).host.get()
        };
        let cell = 2 * 256;
        assert_eq!(sum(FlashAttention::On), cell * (512 + 512 + 128 + 128));
        assert_eq!(sum(FlashAttention::Off), cell * (512 + 512 + 128 + 512));
    }

    #[test]
    fn shared_latent_and_recurrent_layers_keep_their_own_share() {
        let mut sharing = attention(8, 64, None);
        if let Mixer::Attention(a) = &mut sharing {
            a.shares_kv_of = Some(0);
        }
        let latent = Mixer::Mla(Mla {
            n_head: 16,
            kv_lora_rank: 512,
            rope_dim: 64,
            q_lora_rank: 0,
            head_dim_k: 192,
            head_dim_v: 128,
            indexer: None,
        });
        let model = model([attention(8, 64, None), sharing, latent, recurrent(10, 20)]);
        let layers = [Some(1), Some(1), None, None, None];
        let sum = kv_cache(&model, &Settings::default(), &target(&[24, 24]), &context(1024, 512), &layers);
        assert_eq!(sum.devices, [Bytes::ZERO, Bytes::new(1024 * 2 * 1024)]);
        assert_eq!(sum.host, Bytes::new(576 * 2 * 1024));
        let settings = Settings { kv_offload: false, ..Settings::default() };
        let host = kv_cache(&model, &settings, &target(&[24, 24]), &context(1024, 512), &layers);
        assert_eq!((host.host, host.total()), (sum.total(), sum.total()));
    }

    #[test]
    fn prediction_layers_are_not_attended() {
        let mut model = model([attention(8, 64, None), attention(8, 64, None)]);
        let sum = |model: &Model| kv_cache(model, &Settings::default(), &target(&[]), &context(256, 256), &[None; 3]).host.get();
        let both = sum(&model);
        model.n_layer_nextn = 1;
        assert_eq!(sum(&model) * 2, both);
    }
}
