//! What is held, and what the driver says, against what was predicted: to the byte on the pretended device, which hands out what it is asked for;
//! a GPU fills each buffer up to whole pages.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot be set up has failed, and says when it is left out")]

#[path = "../../bitnet/tests/models/mod.rs"]
mod models;
mod pretended;

use bitnet::{CacheType, LoadOptions, Weights};
use cuda::{ALIGNMENT, Arena, Gpu, GpuError, KERNEL, QuantizedLinear, Sizes, Stack};
use kernels::TernaryMatrix;
use spec::Bytes;
use std::sync::Arc;
use workspace::{Layer, Workspace};

/// A sequence that repeats for nobody: xorshift.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Pages of a GPU's memory: no buffer is filled up by more.
const PAGE: u64 = 2 << 20;

fn device() -> Option<Gpu> {
    let Some(adapter) = cuda::list().into_iter().next() else {
        eprintln!("SKIPPED: no CUDA device");
        return None;
    };
    match adapter.open() {
        Ok(gpu) => Some(gpu),
        Err(error @ (GpuError::Old { .. } | GpuError::Compiler { .. })) => {
            eprintln!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn all_again_on_the_pretended_device() {
    let Some(folder) = pretended::driver().filter(|_| !pretended::is_again()) else { return };
    // What the driver says is of the whole device: one test at a time.
    for name in ["layers_take", "products_take", "no_memory"] {
        eprintln!("{}", pretended::again(folder.path(), name, &[("PRETENDED_MEMORY", "50000000")]));
    }
}

/// What the driver says is taken beyond what was taken before; on a GPU others may come and go.
fn taken(gpu: &Gpu, before: Bytes) -> u64 {
    before.get().saturating_sub(gpu.memory().unwrap().0.get())
}

fn check(gpu: &Gpu, before: Bytes, predicted: Bytes, buffers: u64, what: &str) {
    assert_eq!(gpu.held(), predicted, "{what}");
    let taken = taken(gpu, before);
    if pretended::is_again() {
        assert_eq!(taken, predicted.get(), "{what}");
    } else {
        // Small buffers share pages with earlier ones.
        assert!(taken <= predicted.get() + buffers * PAGE, "{what}: {taken} taken, {predicted} predicted");
    }
}

#[test]
fn products_take_what_is_said() {
    let Some(gpu) = device() else { return };
    let (mut state, before) = (0x9E37_79B9_7F4A_7C15, gpu.memory().unwrap().0);
    for case in 0..60 {
        let rows = 1 + (next(&mut state) % 300) as usize;
        let columns = 1 + (next(&mut state) % 1000) as usize;
        let tokens = 1 + (next(&mut state) % 100) as usize;
        let weights = TernaryMatrix::from_codes(rows, columns, 1.0, |row, column| ((row + column) % 3) as u8).unwrap();
        let layer = QuantizedLinear::new(&gpu, &weights).unwrap();
        let arena = Arena::new(&gpu, &[layer.layer().unwrap()], tokens).unwrap();
        layer.forward(&gpu, &arena, &vec![0.5; columns]).unwrap();
        let weights = QuantizedLinear::bytes(rows as u64, columns as u64).unwrap();
        let shape = Layer::new(rows as u64, columns as u64).unwrap();
        let workspace = Workspace::new(KERNEL, &[shape], tokens as u64, ALIGNMENT).unwrap().total();
        check(&gpu, before, weights + workspace, 2, &format!("case {case}"));
    }
    assert_eq!(gpu.held(), Bytes::ZERO);
}

/// Whole layers of random shapes.
#[test]
fn layers_take_what_is_said() {
    let Some(gpu) = device().map(Arc::new) else { return };
    let (mut state, before) = (0x2545_F491_4F6C_DD1D, gpu.memory().unwrap().0);
    for case in 0..40 {
        let mut size = |most: u64| 1 + (next(&mut state) % most) as usize;
        let (n_layer, n_head_kv, group) = (size(3), size(3), size(4));
        let head_dim = 2 * (31 + size(33));
        let (n_ctx, tokens) = (size(300), size(200));
        let cache = if size(2) == 1 { CacheType::F32 } else { CacheType::F16 };
        let (n_embd, n_ff) = (64 + size(300), 64 + size(600));
        let model = models::Case { n_layer, n_embd, n_ff, n_head: n_head_kv * group, n_head_kv, head_dim, ..models::cases()[0].clone() };
        // Whole bytes of codes.
        let model = models::Case { n_embd: n_embd.next_multiple_of(4), n_ff: n_ff.next_multiple_of(4), ..model };
        let built = model.build(models::Written::default());
        let weights = Weights::load(&built.model, std::slice::from_ref(&built.data), &LoadOptions::default()).unwrap();
        let sizes = Sizes { n_ctx, tokens, cache };
        // With the output head and without.
        let layers = 0..n_layer + case % 2;
        let mut stack = Stack::new(Arc::clone(&gpu), &weights, layers.clone(), sizes).unwrap();
        let mut x = vec![0.25; model.n_embd * tokens.min(n_ctx).min(3)];
        stack.add(0, &mut x).unwrap();
        assert!(x.iter().all(|x| x.is_finite()), "case {case}");
        let predicted = Stack::bytes(&weights.part(layers).unwrap().1, sizes).unwrap();
        check(&gpu, before, predicted.total(), predicted.buffers, &format!("case {case}"));
        drop(stack);
        assert_eq!(gpu.held(), Bytes::ZERO);
    }
}

/// The driver's own refusal, not a budget's: a batch becomes smaller, and weights for which there is no room are an error.
#[test]
fn no_memory_is_no_end() {
    // A GPU's memory is not taken away: the first test runs this one on the pretended device.
    if !pretended::is_again() {
        return;
    }
    let Some(gpu) = device().map(Arc::new) else { return };
    let case = &models::cases()[0];
    let built = case.build(models::Written::default());
    let weights = Weights::load(&built.model, std::slice::from_ref(&built.data), &LoadOptions::default()).unwrap();
    let sizes = Sizes { n_ctx: 512, tokens: 1 << 20, cache: CacheType::F16 };
    let mut stack = Stack::new(Arc::clone(&gpu), &weights, 0..2, sizes).unwrap();
    let (free, total) = gpu.memory().unwrap();
    assert_eq!(free + gpu.held(), total);
    assert!((64..60_000).contains(&stack.tokens()), "{}", stack.tokens());
    assert_eq!(gpu.held(), Stack::bytes(&weights.part(0..2).unwrap().1, Sizes { tokens: stack.tokens(), ..sizes }).unwrap().total());
    stack.add(0, &mut vec![0.25; case.n_embd]).unwrap();
    let twice = Stack::new(Arc::clone(&gpu), &weights, 0..2, Sizes { n_ctx: 1 << 20, ..sizes }).unwrap_err();
    assert!(matches!(twice, GpuError::OutOfMemory { what: "keys and values", .. }), "{twice}");
    drop(stack);
    assert_eq!(gpu.memory().unwrap(), (total, total));
}
