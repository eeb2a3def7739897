// The tokens of a pass: put before kernels that are told of them.

struct Batch {
    tokens: u32,
    // Position of the first token.
    start: u32,
    unused_a: u32,
    unused_b: u32,
}

// A part of the arena like the rest, so that WebGPU takes all of them as writable.
@group(0) @binding(0) var<storage, read_write> batch: Batch;
