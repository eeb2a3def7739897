//! A device that is lost in the middle: its own program, for the device stays lost as long as the program runs.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot be set up has failed, and says when it is left out")]

#[path = "../../bitnet/tests/models/mod.rs"]
mod models;
mod pretended;

use bitnet::{CacheType, LoadOptions, Options, Session, SessionError, Weights};
use cuda::{Arena, GpuError, QuantizedLinear, Sizes, Stack};
use kernels::TernaryMatrix;
use std::sync::Arc;

#[test]
fn a_lost_device_again_on_the_pretended_one() {
    let Some(folder) = pretended::driver().filter(|_| !pretended::is_again()) else { return };
    pretended::again(folder.path(), "it_says_so", &[]);
}

#[test]
fn it_says_so_from_then_on_and_the_session_keeps_what_it_had() {
    let Some(adapter) = cuda::list().into_iter().next() else {
        eprintln!("SKIPPED: no CUDA device");
        return;
    };
    let gpu = match adapter.open() {
        Ok(gpu) => Arc::new(gpu),
        Err(error @ (GpuError::Old { .. } | GpuError::Compiler { .. })) => {
            eprintln!("SKIPPED: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let weights = TernaryMatrix::from_codes(3, 4, 1.0, |_, _| 2).unwrap();
    let layer = QuantizedLinear::new(&gpu, &weights).unwrap();
    let arena = Arena::new(&gpu, &[layer.layer().unwrap()], 1).unwrap();
    assert!(layer.forward(&gpu, &arena, &[1.0; 4]).is_ok());
    let case = &models::cases()[0];
    let built = case.build(models::Written::default());
    let weights = Arc::new(Weights::load(&built.model, std::slice::from_ref(&built.data), &LoadOptions::default()).unwrap());
    let stack = Stack::new(Arc::clone(&gpu), &weights, 0..2, Sizes { n_ctx: 40, tokens: 5, cache: CacheType::F32 }).unwrap();
    let options = Options { n_ctx: 40, n_ubatch: 5, cache: CacheType::F32, threads: 1 };
    let mut session = Session::with_device(Arc::clone(&weights), options, Some(Box::new(stack))).unwrap();
    session.extend(&case.tokens).unwrap();
    gpu.lose();
    for _ in 0..2 {
        let error = session.extend(&case.tokens[..1]).unwrap_err();
        assert!(matches!(error, SessionError::Device(_)) && error.to_string().contains(" is lost: "), "{error}");
        assert_eq!(session.past(), case.tokens.len());
        let error = layer.forward(&gpu, &arena, &[1.0; 4]).unwrap_err();
        assert!(matches!(error, GpuError::Lost { .. }), "{error}");
    }
    // What it held is given back without a word.
    drop((session, layer, arena));
    assert_eq!(gpu.held(), spec::Bytes::ZERO);
}
