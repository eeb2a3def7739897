//! The kernel `amx-int8` against plain arithmetic and the plain kernel, by the instructions of this processor or emulated ones.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use kernels::{Activations, AmxError, Kernel, Layout, Pool, QuantizedLinear, TernaryMatrix};
use proptest::prelude::*;

mod cases;
mod emulated;

/// Codes and values end where the next byte cannot be reached.
#[global_allocator]
static FENCE: emulated::Fence = emulated::Fence;

use cases::{COLUMNS, LARGEST, codes_of_three, drawn, matrix, plain, quantized};
use emulated::{Misuse, amx_int8, amx_int8_emulated, counts, misuse, with_wrong_products};

/// With fewer tokens AVX-512 computes, and no tile is used.
const FEWEST: usize = 16;

fn forward(weights: TernaryMatrix, kernel: Kernel, activations: &Activations, pool: &mut Pool) -> Vec<f32> {
    let mut out = vec![f32::NAN; activations.tokens() * weights.rows()];
    QuantizedLinear::new(weights, kernel).forward(activations, pool, &mut out);
    out
}

/// A layer by tiles is the plain one, tiles were used if there are tokens enough, and every thread has given them back.
fn check(kernel: Kernel, emulated: bool, (rows, columns, tokens, threads): (usize, usize, usize, usize), seed: u64) {
    let (weights, x) = drawn(rows, columns, tokens, seed);
    let activations = quantized(&x, columns);
    let expected = plain(&weights, rows, columns, 0.75, &activations);
    let mut pool = Pool::new(threads).unwrap();
    let before = counts();
    let out = forward(matrix(&weights, rows, columns, 0.75), kernel, &activations, &mut pool);
    let equal = out.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(equal, "{rows} rows, {columns} columns, {tokens} tokens, {threads} threads");
    if emulated {
        pool.run(&|_| assert_eq!(counts().configured, counts().released));
        // The first thread has no rows where there are fewer than steps of the pool.
        let products = counts().products - before.products;
        assert!(threads > 1 || (products > 0) == (tokens >= FEWEST), "{products} products of tiles for {tokens} tokens");
    }
}

#[test]
fn every_count_of_rows_and_tokens() {
    let Some((kernel, emulated)) = amx_int8() else { return };
    for rows in 1..=40 {
        for tokens in 1..=40 {
            check(kernel, emulated, (rows, 128, tokens, 1), (rows * tokens) as u64);
        }
    }
}

#[test]
fn edges_of_tiles_panels_spans_and_pieces() {
    let Some((kernel, emulated)) = amx_int8() else { return };
    for rows in [1, 15, 16, 17, 47, 48, 49, 63, 64, 65, 80, 128, 131] {
        for tokens in [15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 143, 144, 145, 257] {
            check(kernel, emulated, (rows, 129, tokens, 1), (rows + tokens) as u64);
        }
    }
    for columns in COLUMNS.into_iter().chain([511, 512, 513, 640, 641, 1024, 1025, 1536, 2560]) {
        for (rows, tokens) in [(1, 16), (17, 17), (65, 33)] {
            check(kernel, emulated, (rows, columns, tokens, 1), (columns + tokens) as u64);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_shape(rows in 1..150_usize, columns in 1..1300_usize, tokens in 1..140_usize, threads in 1..4_usize, seed: u64) {
        if let Some((kernel, emulated)) = amx_int8() {
            check(kernel, emulated, (rows, columns, tokens, threads), seed);
        }
    }
}

/// Codes of 0 and 2 with the largest values of both signs.
#[test]
fn the_largest_sums_do_not_wrap() {
    let Some((kernel, _)) = amx_int8() else { return };
    for (columns, weight, sign) in LARGEST.into_iter().chain([(65_536, 1, -1.0)]) {
        let activations = quantized(&vec![sign; 17 * columns], columns);
        let out = forward(matrix(&vec![weight; 5 * columns], 5, columns, 1.0), kernel, &activations, &mut Pool::new(1).unwrap());
        let expected = f32::from(weight) * sign * 127.0 * columns as f32 * activations.scale(0);
        assert!(out.iter().all(|out| *out == expected), "{out:?}, not {expected}");
    }
}

#[test]
fn codes_of_three_mean_what_they_mean_elsewhere() {
    let Some((kernel, _)) = amx_int8() else { return };
    let activations = quantized(&vec![-1.0; 16 * 4096], 4096);
    let sums = |kernel| forward(codes_of_three(), kernel, &activations, &mut Pool::new(1).unwrap());
    assert_eq!(sums(kernel), sums(Kernel::reference()));
}

/// Files of both layouts, one used in place and one copied.
#[test]
fn both_layouts_of_files() {
    let Some((kernel, _)) = amx_int8() else { return };
    let (rows, columns, tokens) = (35, 640, 21);
    let (weights, x) = drawn(rows, columns, tokens, 9);
    let activations = quantized(&x, columns);
    let expected = plain(&weights, rows, columns, 0.5, &activations);
    for layout in [Layout::Blocks128, Layout::Blocks64] {
        let mut tensor = layout.pack(weights.iter().copied());
        tensor.extend(0.5_f32.to_le_bytes());
        tensor.extend([0; 28]);
        let matrix = TernaryMatrix::from_i2_s(&tensor.into(), rows, columns, layout).unwrap();
        assert_eq!(matrix.copied_bytes() == 0, layout == Layout::Blocks128);
        assert_eq!(forward(matrix, kernel, &activations, &mut Pool::new(2).unwrap()), expected, "{layout:?}");
    }
}

/// Layers at once and added, by several pools at the same time, again and again.
#[test]
fn threads_have_tiles_of_their_own() {
    let Some((kernel, emulated)) = amx_int8() else { return };
    let (columns, tokens) = (384, 37);
    let (_, x) = drawn(1, columns, tokens, 3);
    let activations = quantized(&x, columns);
    let layers = |kernel| {
        [130, 67].map(|rows| {
            let (weights, _) = drawn(rows, columns, 1, rows as u64);
            QuantizedLinear::new(matrix(&weights, rows, columns, 0.5), kernel)
        })
    };
    let activations = &activations;
    let run = |kernel: Kernel, threads: usize, rounds| {
        let mut pool = Pool::new(threads).unwrap();
        let [a, b] = layers(kernel);
        let (mut first, mut second) = (vec![0.0; tokens * 130], vec![0.0; tokens * 67]);
        for _ in 0..rounds {
            QuantizedLinear::forward_each([(&a, &mut first), (&b, &mut second)], activations, &mut pool, |_| ());
            b.forward_add(activations, &mut pool, &mut second);
        }
        if emulated && kernel.name() == "amx-int8" {
            pool.run(&|_| assert!(counts().configured == counts().released && counts().products > 0));
        }
        (first, second)
    };
    let expected = run(Kernel::reference(), 1, 1);
    std::thread::scope(|scope| {
        let pools = [1, 2, 5].map(|threads| (threads, scope.spawn(move || run(kernel, threads, 8))));
        for (threads, pool) in pools {
            assert_eq!(pool.join().unwrap(), expected, "{threads} threads");
        }
    });
}

/// A processor whose products are wrong is found out at once.
#[test]
fn a_kernel_with_wrong_products_is_not_offered() {
    let Some((_, true)) = amx_int8() else { return };
    assert!(with_wrong_products(amx_int8_emulated) == Err(AmxError::Products));
    assert_eq!(amx_int8_emulated().map(Kernel::name), Ok("amx-int8"));
    assert_eq!(counts().configured, counts().released);
}

/// It turns as many products as it says, and gives its tiles back.
#[test]
fn products_in_registers_are_counted() {
    let Some((kernel, emulated)) = amx_int8() else { return };
    let before = counts().products;
    let products = kernel.integer_dots(5).unwrap();
    assert!(!emulated || products == (counts().products - before) * 16 * 16 * 64);
    assert_eq!(counts().configured, counts().released);
}

/// The emulation lets nothing pass that is not the kernel's: what is not emulated ends the program by its signal.
#[test]
fn other_instructions_end_the_program() {
    use std::os::unix::process::ExitStatusExt;
    const CHILDREN: [(&str, Misuse); 3] =
        [("unknown", Misuse::Unknown), ("unused", Misuse::Unused), ("unconfigured", Misuse::Unconfigured)];
    const NAME: &str = "LOADMASTER_TEST_MISUSE";
    if !matches!(amx_int8(), Some((_, true))) {
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "a test that starts itself again")]
    let (named, start) = (std::env::var(NAME), |name: &str| {
        let test = "other_instructions_end_the_program";
        std::process::Command::new(std::env::current_exe().unwrap()).args(["--exact", test]).env(NAME, name).output().unwrap()
    });
    if let Some((_, child)) = CHILDREN.iter().find(|(name, _)| named.as_deref() == Ok(name)) {
        misuse(*child);
    }
    for (name, _) in CHILDREN.iter().filter(|_| named.is_err()) {
        let output = start(name);
        assert_eq!(output.status.signal(), Some(libc::SIGILL), "{name}: {output:?}");
    }
}
