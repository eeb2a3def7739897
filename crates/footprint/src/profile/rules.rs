//! The rules that changed from one age of the engine to the next.

use super::Ik;
use spec::Settings;
use spec::settings::FlashAttention;
use std::borrow::Cow;

/// How many cells the cache of a layer with a sliding window has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowCells {
    /// As many as the whole context: windows are only masked.
    Full,
    /// The window and one logical batch (pull request 13194, 2025-05).
    Batch,
    /// The window and one micro-batch (`llama-kv-cache-iswa.cpp:73-80`).
    MicroBatch,
}

/// What is cached of latent attention (DeepSeek's MLA).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatentCache {
    /// Keys and values of every head, decompressed (before pull request 12801, 2025-04).
    PerHead,
    /// The compressed row, and its first part a second time as values.
    KeysAndValues,
    /// The compressed row alone (`llama-kv-cache.cpp:218`, since 2026-01).
    Keys,
}

/// The kinds of batches that one graph is reserved for, each with inputs of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BatchKinds {
    /// Tokens.
    Tokens,
    /// Tokens, or embeddings of images and the like (pull request 18550, 2026-01).
    TokensOrEmbeddings,
    /// These, or both in one batch (2026-09).
    Mixed,
}

/// The rules of one age of the engine. Before [`Rules::CURRENT`] they are known from the project's pull requests and
/// from logged allocations, not from its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A context and the caches of windows are padded to whole multiples of this many cells without flash attention; with
    /// it, of 256.
    pub context_padding: u32,
    /// Cells of layers with windows.
    pub window: WindowCells,
    /// Sequences may have caches of their own; without this they share one, and each gets its part of the context.
    pub streams: bool,
    /// What is cached of latent attention.
    pub latent: LatentCache,
    /// Masks of fused attention are made as F16; without this as F32, of which each backend casts a copy.
    pub half_mask: bool,
    /// `auto` is a value of the flash attention setting, and its default; without this it is off unless asked for.
    pub auto_flash_attention: bool,
    /// F16 copies of a quantised cache for fused attention are part of CUDA's compute buffer; without this they are taken
    /// from its pool at run time.
    pub attention_scratch: bool,
    /// The kinds of batches that one graph is reserved for.
    pub batches: BatchKinds,
    /// Gates are applied by one operation; without this by an activation and a product.
    pub fused_gate: bool,
    /// Caches are written row by row at given places; without this at one place, by a copy.
    pub indexed_store: bool,
    /// A quantised cache is rotated before it is written (2026-04).
    pub rotated_cache: bool,
    /// CUDA has buffers for rows of one matrix on several devices (split mode `row`), as SYCL still does.
    pub cuda_splits_rows: bool,
    /// Logits are computed although embeddings are pooled and no one reads them.
    pub logits_beside_pooled: bool,
    /// Tensors that a rule moves to the CPU may be repacked there.
    pub overrides_repack: bool,
    /// The output goes to a GPU after all layers are there; without this it goes first (pull request 18148, 2025-12).
    pub output_last: bool,
    /// The mask has a whole multiple of this many rows.
    pub mask_padding: u64,
    /// What ik_llama.cpp does in ways of its own; `None` in llama.cpp.
    pub ik: Option<Ik>,
    /// Backends put the nodes of their splits into another order before these are allocated (pull request 15850, 2025-09).
    pub reorders: bool,
    /// A draft model has a context of its own to set (`--ctx-size-draft`); without this it has the model's.
    pub draft_context: bool,
    /// The micro-batch of a draft can be set (`--spec-draft-n-ubatch`).
    pub draft_micro_batch: bool,
    /// Rows without wanted logits are dropped in the last layer of every family, unless the model's own prediction layers read
    /// the stream (0.7.0); without this, families with such layers drop them after it.
    pub early_outputs: bool,
    /// Qwen3-Next's gates are bent where they lie between others (0.7.0); without this, a copy of them is.
    pub strided_gates: bool,
    /// Gemma 4 looks up the embeddings of its layers before those of the stream, and scales them where they are read (0.7.0).
    pub per_layer_first: bool,
    /// True where the source was read and every rule is confirmed by recorded dry runs; compute buffers under other rules
    /// are estimates.
    pub confirmed: bool,
}

impl Rules {
    /// The bundled engine.
    pub const CURRENT: Self = Self {
        context_padding: 256,
        window: WindowCells::MicroBatch,
        streams: true,
        latent: LatentCache::Keys,
        half_mask: true,
        auto_flash_attention: true,
        attention_scratch: true,
        batches: BatchKinds::Mixed,
        fused_gate: true,
        indexed_store: true,
        rotated_cache: true,
        cuda_splits_rows: false,
        logits_beside_pooled: true,
        overrides_repack: true,
        output_last: false,
        mask_padding: 1,
        ik: None,
        reorders: true,
        draft_context: false,
        draft_micro_batch: false,
        early_outputs: false,
        strided_gates: false,
        per_layer_first: false,
        confirmed: true,
    };

    /// 0.7.0, of whose source nothing was read: told apart by logged loads (`tests/compute.rs`), and by the nodes that its scheduler
    /// prints (`GGML_SCHED_DEBUG=2 llama-fit-params -v`).
    pub const OF_0_7: Self = Self {
        logits_beside_pooled: false,
        draft_micro_batch: true,
        early_outputs: true,
        strided_gates: true,
        per_layer_first: true,
        ..Self::CURRENT
    };

    /// These rules once it is known whether attention is fused: what ik_llama.cpp caches depends on it.
    #[must_use]
    pub fn resolved(self, flash_attn: bool) -> Self {
        let latent = match self.ik {
            None => self.latent,
            Some(Ik { mla: 0, .. }) => LatentCache::PerHead,
            Some(Ik { mla: 1, .. }) if !flash_attn => LatentCache::KeysAndValues,
            Some(_) => LatentCache::Keys,
        };
        Self { latent, ..self }
    }

    /// The settings that have the same effect under [`Rules::CURRENT`], as far as settings can say it: what an age cannot do
    /// is left out.
    pub fn apply<'s>(&self, settings: &'s Settings) -> Cow<'s, Settings> {
        let mut settings = Cow::Borrowed(settings);
        if !self.streams && !settings.kv_unified {
            settings.to_mut().kv_unified = true;
        }
        if self.window == WindowCells::Full && !settings.swa_full {
            settings.to_mut().swa_full = true;
        }
        if !self.auto_flash_attention && settings.flash_attn == FlashAttention::Auto {
            let on = self.ik.is_some_and(|ik| ik.flash_attn);
            settings.to_mut().flash_attn = if on { FlashAttention::On } else { FlashAttention::Off };
        }
        settings
    }
}
