//! Settings after the engine's own rounding and clamping.
//!
//! Upstream: `src/llama-context.cpp:128,245-310` (sizes), `:3801-3880` (what is refused), `:551-562` (flash attention `auto`).

use crate::companions::Speculation;
use crate::error::FootprintError;
use crate::output::{hands_out_embeddings, pooling};
use crate::profile::{EngineProfile, Outputs, Rules};
use crate::requirement::ResolvedContext;
use spec::model::Mixer;
use spec::settings::{CACHE_TYPES, FlashAttention, Pooling};
use spec::{Model, QuantType, Settings};

/// Contexts are padded to whole multiples of this (`llama-context.cpp:292`); older engines without flash attention less.
const CONTEXT_PADDING: u64 = 256;
/// Cache types that only ik_llama.cpp takes (common/common.cpp, `kv_cache_type_from_str`).
const IK_CACHE_TYPES: &[QuantType] = &[QuantType::Q6_0, QuantType::Q8_KV];
/// Most sequences (`src/llama-cparams.h:8`).
const MAX_SEQUENCES: u32 = 256;
/// Cells are counted in 32 bits; the padding must not pass them.
const MAX_CONTEXT: u64 = (u32::MAX - 255) as u64;

/// The context of `model` under `settings`.
///
/// # Errors
/// A configuration that the engine refuses: no context, no batch, no sequence, or cache types that do not go with the
/// model or with flash attention.
pub fn resolve(model: &Model, settings: &Settings, profile: &EngineProfile) -> Result<ResolvedContext, FootprintError> {
    resolve_with(model, settings, profile, Speculation::NONE)
}

/// As [`resolve`], for a model whose tokens are drafted: rows of logits for all that are checked at once.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_with(
    model: &Model,
    settings: &Settings,
    profile: &EngineProfile,
    speculation: Speculation,
) -> Result<ResolvedContext, FootprintError> {
    let settings = &*profile.rules.apply(settings);
    check_sequences(settings)?;
    check_cache_types(model, settings, profile.rules.ik.is_some())?;
    let asked = match settings.n_ctx {
        0 => model.n_ctx_train.filter(|&n| n > 0).ok_or(FootprintError::TrainedContextUnknown)?,
        n_ctx => n_ctx,
    };
    // The batch is clamped before the context is padded.
    let n_batch = if model.encoder { settings.n_batch } else { asked.min(settings.n_batch) };
    let n_ubatch = n_batch.min(if settings.n_ubatch == 0 { settings.n_batch } else { settings.n_ubatch });
    let embeddings = hands_out_embeddings(model, settings);
    // The tools take the whole batch in one micro-batch then (`common_init_result`, common/common.cpp:1297-1303).
    let n_batch = if embeddings && profile.one_micro_batch { n_ubatch } else { n_batch };

    let padding = if flash_attention(model, settings) { CONTEXT_PADDING } else { u64::from(profile.rules.context_padding) };
    let padded = padded("n_ctx", u64::from(asked), padding)?;
    let n_seq_max = u64::from(settings.n_parallel);
    let (n_ctx, n_ctx_seq) = if settings.kv_unified {
        (padded, padded)
    } else {
        let per_sequence = self::padded("n_ctx", padded / n_seq_max, padding)?;
        (at_most("n_ctx", per_sequence * n_seq_max)?, per_sequence)
    };
    let n_rows = settings.n_parallel.saturating_mul(speculation.n_max.saturating_add(1));
    let n_outputs_max = match profile.outputs {
        // Embeddings are computed of every token of the batch (llama-context.cpp:1736).
        _ if embeddings => n_batch,
        Outputs::PerSequence => n_rows,
        Outputs::PerBatch => n_batch,
    };
    if n_outputs_max < settings.n_parallel {
        return Err(FootprintError::BatchBelowSequences { n_batch, n_parallel: settings.n_parallel });
    }
    // The reserved batch is rounded up to whole sequences and its outputs are not (llama-context.cpp:2531, 665).
    let reserved = n_ubatch.min(narrow(n_ctx));
    if embeddings && averages(model, settings) && !reserved.is_multiple_of(settings.n_parallel) {
        return Err(FootprintError::UnevenMean { n_ubatch: reserved, n_parallel: settings.n_parallel });
    }
    if reserves_one_sequence(model) && !settings.kv_unified && !reserved.is_multiple_of(settings.n_parallel) {
        return Err(FootprintError::UnevenSequences { n_ubatch: reserved, n_parallel: settings.n_parallel });
    }
    Ok(ResolvedContext {
        n_ctx: narrow(n_ctx),
        n_ctx_seq: narrow(n_ctx_seq),
        n_batch,
        n_ubatch,
        n_outputs: n_outputs_max.min(n_ubatch),
        // All tokens of a batch are outputs, and rows are reserved for each.
        n_rows: if embeddings { n_outputs_max } else { n_rows.min(n_outputs_max) },
        n_states: speculation.kept_states.saturating_add(1),
        flash_attn: flash_attention(model, settings),
        rules: Rules {
            early_outputs: profile.rules.early_outputs && !speculation.reads_stream,
            ..profile.rules.resolved(flash_attention(model, settings))
        },
    })
}

/// True where the engine reserves the second prefill graph for one sequence instead of all (`[TAG_RESERVE_DIAG_DECAY]`,
/// llama-context.cpp:703-718).
pub(crate) fn reserves_one_sequence(model: &Model) -> bool {
    matches!(model.architecture.as_str(), "kimi-linear" | "minimax-01")
}

/// True where the embedding of a sequence is the mean over its tokens.
fn averages(model: &Model, settings: &Settings) -> bool {
    match pooling(model, settings) {
        Pooling::Mean => true,
        Pooling::Rank => model.architecture == "modern-bert",
        _ => false,
    }
}

fn check_sequences(settings: &Settings) -> Result<(), FootprintError> {
    if settings.n_parallel == 0 {
        return Err(FootprintError::Zero { setting: "n_parallel" });
    }
    if settings.n_parallel > MAX_SEQUENCES {
        let (most, value) = (u64::from(MAX_SEQUENCES), u64::from(settings.n_parallel));
        return Err(FootprintError::TooLarge { setting: "n_parallel", most, value });
    }
    if settings.n_batch == 0 {
        return Err(FootprintError::Zero { setting: "n_batch" });
    }
    Ok(())
}

/// Flash attention where `auto` is resolved for devices that support it; the engine turns it off for Grok.
fn flash_attention(model: &Model, settings: &Settings) -> bool {
    settings.flash_attn != FlashAttention::Off && model.architecture != "grok"
}

fn check_cache_types(model: &Model, settings: &Settings, ik: bool) -> Result<(), FootprintError> {
    let (k, v) = (settings.cache_type_k, settings.cache_type_v);
    for (cache, ty) in [("K", k), ("V", v)] {
        let taken = CACHE_TYPES.contains(&ty) || (ik && IK_CACHE_TYPES.contains(&ty));
        if !taken {
            return Err(FootprintError::CacheType { cache, ty });
        }
    }
    if k != v && !ik && model.layers.iter().any(|layer| matches!(layer.mixer, Mixer::Mla(_) | Mixer::Compressed(_))) {
        return Err(FootprintError::DifferentCacheTypes { k, v });
    }
    let flash_attn = flash_attention(model, settings);
    let latent = model.layers.iter().any(|layer| matches!(layer.mixer, Mixer::Mla(_)));
    if v.is_quantized() && !flash_attn && !(ik && latent) {
        return Err(FootprintError::QuantizedVWithoutFlashAttention { ty: v });
    }
    for (layer, k_head, v_head, k_row) in model.layers.iter().enumerate().filter_map(|(i, layer)| widths(i, &layer.mixer)) {
        // With flash attention a head must be whole blocks, without it a row must be.
        let (k_width, v_width) = if flash_attn { (k_head, v_head) } else { (k_row, 0) };
        check_block("K", k, k_width, layer)?;
        check_block("V", v, v_width, layer)?;
    }
    Ok(())
}

/// Layer, width of a K head, of a V head, and of a K row.
fn widths(layer: usize, mixer: &Mixer) -> Option<(usize, u64, u64, u64)> {
    match mixer {
        Mixer::Attention(a) | Mixer::Both(a, _) => Some((layer, u64::from(a.head_dim_k), u64::from(a.head_dim_v), a.k_width())),
        Mixer::Mla(m) => {
            let k = u64::from(m.kv_lora_rank) + u64::from(m.rope_dim);
            Some((layer, k, u64::from(m.kv_lora_rank), k))
        }
        Mixer::Compressed(a) => Some((layer, u64::from(a.head_dim), u64::from(a.head_dim), u64::from(a.head_dim))),
        Mixer::Recurrent(_) | Mixer::None => None,
    }
}

fn check_block(cache: &'static str, ty: QuantType, width: u64, layer: usize) -> Result<(), FootprintError> {
    let block = ty.block().weights;
    if width.is_multiple_of(block) { Ok(()) } else { Err(FootprintError::CacheBlock { cache, ty, block, width, layer }) }
}

fn padded(setting: &'static str, value: u64, padding: u64) -> Result<u64, FootprintError> {
    at_most(setting, value.next_multiple_of(padding.max(1)))
}

fn at_most(setting: &'static str, value: u64) -> Result<u64, FootprintError> {
    if value > MAX_CONTEXT { Err(FootprintError::TooLarge { setting, most: MAX_CONTEXT, value }) } else { Ok(value) }
}

/// A number of cells that [`at_most`] has let through.
fn narrow(cells: u64) -> u32 {
    u32::try_from(cells).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{attention, model};
    use spec::model::Mla;

    fn resolved(settings: &Settings) -> Result<ResolvedContext, FootprintError> {
        resolve(&model([attention(8, 64, None)]), settings, &EngineProfile::bundled())
    }

    #[test]
    fn contexts_are_padded_and_divided() {
        let context = resolved(&Settings { n_ctx: 10_000, n_parallel: 4, n_ubatch: 0, ..Settings::default() }).unwrap();
        assert_eq!((context.n_ctx, context.n_ctx_seq, context.n_batch, context.n_ubatch), (10_240, 2560, 2048, 2048));
        let context = resolved(&Settings { n_ctx: 100, n_parallel: 4, kv_unified: true, ..Settings::default() }).unwrap();
        assert_eq!((context.n_ctx, context.n_ctx_seq, context.n_batch, context.n_outputs), (256, 256, 100, 4));
        let context = resolved(&Settings { n_ctx: 0, ..Settings::default() }).unwrap();
        assert_eq!(context.n_ctx, 32768);
    }

    #[test]
    fn what_the_engine_refuses_has_a_reason() {
        let reason = |settings: Settings| resolved(&settings).unwrap_err().to_string();
        let base = Settings::default;
        let q4 = QuantType::Q4_0;
        let off = FlashAttention::Off;
        let reasons = [
            reason(Settings { n_parallel: 0, ..base() }),
            reason(Settings { n_parallel: 257, ..base() }),
            reason(Settings { n_batch: 0, ..base() }),
            reason(Settings { n_ctx: u32::MAX, ..base() }),
            reason(Settings { cache_type_v: q4, flash_attn: off, ..base() }),
            reason(Settings { cache_type_k: QuantType::Q6_K, ..base() }),
        ];
        insta::assert_snapshot!(reasons.join("\n"), @r"
        n_parallel must be above zero
        n_parallel must be 256 or less: 257
        n_batch must be above zero
        n_ctx must be 4294967040 or less: 4294967296
        a quantised V cache needs flash attention: q4_0 with -fa off; use -fa on, or f16
        K cache cannot be of type q6_K; the engine takes f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0, q5_1
        ");
        let mut untrained = model([attention(8, 80, None)]);
        untrained.n_ctx_train = None;
        let refused = |settings: Settings| resolve(&untrained, &settings, &EngineProfile::bundled()).unwrap_err();
        assert_eq!(refused(Settings { n_ctx: 0, ..base() }), FootprintError::TrainedContextUnknown);
        assert_eq!(
            refused(Settings { cache_type_k: q4, ..base() }),
            FootprintError::CacheBlock { cache: "K", ty: q4, block: 32, width: 80, layer: 0 }
        );
        let bench = resolve(&untrained, &Settings { n_batch: 2, n_parallel: 4, ..base() }, &EngineProfile::bench_0_7());
        assert_eq!(bench, Err(FootprintError::BatchBelowSequences { n_batch: 2, n_parallel: 4 }));
        let mut linear = model([attention(8, 64, None)]);
        linear.architecture = "minimax-01".into();
        let uneven = |kv_unified| resolve(&linear, &Settings { n_parallel: 3, kv_unified, ..base() }, &EngineProfile::bundled());
        assert_eq!(uneven(false), Err(FootprintError::UnevenSequences { n_ubatch: 512, n_parallel: 3 }));
        assert!(uneven(true).is_ok());
        let latent = model([Mixer::Mla(Mla {
            n_head: 1,
            kv_lora_rank: 512,
            rope_dim: 64,
            q_lora_rank: 0,
            head_dim_k: 192,
            head_dim_v: 128,
            indexer: None,
        })]);
        let settings = Settings { cache_type_k: QuantType::Q8_0, ..base() };
        let different = FootprintError::DifferentCacheTypes { k: QuantType::Q8_0, v: QuantType::F16 };
        assert_eq!(resolve(&latent, &settings, &EngineProfile::bundled()), Err(different));
    }
}
