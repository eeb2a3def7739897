//! What the device's allocator says against what was predicted: allocated to the byte but for its own constant and alignment, reserved in
//! whole blocks.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot be set up has failed, and says when it is left out")]

#[path = "../../bitnet/tests/models/mod.rs"]
mod models;

use bitnet::{CacheType, LoadOptions, Weights};
use gpu::{Arena, Gpu, KERNEL, QuantizedLinear, Sizes, Stack};
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

/// Bytes by which each buffer may be filled up in the device's memory.
const ALIGNMENT: u64 = 256;

#[test]
fn predicted_and_reported() {
    for adapter in gpu::list() {
        let gpu = adapter.open().unwrap();
        // What opening leaves behind is given back with the first commands.
        let weights = TernaryMatrix::from_codes(1, 1, 1.0, |_, _| 1).unwrap();
        let layer = QuantizedLinear::new(&gpu, &weights).unwrap();
        layer.forward(&gpu, &Arena::new(&gpu, &[layer.layer().unwrap()], 1).unwrap(), &[1.0]).unwrap();
        drop(layer);
        let Some((idle, _)) = gpu.allocated() else {
            eprintln!("SKIPPED: {} reports no allocations", gpu.name());
            continue;
        };
        let (mut state, mut worst) = (0x9E37_79B9_7F4A_7C15, 0);
        for case in 0..240 {
            let rows = 1 + (next(&mut state) % 900) as usize;
            let columns = 1 + (next(&mut state) % 3000) as usize;
            let tokens = 1 + (next(&mut state) % 3000) as usize;
            let weights = TernaryMatrix::from_codes(rows, columns, 1.0, |row, column| ((row + column) % 3) as u8).unwrap();
            let layer = QuantizedLinear::new(&gpu, &weights).unwrap();
            let arena = Arena::new(&gpu, &[layer.layer().unwrap()], tokens).unwrap();
            layer.forward(&gpu, &arena, &vec![0.5; columns]).unwrap();
            let weights = QuantizedLinear::bytes(rows as u64, columns as u64, gpu.largest_piece()).unwrap();
            let shape = Layer::new(rows as u64, columns as u64).unwrap();
            let workspace = Workspace::new(KERNEL, &[shape], tokens as u64, gpu.alignment()).unwrap().total();
            let predicted = weights + workspace;
            assert_eq!(gpu.held(), predicted, "case {case}");
            let (allocated, reserved) = gpu.allocated().unwrap();
            // Weights, their shape, the arena.
            let over = (allocated.get() - idle.get()).checked_sub(predicted.get()).expect("less than was held");
            assert!(over < 3 * ALIGNMENT, "case {case}: {rows} x {columns}, {tokens} tokens: {over} bytes beyond {predicted}");
            // The allocator's own zeros are a buffer like others.
            let (low, high) = Gpu::reserved(&[idle, weights.saturating_sub(Bytes::new(32)), Bytes::new(32), workspace]);
            assert!((low..=high).contains(&reserved), "case {case}: {reserved} reserved, not {low} to {high}");
            worst = worst.max(over);
        }
        eprintln!("{}: idle {idle}, at most {worst} bytes beyond the prediction in 240 cases", gpu.name());
        assert_eq!(gpu.held(), Bytes::ZERO);
    }
}

/// Whole layers of random shapes: what is held is what is predicted, and so is what the allocator says, but for alignment.
#[test]
fn layers_take_what_is_said() {
    for adapter in gpu::list() {
        let gpu = Arc::new(adapter.open().unwrap());
        let (mut state, mut idle, mut worst) = (0x2545_F491_4F6C_DD1D, None, 0);
        for case in 0..60 {
            let mut size = |most: u64| 1 + (next(&mut state) % most) as usize;
            let (n_layer, n_head_kv, group) = (size(3), size(3), size(4));
            let head_dim = 2 * (31 + size(33));
            let (n_ctx, tokens) = (size(300), size(200));
            let cache = if size(2) == 1 { CacheType::F32 } else { CacheType::F16 };
            let (n_embd, n_ff) = (64 + size(500), 64 + size(1500));
            let model =
                models::Case { n_layer, n_embd, n_ff, n_head: n_head_kv * group, n_head_kv, head_dim, ..models::cases()[0].clone() };
            // Whole bytes of codes.
            let model = models::Case { n_embd: n_embd.next_multiple_of(4), n_ff: n_ff.next_multiple_of(4), ..model };
            let built = model.build(models::Written::default());
            let weights = Weights::load(&built.model, std::slice::from_ref(&built.data), &LoadOptions::default()).unwrap();
            let sizes = Sizes { n_ctx, tokens, cache };
            if idle.is_none() {
                // What opening leaves behind is given back with the first commands.
                drop(Stack::new(Arc::clone(&gpu), &weights, 0..1, sizes).unwrap());
                idle = gpu.allocated();
            }
            let Some((idle, _)) = idle else {
                eprintln!("SKIPPED: {} reports no allocations", gpu.name());
                break;
            };
            // With the output head and without.
            let layers = 0..n_layer + case % 2;
            let mut stack = Stack::new(Arc::clone(&gpu), &weights, layers.clone(), sizes).unwrap();
            stack.add(0, &mut vec![0.25; model.n_embd * tokens.min(n_ctx)]).unwrap();
            let predicted = Stack::bytes(&gpu, &weights.part(layers).unwrap().1, sizes).unwrap();
            assert_eq!(gpu.held(), predicted.total(), "case {case}");
            let (allocated, _) = gpu.allocated().unwrap();
            let over = (allocated.get() - idle.get()).checked_sub(predicted.total().get()).expect("less than was held");
            assert!(over < predicted.buffers * ALIGNMENT, "case {case}: {over} bytes beyond {}", predicted.total());
            worst = worst.max(over / predicted.buffers);
            drop(stack);
            assert_eq!(gpu.held(), Bytes::ZERO);
        }
        eprintln!("{}: at most {worst} bytes of alignment per buffer in 60 cases", gpu.name());
    }
}

/// Random layers, free memory and batches on a device with so much memory: the chosen batch always has room, and none that had room for
/// one token is refused.
#[test]
fn no_choice_runs_out_of_memory() {
    use spec::Known;
    use workspace::{Calibration, Room, optimal_batch};
    let Some(adapter) = gpu::list().into_iter().next() else {
        eprintln!("SKIPPED: no adapter here");
        return;
    };
    let mut gpu: Gpu = adapter.open().unwrap();
    let (mut state, mut chosen) = (0x0123_4567_89AB_CDEF, 0);
    for case in 0..1000 {
        let mut size = |most: u64| 1 + next(&mut state) % most;
        let layers: Vec<Layer> = (0..size(4)).map(|_| Layer::new(size(9000), size(9000)).unwrap()).collect();
        let bits = size(27);
        let free = Bytes::new(size(1 << bits));
        let calibration =
            Calibration { bandwidth: 1e9 * size(2000) as f64, unpack: 0.0, rate: 1e11 * size(2000) as f64, launch: 1e-5, tile: 32 };
        gpu = gpu.with_budget(Some(free));
        let room = Room {
            free: Known::exact(free, "a test"),
            total: Known::exact(free, "a test"),
            held: Bytes::ZERO,
            margin: Bytes::ZERO,
            largest: Some(gpu.largest_piece()),
        };
        match optimal_batch(KERNEL, &layers, &calibration, gpu.alignment(), &room, size(5000)) {
            Ok(choice) => {
                let arena = Arena::new(&gpu, &layers, choice.batch as usize).unwrap_or_else(|error| panic!("case {case}: {error}"));
                assert_eq!(arena.total(), choice.workspace);
                chosen += 1;
            }
            Err(_) => assert!(Arena::new(&gpu, &layers, 1).is_err(), "case {case}"),
        }
    }
    assert!((300..1000).contains(&chosen), "{chosen} of 1000 had room");
}
