//! The kernels of CUDA against those of the CPU, on the cases that every backend is held to: on each device of the driver, and on the pretended one
//! in three orders of its threads.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot be set up has failed, and says when it is left out")]

#[path = "../../kernels/tests/cases/mod.rs"]
mod cases;
mod pretended;

use cases::{COLUMNS, LARGEST, ROWS, TOKENS, codes_of_three, drawn, matrix, plain, quantized};
use cuda::{Arena, Gpu, GpuError, QuantizedLinear};
use kernels::{Activations, Kernel, Pool, TernaryMatrix};
use spec::Bytes;

/// Every device there is.
fn devices() -> Vec<Gpu> {
    let opened = cuda::list().iter().map(cuda::Adapter::open).collect::<Result<Vec<_>, _>>();
    match opened {
        Ok(devices) if devices.is_empty() => eprintln!("SKIPPED: no CUDA device"),
        Ok(devices) => return devices,
        Err(error @ (GpuError::Old { .. } | GpuError::Compiler { .. })) => eprintln!("SKIPPED: {error}"),
        Err(error) => panic!("{error}"),
    }
    Vec::new()
}

#[test]
fn all_again_on_the_pretended_device() {
    let Some(folder) = pretended::driver().filter(|_| !pretended::is_again()) else { return };
    for order in ["forward", "backward", "mixed"] {
        pretended::again(folder.path(), "", &[("PRETENDED_ORDER", order)]);
    }
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
    for gpu in devices() {
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
    for gpu in devices() {
        for (columns, weight, sign) in LARGEST {
            for tokens in [1, 4] {
                let activations = quantized(&vec![sign; tokens * columns], columns);
                let found = integers(&gpu, &matrix(&vec![weight; 5 * columns], 5, columns, 1.0), &activations);
                assert_eq!(bits(&found), bits(&plain(&vec![weight; 5 * columns], 5, columns, 1.0, &activations)));
            }
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

/// What a device quantises, and what it computes from it: divisions are exact to the last place and nothing is fused, so all bits are the CPU's.
#[test]
fn tokens_in_8_bits_and_floats_are_the_cpus_to_the_bit() {
    for gpu in devices() {
        for (rows, columns, tokens) in [(5, 130, 1), (64, 2560, 1), (37, 700, 40), (128, 384, 33), (3, 1, 2)] {
            let (weights, mut x) = drawn(rows, columns, tokens, 7);
            // Halves, what is no number, what is nothing, and the floor of the scale.
            x.iter_mut().step_by(7).for_each(|x| *x = (*x * 8.0).round() / 8.0);
            if columns > 3 {
                x[..4].copy_from_slice(&[f32::NAN, 0.5, -0.0, 1e-40]);
            }
            if tokens > 1 {
                x[columns..2 * columns].iter_mut().for_each(|x| *x *= 1e-7);
            }
            if tokens > 2 {
                // Multiplied with exactly one: halves of both signs, which go to even.
                x[2 * columns..3 * columns].iter_mut().enumerate().for_each(|(i, x)| *x = 127.0 - (i % 500) as f32 / 2.0);
            }
            let layer = QuantizedLinear::new(&gpu, &matrix(&weights, rows, columns, 0.5)).unwrap();
            let arena = Arena::new(&gpu, &[layer.layer().unwrap()], tokens).unwrap();
            let activations = quantized(&x, columns);
            let (words, marks) = layer.quantized(&gpu, &arena, &x).unwrap();
            let values: Vec<i8> = words.iter().flat_map(|word| word.to_le_bytes()).map(u8::cast_signed).collect();
            assert_eq!(values, activations.values(0, tokens));
            let expected: Vec<[u32; 2]> =
                (0..tokens).map(|token| [activations.scale(token).to_bits(), activations.sum(token).cast_unsigned()]).collect();
            assert_eq!(marks, expected);
            let found = layer.forward(&gpu, &arena, &x).unwrap();
            assert_eq!(bits(&found), bits(&plain(&weights, rows, columns, 0.5, &activations)));
        }
    }
}

#[test]
fn what_cannot_be_is_an_error_that_names_it() {
    for gpu in devices() {
        let weights = matrix(&[1; 12], 3, 4, 1.0);
        let layer = QuantizedLinear::new(&gpu, &weights).unwrap();
        let arena = Arena::new(&gpu, &[layer.layer().unwrap()], 2).unwrap();
        let says = |error: Result<Vec<f32>, GpuError>| error.unwrap_err().to_string();
        assert_eq!(says(layer.forward(&gpu, &arena, &[0.0; 5])), "5 values are no tokens of 4");
        assert_eq!(says(layer.forward(&gpu, &arena, &[0.0; 12])), "the arena has no room for 3 tokens of this layer");
        assert_eq!(says(layer.forward_quantized(&gpu, &arena, &quantized(&[0.0; 5], 5))), "tokens of 5 values for a layer of 4 columns");
        // Beyond a budget as beyond the device's memory.
        let (_, total) = gpu.memory().unwrap();
        let layers = [workspace::Layer::new(3, 4).unwrap()];
        let beyond = Arena::new(&gpu, &layers, total.get() as usize / 30).unwrap_err();
        assert!(matches!(beyond, GpuError::OutOfMemory { .. }), "{beyond}");
        let small = gpu.with_budget(Some(Bytes::from_kib(4)));
        let error = Arena::new(&small, &layers, 1000).unwrap_err();
        assert!(matches!(error, GpuError::OutOfMemory { .. }), "{error}");
        assert!(error.to_string().contains("has no memory for a workspace of"), "{error}");
        // And what there is room for still works.
        assert!(Arena::new(&small, &layers, 10).is_ok());
        let absurd = Arena::new(&small, &layers, usize::MAX).unwrap_err();
        assert!(absurd.to_string().ends_with("tokens is beyond any memory"), "{absurd}");
    }
}
