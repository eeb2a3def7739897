//! The kernels of GPUs against those of the CPU, on the cases that every backend is held to. A software driver stands for a GPU where
//! there is one; where there is none the tests say so.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot be set up has failed, and says when it is left out")]

#[path = "../../kernels/tests/cases/mod.rs"]
mod cases;

use cases::{COLUMNS, LARGEST, ROWS, TOKENS, codes_of_three, drawn, matrix, plain, quantized};
use gpu::{Arena, Gpu, GpuError, Kind, QuantizedLinear};
use kernels::{Activations, Kernel, Pool, TernaryMatrix};
use spec::Bytes;

/// Every adapter there is, software too.
fn adapters() -> Vec<Gpu> {
    let all: Vec<Gpu> = gpu::list().iter().map(|adapter| adapter.open().unwrap()).collect();
    if all.is_empty() {
        eprintln!("SKIPPED: no adapter here; mesa-vulkan-drivers has one in software");
    }
    all
}

/// The layer on a GPU from integers.
fn integers(gpu: &Gpu, weights: &TernaryMatrix, activations: &Activations) -> Vec<f32> {
    let layer = QuantizedLinear::new(gpu, weights).unwrap();
    let arena = Arena::new(gpu, &[layer.layer().unwrap()], activations.tokens()).unwrap();
    layer.forward_quantized(gpu, &arena, activations).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_edge_is_equal_to_the_bit() {
    for gpu in adapters() {
        for rows in ROWS {
            for tokens in TOKENS {
                for columns in COLUMNS {
                    let (weights, x) = drawn(rows, columns, tokens, (rows * tokens * columns) as u64);
                    let activations = quantized(&x, columns);
                    let found = integers(&gpu, &matrix(&weights, rows, columns, 0.75), &activations);
                    let expected = plain(&weights, rows, columns, 0.75, &activations);
                    assert_eq!(bits(&found), bits(&expected), "{}: {rows} rows, {columns} columns, {tokens} tokens", gpu.name());
                }
            }
        }
    }
}

#[test]
fn the_largest_sums_and_codes_of_three_are_the_cpus() {
    for gpu in adapters() {
        for (columns, weight, sign) in LARGEST {
            let activations = quantized(&vec![sign; 4 * columns], columns);
            let found = integers(&gpu, &matrix(&vec![weight; 5 * columns], 5, columns, 1.0), &activations);
            assert_eq!(bits(&found), bits(&plain(&vec![weight; 5 * columns], 5, columns, 1.0, &activations)));
        }
        let activations = quantized(&vec![-1.0; 4096], 4096);
        let mut expected = vec![0.0; 5];
        kernels::QuantizedLinear::new(codes_of_three(), Kernel::reference()).forward(
            &activations,
            &mut Pool::new(1).unwrap(),
            &mut expected,
        );
        assert_eq!(bits(&integers(&gpu, &codes_of_three(), &activations)), bits(&expected));
    }
}

/// What a device quantises: its division may be off by two and a half units in the last place (WGSL, "Floating Point Accuracy"), so that a
/// value next to a half may fall to its other side: by one, of up to 127, times the row's weights. Where none does, floats are near.
#[test]
fn floats_are_within_their_bound() {
    for gpu in adapters() {
        for (rows, columns, tokens) in [(5, 130, 1), (64, 2560, 1), (37, 700, 40), (128, 384, 33)] {
            let (weights, x) = drawn(rows, columns, tokens, 7);
            let layer = QuantizedLinear::new(&gpu, &matrix(&weights, rows, columns, 0.5)).unwrap();
            let arena = Arena::new(&gpu, &[layer.layer().unwrap()], tokens).unwrap();
            let found = layer.forward(&gpu, &arena, &x).unwrap();
            let activations = quantized(&x, columns);
            let expected = plain(&weights, rows, columns, 0.5, &activations);
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let step = activations.scale(i / rows) * 0.5;
                // Values within 1e-4 of a half, each worth a step.
                let near = x[i / rows * columns..][..columns].iter().filter(|x| {
                    let scaled = *x / activations.scale(i / rows);
                    (scaled - scaled.floor() - 0.5).abs() < 1e-4
                });
                let bound = step * near.count() as f32 + expected.abs() * 1e-5 + step * 1e-3;
                assert!((found - expected).abs() <= bound, "{}: {found}, not {expected} at {i} (bound {bound})", gpu.name());
            }
        }
    }
}

/// A matrix that one binding cannot hold: 128 MiB with lavapipe's limits.
#[test]
fn matrices_beyond_a_binding_are_split() {
    for gpu in adapters().into_iter().filter(|gpu| gpu.largest_piece() <= Bytes::from_mib(256)) {
        let columns = 16_384;
        let rows = (gpu.largest_piece().get() / (columns / 4)) as usize + 70;
        let codes: Vec<u8> = (0..rows * columns as usize / 4).map(|i| [0x55, 0x96, 0x24, 0x81][i * 7 % 1009 % 4]).collect();
        let mut tensor = codes;
        tensor.extend(0.5_f32.to_le_bytes());
        tensor.extend([0; 28]);
        let weights = TernaryMatrix::from_i2_s(&tensor.into(), rows, columns as usize, kernels::Layout::Blocks128).unwrap();
        let x: Vec<f32> = (0..2 * columns).map(|i| ((i * 31 % 255) as f32 - 127.0) / 127.0).collect();
        let activations = quantized(&x, columns as usize);
        let layer = QuantizedLinear::new(&gpu, &weights).unwrap();
        assert_eq!(layer.pieces(), 2);
        assert_eq!(Some(gpu.held()), QuantizedLinear::bytes(rows as u64, columns, gpu.largest_piece()));
        let arena = Arena::new(&gpu, &[layer.layer().unwrap()], 2).unwrap();
        let found = layer.forward_quantized(&gpu, &arena, &activations).unwrap();
        let mut expected = vec![0.0; 2 * rows];
        kernels::QuantizedLinear::new(weights, Kernel::best()).forward(&activations, &mut Pool::new(2).unwrap(), &mut expected);
        let other = found.iter().zip(&expected).position(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(other.map(|i| (i, found[i], expected[i])), None, "of {rows} rows");
    }
}

#[test]
fn what_cannot_be_is_an_error_that_names_it() {
    let error = Gpu::named("a card that nobody makes").unwrap_err();
    assert!(error.to_string().starts_with("no GPU called a card that nobody makes; there are: "), "{error}");
    for gpu in adapters() {
        let weights = matrix(&[1; 12], 3, 4, 1.0);
        let layer = QuantizedLinear::new(&gpu, &weights).unwrap();
        let arena = Arena::new(&gpu, &[layer.layer().unwrap()], 2).unwrap();
        let says = |error: Result<Vec<f32>, GpuError>| error.unwrap_err().to_string();
        assert_eq!(says(layer.forward(&gpu, &arena, &[0.0; 5])), "5 values are no tokens of 4");
        assert_eq!(says(layer.forward(&gpu, &arena, &[0.0; 12])), "the arena has no room for 3 tokens of this layer");
        assert_eq!(says(layer.forward_quantized(&gpu, &arena, &quantized(&[0.0; 5], 5))), "tokens of 5 values for a layer of 4 columns");
        // Beyond a budget as beyond the device's memory.
        let small = gpu.with_budget(Some(Bytes::from_kib(4)));
        let layers = [workspace::Layer::new(3, 4).unwrap()];
        let error = Arena::new(&small, &layers, 1000).unwrap_err();
        assert!(matches!(error, GpuError::OutOfMemory { .. }), "{error}");
        assert!(error.to_string().contains("has no memory for a workspace of"), "{error}");
        // And what there is room for still works.
        assert!(Arena::new(&small, &layers, 10).is_ok());
        let absurd = Arena::new(&small, &layers, usize::MAX).unwrap_err();
        assert!(absurd.to_string().ends_with("tokens is beyond any memory"), "{absurd}");
    }
}

/// Mesa's software driver ends a shader's loops after 65,535 rounds without a word (llvmpipe, `lp_limits.h`): what would be wrong is refused.
#[test]
fn rows_that_software_would_compute_wrongly_are_refused() {
    for adapter in gpu::list() {
        let gpu = adapter.open().unwrap();
        let wide = |columns| TernaryMatrix::from_codes(2, columns, 1.0, |_, column| (column % 3) as u8).unwrap();
        let x = vec![1.0; 2 * 65_536];
        let found = integers(&gpu, &wide(65_536), &quantized(&x, 65_536));
        let mut expected = vec![0.0; 4];
        let layer = kernels::QuantizedLinear::new(wide(65_536), Kernel::reference());
        layer.forward(&quantized(&x, 65_536), &mut Pool::new(1).unwrap(), &mut expected);
        assert_eq!(bits(&found), bits(&expected));
        let wider = QuantizedLinear::new(&gpu, &wide(65_537)).map(|_| ()).map_err(|error| error.to_string());
        let refused = Err(format!("rows of 65537 weights: {} computes at most 65536 rightly", gpu.name()));
        assert_eq!(wider, if adapter.kind() == Kind::Software { refused } else { Ok(()) });
    }
}

#[test]
fn a_device_that_is_lost_says_so_from_then_on() {
    for gpu in adapters() {
        let weights = matrix(&[1; 12], 3, 4, 1.0);
        let layer = QuantizedLinear::new(&gpu, &weights).unwrap();
        let arena = Arena::new(&gpu, &[layer.layer().unwrap()], 1).unwrap();
        assert!(layer.forward(&gpu, &arena, &[1.0; 4]).is_ok());
        gpu.lose();
        for _ in 0..2 {
            let error = layer.forward(&gpu, &arena, &[1.0; 4]).unwrap_err();
            assert!(matches!(error, GpuError::Lost { .. }), "{error}");
        }
    }
}

/// Software computes, and never counts as a GPU.
#[test]
fn software_is_never_chosen() {
    let gpus = gpu::list().iter().filter(|adapter| adapter.kind() != Kind::Software).count();
    assert_eq!(Gpu::best().unwrap().is_some(), gpus > 0);
}
