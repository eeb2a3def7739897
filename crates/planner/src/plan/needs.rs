//! What each use case asks for, in numbers.

use super::request::{DevicePreference, Priority, Request};
use crate::workload::{Demand, Workload};
use spec::{Model, QuantType};

/// What a request asks for of one model: its demand, with contexts over all slots and cut to the trained one.
///
/// Slots with a cache of their own have the demanded context each. Slots that share one have it together, and never less than all
/// their requests take at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Needs {
    pub(crate) want: u32,
    pub(crate) enough: u32,
    pub(crate) floor: u32,
    /// The coarsest type of the cache.
    pub(crate) cache_floor: QuantType,
    /// A quantised cache and a short context come before layers on the CPU.
    pub(crate) gpu_first: bool,
    /// A typical request.
    pub(crate) workload: Workload,
    /// Seconds from request to first token, at most.
    pub(crate) first_token: Option<f64>,
    /// Tokens per second of one answer, at least.
    pub(crate) min_decode: Option<f64>,
}

/// Context of models that do not state what they were trained for.
const UNSTATED_CONTEXT: u32 = 4096;

impl Needs {
    pub(crate) fn of(request: &Request, model: &Model) -> Self {
        let Demand { workload, want, enough, floor, cache_floor, gpu_first, first_token, min_decode } = request.demand();
        let trained = Self::trained(request, model);
        let slots = Self::slots(request, model);
        let sharing = if Self::unified(request, model) { Self::sequences(request) } else { 1 };
        let context = |n_ctx: u32| {
            let together = if sharing > 1 { workload.tokens().saturating_mul(sharing).min(trained) } else { 0 };
            let most = Self::whole_blocks(trained);
            // No block less than is asked for, and no token more than was trained.
            Self::next_block(trained.min(n_ctx)).max(Self::next_block(together)).min(most).saturating_mul(slots)
        };
        Self {
            want: context(want),
            enough: context(enough),
            floor: context(floor),
            cache_floor,
            gpu_first: gpu_first || request.preferences.device == DevicePreference::Gpu,
            workload,
            first_token,
            min_decode,
        }
    }

    /// Sequences at once: pinned, or one per user.
    pub(crate) fn sequences(request: &Request) -> u32 {
        request.pins.n_parallel.unwrap_or(request.demand().workload.users).max(1)
    }

    /// Whether the sequences share a cache: pinned, or where there are several users and a sequence may be as long as all of
    /// their requests together.
    pub(crate) fn unified(request: &Request, model: &Model) -> bool {
        let demand = request.demand();
        let several = request.pins.n_parallel.is_none() && demand.workload.users > 1;
        let together = demand.workload.tokens().saturating_mul(Self::sequences(request));
        let shared = (several || request.preferences.priority == Priority::Throughput) && together <= Self::trained(request, model);
        request.pins.kv_unified.unwrap_or(shared)
    }

    /// Slots with a cache of their own: each has a share of the context.
    pub(crate) fn slots(request: &Request, model: &Model) -> u32 {
        if Self::unified(request, model) { 1 } else { Self::sequences(request) }
    }

    /// The trained context; of a model that states none, a usual one, or what is asked for at least.
    fn trained(request: &Request, model: &Model) -> u32 {
        model
            .n_ctx_train
            .filter(|&n| n > 0)
            .unwrap_or_else(|| UNSTATED_CONTEXT.max(request.asked.min_context.unwrap_or(0)).max(request.described()))
    }

    /// Rounded up to whole blocks, as the engine does.
    pub(crate) fn next_block(n_ctx: u32) -> u32 {
        if n_ctx < 256 { n_ctx } else { n_ctx.div_ceil(256).saturating_mul(256) }
    }

    /// Rounded down to whole blocks of 256 tokens, to which the engine would round up (`src/llama-context.cpp:292`).
    pub(crate) fn whole_blocks(n_ctx: u32) -> u32 {
        if n_ctx < 256 { n_ctx } else { n_ctx / 256 * 256 }
    }

    /// Contexts from `from` down to `to`, halved each time, `to` included.
    pub(crate) fn halvings(from: u32, to: u32) -> Vec<u32> {
        let mut contexts = Vec::new();
        let mut n_ctx = from;
        while n_ctx > to {
            contexts.push(n_ctx);
            n_ctx = Self::whole_blocks(n_ctx / 2);
        }
        contexts.push(to.min(from));
        contexts
    }
}

#[cfg(test)]
mod tests {
    use super::Needs;

    #[test]
    fn halvings_end_at_the_floor() {
        assert_eq!(Needs::halvings(16384, 8192), [16384, 8192]);
        assert_eq!(Needs::halvings(10240, 4096), [10240, 5120, 4096]);
        assert_eq!(Needs::halvings(2048, 2048), [2048]);
    }
}
