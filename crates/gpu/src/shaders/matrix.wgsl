// What the kernels of a layer are given, whatever the number of tokens: put before each of them.

struct Shape {
    // Rows of this chunk, where it begins, words of codes per row, rows of the matrix.
    rows: u32,
    first: u32,
    words: u32,
    width: u32,
    tokens: u32,
    // The weights' scale.
    scale: f32,
    unused_a: u32,
    unused_b: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
// Words of 16 codes: 8 words are a block of 128 weights; word j of it holds the weights 32g + 4j + 0..3 at the bits 6 - 2g of its bytes.
@group(0) @binding(1) var<storage, read> codes: array<u32>;
@group(0) @binding(2) var<storage, read_write> values: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
