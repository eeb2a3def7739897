//! Every kernel against plain arithmetic on the weights: integers to the bit, at every edge of shape.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use kernels::{Activations, DenseMatrix, DenseType, Kernel, Layout, Pool, QuantizedLinear, TernaryMatrix};
use proptest::prelude::*;

/// A sequence that repeats for nobody: xorshift.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
    fn weight(&mut self) -> i8 {
        (self.next() % 3) as i8 - 1
    }
}

fn layer(weights: &[i8], rows: usize, columns: usize, scale: f32, kernel: Kernel) -> QuantizedLinear {
    let matrix = TernaryMatrix::from_codes(rows, columns, scale, |r, c| (weights[r * columns + c] + 1) as u8).unwrap();
    QuantizedLinear::new(matrix, kernel)
}

/// The layer in plain arithmetic over integers.
fn plain(weights: &[i8], rows: usize, columns: usize, scale: f32, activations: &Activations) -> Vec<f32> {
    let stride = columns.next_multiple_of(128);
    let value = |token: usize, row: usize| {
        let values = &activations.values(token, 1)[..columns];
        assert_eq!(activations.values(token, 1).len(), stride);
        let sum: i32 = weights[row * columns..][..columns].iter().zip(values).map(|(w, q)| i32::from(*w) * i32::from(*q)).sum();
        sum as f32 * (activations.scale(token) * scale)
    };
    (0..activations.tokens()).flat_map(|token| (0..rows).map(move |row| (token, row))).map(|(token, row)| value(token, row)).collect()
}

fn check(rows: usize, columns: usize, tokens: usize, threads: usize, seed: u64) {
    let mut noise = Noise(seed | 1);
    let weights: Vec<i8> = (0..rows * columns).map(|_| noise.weight()).collect();
    let x: Vec<f32> = (0..tokens * columns).map(|_| noise.float()).collect();
    let mut activations = Activations::with_room(tokens, columns);
    activations.quantize(&x, columns);
    let expected = plain(&weights, rows, columns, 0.75, &activations);
    let mut pool = Pool::new(threads).unwrap();
    for kernel in Kernel::available() {
        let mut out = vec![f32::NAN; tokens * rows];
        layer(&weights, rows, columns, 0.75, kernel).forward(&activations, &mut pool, &mut out);
        let equal = out.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(equal, "{kernel}: {rows} rows, {columns} columns, {tokens} tokens, {threads} threads");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_shape(rows in 1..150_usize, columns in 1..700_usize, tokens in 1..40_usize, threads in 1..4_usize, seed: u64) {
        check(rows, columns, tokens, threads, seed);
    }
}

#[test]
fn edges_of_tiles_and_panels() {
    for rows in [1, 3, 4, 5, 63, 64, 65, 128] {
        for tokens in [1, 3, 4, 5, 15, 16, 17, 33] {
            for columns in [1, 127, 128, 129, 256, 384] {
                check(rows, columns, tokens, 2, (rows * tokens * columns) as u64);
            }
        }
    }
}

/// Sums of 16 bits would wrap: 4096 products of 2 and 127 (microsoft/BitNet issue 629).
#[test]
fn the_largest_sums_do_not_wrap() {
    for (columns, weight, sign) in [(4096, 1, 1.0), (4096, 1, -1.0), (8192, -1, 1.0)] {
        let mut activations = Activations::with_room(4, columns);
        activations.quantize(&vec![sign; 4 * columns], columns);
        for kernel in Kernel::available() {
            let mut out = vec![0.0; 4 * 5];
            layer(&vec![weight; 5 * columns], 5, columns, 1.0, kernel).forward(&activations, &mut Pool::new(1).unwrap(), &mut out);
            let expected = f32::from(weight) * sign * 127.0 * columns as f32 * activations.scale(0);
            assert!(out.iter().all(|out| *out == expected), "{kernel}: {out:?}, not {expected}");
        }
    }
}

/// Codes of 3 are no weights, and yet no kernel may make something else of them than the plain one.
#[test]
fn codes_of_three_mean_the_same_everywhere() {
    let mut tensor = vec![0xFF; 5 * 4096 / 4];
    tensor.extend(1.0_f32.to_le_bytes());
    tensor.extend([0; 28]);
    let matrix = TernaryMatrix::from_i2_s(&tensor.into(), 5, 4096, Layout::Blocks128).unwrap();
    let mut activations = Activations::with_room(1, 4096);
    activations.quantize(&vec![-1.0; 4096], 4096);
    let sums = |kernel| {
        let mut out = vec![0.0; 5];
        QuantizedLinear::new(matrix.clone(), kernel).forward(&activations, &mut Pool::new(1).unwrap(), &mut out);
        out
    };
    for kernel in Kernel::available() {
        assert_eq!(sums(kernel), sums(Kernel::reference()), "{kernel}");
    }
}

/// The dense head: one order of sums, so one result; and near the exact one.
#[test]
fn dense_rows_are_equal_to_the_bit_and_near_the_exact_sum() {
    let mut noise = Noise(42);
    for (rows, columns) in [(1, 32), (5, 64), (9, 2560), (4, 32 * 7), (130, 96)] {
        let weights: Vec<f32> = (0..rows * columns).map(|_| noise.float()).collect();
        let x: Vec<f32> = (0..columns).map(|_| noise.float()).collect();
        let bytes = |to: &dyn Fn(f32) -> Vec<u8>| weights.iter().flat_map(|w| to(*w)).collect::<Vec<u8>>();
        let f32s = DenseMatrix::new(bytes(&|w| w.to_le_bytes().into()).into(), DenseType::F32, rows, columns).unwrap();
        let halves = bytes(&|w| half::f16::from_f32(w).to_le_bytes().into());
        let f16s = DenseMatrix::new(halves.into(), DenseType::F16, rows, columns).unwrap();
        let bf16s = bytes(&|w| half::bf16::from_f32(w).to_le_bytes().into());
        let bf16s = DenseMatrix::new(bf16s.into(), DenseType::Bf16, rows, columns).unwrap();
        let q8 = f32s.to_q8_0().unwrap();
        for (matrix, bound) in [(&f32s, 1e-5), (&f16s, 1e-3), (&bf16s, 1e-2), (&q8, 1e-2)] {
            let multiply = |kernel, threads| {
                let mut out = vec![f32::NAN; rows];
                matrix.multiply(&x, kernel, &mut Pool::new(threads).unwrap(), &mut out);
                out
            };
            let reference = multiply(Kernel::reference(), 1);
            for kernel in Kernel::available() {
                let equal = multiply(kernel, 3).iter().zip(&reference).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(equal, "{kernel}: {:?}, {rows} rows, {columns} columns", matrix.ty());
            }
            for (row, out) in reference.iter().enumerate() {
                let exact: f64 = weights[row * columns..][..columns].iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                let bound = bound * (columns as f64).sqrt();
                assert!((f64::from(*out) - exact).abs() < bound, "{:?}: {out} for {exact}", matrix.ty());
            }
        }
    }
}

/// A row that is no whole number of steps: f16 takes any width.
#[test]
fn odd_widths_of_f16() {
    let mut noise = Noise(7);
    for columns in [1, 15, 16, 17, 100] {
        let halves: Vec<u8> = (0..5 * columns).flat_map(|_| half::f16::from_f32(noise.float()).to_le_bytes()).collect();
        let matrix = DenseMatrix::new(halves.into(), DenseType::F16, 5, columns).unwrap();
        let x: Vec<f32> = (0..columns).map(|_| noise.float()).collect();
        let multiply = |kernel| {
            let mut out = vec![f32::NAN; 5];
            matrix.multiply(&x, kernel, &mut Pool::new(1).unwrap(), &mut out);
            out
        };
        for kernel in Kernel::available() {
            assert_eq!(multiply(kernel), multiply(Kernel::reference()), "{kernel} at {columns}");
        }
    }
}

/// Attention's sums, whatever the length.
#[test]
fn sums_of_floats_have_one_order() {
    let mut noise = Noise(5);
    for length in [0, 1, 7, 8, 9, 64, 127, 128, 129] {
        let a: Vec<f32> = (0..length).map(|_| noise.float()).collect();
        let b: Vec<f32> = (0..length).map(|_| noise.float()).collect();
        let sums = |kernel: Kernel| {
            let mut out = b.clone();
            kernel.add_scaled(0.3, &a, &mut out);
            out.push(kernel.dot(&a, &b));
            out.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>()
        };
        let exact: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        assert!((f64::from(Kernel::reference().dot(&a, &b)) - exact).abs() < 1e-5);
        for kernel in Kernel::available() {
            assert_eq!(sums(kernel), sums(Kernel::reference()), "{kernel}, {length}");
        }
    }
}
