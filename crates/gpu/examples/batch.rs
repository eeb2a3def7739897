//! The chosen batch against the measured optimum of a device, and what a layer's pass takes by batch.
//!
//! `cargo run --release -p gpu --example batch -- [NAME [ROWS COLUMNS [ROUNDS]]]`: the first adapter whose name contains NAME, otherwise the best
//! that is no software. Times are the least of ROUNDS passes (5), with tokens that are on the device already; the calibration is fitted to
//! every other batch only, so that the rest are a check. A query is free memory and the choice. The optimum is the smallest batch with 95 % of the best throughput measured.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example prints")]

use gpu::{Arena, Gpu, KERNEL, QuantizedLinear, TILE};
use kernels::{Activations, TernaryMatrix};
use spec::{Bytes, Known};
use std::time::Instant;
use workspace::{Calibration, Measured, Room, optimal_batch};

/// Queries that are timed.
const QUERIES: usize = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let gpu = match words.first() {
        Some(name) => Gpu::named(name)?,
        None => Gpu::best()?.ok_or("no GPU here; name a software driver, such as llvmpipe")?,
    };
    let number = |at: usize, otherwise: usize| words.get(at).map_or(Ok(otherwise), |word| word.parse());
    let (rows, columns, rounds) = (number(1, 2560)?, number(2, 2560)?, number(3, 5)?);
    let weights = TernaryMatrix::from_codes(rows, columns, 1.0, |row, column| ((row * 7 + column * 3) % 3) as u8)?;
    let layer = QuantizedLinear::new(&gpu, &weights)?;
    let shapes = [layer.layer().ok_or("no layer")?];
    let batches: Vec<usize> = vec![1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512];
    let most = batches.last().copied().unwrap_or(1);
    let arena = Arena::new(&gpu, &shapes, most)?;
    let x: Vec<f32> = (0..most * columns).map(|i| ((i * 31 % 255) as f32 - 127.0) / 127.0).collect();
    let mut activations = Activations::with_room(most, columns);
    let mut best = vec![f64::INFINITY; batches.len()];
    for _ in 0..rounds {
        for (best, &tokens) in best.iter_mut().zip(&batches) {
            activations.quantize(&x[..tokens * columns], columns);
            layer.forward_quantized(&gpu, &arena, &activations)?;
            let began = Instant::now();
            layer.again(&gpu, &arena, tokens)?;
            *best = best.min(began.elapsed().as_secs_f64());
        }
    }
    let points: Vec<Measured> = batches.iter().zip(&best).map(|(&tokens, &seconds)| Measured { tokens: tokens as u64, seconds }).collect();
    // The pass over one token is a kernel of its own.
    let fitted: Vec<Measured> = points.iter().skip(1).step_by(2).copied().collect();
    let calibration = Calibration::fit(&shapes, &fitted, 0.0, u64::from(TILE))?;
    println!("{}: {rows} x {columns}, least of {rounds} passes", gpu.name());
    println!("{:>6} {:>12} {:>12} {:>12}", "tokens", "ms", "fitted ms", "tokens/s");
    for point in &points {
        let said = calibration.seconds(&shapes, point.tokens);
        println!("{:>6} {:>12.3} {:>12.3} {:>12.0}", point.tokens, point.seconds * 1e3, said * 1e3, point.tokens as f64 / point.seconds);
    }
    let throughput = |point: &Measured| point.tokens as f64 / point.seconds;
    let most_throughput = points.iter().map(throughput).fold(0.0, f64::max);
    let optimum = points.iter().find(|point| throughput(point) >= 0.95 * most_throughput).map_or(0, |point| point.tokens);
    // What the driver says is free, or as if it were a gibibyte.
    let query = || {
        let free = gpu.memory().map_or(Bytes::from_gib(1), |memory| memory.free);
        let free = Known::exact(free, "an example");
        let room = Room { free: free.clone(), total: free, held: Bytes::ZERO, margin: Bytes::ZERO, largest: Some(gpu.largest_piece()) };
        optimal_batch(KERNEL, &shapes, &calibration, gpu.alignment(), &room, most as u64)
    };
    let choice = query()?;
    let mut times = Vec::with_capacity(QUERIES);
    for _ in 0..QUERIES {
        let began = Instant::now();
        std::hint::black_box(query()?);
        times.push(began.elapsed());
    }
    times.sort_unstable();
    println!("chosen {} ({:?}), measured optimum {optimum}, room for {}", choice.batch, choice.limit, choice.room);
    let told = if gpu.memory().is_some() { "told by the driver" } else { "not told by this driver" };
    println!(
        "a query of free memory ({told}) and the batch for it: median {:?}, longest {:?} of {QUERIES}",
        times[QUERIES / 2],
        times[QUERIES - 1]
    );
    Ok(())
}
