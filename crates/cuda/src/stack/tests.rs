//! Attention alone against its definition in double precision: whole layers round to 8 bits behind it.
#![allow(clippy::print_stderr, reason = "a test says when it is left out")]

use super::*;
use crate::kernel::Batch;
use crate::pretended;

/// Heads, key heads, width of a head; position of the first token, tokens.
#[derive(Clone, Copy)]
struct Case {
    heads: usize,
    key_heads: usize,
    head: usize,
    start: usize,
    tokens: usize,
}

impl Case {
    /// What the device gives for floats that are kept in 32 bits, or, where they are whole multiples of 1/512, in 16.
    fn found(&self, gpu: &Gpu, queries: &[f32], keys: &[f32], values: &[f32], halves: bool) -> Vec<f32> {
        let filled = |floats: &[f32]| {
            let bytes: Vec<u8> = match halves {
                true => floats.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
                false => floats.iter().flat_map(|x| x.to_le_bytes()).collect(),
            };
            let part = gpu.buffer("kept", bytes.len() as u64).unwrap();
            part.write(&bytes).unwrap();
            part
        };
        let (keys, values) = (filled(keys), filled(values));
        let whole = |floats: &[f32]| {
            let part = gpu.buffer("floats", size_of_val(floats) as u64).unwrap();
            part.write(bytemuck::cast_slice(floats)).unwrap();
            part
        };
        let (mixed, queries) = (whole(&vec![0.0; queries.len()]), whole(queries));
        let batch = gpu.buffer("batch", 16).unwrap();
        batch.write(bytemuck::bytes_of(&Batch { tokens: self.tokens as u32, start: self.start as u32, unused: [0; 2] })).unwrap();
        let attend = Attend {
            batch: batch.at(),
            queries: queries.at(),
            keys: keys.at(),
            values: values.at(),
            mixed: mixed.at(),
            heads: self.heads as u32,
            key_heads: self.key_heads as u32,
            head: self.head as u32,
            unused: 0,
        };
        let kernel = if halves { Kernel::AttendF16 } else { Kernel::AttendF32 };
        gpu.launch(kernel, (self.heads as u32, self.tokens as u32), &attend).unwrap();
        let mut out = vec![0.0; self.tokens * self.heads * self.head];
        mixed.read(bytemuck::cast_slice_mut(&mut out)).unwrap();
        out
    }

    /// Attention as it is defined.
    fn plain(&self, queries: &[f32], keys: &[f32], values: &[f32]) -> Vec<f32> {
        let (width, kv, d) = (self.heads * self.head, self.key_heads * self.head, self.head);
        let mut out = Vec::new();
        for token in 0..self.tokens {
            for head in 0..self.heads {
                let query = &queries[token * width + head * d..][..d];
                let row =
                    |rows: &[f32], position: usize, i: usize| f64::from(rows[position * kv + head / (self.heads / self.key_heads) * d + i]);
                let score = |position| (0..d).map(|i| f64::from(query[i]) * row(keys, position, i)).sum::<f64>() / (d as f64).sqrt();
                let scores: Vec<f64> = (0..=self.start + token).map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let shares: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let sum: f64 = shares.iter().sum();
                let value = |i| shares.iter().enumerate().map(|(position, share)| share * row(values, position, i)).sum::<f64>() / sum;
                out.extend((0..d).map(|i| value(i) as f32));
            }
        }
        out
    }
}

/// Whole multiples of 1/512 up to one, times `size`.
fn noise(seed: u64, count: usize, size: f32) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 54) as f32 / 512.0 - 1.0) * size
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn attention_is_as_it_is_defined() {
    let adapters = crate::list();
    if adapters.is_empty() {
        eprintln!("SKIPPED: no CUDA device");
    }
    for adapter in adapters {
        let gpu = adapter.open().unwrap();
        for (heads, key_heads, head, start, tokens) in [
            (4, 1, 2, 0, 1),
            (4, 2, 16, 5, 3),
            (6, 3, 32, 120, 10),
            (3, 3, 64, 127, 2),
            (2, 1, 130, 128, 3),
            (3, 1, 192, 100, 2),
            (16, 1, 256, 126, 3),
            (20, 5, 128, 100, 2),
            (1, 1, 128, 1500, 1),
        ] {
            let case = Case { heads, key_heads, head, start, tokens };
            let kept = (start + tokens) * key_heads * head;
            let (keys, values) = (noise(1, kept, 1.0), noise(2, kept, 1.0));
            let queries = noise(3, tokens * heads * head, 4.0);
            let expected = case.plain(&queries, &keys, &values);
            for halves in [false, true] {
                let found = case.found(&gpu, &queries, &keys, &values, halves);
                // The largest, for a maximum over differences forgets those that are no numbers.
                let worst =
                    found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0_f32, |most, off| if off <= most { most } else { off });
                assert!(worst < 4e-6, "{}: {heads} heads of {head}, {start} + {tokens}, halves {halves}: {worst}", gpu.name());
            }
        }
    }
}

#[test]
fn attention_again_on_the_pretended_device() {
    let Some(folder) = pretended::driver() else { return };
    for order in ["forward", "backward", "mixed"] {
        pretended::again(folder.path(), "attention_is_as_it_is_defined", &[("PRETENDED_ORDER", order)]);
    }
}
