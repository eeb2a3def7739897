//! Whole layers on every adapter there is, on the cases that every device is held to (`bitnet/tests/models/stacks.rs`), and what is this
//! backend's alone.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot be set up has failed, and says when it is left out")]

#[path = "../../bitnet/tests/models/mod.rs"]
mod models;

use bitnet::{CacheType, Session, SessionError, StackError, Weights};
use gpu::{Gpu, GpuError, Sizes, Stack};
use models::stacks::{self, BOUND, Device, load, options, session, worst};
use models::{Case, cases};
use spec::Bytes;
use std::ops::Range;
use std::sync::Arc;

struct Adapter(Arc<Gpu>);

impl Device for Adapter {
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
        Stack::bytes(&self.0, part, sizes).unwrap().total()
    }
}

fn adapters() -> Vec<Adapter> {
    let all: Vec<Adapter> = gpu::list().iter().map(|adapter| Adapter(Arc::new(adapter.open().unwrap()))).collect();
    if all.is_empty() {
        eprintln!("SKIPPED: no adapter here; mesa-vulkan-drivers has one in software");
    }
    all
}

#[test]
fn logits_and_greedy_continuations_are_those_of_transformers() {
    adapters().iter().for_each(|device| {
        stacks::logits_and_greedy_continuations_are_those_of_transformers(device);
    });
}

#[test]
fn prompts_in_any_batches_give_what_single_tokens_give() {
    adapters().iter().for_each(|device| {
        stacks::prompts_in_any_batches_give_what_single_tokens_give(device, &[(1, 1), (3, 3), (5, 2), (64, 4), (64, 64)])
    });
}

#[test]
fn heads_of_every_type_are_the_cpus() {
    adapters().iter().for_each(stacks::heads_of_every_type_are_the_cpus);
}

#[test]
fn logits_that_cannot_be_are_an_error() {
    adapters().iter().for_each(stacks::logits_that_cannot_be_are_an_error);
}

#[test]
fn a_rewound_context_forgets_and_halves_are_near() {
    adapters().iter().for_each(stacks::a_rewound_context_forgets_and_halves_are_near);
}

#[test]
fn long_contexts_are_the_cpus() {
    adapters().iter().for_each(|device| stacks::long_contexts_are_the_cpus(device, 200));
}

#[test]
fn what_cannot_be_is_an_error_that_names_it() {
    adapters().iter().for_each(stacks::what_cannot_be_is_an_error_that_names_it);
}

#[test]
fn a_batch_that_changes_forgets_nothing() {
    adapters().iter().for_each(stacks::a_batch_that_changes_forgets_nothing);
}

/// A table beyond the largest piece of memory that a kernel can be given lies in several.
#[test]
fn a_large_vocabulary_lies_in_pieces() {
    for adapter in adapters() {
        let gpu = &adapter.0;
        let case = cases().remove(0);
        let row = 4 * case.n_embd as u64;
        let n_vocab = 270_000_usize;
        if gpu.largest_piece().get() / row >= n_vocab as u64 {
            eprintln!("SKIPPED: {} takes the table in one piece", gpu.name());
            continue;
        }
        let case = Case { n_vocab, ..case };
        let weights = load(&case);
        let mut here = Session::new(Arc::clone(&weights), options()).unwrap();
        let mut there = session(&adapter, &weights, options(), case.n_layer..case.n_layer + 1, 5);
        let off = worst(there.extend(&[1, n_vocab as u32 - 1]).unwrap(), here.extend(&[1, n_vocab as u32 - 1]).unwrap());
        assert!(off <= BOUND, "{}: {off}", gpu.name());
    }
}

/// Software whose loops end too early is not given a context that is too long for it.
#[test]
fn contexts_that_software_would_compute_wrongly_are_refused() {
    for Adapter(gpu) in adapters().into_iter().filter(|adapter| adapter.0.is_software()) {
        let sizes = Sizes { n_ctx: 1 << 24, tokens: 5, cache: CacheType::F32 };
        let long = Stack::new(gpu, &load(&cases()[0]), 0..2, sizes).unwrap_err().to_string();
        assert!(long.ends_with("tokens rightly"), "{long}");
    }
}

/// Memory for less than a batch makes it smaller; a device that is lost says so, and the session keeps what it had before.
#[test]
fn little_memory_and_lost_devices() {
    for adapter in gpu::list() {
        let weights = load(&cases()[0]);
        let tokens = &cases()[0].tokens;
        let sizes = Sizes { n_ctx: 40, tokens: 64, cache: CacheType::F32 };
        let open = || adapter.open().unwrap();
        let needed = |tokens| Stack::bytes(&open(), &weights.part(0..2).unwrap().1, Sizes { tokens, ..sizes }).unwrap().total();
        let small = Arc::new(open().with_budget(Some(needed(9))));
        let stack = Stack::new(Arc::clone(&small), &weights, 0..2, sizes).unwrap();
        assert_eq!(stack.tokens(), 8);
        assert_eq!(small.held(), needed(8));
        let mut session = Session::with_device(Arc::clone(&weights), options(), Some(Box::new(stack))).unwrap();
        assert!(worst(session.extend(tokens).unwrap(), &cases()[0].logits[tokens.len() - 1]) <= BOUND);
        let tiny = Arc::new(open().with_budget(Some(needed(1).saturating_sub(Bytes::new(1)))));
        let error = Stack::new(Arc::clone(&tiny), &weights, 0..2, sizes).unwrap_err();
        assert!(matches!(error, GpuError::OutOfMemory { .. }), "{error}");
        assert_eq!(tiny.held(), Bytes::ZERO);
        small.lose();
        let error = session.extend(&tokens[..1]).unwrap_err();
        assert!(matches!(error, SessionError::Device(_)) && error.to_string().contains(" is lost: "), "{error}");
        assert_eq!(session.past(), tokens.len());
    }
}

/// Memory for no more than so many: the batch is what there is room for, and none where there is none.
#[test]
fn a_batch_grows_as_far_as_memory_goes() {
    for Adapter(gpu) in adapters() {
        let weights = load(&cases().remove(0));
        let config = weights.config();
        let sizes = Sizes { n_ctx: 40, tokens: 3, cache: CacheType::F32 };
        let name = gpu.name().to_owned();
        let Ok(gpu) = Arc::try_unwrap(gpu) else { panic!("{name} is held") };
        let room = Stack::bytes(&gpu, &weights.part(0..config.n_layer).unwrap().1, Sizes { tokens: 11, ..sizes }).unwrap().total();
        let gpu = Arc::new(gpu.with_budget(Some(room)));
        let mut stack = Stack::new(Arc::clone(&gpu), &weights, 0..config.n_layer, sizes).unwrap();
        // Halved until there is room.
        stack.resize(40).unwrap();
        assert_eq!(stack.tokens(), 10);
        assert!(gpu.held() <= room);
    }
}
