//! How fast layers of BitNet b1.58 2B-4T are on this machine, beside what its memory can read:
//! `cargo run --release -p kernels --example speed [THREADS [KERNEL]]`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a stopwatch for the terminal")]

use kernels::{Activations, DenseMatrix, DenseType, Kernel, Layout, Pool, QuantizedLinear, TernaryMatrix};
use std::time::{Duration, Instant};

/// Rows and columns of the projections of a layer.
const LAYER: [(usize, usize); 7] = [(2560, 2560), (640, 2560), (640, 2560), (2560, 2560), (6912, 2560), (6912, 2560), (2560, 6912)];
const LAYERS: usize = 30;
const ROUNDS: usize = 7;

fn main() {
    let threads = std::env::args().nth(1).map_or_else(|| std::thread::available_parallelism().unwrap().get(), |n| n.parse().unwrap());
    let mut pool = Pool::new(threads).unwrap();
    println!("{threads} threads; the fastest of {ROUNDS} rounds (a shared machine is slower, never faster); random codes");
    read(&mut pool);
    if let Err(missing) = Kernel::amx_int8() {
        println!("amx-int8 is not measured: {missing}");
    }
    let named = std::env::args().nth(2);
    for kernel in Kernel::available().into_iter().filter(|kernel| named.as_deref().is_none_or(|named| named == kernel.name())) {
        decode(kernel, &mut pool);
        prefill(kernel, &mut pool);
        prompts(kernel, &mut pool);
        head(kernel, &mut pool);
    }
}

/// The shortest of some runs.
#[expect(clippy::disallowed_methods, reason = "a stopwatch reads the clock")]
fn fastest(mut run: impl FnMut()) -> Duration {
    let mut timed = || {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..ROUNDS).map(|_| timed()).min().unwrap()
}

fn random(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // No pair of bits is 11: the low one goes where both are set.
        state & !(state >> 1 & 0x5555_5555_5555_5555)
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(bytes).collect()
}

fn layer(rows: usize, columns: usize, kernel: Kernel) -> QuantizedLinear {
    let mut tensor = random(rows * columns / 4, (rows ^ columns) as u64);
    tensor.extend(1.0_f32.to_le_bytes());
    tensor.extend([0; 28]);
    QuantizedLinear::new(TernaryMatrix::from_i2_s(&tensor.into(), rows, columns, Layout::Blocks128).unwrap(), kernel)
}

/// What memory gives when nothing is computed: sums of 1 GiB, by thread, from one place at a time and from eight, of which the faster is
/// the limit.
fn read(pool: &mut Pool) {
    let data: Vec<u64> = vec![1; (1 << 30) / 8];
    let threads = pool.threads();
    let mut rates = [1, 8].map(|places| {
        let took = fastest(|| {
            pool.run(&|number| {
                let part = &data[data.len() * number / threads..data.len() * (number + 1) / threads];
                let mut streams: Vec<_> = part.chunks(part.len() / places).map(|stream| stream.as_chunks::<64>().0.iter()).collect();
                let mut sums = [0_u64; 64];
                // Each place in turn gives 512 bytes.
                while streams.iter_mut().filter_map(Iterator::next).fold(false, |_, chunk| {
                    sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum = sum.wrapping_add(*x));
                    true
                }) {}
                std::hint::black_box(sums);
            });
        });
        (places, f64::from(1 << 30) / took.as_secs_f64() / 1e9)
    });
    rates.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (places, rate) in rates {
        println!("reading 1 GiB from {places} place(s) at a time: {rate:.1} GB/s");
    }
}

/// One token through all ternary layers.
fn decode(kernel: Kernel, pool: &mut Pool) {
    let layers: Vec<QuantizedLinear> = (0..LAYERS).flat_map(|_| LAYER).map(|(rows, columns)| layer(rows, columns, kernel)).collect();
    let bytes: usize = layers.iter().map(|layer| layer.weights().code_bytes()).sum();
    let (x, mut out, mut activations) = (vec![0.5; 6912], vec![0.0; 6912], Activations::with_room(1, 6912));
    let took = fastest(|| {
        for layer in &layers {
            let (rows, columns) = (layer.weights().rows(), layer.weights().columns());
            activations.quantize(&x[..columns], columns);
            layer.forward(&activations, pool, &mut out[..rows]);
        }
    });
    println!("{kernel}: one token, {} MB of codes: {took:.1?}, {:.1} GB/s", bytes / 1_000_000, bytes as f64 / took.as_secs_f64() / 1e9);
}

/// Prompts of several lengths through one layer.
fn prefill(kernel: Kernel, pool: &mut Pool) {
    let layer = layer(6912, 2560, kernel);
    let tokens: &[usize] = if kernel == Kernel::reference() { &[1, 4] } else { &[1, 4, 16, 64, 128, 512] };
    for &tokens in tokens {
        let mut activations = Activations::with_room(tokens, 2560);
        activations.quantize(&vec![0.5; tokens * 2560], 2560);
        let mut out = vec![0.0; tokens * 6912];
        let took = fastest(|| layer.forward(&activations, pool, &mut out)).as_secs_f64();
        let operations = 2.0 * (tokens * 6912 * 2560) as f64;
        let per_token = took / tokens as f64 * 1e6;
        println!("{kernel}: 6912x2560, {tokens} tokens: {per_token:.1} µs per token, {:.2} TOPS", operations / took / 1e12);
    }
}

/// Prompts by micro-batch through all ternary layers, whose weights come from memory once per batch.
fn prompts(kernel: Kernel, pool: &mut Pool) {
    if kernel == Kernel::reference() {
        return;
    }
    let layers: Vec<QuantizedLinear> = (0..LAYERS).flat_map(|_| LAYER).map(|(rows, columns)| layer(rows, columns, kernel)).collect();
    for tokens in [16, 32, 64, 128, 256, 512] {
        let (x, mut out) = (vec![0.5; tokens * 6912], vec![0.0; tokens * 6912]);
        let mut activations = Activations::with_room(tokens, 6912);
        let took = fastest(|| {
            for layer in &layers {
                let (rows, columns) = (layer.weights().rows(), layer.weights().columns());
                activations.quantize(&x[..tokens * columns], columns);
                layer.forward(&activations, pool, &mut out[..tokens * rows]);
            }
        });
        println!("{kernel}: {tokens} tokens at a time through all layers: {took:.1?}, {:.1} tokens/s", tokens as f64 / took.as_secs_f64());
    }
}

/// The tied head: 128,256 rows.
fn head(kernel: Kernel, pool: &mut Pool) {
    let rows = if kernel == Kernel::reference() { 4096 } else { 128_256 };
    let halves = vec![[0x00, 0x3c]; rows * 2560].into_flattened();
    let halves = DenseMatrix::new(halves.into(), DenseType::F16, rows, 2560).unwrap();
    let q8 = DenseMatrix::new(vec![1; rows * 80 * 34].into(), DenseType::Q8_0, rows, 2560).unwrap();
    let (x, mut out) = (vec![0.5; 2560], vec![0.0; rows]);
    for matrix in [halves, q8] {
        let mut scratch = matrix.scratch();
        let took = fastest(|| matrix.multiply(&x, &mut scratch, kernel, pool, &mut out));
        let rate = matrix.bytes() as f64 / took.as_secs_f64() / 1e9;
        println!("{kernel}: head of {rows} rows in {:?}: {took:.1?}, {rate:.1} GB/s", matrix.ty());
    }
}
