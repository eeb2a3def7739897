//! How fast the BitNet engine is over a whole model, beside what memory can read:
//! `cargo run --release -p loadmaster --no-default-features --example bitnet FILE [ROUNDS]`, over a file of
//! `cargo run --release -p synthetic --features write --example write bitnet-b1.58-2b-4t I2_S FILE`.
//!
//! With the word `round` in place of ROUNDS, one round in JSON, for `scripts/show bitnet`.
//!
//! Prints the limit that memory sets to decode, decode with both kinds of head, in turn, and prefill of 512 tokens by micro-batch: the
//! smallest whose median reaches 95 % of the best is the one that a plan should take. Every round is printed.
#![allow(clippy::print_stdout, reason = "a stopwatch for the terminal")]

use bitnet::{HeadType, LoadOptions, Options, Session, Weights};
use kernels::Pool;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tokens that are decoded in a round, from an empty context.
const DECODED: u32 = 32;
/// Tokens of a prompt.
const PROMPT: u32 = 512;
/// Words of 64 bits that are read of a place before the next one's turn: eight lines of a cache.
const LINES: usize = 64;
/// Times that memory is read in each pattern.
const READINGS: u32 = 3;
const MICRO_BATCHES: [usize; 15] = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512];

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let path = words.next().ok_or("which file?")?;
    let word = words.next().unwrap_or_else(|| "5".to_owned());
    let threads = std::thread::available_parallelism()?.get();
    let model = loadmaster::open::open(Path::new(&path))?;
    let bytes = kernels::map(&std::fs::File::open(&path)?)?;
    let weights = |head| -> Result<Arc<Weights>, Box<dyn Error>> {
        let load = LoadOptions { head, threads, ..LoadOptions::default() };
        Ok(Arc::new(Weights::load(&model, std::slice::from_ref(&bytes), &load)?))
    };
    let file = weights(HeadType::File)?;
    let (copied, took) = timed(|| weights(HeadType::Q8_0));
    let kinds = [file, copied?];
    if word == "round" {
        return round(&kinds, threads);
    }
    let rounds: usize = word.parse()?;
    println!("{path}, {threads} threads, {rounds} rounds; loaded with a copy of the head in {:.2} s", took.as_secs_f64());
    let (mut rates, mut decoded) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..rounds {
        rates.push(read_rate(threads)?);
        for (weights, rates) in kinds.iter().zip(&mut decoded) {
            rates.push(decode(weights, threads)?);
        }
    }
    let rate = told("memory is read at", "GB/s", &rates);
    for (weights, rates) in kinds.iter().zip(&decoded) {
        let best = told(&format!("decode with a head in {:?}:", weights.head().ty()), "tokens/s", rates);
        let bytes = weights.code_bytes() + weights.head().bytes();
        let limit = rate * 1e9 / bytes as f64;
        println!(
            "  {} MB for a token: memory allows {limit:.1} tokens/s, of which these are {:.0} %",
            bytes / 1_000_000,
            100.0 * best / limit
        );
    }
    let dots: Vec<f64> = (0..rounds).map(|_| dot_rate(&kinds[0], threads)).collect::<Result<_, _>>()?;
    let dots = told("products of 8 bits in registers:", "thousand million/s", &dots.iter().map(|rate| rate / 1e9).collect::<Vec<_>>());
    let best = told("prefill of 128 tokens at once:", "tokens/s", &prompt(&kinds[0], threads, 128, rounds)?);
    if dots > 0.0 {
        let limit = dots * 1e9 / (kinds[0].code_bytes() * 4) as f64;
        println!("  products allow {limit:.0} tokens/s, of which these are {:.0} %", 100.0 * best / limit);
    }
    prefill(&kinds[0], threads, rounds)?;
    Ok(())
}

/// One row of everything that `scripts/show bitnet` compares.
fn round(kinds: &[Arc<Weights>; 2], threads: usize) -> Result<(), Box<dyn Error>> {
    let read = read_rate(threads)?;
    let bytes = kinds.each_ref().map(|weights| weights.code_bytes() + weights.head().bytes());
    let decoded = [decode(&kinds[0], threads)?, decode(&kinds[1], threads)?];
    let read_after = read_rate(threads)?;
    let dots = dot_rate(&kinds[0], threads)?;
    let read_128 = prompt(&kinds[0], threads, 128, 1)?;
    println!(
        "{{\"engine\": \"ours\", \"read_gb_per_s\": [{read}, {read_after}], \"bytes_f16\": {}, \"decode_f16\": {}, \"bytes_q8_0\": {}, \
         \"decode_q8_0\": {}, \"dots_per_s\": {dots}, \"dots_per_token\": {}, \"prefill_128\": {}}}",
        bytes[0],
        decoded[0],
        bytes[1],
        decoded[1],
        kinds[0].code_bytes() * 4,
        read_128[0]
    );
    Ok(())
}

/// Products of 8 bits per second in registers alone; 0 where the kernel has no instruction for them.
fn dot_rate(weights: &Weights, threads: usize) -> Result<f64, Box<dyn Error>> {
    const TURNS: u64 = 20_000_000;
    let mut pool = Pool::new(threads)?;
    let run = |_| {
        std::hint::black_box(weights.kernel().integer_dots(TURNS));
    };
    let ((), took) = timed(|| pool.run(&run));
    let products = weights.kernel().integer_dots(1).unwrap_or(0) * TURNS * threads as u64;
    Ok(products as f64 / took.as_secs_f64())
}

/// Tokens per second of a prompt of so many, all at once, after one that is not counted.
fn prompt(weights: &Arc<Weights>, threads: usize, length: u32, rounds: usize) -> Result<Vec<f64>, Box<dyn Error>> {
    let tokens: Vec<u32> = (0..length).collect();
    let mut session = Session::new(Arc::clone(weights), Options { threads, n_ubatch: tokens.len(), ..Options::default() })?;
    session.read(&tokens)?;
    let mut rates = Vec::new();
    for _ in 0..rounds {
        session.rewind(0);
        let (run, took) = timed(|| session.read(&tokens));
        run?;
        rates.push(f64::from(length) / took.as_secs_f64());
    }
    Ok(rates)
}

fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = run();
    (result, start.elapsed())
}

/// The best of the rounds, which are all printed.
fn told(what: &str, unit: &str, rounds: &[f64]) -> f64 {
    let best = rounds.iter().copied().fold(0.0, f64::max);
    let all: Vec<String> = rounds.iter().map(|round| format!("{round:.1}")).collect();
    println!("{what} {best:.1} {unit} ({})", all.join(" "));
    best
}

/// GB/s of a sum over 1 GiB, each thread reading from so many places in turn: the best of all patterns, for which one suits a memory differs
/// between processors, and its limit is what any of them gets.
fn read_rate(threads: usize) -> Result<f64, Box<dyn Error>> {
    let data: Vec<u64> = vec![1; (1 << 30) / 8];
    let mut pool = Pool::new(threads)?;
    let mut best = 0_f64;
    for places in [1, 2, 4, 8] {
        let sum = |number: usize| {
            let part = &data[data.len() * number / threads..data.len() * (number + 1) / threads];
            let mut places: Vec<_> = part.chunks(part.len() / places).map(|place| place.as_chunks::<LINES>().0.iter()).collect();
            let mut sums = [0_u64; 8];
            let mut more = true;
            while more {
                more = false;
                for chunk in places.iter_mut().filter_map(Iterator::next) {
                    for line in chunk.as_chunks::<8>().0 {
                        sums.iter_mut().zip(line).for_each(|(sum, x)| *sum = sum.wrapping_add(*x));
                    }
                    more = true;
                }
            }
            std::hint::black_box(sums);
        };
        let ((), took) = timed(|| (0..READINGS).for_each(|_| pool.run(&sum)));
        best = best.max(f64::from(READINGS << 30) / took.as_secs_f64() / 1e9);
    }
    Ok(best)
}

/// Tokens per second from an empty context.
fn decode(weights: &Arc<Weights>, threads: usize) -> Result<f64, Box<dyn Error>> {
    let mut session = Session::new(Arc::clone(weights), Options { threads, ..Options::default() })?;
    session.extend(&[0])?;
    let (run, took) = timed(|| (1..=DECODED).try_for_each(|token| session.extend(&[token]).map(drop)));
    run?;
    Ok(f64::from(DECODED) / took.as_secs_f64())
}

/// Tokens per second of a prompt, by micro-batch: all of them in every round, for what a machine gives changes between minutes.
fn prefill(weights: &Arc<Weights>, threads: usize, rounds: usize) -> Result<(), Box<dyn Error>> {
    let tokens: Vec<u32> = (0..PROMPT).collect();
    let mut sessions = MICRO_BATCHES
        .iter()
        .map(|&n_ubatch| Ok((Session::new(Arc::clone(weights), Options { threads, n_ubatch, ..Options::default() })?, Vec::new())))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    for _ in 0..rounds {
        for (session, rates) in &mut sessions {
            session.rewind(0);
            let (run, took) = timed(|| session.read(&tokens));
            run?;
            rates.push(f64::from(PROMPT) / took.as_secs_f64());
        }
    }
    let mut medians = Vec::new();
    for (n_ubatch, (_, rates)) in MICRO_BATCHES.into_iter().zip(&sessions) {
        told(&format!("prefill of {PROMPT} tokens, {n_ubatch} at a time, at best"), "tokens/s", rates);
        medians.push((n_ubatch, median(rates)));
    }
    let best = medians.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    for (n_ubatch, rate) in &medians {
        println!("median of {n_ubatch} at a time: {rate:.1} tokens/s, {:.0} % of the best", 100.0 * rate / best);
    }
    if let Some((n_ubatch, rate)) = medians.iter().find(|(_, rate)| *rate >= 0.95 * best) {
        println!("the smallest micro-batch with 95 % of the best: {n_ubatch} ({rate:.1} of {best:.1} tokens/s)");
    }
    Ok(())
}

fn median(rates: &[f64]) -> f64 {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(0.0)
}
