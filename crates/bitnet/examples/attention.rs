//! How long attention takes per query head, earlier token and core, by depth and type of cache:
//! `cargo run --release -p bitnet --example attention [THREADS [DEPTH...]]`.
//!
//! A model with the heads of BitNet b1.58 2B-4T (20 query heads, 5 of keys, 128 wide) and next to nothing beside them reads a prompt up
//! to each depth and then one token, or 128 at once; what the same takes in an empty context is taken off. Its layers keep more keys and values
//! than the caches of a core hold.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a stopwatch for the terminal")]

#[path = "../tests/models/mod.rs"]
mod models;

use bitnet::{CacheType, LoadOptions, Options, Session, Weights};
use models::{Case, Written};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LAYERS: usize = 4;
const HEADS: usize = 20;
/// Tokens at once: decode and prefill.
const TOKENS: [usize; 2] = [1, 128];
/// Rounds of each.
const ROUNDS: [usize; 2] = [50, 5];
const DEPTHS: [usize; 3] = [1024, 4096, 16_384];

fn main() {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<usize>().unwrap());
    let threads = words.next().unwrap_or_else(|| std::thread::available_parallelism().unwrap().get());
    let mut depths: Vec<usize> = words.collect();
    if depths.is_empty() {
        depths.extend(DEPTHS);
    }
    depths.sort_unstable();
    let weights = weights(threads);
    println!("{}, {threads} threads; ns per query head, earlier token and core: the fastest of {ROUNDS:?} rounds", weights.kernel());
    for cache in [CacheType::F16, CacheType::Q8_0, CacheType::F32] {
        let n_ctx = depths[depths.len() - 1] + TOKENS[1];
        let mut session = Session::new(Arc::clone(&weights), Options { n_ctx, n_ubatch: TOKENS[1], cache, threads }).unwrap();
        let empty = [0, 1].map(|phase| fastest(&mut session, phase));
        for &depth in &depths {
            session.read(&vec![1; depth - session.past()]).unwrap();
            let found = std::array::from_fn::<_, 2, _>(|i| {
                let took = fastest(&mut session, i).saturating_sub(empty[i]);
                took.as_secs_f64() * 1e9 * threads as f64 / (TOKENS[i] * LAYERS * HEADS * depth) as f64
            });
            println!("{cache:?} behind {depth} tokens: decode {:.1}, prefill of {} tokens {:.1}", found[0], TOKENS[1], found[1]);
        }
    }
}

/// The shortest of some runs, after one that is not counted.
#[expect(clippy::disallowed_methods, reason = "a stopwatch reads the clock")]
fn fastest(session: &mut Session, phase: usize) -> Duration {
    let (past, tokens) = (session.past(), vec![1; TOKENS[phase]]);
    let mut run = || {
        let start = Instant::now();
        session.read(&tokens).unwrap();
        let took = start.elapsed();
        session.rewind(past);
        took
    };
    run();
    (0..ROUNDS[phase]).map(|_| run()).min().unwrap()
}

fn weights(threads: usize) -> Arc<Weights> {
    let case = Case {
        seed: 1,
        hidden_act: "relu2".into(),
        linear_class: String::new(),
        n_vocab: 2,
        n_embd: 128,
        n_ff: 128,
        n_layer: LAYERS,
        n_head: HEADS,
        n_head_kv: HEADS / 4,
        head_dim: 128,
        rope_base: 500_000.0,
        tokens: Vec::new(),
        greedy: Vec::new(),
        logits: Vec::new(),
    };
    let built = case.build(Written::default());
    Arc::new(Weights::load(&built.model, &[built.data], &LoadOptions { threads, ..LoadOptions::default() }).unwrap())
}
