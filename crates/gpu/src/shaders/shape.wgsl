// A chunk of a matrix: put before the kernels that multiply with it, and before those that prepare their tokens.

struct Shape {
    // Rows of this chunk, where it begins, words of codes per row, rows of the matrix.
    rows: u32,
    first: u32,
    words: u32,
    width: u32,
    // Values of a token; sixteen to a word are what they are filled up to.
    columns: u32,
    // The weights' scale.
    scale: f32,
    // Whether sums are added to what is there.
    adds: u32,
    unused: u32,
}

@group(0) @binding(1) var<uniform> shape: Shape;
// Four values to a word.
@group(0) @binding(2) var<storage, read_write> values: array<u32>;
// Per token: the scale's bits and the sum's.
@group(0) @binding(3) var<storage, read_write> scales: array<vec2<u32>>;
