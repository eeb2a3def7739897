//! Whole layers on every device of the driver and on the pretended one, on the cases that every device is held to
//! (`bitnet/tests/models/stacks.rs`), and what is this backend's alone.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot be set up has failed, and says when it is left out")]

#[path = "../../bitnet/tests/models/mod.rs"]
mod models;
mod pretended;

use bitnet::{CacheType, Session, StackError, Weights};
use cuda::{Gpu, GpuError, Sizes, Stack};
use models::cases;
use models::stacks::{self, BOUND, Device, load, options, worst};
use spec::Bytes;
use std::ops::Range;
use std::sync::Arc;

struct Card(Arc<Gpu>);

impl Device for Card {
    type Stack = Stack;

    fn name(&self) -> &str {
        self.0.name()
    }
    fn stack(&self, weights: &Weights, layers: Range<usize>, sizes: Sizes) -> Result<Stack, StackError> {
        Ok(Stack::new(Arc::clone(&self.0), weights, layers, sizes)?)
    }
    fn tokens(stack: &Stack) -> usize {
        stack.tokens()
    }
    fn resize(stack: &mut Stack, tokens: usize) -> Result<(), StackError> {
        Ok(stack.resize(tokens)?)
    }
    fn held(&self) -> Bytes {
        self.0.held()
    }
    fn needed(&self, part: &workspace::Stack, sizes: Sizes) -> Bytes {
        Stack::bytes(part, sizes).unwrap().total()
    }
}

/// Every device there is.
fn devices() -> Vec<Card> {
    let opened = cuda::list().iter().map(cuda::Adapter::open).collect::<Result<Vec<_>, _>>();
    match opened {
        Ok(devices) if devices.is_empty() => eprintln!("SKIPPED: no CUDA device"),
        Ok(devices) => return devices.into_iter().map(|gpu| Card(Arc::new(gpu))).collect(),
        Err(error @ (GpuError::Old { .. } | GpuError::Compiler { .. })) => eprintln!("SKIPPED: {error}"),
        Err(error) => panic!("{error}"),
    }
    Vec::new()
}

/// In both orders of its threads all logits are the same: no kernel depends on who comes first.
#[test]
fn all_again_on_the_pretended_device() {
    let Some(folder) = pretended::driver().filter(|_| !pretended::is_again()) else { return };
    let sums = ["forward", "mixed"].map(|order| {
        // The rest does not depend on the order more than this does, and takes its time.
        let filter = if order == "forward" { "" } else { "logits_and_greedy" };
        let said = pretended::again(folder.path(), filter, &[("PRETENDED_ORDER", order)]);
        let sums: Vec<String> = said.lines().filter(|line| line.contains("logits sum up to")).map(str::to_owned).collect();
        assert!(!sums.is_empty(), "{said}");
        sums
    });
    assert!(sums.iter().all(|other| *other == sums[0]), "{sums:#?}");
}

#[test]
fn logits_and_greedy_continuations_are_those_of_transformers() {
    for device in devices() {
        let sum = stacks::logits_and_greedy_continuations_are_those_of_transformers(&device);
        eprintln!("{}: logits sum up to {sum:016x}", device.name());
    }
}

#[test]
fn prompts_in_any_batches_give_what_single_tokens_give() {
    devices().iter().for_each(|device| stacks::prompts_in_any_batches_give_what_single_tokens_give(device, &[(1, 1), (5, 2), (64, 64)]));
}

#[test]
fn heads_of_every_type_are_the_cpus() {
    devices().iter().for_each(stacks::heads_of_every_type_are_the_cpus);
}

#[test]
fn logits_that_cannot_be_are_an_error() {
    devices().iter().for_each(stacks::logits_that_cannot_be_are_an_error);
}

#[test]
fn a_rewound_context_forgets_and_halves_are_near() {
    devices().iter().for_each(stacks::a_rewound_context_forgets_and_halves_are_near);
}

#[test]
fn long_contexts_are_the_cpus() {
    devices().iter().for_each(|device| stacks::long_contexts_are_the_cpus(device, 140));
}

#[test]
fn what_cannot_be_is_an_error_that_names_it() {
    devices().iter().for_each(stacks::what_cannot_be_is_an_error_that_names_it);
}

#[test]
fn a_batch_that_changes_forgets_nothing() {
    devices().iter().for_each(stacks::a_batch_that_changes_forgets_nothing);
}

/// Memory for less than a batch makes it smaller, and no memory for one token is an error that leaves nothing behind.
#[test]
fn little_memory_makes_batches_smaller() {
    for adapter in cuda::list() {
        let weights = load(&cases()[0]);
        let tokens = &cases()[0].tokens;
        let sizes = Sizes { n_ctx: 40, tokens: 64, cache: CacheType::F32 };
        let Ok(open) = adapter.open() else { continue };
        let needed = |tokens| Stack::bytes(&weights.part(0..2).unwrap().1, Sizes { tokens, ..sizes }).unwrap().total();
        let small = Arc::new(open.with_budget(Some(needed(9))));
        let stack = Stack::new(Arc::clone(&small), &weights, 0..2, sizes).unwrap();
        assert_eq!(stack.tokens(), 8);
        assert_eq!(small.held(), needed(8));
        let mut session = Session::with_device(Arc::clone(&weights), options(), Some(Box::new(stack))).unwrap();
        assert!(worst(session.extend(tokens).unwrap(), &cases()[0].logits[tokens.len() - 1]) <= BOUND);
        drop(session);
        let tiny = Arc::new(adapter.open().unwrap().with_budget(Some(needed(1).saturating_sub(Bytes::new(1)))));
        let error = Stack::new(Arc::clone(&tiny), &weights, 0..2, sizes).unwrap_err();
        assert!(matches!(error, GpuError::OutOfMemory { .. }), "{error}");
        assert_eq!(tiny.held(), Bytes::ZERO);
    }
}

/// Memory for no more than so many: the batch is what there is room for, and none where there is none.
#[test]
fn a_batch_grows_as_far_as_memory_goes() {
    for Card(gpu) in devices() {
        let weights = load(&cases().remove(0));
        let config = weights.config();
        let sizes = Sizes { n_ctx: 40, tokens: 3, cache: CacheType::F32 };
        let name = gpu.name().to_owned();
        let Ok(gpu) = Arc::try_unwrap(gpu) else { panic!("{name} is held") };
        let room = Stack::bytes(&weights.part(0..config.n_layer).unwrap().1, Sizes { tokens: 11, ..sizes }).unwrap().total();
        let gpu = Arc::new(gpu.with_budget(Some(room)));
        let mut stack = Stack::new(Arc::clone(&gpu), &weights, 0..config.n_layer, sizes).unwrap();
        // Halved until there is room.
        stack.resize(40).unwrap();
        assert_eq!(stack.tokens(), 10);
        assert!(gpu.held() <= room);
    }
}
