//! What layers on any device are held to: recorded logits and greedy continuations of transformers, and what the CPU computes.

use super::{Case, Written, cases};
use bitnet::{CacheType, HeadType, LoadOptions, Options, Sampler, Sampling, Session, Sizes, Stack, StackError, Weights};
use spec::{Bytes, QuantType};
use std::ops::Range;
use std::sync::Arc;

/// Largest difference of a logit, as on the CPU: for logits of the size of one.
pub const BOUND: f32 = 1e-5;

/// A device.
pub trait Device {
    /// Its layers.
    type Stack: Stack + 'static;

    fn name(&self) -> &str;
    /// Layers of a range, in which the output head is the one behind the last.
    fn stack(&self, weights: &Weights, layers: Range<usize>, sizes: Sizes) -> Result<Self::Stack, StackError>;
    /// Tokens that are computed together.
    fn tokens(stack: &Self::Stack) -> usize;
    fn resize(stack: &mut Self::Stack, tokens: usize) -> Result<(), StackError>;
    /// What all layers and arenas on it hold.
    fn held(&self) -> Bytes;
    /// What a part of a model needs.
    fn needed(&self, part: &workspace::Stack, sizes: Sizes) -> Bytes;
}

pub fn load(case: &Case) -> Arc<Weights> {
    let built = case.build(Written::default());
    Arc::new(Weights::load(&built.model, std::slice::from_ref(&built.data), &LoadOptions::default()).unwrap())
}

pub fn options() -> Options {
    Options { n_ctx: 40, n_ubatch: 5, cache: CacheType::F32, threads: 2 }
}

/// A session with layers of a range on a device, `tokens` of them at a time.
pub fn session(device: &impl Device, weights: &Arc<Weights>, options: Options, layers: Range<usize>, tokens: usize) -> Session {
    let sizes = Sizes { n_ctx: options.n_ctx, tokens, cache: options.cache };
    let stack = device.stack(weights, layers, sizes).unwrap();
    Session::with_device(Arc::clone(weights), options, Some(Box::new(stack))).unwrap()
}

fn argmax(logits: &[f32]) -> u32 {
    Sampler::new(Sampling::default()).next(logits).unwrap()
}

pub fn worst(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max)
}

/// Gives a sum of the bits of all logits, by which two orders of a device's threads are compared.
pub fn logits_and_greedy_continuations_are_those_of_transformers(device: &impl Device) -> u64 {
    let mut sum = 0_u64;
    for case in cases() {
        let weights = load(&case);
        // All layers, the last one only; with the output head, and that alone.
        let all = case.n_layer;
        for layers in [0..all, all - 1..all, 0..all + 1, all - 1..all + 1, all..all + 1] {
            let mut session = session(device, &weights, options(), layers.clone(), 5);
            for (token, expected) in case.tokens.iter().zip(&case.logits) {
                let found = session.extend(&[*token]).unwrap();
                sum = found.iter().fold(sum, |sum, x| sum.rotate_left(5).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(x.to_bits()));
                let off = worst(found, expected);
                assert!(off <= BOUND, "{}, seed {}, layers {layers:?}: {off}", device.name(), case.seed);
                assert_eq!(argmax(found), argmax(expected));
            }
            let mut next = argmax(session.logits());
            let mut found = Vec::new();
            for _ in &case.greedy {
                found.push(next);
                next = argmax(session.extend(&[next]).unwrap());
            }
            assert_eq!(found, case.greedy, "{}, seed {}, layers {layers:?}", device.name(), case.seed);
        }
    }
    sum
}

/// `batches`: micro-batches of the session, and tokens that the device takes at a time.
pub fn prompts_in_any_batches_give_what_single_tokens_give(device: &impl Device, batches: &[(usize, usize)]) {
    for case in cases() {
        let weights = load(&case);
        for &(n_ubatch, tokens) in batches {
            for length in [1, 5, 6, case.tokens.len()] {
                let mut session = session(device, &weights, Options { n_ubatch, ..options() }, 0..2, tokens);
                let found = session.extend(&case.tokens[..length]).unwrap();
                let off = worst(found, &case.logits[length - 1]);
                assert!(off <= BOUND, "{}, seed {}, {length} tokens by {n_ubatch} and {tokens}: {off}", device.name(), case.seed);
            }
        }
    }
}

/// The output head in each type, behind prompts of any length: the CPU's logits, which takes tokens in 16 bits for one in `q8_0`.
pub fn heads_of_every_type_are_the_cpus(device: &impl Device) {
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
            let mut there = session(device, &weights, options(), case.n_layer..case.n_layer + 1, 5);
            let (expected, found) = (here.extend(&case.tokens[..tokens]).unwrap(), there.extend(&case.tokens[..tokens]).unwrap());
            let off = worst(found, expected);
            let some = found.iter().any(|logit| *logit != 0.0);
            assert!(off <= bound && some, "{}, {embedding}, {head:?}, {tokens} tokens: {off}", device.name());
        }
    }
}

/// What a stack has no head for, and logits of another vocabulary.
pub fn logits_that_cannot_be_are_an_error(device: &impl Device) {
    let weights = load(&cases()[0]);
    let config = weights.config();
    let sizes = Sizes { n_ctx: 40, tokens: 5, cache: CacheType::F32 };
    let mut x = vec![0.5; 2 * config.n_embd];
    let mut refused = |layers, values: usize, logits: usize| {
        let mut stack = device.stack(&weights, layers, sizes).unwrap();
        stack.add_and_tell(0, &mut x[..values], &mut vec![0.0; logits]).unwrap_err().to_string()
    };
    let (width, n_vocab, all) = (config.n_embd, config.n_vocab, config.n_layer);
    assert_eq!(refused(0..all, width, n_vocab), format!("{n_vocab} logits of a head of 0, behind {width} values"));
    assert_eq!(refused(0..all + 1, width, 3), format!("3 logits of a head of {n_vocab}, behind {width} values"));
    assert_eq!(refused(all..all + 1, 0, n_vocab), format!("{n_vocab} logits of a head of {n_vocab}, behind 0 values"));
}

pub fn a_rewound_context_forgets_and_halves_are_near(device: &impl Device) {
    for case in cases() {
        let weights = load(&case);
        let mut rewound = session(device, &weights, options(), 0..2, 5);
        rewound.extend(&case.tokens).unwrap();
        rewound.rewind(3);
        assert!(worst(rewound.extend(&case.tokens[3..6]).unwrap(), &case.logits[5]) <= BOUND);
        // Keys and values in 16 bits: as near as the CPU's.
        let mut halves = session(device, &weights, Options { cache: CacheType::F16, ..options() }, 0..2, 5);
        for (token, expected) in case.tokens.iter().zip(&case.logits) {
            assert!(worst(halves.extend(&[*token]).unwrap(), expected) <= 0.2);
        }
    }
}

/// Contexts of more than the keys that a workgroup takes at a time, and heads of which each invocation has several elements. Sums in another order
/// now and then put a value that is next to a half on its other side, which is worth one of 127 (attention alone is tested without that in
/// `src/stack` of the backends).
pub fn long_contexts_are_the_cpus(device: &impl Device, length: usize) {
    for (case, head_dim) in cases().into_iter().zip([32, 64, 192, 256]) {
        let case = Case { head_dim, ..case };
        let weights = load(&case);
        let options = Options { n_ctx: length + 10, n_ubatch: 64, ..options() };
        let tokens: Vec<u32> = (0..length).map(|i| (i * i + 7 * i) as u32 % case.n_vocab as u32).collect();
        let mut here = Session::new(Arc::clone(&weights), options).unwrap();
        let mut there = session(device, &weights, options, 0..2, 33);
        for prompt in [&tokens[..], &[1], &[2]] {
            let off = worst(there.extend(prompt).unwrap(), here.extend(prompt).unwrap());
            assert!(off <= 0.02, "{}, seed {}: {off}", device.name(), case.seed);
        }
    }
}

pub fn what_cannot_be_is_an_error_that_names_it(device: &impl Device) {
    let weights = load(&cases()[0]);
    let sizes = Sizes { n_ctx: 40, tokens: 5, cache: CacheType::F32 };
    let refused = |layers, sizes| device.stack(&weights, layers, sizes).map(|_| ()).unwrap_err().to_string();
    assert_eq!(refused(1..4, sizes), "layers 1 to 4 of a model of 2");
    assert_eq!(refused(1..1, sizes), "layers 1 to 1 of a model of 2");
    assert_eq!(refused(0..2, Sizes { n_ctx: 0, ..sizes }), "a context of 0 tokens, 5 at a time, cannot be");
    let kept = "a GPU keeps keys and values in F32 or F16, not in Q8_0";
    assert_eq!(refused(0..2, Sizes { cache: CacheType::Q8_0, ..sizes }), kept);
    let mut stack = device.stack(&weights, 0..2, sizes).unwrap();
    let width = weights.config().n_embd;
    assert_eq!(stack.add(0, &mut vec![0.0; width + 1]).unwrap_err().to_string(), "129 values from position 0 in a context of 40");
    assert!(stack.add(40, &mut vec![0.0; width]).is_err());
    assert!(stack.add(usize::MAX, &mut vec![0.0; width]).is_err());
    assert!(stack.add(39, &mut vec![0.0; width]).is_ok());
}

/// Between prompts a batch becomes smaller and larger: what is held is what is said, and keys and values of earlier prompts stay.
pub fn a_batch_that_changes_forgets_nothing<D: Device>(device: &D) {
    let case = cases().remove(0);
    let weights = load(&case);
    let config = weights.config();
    let sizes = Sizes { n_ctx: 40, tokens: 5, cache: CacheType::F32 };
    let new = || device.stack(&weights, 0..config.n_layer, sizes).unwrap();
    let streams: Vec<f32> = (0..20 * config.n_embd).map(|i| (i * 31 % 255) as f32 / 127.0 - 1.0).collect();
    let add = |stack: &mut D::Stack, from: usize, to: usize| {
        let mut x = streams[from * config.n_embd..to * config.n_embd].to_vec();
        stack.add(from, &mut x).unwrap();
        x
    };
    let expected = add(&mut new(), 0, 20);
    let mut stack = new();
    let mut found = add(&mut stack, 0, 5);
    for (from, tokens) in [(5, 2), (10, 7), (15, 1)] {
        D::resize(&mut stack, tokens).unwrap();
        assert_eq!(D::tokens(&stack), tokens);
        assert_eq!(device.held(), device.needed(&weights.part(0..config.n_layer).unwrap().1, Sizes { tokens, ..sizes }));
        found.extend(add(&mut stack, from, from + 5));
    }
    assert!(worst(&found, &expected) <= 0.02, "{}", worst(&found, &expected));
    D::resize(&mut stack, 0).unwrap();
    assert_eq!(D::tokens(&stack), 1);
}
