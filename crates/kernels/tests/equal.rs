//! Every kernel against plain arithmetic on the weights: integers to the bit, at every edge of shape.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use kernels::{Activations, DenseMatrix, DenseType, Kernel, Pool, QuantizedLinear};
use proptest::prelude::*;

mod cases;

use cases::{COLUMNS, LARGEST, Noise, ROWS, TOKENS, codes_of_three, drawn, matrix, plain, quantized};

fn layer(weights: &[i8], rows: usize, columns: usize, scale: f32, kernel: Kernel) -> QuantizedLinear {
    QuantizedLinear::new(matrix(weights, rows, columns, scale), kernel)
}

fn check(rows: usize, columns: usize, tokens: usize, threads: usize, seed: u64) {
    let (weights, x) = drawn(rows, columns, tokens, seed);
    let activations = quantized(&x, columns);
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
    for rows in ROWS {
        for tokens in TOKENS {
            for columns in COLUMNS {
                check(rows, columns, tokens, 2, (rows * tokens * columns) as u64);
            }
        }
    }
}

#[test]
fn the_largest_sums_do_not_wrap() {
    for (columns, weight, sign) in LARGEST {
        let activations = quantized(&vec![sign; 4 * columns], columns);
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
    let matrix = codes_of_three();
    let activations = quantized(&vec![-1.0; 4096], 4096);
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
        let q8 = f32s.to_q8_0(Kernel::best(), &mut Pool::new(1).unwrap()).unwrap();
        for (matrix, bound) in [(&f32s, 1e-5), (&f16s, 1e-3), (&bf16s, 1e-2), (&q8, 1e-2)] {
            let multiply = |kernel, threads| {
                let mut out = vec![f32::NAN; rows];
                matrix.multiply(&x, &mut matrix.scratch(), kernel, &mut Pool::new(threads).unwrap(), &mut out);
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

/// Rows of `q8_0` take the token in 16 bits: that moves a sum by less than its own rounding, and hides no value that is no number.
#[test]
fn rows_of_q8_0_are_near_the_sum_of_their_weights() {
    let mut noise = Noise(43);
    let (rows, columns) = (7, 2560);
    let weights: Vec<u8> = (0..rows * columns).flat_map(|_| noise.float().to_le_bytes()).collect();
    let floats = DenseMatrix::new(weights.into(), DenseType::F32, rows, columns).unwrap();
    let q8 = floats.to_q8_0(Kernel::best(), &mut Pool::new(1).unwrap()).unwrap();
    // Blocks of very different sizes: each has a scale of its own.
    let mut x: Vec<f32> = (0..columns).map(|i| noise.float() * [1e-6, 1.0, 300.0][i / 32 % 3]).collect();
    let multiply = |x: &[f32], kernel| {
        let mut out = vec![0.0; rows];
        q8.multiply(x, &mut q8.scratch(), kernel, &mut Pool::new(1).unwrap(), &mut out);
        out
    };
    for (row, out) in multiply(&x, Kernel::best()).into_iter().enumerate() {
        let mut weights = vec![0.0; columns];
        q8.row(row, &mut weights);
        let products = || weights.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x));
        let (exact, size) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
        assert!((f64::from(out) - exact).abs() < 3e-6 * size, "{out} for {exact}, of {size}");
    }
    for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        x[77] = strange;
        for kernel in Kernel::available() {
            assert!(multiply(&x, kernel).iter().all(|out| out.is_nan()), "{kernel} with {strange}");
        }
    }
}

/// Blocks of any floats become blocks of `q8_0`: those that are too small for a scale are zeros, and nothing panics.
#[test]
fn any_floats_are_copied_in_q8_0() {
    let copied = |weights: &[f32]| {
        let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        let matrix = DenseMatrix::new(bytes.into(), DenseType::F32, weights.len() / 32, 32).unwrap();
        let q8 = matrix.to_q8_0(Kernel::best(), &mut Pool::new(1).unwrap()).unwrap();
        let mut rows = vec![f32::NAN; weights.len()];
        rows.chunks_mut(32).enumerate().for_each(|(row, out)| q8.row(row, out));
        rows
    };
    let smallest = f32::from_bits(1);
    for tiny in [smallest, -smallest, f32::MIN_POSITIVE, 2e-39, -1e-30] {
        let mut block = [0.0; 32];
        block[5] = tiny;
        assert_eq!(copied(&block), [0.0; 32], "{tiny:e}");
    }
    let largest = half::f16::MAX.to_f32() * 127.0;
    let mut block = [largest; 32];
    block[1] = -largest;
    assert_eq!(copied(&block), block);
    for strange in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX] {
        assert_eq!(copied(&[strange; 64]).len(), 64);
    }
}

/// A row that is no whole number of steps: floats of 16 bits take any width.
#[test]
fn odd_widths_of_16_bits() {
    let mut noise = Noise(7);
    for (ty, columns) in [DenseType::F16, DenseType::Bf16].into_iter().flat_map(|ty| [1, 15, 16, 17, 100].map(|columns| (ty, columns))) {
        let mut half = || match ty {
            DenseType::Bf16 => half::bf16::from_f32(noise.float()).to_le_bytes(),
            _ => half::f16::from_f32(noise.float()).to_le_bytes(),
        };
        let halves: Vec<u8> = (0..5 * columns).flat_map(|_| half()).collect();
        let matrix = DenseMatrix::new(halves.into(), ty, 5, columns).unwrap();
        let x: Vec<f32> = (0..columns).map(|_| noise.float()).collect();
        let multiply = |kernel| {
            let mut out = vec![f32::NAN; 5];
            matrix.multiply(&x, &mut matrix.scratch(), kernel, &mut Pool::new(1).unwrap(), &mut out);
            out
        };
        for kernel in Kernel::available() {
            assert_eq!(multiply(kernel), multiply(Kernel::reference()), "{kernel} at {columns} in {ty:?}");
        }
    }
}

/// What stands between the matrices, whatever the length.
#[test]
fn functions_of_floats_have_one_order() {
    let mut noise = Noise(5);
    for length in [1, 7, 8, 9, 15, 16, 17, 64, 127, 128, 129, 200] {
        let mut floats = |count: usize| (0..count).map(|_| noise.float() * 9.0).collect::<Vec<f32>>();
        let (a, b, rows) = (floats(length), floats(length), floats(length * 5 + 2));
        let all = |kernel: Kernel| {
            let mut found = vec![0.0; length];
            kernel.rms_norm(&a, &b, 1e-5, &mut found);
            let change = |of: &dyn Fn(&mut [f32])| {
                let mut x = a.clone();
                of(&mut x);
                x
            };
            let mut scores = [f32::NAN; 5];
            kernel.scores(&b, &rows, length, 0.3, &mut scores);
            found.extend(scores);
            found.extend(change(&|x| kernel.add_weighted(&b[..b.len().min(5)], &rows, length, x)));
            found.push(kernel.maximum(&b));
            found.extend(change(&|x| {
                let sum = kernel.exponentials(x, 9.0);
                x[0] += sum;
            }));
            found.extend(change(&|x| kernel.relu2_times(x, &b)));
            found.extend(change(&|x| kernel.silu_times(x, &b)));
            let mut other = b.clone();
            found.extend(change(&|x| kernel.rotate(x, &mut other.clone(), &rows, &b)));
            kernel.rotate(&mut a.clone(), &mut other, &rows, &b);
            found.extend(other);
            let halves: Vec<[u8; 2]> = a.iter().map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
            found.extend(change(&|x| kernel.widen(&halves, x)));
            found.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        for kernel in Kernel::available() {
            assert_eq!(all(kernel), all(Kernel::reference()), "{kernel}, {length}");
        }
        let exact: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let mut score = [0.0];
        Kernel::best().scores(&a, &b, length, 1.0, &mut score);
        assert!((f64::from(score[0]) - exact).abs() < 1e-3);
    }
}

/// Heads of attention: what several queries and several outputs give at once is what each gives alone, and near the exact sums.
#[test]
fn scores_and_weighted_sums_of_many_are_those_of_each() {
    let mut noise = Noise(17);
    for (width, counts) in [(8, 1..34), (24, 5..6), (48, 3..18), (64, 15..18), (80, 31..34), (96, 7..10), (128, 1..34), (256, 16..18)] {
        for (count, queries) in counts.flat_map(|count| [1, 2, 3, 4, 5, 7, 8, 16].map(|queries| (count, queries))) {
            let mut floats = |count: usize| (0..count).map(|_| noise.float() * 3.0).collect::<Vec<f32>>();
            let (asked, rows, weights, before) =
                (floats(queries * width), floats(count * width), floats(queries * count), floats(queries * width));
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let (mut plain_scores, mut plain_sums) = (Vec::new(), Vec::new());
            for (query, weights) in asked.chunks(width).zip(weights.chunks(count)) {
                for (row, weight) in rows.chunks(width).zip(weights) {
                    let mut lanes = [0.0; 16];
                    query.iter().zip(row).enumerate().for_each(|(i, (a, b))| lanes[i % 16] += a * b);
                    for apart in [8, 4, 2, 1] {
                        (0..apart).for_each(|lane| lanes[lane] += lanes[lane + apart]);
                    }
                    plain_scores.push(0.3 * lanes[0]);
                    let exact: f64 = query.iter().zip(row).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    assert!((exact * 0.3 - f64::from(0.3 * lanes[0])).abs() < 1e-3, "{weight}");
                }
            }
            for (out, weights) in before.chunks(width).zip(weights.chunks(count)) {
                let mut out = out.to_vec();
                for (row, weight) in rows.chunks(width).zip(weights) {
                    out.iter_mut().zip(row).for_each(|(out, x)| *out += weight * x);
                }
                plain_sums.extend(out);
            }
            for kernel in Kernel::available() {
                let (mut scores, mut sums) = (vec![f32::NAN; queries * count], before.clone());
                kernel.scores(&asked, &rows, width, 0.3, &mut scores);
                kernel.add_weighted(&weights, &rows, width, &mut sums);
                assert_eq!(bits(&scores), bits(&plain_scores), "{kernel}: {queries} queries, {count} rows of {width}");
                assert_eq!(bits(&sums), bits(&plain_sums), "{kernel}: {queries} outputs, {count} rows of {width}");
            }
        }
    }
}

#[test]
fn the_largest_is_found_at_every_place() {
    for count in 0..40 {
        for place in 0..count {
            let mut x: Vec<f32> = (0..count).map(|i| -2.0 - i as f32).collect();
            x[place] = -1.0;
            x[(place + 1) % count] = if count > 1 { f32::NAN } else { -1.0 };
            assert!(Kernel::available().iter().all(|kernel| kernel.maximum(&x) == -1.0), "{place} of {count}");
        }
        assert!(Kernel::available().iter().all(|kernel| kernel.maximum(&vec![f32::NAN; count]) == f32::NEG_INFINITY));
    }
}

/// Blocks of q8_0 as floats, and what is left over of either side.
#[test]
fn blocks_are_widened_alike() {
    let mut noise = Noise(19);
    for blocks in 0..9 {
        let mut block = || {
            let mut block = std::array::from_fn(|_| (noise.float() * 127.0) as i8 as u8);
            block[..2].copy_from_slice(&half::f16::from_f32(noise.float()).to_le_bytes());
            block
        };
        let data: Vec<[u8; 34]> = (0..blocks).map(|_| block()).collect();
        let plain = data.iter().flat_map(|block| {
            let scale = half::f16::from_le_bytes([block[0], block[1]]).to_f32();
            block[2..].iter().map(move |integer| scale * f32::from(*integer as i8))
        });
        let plain: Vec<f32> = plain.chain([7.0; 5]).collect();
        for kernel in Kernel::available() {
            let mut out = vec![7.0; 32 * blocks + 5];
            kernel.widen_q8_0(&data, &mut out);
            assert_eq!(out, plain, "{kernel}");
        }
    }
}

/// Norm and quantisation in one are those one after the other.
#[test]
fn tokens_are_quantised_after_their_norm() {
    let mut noise = Noise(11);
    for (tokens, columns) in [(1, 1), (1, 130), (3, 2560), (4, 100)] {
        let x: Vec<f32> = (0..tokens * columns).map(|_| noise.float() * 3.0).collect();
        let weight: Vec<f32> = (0..columns).map(|_| noise.float()).collect();
        for kernel in Kernel::available() {
            let mut normal = vec![0.0; x.len()];
            for (x, normal) in x.chunks(columns).zip(normal.chunks_mut(columns)) {
                kernel.rms_norm(x, &weight, 1e-5, normal);
            }
            let (mut one, mut two) = (Activations::with_room(tokens, columns), Activations::with_room(tokens, columns));
            one.quantize_norm(&x, &weight, 1e-5, kernel, &mut Pool::new(2).unwrap());
            two.quantize(&normal, columns);
            assert_eq!(one.values(0, tokens), two.values(0, tokens), "{kernel}");
            for token in 0..tokens {
                assert_eq!((one.scale(token), one.sum(token)), (two.scale(token), two.sum(token)), "{kernel}");
            }
        }
    }
}

/// Layers at once, and added, give what they give alone.
#[test]
fn layers_together_are_those_alone() {
    let mut noise = Noise(13);
    for (rows, tokens, threads) in [([1, 5], 1, 2), ([64, 7], 1, 3), ([9, 130], 6, 2)] {
        let x: Vec<f32> = (0..tokens * 200).map(|_| noise.float()).collect();
        let mut activations = Activations::with_room(tokens, 200);
        activations.quantize(&x, 200);
        let mut pool = Pool::new(threads).unwrap();
        let layers = rows.map(|rows| layer(&(0..rows * 200).map(|_| noise.weight()).collect::<Vec<_>>(), rows, 200, 0.5, Kernel::best()));
        let alone = [0, 1].map(|i: usize| {
            let mut out = vec![0.0; tokens * rows[i]];
            layers[i].forward(&activations, &mut pool, &mut out);
            out
        });
        let mut together = alone.each_ref().map(|alone| vec![f32::NAN; alone.len()]);
        let [a, b] = &mut together;
        QuantizedLinear::forward_each([(&layers[0], a), (&layers[1], b)], &activations, &mut pool, |columns| {
            (0..tokens).for_each(|token| columns[1].row(token).iter_mut().for_each(|x| *x += 1.0));
        });
        assert_eq!(together[0], alone[0]);
        assert_eq!(together[1], alone[1].iter().map(|x| x + 1.0).collect::<Vec<_>>());
        let mut added = vec![1.0; alone[1].len()];
        layers[1].forward_add(&activations, &mut pool, &mut added);
        assert_eq!(added, together[1]);
    }
}
