//! Architectures that are not known by name: layers guessed from the keys that most of them share.

use super::error::DescribeError;
use super::figures::Figures;
use super::keys::Keys;
use super::mixers;
use super::state;
use super::window::{Pattern, Rule, windows};
use spec::model::{Mixer, Tensor};
use std::collections::BTreeSet;

/// The mixer of every layer, as far as generic keys and tensor names tell. Where nothing tells, attention that sees
/// everything: the choice that takes most memory.
pub(super) fn mixers(keys: &Keys<'_>, figures: &Figures, tensors: &[Tensor]) -> Result<Vec<Mixer>, DescribeError> {
    let listed = keys.get(&keys.full("attention.sliding_window_pattern")).is_some();
    let rule = if listed { Rule::Optional(Pattern::Period { layers: 1, full_first: false }) } else { Rule::None };
    let mla = keys.get(&keys.full("attention.kv_lora_rank")).is_some() && keys.get(&keys.full("attention.key_length_mla")).is_some();
    let mut mixers = if mla { mixers::latent(keys, figures)? } else { mixers::attention(figures, &windows(keys, figures, rule)?)? };
    if let Some(state) = state::state(keys, figures)? {
        let with_state = layers_named(tensors, &["ssm_", "time_mix_", "shortconv"]);
        let with_attention = layers_named(tensors, &["attn_k.", "attn_qkv.", "attn_kv_a_mqa."]);
        for (layer, mixer) in (0..).zip(&mut mixers) {
            let no_kv = figures.n_head_kv.get(layer as usize) == Some(&0);
            let alone = no_kv || !with_attention.contains(&layer);
            *mixer = match &*mixer {
                kept if !with_state.contains(&layer) => kept.clone(),
                Mixer::Attention(attention) if !alone => Mixer::Both(attention.clone(), state.clone()),
                kept if !alone => kept.clone(),
                _ => Mixer::Recurrent(state.clone()),
            };
        }
    }
    Ok(mixers)
}

/// Layers with a tensor whose name, after `blk.N.`, begins in one of these ways.
fn layers_named(tensors: &[Tensor], starts: &[&str]) -> BTreeSet<u32> {
    let named = |tensor: &&Tensor| {
        let rest = tensor.name.splitn(3, '.').nth(2).unwrap_or("");
        starts.iter().any(|start| rest.starts_with(start))
    };
    tensors.iter().filter(named).filter_map(Tensor::layer).collect()
}
