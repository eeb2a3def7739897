//! What each use case asks for, in numbers.

use super::request::{DevicePreference, Priority, Request, UseCase};
use spec::Model;

/// What a use case asks for and what it can do without.
///
/// | use case | context wanted | still enough | floor | quantised cache |
/// |---|---|---|---|---|
/// | general | 16384 | 8192 | 2048 | q8_0, last |
/// | long-context | 131072 | 32768 | 8192 | q8_0, last |
/// | speed | 8192 | 4096 | 2048 | q8_0, to keep all layers on the GPU |
/// | quality | 16384 | 8192 | 2048 | never |
///
/// All cut to the trained context, and times the slots where the user has pinned several with a cache of their own.
/// Between wanted and enough the planner chooses freely (to keep all layers on the GPU);
/// below enough is a downgrade, and below the floor there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) want: u32,
    pub(crate) enough: u32,
    pub(crate) floor: u32,
    /// The cache may go down to q8_0; never below.
    pub(crate) quantised_cache: bool,
    /// A quantised cache and a short context come before layers on the CPU.
    pub(crate) gpu_first: bool,
    /// Prompt and output of a typical request, in tokens.
    pub(crate) prompt: u32,
    pub(crate) output: u32,
}

/// Context of models that do not state what they were trained for.
const UNSTATED_CONTEXT: u32 = 4096;

impl Needs {
    pub(crate) fn of(request: &Request, model: &Model) -> Self {
        let (want, enough, floor, prompt, output) = match request.use_case {
            UseCase::General | UseCase::Quality => (16384, 8192, 2048, 2048, 256),
            UseCase::LongContext => (131_072, 32768, 8192, 16384, 512),
            UseCase::Speed => (8192, 4096, 2048, 512, 256),
        };
        let trained = model.n_ctx_train.filter(|&n| n > 0).unwrap_or(UNSTATED_CONTEXT);
        let slots = Self::slots(request);
        let context = |n_ctx: u32| Self::whole_blocks(trained.min(n_ctx)).saturating_mul(slots);
        Self {
            want: context(want),
            enough: context(enough),
            floor: context(floor),
            quantised_cache: request.use_case != UseCase::Quality,
            gpu_first: request.use_case == UseCase::Speed || request.preferences.device == DevicePreference::Gpu,
            prompt,
            output,
        }
    }

    /// Slots with a cache of their own: each has a share of the context.
    pub(crate) fn slots(request: &Request) -> u32 {
        let shared = request.pins.kv_unified.unwrap_or(request.preferences.priority == Priority::Throughput);
        if shared { 1 } else { request.pins.n_parallel.unwrap_or(1).max(1) }
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
