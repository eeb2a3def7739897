//! What transforms each token in every layer, read off the tensors that are there.
//!
//! The stacked weights of experts are `[n_ff, n_embd, n_expert]` for `ffn_down_exps`, those of dense blocks
//! `[n_ff, n_embd]` for `ffn_down` (`src/models/*.cpp` of llama.cpp), in every architecture: so leading dense layers,
//! interleaved experts and widths that differ by layer need no rule of their own.

use super::error::DescribeError;
use super::figures::Figures;
use super::keys::Keys;
use spec::model::{Experts, FeedForward, Tensor};

/// Extents that matter, of one layer.
#[derive(Clone, Default)]
struct Found {
    dense: Option<u64>,
    /// Width and number.
    experts: Option<(u64, u64)>,
    shared: Option<u64>,
}

/// The feed-forward block of every layer.
pub(super) fn feed_forward(keys: &Keys<'_>, figures: &Figures, tensors: &[Tensor]) -> Result<Vec<FeedForward>, DescribeError> {
    let mut layers = vec![Found::default(); figures.n_layer_all as usize];
    for tensor in tensors {
        let Some(found) = tensor.layer().and_then(|layer| layers.get_mut(layer as usize)) else { continue };
        let [width, _, count, _] = tensor.shape;
        match tensor.name.splitn(3, '.').nth(2).unwrap_or("") {
            "ffn_down.weight" | "channel_mix_value.weight" => found.dense = Some(width),
            "ffn_down_exps.weight" => found.experts = Some((width, count)),
            "ffn_down_shexp.weight" => found.shared = Some(width),
            _ => {}
        }
    }
    let shared = keys.count("expert_shared_count")?;
    Ok(layers.iter().zip(&figures.n_expert_used).map(|(found, &used)| block(found, used, shared)).collect())
}

fn block(found: &Found, used: u32, shared: Option<u32>) -> FeedForward {
    let Some((n_ff, count)) = found.experts else {
        return found.dense.map_or(FeedForward::None, |n_ff| FeedForward::Dense { n_ff });
    };
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    // A dense block beside experts (Arctic, Gemma 4) is one more expert that every token visits.
    let (shared, n_ff_shared) = match (found.shared, found.dense) {
        (Some(width), None) => (shared.unwrap_or(1), width),
        (Some(width), Some(dense)) => (shared.unwrap_or(1).saturating_add(1), width.saturating_add(dense)),
        (None, Some(dense)) => (1, dense),
        (None, None) => (0, 0),
    };
    FeedForward::Experts(Experts { count, used: used.min(count), shared, n_ff, n_ff_shared })
}
