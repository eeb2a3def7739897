//! Predicted bytes against a counting allocator.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod models;

use bitnet::memory::requirement;
use bitnet::{CacheType, HeadType, LoadOptions, Options, Session, Weights};
use kernels::Layout;
use models::{Written, cases};
use std::sync::Arc;

/// What the allocator still holds after `make`, in bytes.
fn held<T>(make: impl FnOnce() -> T) -> (u64, T) {
    let mut made = None;
    let counted = allocation_counter::measure(|| made = Some(make()));
    (u64::try_from(counted.bytes_current).unwrap(), made.unwrap())
}

/// Lists and shared handles, which are no buffers: the layers' own structures, and one handle per tensor that lies in the file.
fn structures(built: &models::Built) -> u64 {
    built.model.tensors.len() as u64 * 512
}

#[test]
fn weights_take_what_is_said_beyond_their_file() {
    for case in cases() {
        for (written, head) in [
            (Written::default(), HeadType::File),
            (Written::default(), HeadType::Q8_0),
            (Written { layout: Layout::Blocks64, ..Written::default() }, HeadType::File),
        ] {
            let built = case.build(written);
            let load = LoadOptions { layout: written.layout, head, ..LoadOptions::default() };
            let predicted = requirement(&built.model, &load, &Options::default()).unwrap();
            let (bytes, weights) = held(|| Weights::load(&built.model, std::slice::from_ref(&built.data), &load).unwrap());
            assert_eq!(weights.copied_bytes(), predicted.weights_copied.get(), "seed {}, {written:?}, {head:?}", case.seed);
            let beyond = bytes - predicted.weights_copied.get();
            assert!(beyond <= structures(&built), "seed {}, {written:?}, {head:?}: {beyond} beyond the buffers", case.seed);
        }
    }
}

#[test]
fn a_context_takes_what_is_said_to_the_byte_and_nothing_later() {
    for case in cases() {
        let built = case.build(Written::default());
        for (n_ctx, n_ubatch, cache, head) in
            [(40, 5, CacheType::F32, HeadType::File), (33, 64, CacheType::F16, HeadType::Q8_0), (128, 1, CacheType::Q8_0, HeadType::Q8_0)]
        {
            let load = LoadOptions { head, ..LoadOptions::default() };
            let weights = Arc::new(Weights::load(&built.model, std::slice::from_ref(&built.data), &load).unwrap());
            let options = Options { n_ctx, n_ubatch, cache, threads: 1 };
            let predicted = requirement(&built.model, &load, &options).unwrap();
            let (pool, _) = held(|| kernels::Pool::new(1).unwrap());
            let (bytes, mut session) = held(|| Session::new(Arc::clone(&weights), options).unwrap());
            let buffers = predicted.kv_cache + predicted.compute + predicted.output;
            assert_eq!(bytes - pool, buffers.get(), "seed {}, {options:?}", case.seed);
            let later = allocation_counter::measure(|| {
                session.extend(&case.tokens).unwrap();
                session.extend(&case.tokens[..1]).unwrap();
            });
            assert_eq!((later.count_total, later.bytes_max), (0, 0), "seed {}, {options:?}", case.seed);
        }
    }
}

#[test]
fn absurd_sizes_are_an_error_or_very_large_and_never_a_panic() {
    let case = &cases()[0];
    let built = case.build(Written::default());
    let load = LoadOptions::default();
    let options = Options { n_ctx: usize::MAX, n_ubatch: usize::MAX, ..Options::default() };
    assert_eq!(requirement(&built.model, &load, &options).unwrap().compute.get(), u64::MAX);
    let weights = Arc::new(Weights::load(&built.model, std::slice::from_ref(&built.data), &load).unwrap());
    assert!(matches!(Session::new(weights, options), Err(bitnet::SessionError::Sizes { .. })));
}
