// What the kernels of a layer have in common, whatever the number of tokens: put before each of them.

@group(0) @binding(4) var<storage, read_write> out: array<f32>;
// Words of 16 codes: 8 words are a block of 128 weights; word j of it holds the weights 32g + 4j + 0..3 at the bits 6 - 2g of its bytes.
@group(0) @binding(5) var<storage, read> codes: array<u32>;

// Codes are weights plus one: what the ones add is the sum of the token's values.
fn put(token: u32, row: u32, sum: i32) {
    let scale = scales[token];
    let y = f32(sum - bitcast<i32>(scale.y)) * (bitcast<f32>(scale.x) * shape.scale);
    let at = token * shape.width + shape.first + row;
    if (shape.adds != 0u) {
        out[at] += y;
    } else {
        out[at] = y;
    }
}
