//! Contexts whose caches of layers do not lie powers of two apart in the host's memory.
//!
//! llama.cpp keeps keys and values of all layers in one buffer, each behind the other. Where each has a multiple of 64 MiB, a token of qwen3-0.6b
//! behind 1,536 to 2,048 others took 1.2 to 1.3 times as long on two cores of a Zen 4 as with 256 tokens more of context; one of llama-3.2-1b,
//! of which attention is a smaller part, 1.06 times (llama.cpp 0.7.0, `scripts/plans/contexts.py`; PLANS.md has the figures). At multiples of
//! 32 MiB the difference was not clear.

use super::needs::Needs;
use super::site::Site;
use spec::{Bytes, QuantType};

/// Distances of which no multiple is taken.
const DISTANCE: Bytes = Bytes::from_mib(64);

/// What a context grows by: a block of the cache.
const BLOCK: u32 = 256;

impl Site<'_> {
    /// The context, or one block per slot more, on the CPU alone and where the trained context allows it.
    pub(crate) fn apart(&self, n_ctx: u32, cache: QuantType) -> u32 {
        let llama = self.request.profile.bitnet.is_none() && !self.wants_devices();
        if !llama || self.request.pins.n_ctx.is_some() {
            return n_ctx;
        }
        let slots = Needs::slots(self.request, self.model).max(1);
        let cells = u64::from(n_ctx / slots);
        let layers = self.inventory.layers.iter().filter(|layer| layer.window.is_none());
        let rows = layers.flat_map(|layer| [layer.k_width, layer.v_width]).filter_map(|width| cache.row_bytes(width));
        let mut sizes = rows.map(|row| row.times(cells)).filter(|size| !size.is_zero());
        let more = n_ctx.saturating_add(BLOCK.saturating_mul(slots));
        let allowed = self.trained_context().is_none_or(|trained| more <= trained);
        if allowed && sizes.any(|size| size.get().is_multiple_of(DISTANCE.get())) { more } else { n_ctx }
    }
}
