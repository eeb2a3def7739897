//! What mixes tokens in each layer, family by family.

use super::error::DescribeError;
use super::family::{Family, Layout};
use super::figures::Figures;
use super::keys::Keys;
use super::state;
use super::window::{Rule, windows};
use spec::model::{Attention, Compressed, Compression, Indexer, Mixer, Mla};

/// The mixer of every layer, by the rules of a known family.
pub(super) fn mixers(keys: &Keys<'_>, figures: &Figures, family: Family) -> Result<Vec<Mixer>, DescribeError> {
    match family {
        Family::Transformer(rule) | Family::Encoder(rule) => {
            need_heads(keys, figures)?;
            attention(figures, &windows(keys, figures, rule)?)
        }
        Family::SharedCache(rule) => {
            need_heads(keys, figures)?;
            let mixers = attention(figures, &windows(keys, figures, rule)?)?;
            shared_cache(keys, figures, mixers)
        }
        Family::Latent => latent(keys, figures),
        Family::IndexedLatent => indexed(keys, figures),
        Family::Compressed => compressed(keys, figures),
        Family::Recurrent => {
            let state = state::need(keys, figures)?;
            Ok(vec![Mixer::Recurrent(state); figures.n_layer_all as usize])
        }
        Family::Hybrid(layout) => hybrid(keys, figures, layout),
    }
}

fn need_heads(keys: &Keys<'_>, figures: &Figures) -> Result<(), DescribeError> {
    // Deci leaves single layers without heads, but never all of them.
    if figures.n_head.iter().all(|&heads| heads == 0) {
        return Err(DescribeError::MissingKey { key: keys.full("attention.head_count") });
    }
    Ok(())
}

/// Attention in every layer that has heads.
pub(super) fn attention(figures: &Figures, windows: &[Option<u32>]) -> Result<Vec<Mixer>, DescribeError> {
    let heads = figures.n_head.iter().zip(&figures.n_head_kv);
    Ok(heads.zip(windows).map(|((&n_head, &n_head_kv), &window)| one_attention(figures, n_head, n_head_kv, window)).collect())
}

fn one_attention(figures: &Figures, n_head: u32, n_head_kv: u32, window: Option<u32>) -> Mixer {
    if n_head == 0 || n_head_kv == 0 {
        return Mixer::None;
    }
    let (head_dim_k, head_dim_v) = if window.is_some() { figures.head_window } else { figures.head_full };
    Mixer::Attention(Attention { n_head, n_head_kv, head_dim_k, head_dim_v, window, shares_kv_of: None })
}

/// The last layers of Gemma 3n and 4 read the cache of the last layer of their kind that keeps one
/// (`llama_model::create_memory`, `src/llama-model.cpp:2790`).
fn shared_cache(keys: &Keys<'_>, figures: &Figures, mut mixers: Vec<Mixer>) -> Result<Vec<Mixer>, DescribeError> {
    let own = if keys.architecture == "gemma3n" {
        20
    } else {
        let shared = keys.count("attention.shared_kv_layers")?.unwrap_or(0);
        figures.n_layer_all.saturating_sub(shared)
    };
    for mixer in mixers.iter_mut().skip(own as usize) {
        if let Mixer::Attention(attention) = mixer {
            let back = if attention.window.is_some() { 2 } else { 1 };
            attention.shares_kv_of = own.checked_sub(back);
        }
    }
    Ok(mixers)
}

/// DeepSeek's latent attention where the file has the split projections, else its attention with whole heads
/// (`llama_hparams::is_mla`).
pub(super) fn latent(keys: &Keys<'_>, figures: &Figures) -> Result<Vec<Mixer>, DescribeError> {
    let kv_lora_rank = keys.need("attention.kv_lora_rank")?;
    need_heads(keys, figures)?;
    let (Some(head_dim_k), Some(head_dim_v)) = (keys.count("attention.key_length_mla")?, keys.count("attention.value_length_mla")?) else {
        return attention(figures, &windows(keys, figures, Rule::None)?);
    };
    let q_lora_rank = keys.count("attention.q_lora_rank")?.unwrap_or(0);
    // A row of the cache is as wide as the file's key: the compressed part and the rotary one.
    let rope_dim = match figures.head_full.0.checked_sub(kv_lora_rank) {
        Some(width) if width > 0 => width,
        _ => keys.need("rope.dimension_count")?,
    };
    let layer = |&n_head: &u32| Mla { n_head, kv_lora_rank, rope_dim, q_lora_rank, head_dim_k, head_dim_v, indexer: None };
    Ok(figures.n_head.iter().map(layer).map(Mixer::Mla).collect())
}

/// Latent attention over tokens that an indexer has chosen.
fn indexed(keys: &Keys<'_>, figures: &Figures) -> Result<Vec<Mixer>, DescribeError> {
    for key in ["attention.q_lora_rank", "attention.key_length_mla", "attention.value_length_mla"] {
        keys.need(key)?;
    }
    let indexer = indexer(keys)?;
    let own_keys = indexers(keys, figures)?;
    let mut mixers = latent(keys, figures)?;
    for (layer, mixer) in mixers.iter_mut().enumerate().take(figures.n_layer() as usize) {
        if let Mixer::Mla(attention) = mixer {
            let own_keys = own_keys.get(layer).copied().unwrap_or(true);
            attention.indexer = Some(Indexer { own_keys, ..indexer.clone() });
        }
    }
    Ok(mixers)
}

/// The indexer that all layers with one have, with keys of its own.
fn indexer(keys: &Keys<'_>) -> Result<Indexer, DescribeError> {
    let [n_head, head_dim, top_k] =
        ["head_count", "key_length", "top_k"].map(|key| keys.need_within(&format!("attention.indexer.{key}"), 1, u32::MAX));
    Ok(Indexer { n_head: n_head?, head_dim: head_dim?, top_k: top_k?, own_keys: true })
}

/// A window in every layer and, by the ratio listed for it, rows that stand for 4 tokens, from which an indexer chooses, or for
/// 128 (`src/models/deepseek4.cpp:17-90, 130-150`).
fn compressed(keys: &Keys<'_>, figures: &Figures) -> Result<Vec<Mixer>, DescribeError> {
    const RATIOS: &str = "attention.compress_ratios";
    need_heads(keys, figures)?;
    for key in ["attention.q_lora_rank", "attention.output_group_count", "attention.output_lora_rank", "hyper_connection.count"] {
        keys.need_within(key, 1, u32::MAX)?;
    }
    let window = keys.need("attention.sliding_window")?;
    let indexer = indexer(keys)?;
    let ratios = keys.need_listed(RATIOS, figures.n_layer_all)?;
    let beyond = |&ratio: &u32| match ratio {
        0 => Ok(None),
        4 => Ok(Some(Compression { ratio, indexer: Some(indexer.clone()) })),
        128 => Ok(Some(Compression { ratio, indexer: None })),
        _ => Err(DescribeError::OutOfRange { key: keys.full(RATIOS), low: 0, high: 128, value: ratio.into() }),
    };
    let layer =
        |(&n_head, ratio)| Ok(Mixer::Compressed(Compressed { n_head, head_dim: figures.head_full.0, window, beyond: beyond(ratio)? }));
    figures.n_head.iter().zip(&ratios).map(layer).collect()
}

/// Layers with an indexer of their own; beyond the list, all. GLM-5.2 is told from its predecessors by its context, and
/// follows a fixed pattern where its file lists none (`src/models/glm-dsa.cpp:7-70`).
fn indexers(keys: &Keys<'_>, figures: &Figures) -> Result<Vec<bool>, DescribeError> {
    if keys.architecture != "glm-dsa" {
        return Ok(Vec::new());
    }
    if let Some(flags) = keys.flags("attention.indexer.types", figures.n_layer())? {
        return Ok(flags);
    }
    if figures.n_ctx_train.is_none_or(|tokens| tokens < 1_048_576) {
        return Ok(Vec::new());
    }
    Ok((0..figures.n_layer()).map(|layer| layer < 2 || layer % 4 == 2).collect())
}

fn hybrid(keys: &Keys<'_>, figures: &Figures, layout: Layout) -> Result<Vec<Mixer>, DescribeError> {
    let state = state::need(keys, figures)?;
    let rule = if let Layout::WithoutKvHeads(rule) = layout { rule } else { Rule::None };
    let windows = windows(keys, figures, rule)?;
    let mut mixers = if layout == Layout::LatentWithKvHeads { latent(keys, figures)? } else { attention(figures, &windows)? };
    let interval = if let Layout::AllButEvery(default) = layout { intervals(keys, figures, default)? } else { Vec::new() };
    for (layer, mixer) in mixers.iter_mut().enumerate() {
        let trunk = layer < figures.n_layer() as usize;
        let no_kv = figures.n_head_kv.get(layer) == Some(&0);
        let no_feed_forward = figures.n_ff.get(layer) == Some(&0);
        let recurrent = trunk
            && match layout {
                Layout::WithoutKvHeads(_) | Layout::LatentWithKvHeads => no_kv,
                Layout::WithoutKvHeadsOrFeedForward => no_kv && no_feed_forward,
                Layout::AllButEvery(_) => interval.get(layer) == Some(&true),
                Layout::Both => true,
            };
        *mixer = match (&*mixer, layout) {
            (Mixer::Attention(attention), Layout::Both) if recurrent => Mixer::Both(attention.clone(), state.clone()),
            _ if recurrent => Mixer::Recurrent(state.clone()),
            (_, Layout::WithoutKvHeadsOrFeedForward) if trunk && !no_feed_forward => Mixer::None,
            (kept, _) => kept.clone(),
        };
    }
    Ok(mixers)
}

/// True for recurrent layers.
fn intervals(keys: &Keys<'_>, figures: &Figures, default: u32) -> Result<Vec<bool>, DescribeError> {
    const LISTED: &str = "attention.recurrent_layers";
    if let Some(flags) = keys.flags(LISTED, figures.n_layer_all)? {
        return Ok(flags);
    }
    let every = match keys.count("full_attention_interval")?.unwrap_or(default) {
        0 => return Err(DescribeError::OutOfRange { key: keys.full("full_attention_interval"), low: 1, high: 512, value: 0 }),
        every => every,
    };
    Ok((1..=figures.n_layer_all).map(|number| !number.is_multiple_of(every)).collect())
}
