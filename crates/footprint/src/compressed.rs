//! What DeepSeek V4 caches beside whole rows: rows that stand for several tokens, and the tokens that the next of them will be
//! made of.
//!
//! Upstream: `src/llama-kv-cache-dsv4.cpp:22, 1238-1345` (caches) and `:868-960` (states). Every sequence has rows and states of
//! its own, even where sequences share a cache elsewhere.

use spec::Model;
use spec::model::{Compressed, Compression, Mixer};

/// Rows of one sequence: a multiple of 256, as attention wants it.
pub(crate) fn rows(n_ctx_seq: u64, ratio: u32) -> u64 {
    n_ctx_seq.div_ceil(u64::from(ratio).max(1)).max(1).next_multiple_of(256)
}

/// Tokens that are kept, as projected keys and as scores, until their row is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Elements of one token's keys, and of its scores.
    pub(crate) width: u64,
    /// Tokens of one sequence.
    pub(crate) tokens: u64,
}

impl Pending {
    /// Of rows of `head_dim`; where these overlap, a token is part of two.
    pub(crate) fn of(compression: &Compression, head_dim: u32) -> Self {
        let each = if compression.indexer.is_some() { 2 } else { 1 };
        Self { width: u64::from(head_dim) * each, tokens: u64::from(compression.ratio) * each }
    }
}

/// What a layer keeps of tokens whose rows are not complete: for attention and, where it has one, for its indexer.
pub(crate) fn pending(attention: &Compressed) -> impl Iterator<Item = Pending> {
    attention.beyond.iter().flat_map(|beyond| {
        let index = beyond.indexer.as_ref().map(|indexer| Pending::of(beyond, indexer.head_dim));
        [Some(Pending::of(beyond, attention.head_dim)), index].into_iter().flatten()
    })
}

/// True where the model caches such rows.
pub(crate) fn compresses(model: &Model) -> bool {
    model.layers.iter().any(|layer| matches!(layer.mixer, Mixer::Compressed(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{context, model, target};
    use crate::{kv_cache, state};
    use spec::model::Indexer;
    use spec::{Bytes, Settings};

    fn layer(ratio: Option<u32>) -> Mixer {
        let indexer = Indexer { n_head: 64, head_dim: 128, top_k: 512, own_keys: true };
        let beyond = ratio.map(|ratio| Compression { ratio, indexer: (ratio == 4).then(|| indexer.clone()) });
        Mixer::Compressed(Compressed { n_head: 64, head_dim: 512, window: 128, beyond })
    }

    /// 8448 cells of the window in 43 layers: logged 354.75 MiB (llama.cpp issue 27872).
    #[test]
    fn windows_of_all_layers() {
        let model = model(vec![layer(None); 43]);
        let bytes = kv_cache::kv_cache(&model, &Settings::default(), &target(&[]), &context(65_536, 8192), &[None; 44]).host;
        assert_eq!(bytes, Bytes::from_kib(363_264));
    }

    #[test]
    fn rows_and_incomplete_ones_of_each_sequence() {
        let of = |ratio, n_parallel| {
            let (model, settings) = (model([layer(Some(ratio))]), Settings { n_parallel, kv_unified: true, ..Settings::default() });
            let (context, layers) = (context(4096, 512), [None; 2]);
            let cache = kv_cache::kv_cache(&model, &settings, &target(&[]), &context, &layers).host.get();
            (cache, state::state(&model, &settings, &target(&[]), &context, &layers).host.get())
        };
        let window = 768 * 512 * 2;
        assert_eq!(of(4, 1), (window + 1024 * (512 + 128) * 2, 2 * 8 * (1024 + 256) * 4));
        assert_eq!(of(128, 1), (window + 256 * 512 * 2, 2 * 128 * 512 * 4));
        assert_eq!(of(128, 3), (3 * of(128, 1).0, 3 * of(128, 1).1), "unified or not");
    }

    #[test]
    fn rows_are_whole_pages_of_256() {
        assert_eq!([(4, 1), (1024, 4), (1028, 4), (131_072, 128)].map(|(n_ctx, ratio)| rows(n_ctx, ratio)), [256, 256, 512, 1024]);
    }
}
