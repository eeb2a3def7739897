//! Whole layers on every device of the driver and on the pretended one, on the cases that the CPU is held to: recorded logits and greedy continuations of transformers,
//! and what the CPU computes.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot be set up has failed, and says when it is left out")]

#[path = "../../bitnet/tests/models/mod.rs"]
mod models;
mod pretended;

use bitnet::{CacheType, HeadType, LoadOptions, Options, Sampler, Sampling, Session, Weights};
use cuda::{Gpu, GpuError, Sizes, Stack};
use models::{Case, Written, cases};
use spec::{Bytes, QuantType};
use std::ops::Range;
use std::sync::Arc;

/// Largest difference of a logit, as on the CPU: for logits of the size of one.
const BOUND: f32 = 1e-5;

/// Every device there is.
fn devices() -> Vec<Arc<Gpu>> {
    let opened = cuda::list().iter().map(cuda::Adapter::open).collect::<Result<Vec<_>, _>>();
    match opened {
        Ok(devices) if devices.is_empty() => eprintln!("SKIPPED: no CUDA device"),
        Ok(devices) => return devices.into_iter().map(Arc::new).collect(),
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

fn load(case: &Case) -> Arc<Weights> {
    let built = case.build(Written::default());
    Arc::new(Weights::load(&built.model, std::slice::from_ref(&built.data), &LoadOptions::default()).unwrap())
}

fn options() -> Options {
    Options { n_ctx: 40, n_ubatch: 5, cache: CacheType::F32, threads: 2 }
}

/// A session whose last `n_layer` layers are on a device, `tokens` of them at a time.
fn session(gpu: &Arc<Gpu>, weights: &Arc<Weights>, options: Options, n_layer: usize, tokens: usize) -> Session {
    let all = weights.config().n_layer;
    with(gpu, weights, options, all - n_layer..all, tokens)
}

/// The same with the layers of a range, in which the output head is the one behind the last.
fn with(gpu: &Arc<Gpu>, weights: &Arc<Weights>, options: Options, layers: Range<usize>, tokens: usize) -> Session {
    let sizes = Sizes { n_ctx: options.n_ctx, tokens, cache: options.cache };
    let stack = Stack::new(Arc::clone(gpu), weights, layers, sizes).unwrap();
    Session::with_device(Arc::clone(weights), options, Some(Box::new(stack))).unwrap()
}

fn argmax(logits: &[f32]) -> u32 {
    Sampler::new(Sampling::default()).next(logits).unwrap()
}

fn worst(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_and_greedy_continuations_are_those_of_transformers() {
    for gpu in devices() {
        let mut sum = 0_u64;
        for case in cases() {
            let weights = load(&case);
            // All layers, the last one only; with the output head, and that alone.
            let all = case.n_layer;
            for layers in [0..all, all - 1..all, 0..all + 1, all - 1..all + 1, all..all + 1] {
                let mut session = with(&gpu, &weights, options(), layers.clone(), 5);
                for (token, expected) in case.tokens.iter().zip(&case.logits) {
                    let found = session.extend(&[*token]).unwrap();
                    sum = found.iter().fold(sum, |sum, x| sum.rotate_left(5).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(x.to_bits()));
                    let off = worst(found, expected);
                    assert!(off <= BOUND, "{}, seed {}, layers {layers:?}: {off}", gpu.name(), case.seed);
                    assert_eq!(argmax(found), argmax(expected));
                }
                let mut next = argmax(session.logits());
                let mut found = Vec::new();
                for _ in &case.greedy {
                    found.push(next);
                    next = argmax(session.extend(&[next]).unwrap());
                }
                assert_eq!(found, case.greedy, "{}, seed {}, layers {layers:?}", gpu.name(), case.seed);
            }
        }
        eprintln!("{}: logits sum up to {sum:016x}", gpu.name());
    }
}

#[test]
fn prompts_in_any_batches_give_what_single_tokens_give() {
    for gpu in devices() {
        for case in cases() {
            let weights = load(&case);
            for (n_ubatch, tokens) in [(1, 1), (5, 2), (64, 64)] {
                for length in [1, 5, 6, case.tokens.len()] {
                    let mut session = session(&gpu, &weights, Options { n_ubatch, ..options() }, 2, tokens);
                    let found = session.extend(&case.tokens[..length]).unwrap();
                    let off = worst(found, &case.logits[length - 1]);
                    assert!(off <= BOUND, "seed {}, {length} tokens by {n_ubatch} and {tokens}: {off}", case.seed);
                }
            }
        }
    }
}

/// The output head in each type, behind prompts of any length: the CPU's logits, which takes tokens in 16 bits for one in `q8_0`.
#[test]
fn heads_of_every_type_are_the_cpus() {
    for gpu in devices() {
        let kinds = [
            (QuantType::F32, HeadType::File),
            (QuantType::F16, HeadType::File),
            (QuantType::BF16, HeadType::File),
            (QuantType::F16, HeadType::Q8_0),
        ];
        for (embedding, head) in kinds {
            let case = cases().remove(0);
            let built = case.build(Written { embedding, ..Written::default() });
            let load = LoadOptions { head, ..LoadOptions::default() };
            let weights = Arc::new(Weights::load(&built.model, std::slice::from_ref(&built.data), &load).unwrap());
            let bound = if head == HeadType::File { BOUND } else { 1e-4 };
            for tokens in [1, 5, 6, 9] {
                let mut here = Session::new(Arc::clone(&weights), options()).unwrap();
                // The layers are the CPU's, so that nothing but the head is another.
                let mut there = with(&gpu, &weights, options(), case.n_layer..case.n_layer + 1, 5);
                let (expected, found) = (here.extend(&case.tokens[..tokens]).unwrap(), there.extend(&case.tokens[..tokens]).unwrap());
                let off = worst(found, expected);
                assert!(
                    off <= bound && found.iter().any(|logit| *logit != 0.0),
                    "{}, {embedding}, {head:?}, {tokens} tokens: {off}",
                    gpu.name()
                );
            }
        }
    }
}

/// What a stack has no head for, and logits of another vocabulary.
#[test]
fn logits_that_cannot_be_are_an_error() {
    for gpu in devices() {
        let weights = load(&cases()[0]);
        let config = weights.config();
        let sizes = Sizes { n_ctx: 40, tokens: 5, cache: CacheType::F32 };
        let mut x = vec![0.5; 2 * config.n_embd];
        let mut refused = |layers, values: usize, logits: usize| {
            let mut stack = Stack::new(Arc::clone(&gpu), &weights, layers, sizes).unwrap();
            stack.add_and_tell(0, &mut x[..values], &mut vec![0.0; logits]).unwrap_err().to_string()
        };
        let (width, n_vocab, all) = (config.n_embd, config.n_vocab, config.n_layer);
        assert_eq!(refused(0..all, width, n_vocab), format!("{n_vocab} logits of a head of 0, behind {width} values"));
        assert_eq!(refused(0..all + 1, width, 3), format!("3 logits of a head of {n_vocab}, behind {width} values"));
        assert_eq!(refused(all..all + 1, 0, n_vocab), format!("{n_vocab} logits of a head of {n_vocab}, behind 0 values"));
    }
}

#[test]
fn a_rewound_context_forgets_and_halves_are_near() {
    for gpu in devices() {
        for case in cases() {
            let weights = load(&case);
            let mut rewound = session(&gpu, &weights, options(), 2, 5);
            rewound.extend(&case.tokens).unwrap();
            rewound.rewind(3);
            assert!(worst(rewound.extend(&case.tokens[3..6]).unwrap(), &case.logits[5]) <= BOUND);
            // Keys and values in 16 bits: as near as the CPU's.
            let mut halves = session(&gpu, &weights, Options { cache: CacheType::F16, ..options() }, 2, 5);
            for (token, expected) in case.tokens.iter().zip(&case.logits) {
                assert!(worst(halves.extend(&[*token]).unwrap(), expected) <= 0.2);
            }
        }
    }
}

/// Contexts beyond the keys that a workgroup takes at a time, and heads of which each invocation has several elements. Sums in another order
/// now and then put a value that is next to a half on its other side, which is worth one of 127 (attention alone is tested without that in `src/stack`).
#[test]
fn long_contexts_are_the_cpus() {
    for gpu in devices() {
        for (case, head_dim) in cases().into_iter().zip([32, 64, 192, 256]) {
            let case = Case { head_dim, ..case };
            let weights = load(&case);
            let options = Options { n_ctx: 150, n_ubatch: 64, ..options() };
            let tokens: Vec<u32> = (0..140).map(|i| (i * i + 7 * i) as u32 % case.n_vocab as u32).collect();
            let mut here = Session::new(Arc::clone(&weights), options).unwrap();
            let mut there = session(&gpu, &weights, options, 2, 33);
            for prompt in [&tokens[..], &[1], &[2]] {
                let off = worst(there.extend(prompt).unwrap(), here.extend(prompt).unwrap());
                assert!(off <= 0.02, "{}, seed {}: {off}", gpu.name(), case.seed);
            }
        }
    }
}

#[test]
fn what_cannot_be_is_an_error_that_names_it() {
    for gpu in devices() {
        let weights = load(&cases()[0]);
        let sizes = Sizes { n_ctx: 40, tokens: 5, cache: CacheType::F32 };
        let refused = |layers, sizes| Stack::new(Arc::clone(&gpu), &weights, layers, sizes).unwrap_err().to_string();
        assert_eq!(refused(1..4, sizes), "layers 1 to 4 of a model of 2");
        assert_eq!(refused(1..1, sizes), "layers 1 to 1 of a model of 2");
        assert_eq!(refused(0..2, Sizes { n_ctx: 0, ..sizes }), "a context of 0 tokens, 5 at a time, cannot be");
        let kept = "a GPU keeps keys and values in F32 or F16, not in Q8_0";
        assert_eq!(refused(0..2, Sizes { cache: CacheType::Q8_0, ..sizes }), kept);
        let mut stack = Stack::new(Arc::clone(&gpu), &weights, 0..2, sizes).unwrap();
        let width = weights.config().n_embd;
        assert_eq!(stack.add(0, &mut vec![0.0; width + 1]).unwrap_err().to_string(), "129 values from position 0 in a context of 40");
        assert!(stack.add(40, &mut vec![0.0; width]).is_err());
        assert!(stack.add(usize::MAX, &mut vec![0.0; width]).is_err());
        assert!(stack.add(39, &mut vec![0.0; width]).is_ok());
    }
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

/// Between prompts a batch becomes smaller and larger: what is held is what is said, and keys and values of earlier prompts stay.
#[test]
fn a_batch_that_changes_forgets_nothing() {
    for gpu in devices() {
        let case = cases().remove(0);
        let weights = load(&case);
        let config = weights.config();
        let sizes = Sizes { n_ctx: 40, tokens: 5, cache: CacheType::F32 };
        let new = |gpu: &Arc<Gpu>| Stack::new(Arc::clone(gpu), &weights, 0..config.n_layer, sizes).unwrap();
        let streams: Vec<f32> = (0..20 * config.n_embd).map(|i| (i * 31 % 255) as f32 / 127.0 - 1.0).collect();
        let add = |stack: &mut Stack, from: usize, to: usize| {
            let mut x = streams[from * config.n_embd..to * config.n_embd].to_vec();
            stack.add(from, &mut x).unwrap();
            x
        };
        let expected = add(&mut new(&gpu), 0, 20);
        let mut stack = new(&gpu);
        let mut found = add(&mut stack, 0, 5);
        for (from, tokens) in [(5, 2), (10, 7), (15, 1)] {
            stack.resize(tokens).unwrap();
            assert_eq!(stack.tokens(), tokens);
            assert_eq!(gpu.held(), Stack::bytes(&weights.part(0..config.n_layer).unwrap().1, Sizes { tokens, ..sizes }).unwrap().total());
            found.extend(add(&mut stack, from, from + 5));
        }
        assert!(worst(&found, &expected) <= 0.02, "{}", worst(&found, &expected));
        stack.resize(0).unwrap();
        assert_eq!(stack.tokens(), 1);
    }
}

/// Memory for no more than so many: the batch is what there is room for, and none where there is none.
#[test]
fn a_batch_grows_as_far_as_memory_goes() {
    for gpu in devices() {
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
