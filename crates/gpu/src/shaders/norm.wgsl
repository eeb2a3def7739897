// Tokens after an RMS norm, w x / sqrt(mean(x^2) + eps): put before quantize.wgsl.

override EPS: f32;
@group(0) @binding(5) var<storage, read> weights: array<f32>;
var<private> rms: f32;

fn prepare(first: u32, lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < shape.columns; i += WIDTH) {
        let value = x[first + i];
        sum += value * value;
    }
    // The built-in inverse root is less precise.
    rms = 1.0 / sqrt(total(lane, sum) / f32(shape.columns) + EPS);
}

fn value(first: u32, column: u32) -> f32 {
    return weights[column] * (x[first + column] * rms);
}
