// Tokens as they are: put before quantize.wgsl.

fn prepare(first: u32, lane: u32) {}

fn value(first: u32, column: u32) -> f32 {
    return x[first + column];
}
