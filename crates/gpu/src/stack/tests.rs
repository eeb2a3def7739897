//! Attention alone against its definition in double precision: whole layers round to 8 bits behind it.

use super::*;

/// Heads, key heads, width of a head; position of the first token, tokens.
struct Case {
    heads: usize,
    key_heads: usize,
    head: usize,
    start: usize,
    tokens: usize,
}

impl Case {
    fn positions(&self) -> usize {
        self.start + self.tokens
    }

    /// What the device gives.
    fn found(&self, gpu: &Gpu, queries: &[f32], keys: &[f32], values: &[f32]) -> Vec<f32> {
        let (q_width, kv_width) = ((self.heads * self.head) as u64, (self.key_heads * self.head) as u64);
        let shape =
            workspace::Stack { n_layer: 1, n_embd: q_width, n_ff: q_width, q_width, kv_width, head_dim: self.head as u64, head: None };
        let arena = Arena::of(gpu, shape.arena(self.tokens as u64, gpu.alignment()).unwrap(), self.tokens).unwrap();
        let filled = |floats: &[f32]| {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
            let buffer = gpu.buffer("kept", size_of_val(floats) as u64, usage).unwrap();
            gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(floats));
            buffer
        };
        let (keys, values) = (filled(keys), filled(values));
        let (heads, key_heads, head) = (self.heads, self.key_heads, self.head);
        let constants = Constants { heads, key_heads, head, ff: 1, eps: 1e-5, silu: false, halves: false };
        let pipelines = LayerPipelines::new(&gpu.device, &constants);
        let resources =
            [arena.part("batch"), arena.part("queries"), keys.as_entire_binding(), values.as_entire_binding(), arena.part("mixed")];
        let steps = [Step::new(gpu, &pipelines.attend, 0, &resources, Work::Heads(heads as u32), Tokens::Any)];
        arena.tell(gpu, self.tokens, self.start);
        arena.write(gpu, "queries", bytemuck::cast_slice(queries));
        let mut commands = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encode(gpu, &steps, self.tokens, &mut commands);
        let mut out = vec![0.0; queries.len()];
        let bytes = size_of_val(queries) as u64;
        let results = gpu.buffer("results", bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST).unwrap();
        commands.copy_buffer_to_buffer(&arena.buffer, arena.region("mixed").offset, &results, 0, bytes);
        gpu.send(commands);
        gpu.read(&results, &mut out).unwrap();
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

fn noise(seed: u64, count: usize, size: f32) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * size
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn it_is_attention() {
    for adapter in crate::list() {
        let gpu = adapter.open().unwrap();
        let longest = software_context(128) - 1;
        for (heads, key_heads, head, start, tokens) in [
            (4, 1, 2, 0, 1),
            (4, 2, 16, 5, 3),
            (6, 3, 32, 70, 40),
            (3, 3, 64, 63, 2),
            (2, 1, 130, 128, 3),
            (3, 1, 192, 100, 2),
            (16, 1, 256, 62, 3),
            (20, 5, 128, 100, 2),
            // As long as a software driver computes it rightly.
            (1, 1, 128, longest, 1),
        ] {
            let case = Case { heads, key_heads, head, start, tokens };
            let kept = case.positions() * key_heads * head;
            let (keys, values) = (noise(1, kept, 1.0), noise(2, kept, 1.0));
            let queries = noise(3, tokens * heads * head, 4.0);
            let found = case.found(&gpu, &queries, &keys, &values);
            let expected = case.plain(&queries, &keys, &values);
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 4e-6, "{}: {heads} heads of {head}, {start} + {tokens}: {worst}", gpu.name());
        }
    }
}
