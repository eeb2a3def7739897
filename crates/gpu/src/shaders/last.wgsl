// The last token of a pass after the output norm, w x / sqrt(mean(x^2) + eps), filled up with zeros: one workgroup.

override EPS: f32;
override COLUMNS: u32;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> token: array<f32>;

@compute @workgroup_size(WIDTH)
fn last(@builtin(local_invocation_index) lane: u32) {
    let first = (batch.tokens - 1u) * COLUMNS;
    var sum = 0.0;
    for (var i = lane; i < COLUMNS; i += WIDTH) {
        let value = x[first + i];
        sum += value * value;
    }
    // The built-in inverse root is less precise.
    let rms = 1.0 / sqrt(total(lane, sum) / f32(COLUMNS) + EPS);
    for (var i = lane; i < arrayLength(&token); i += WIDTH) {
        var value = 0.0;
        if (i < COLUMNS) {
            value = weights[i] * (x[first + i] * rms);
        }
        token[i] = value;
    }
}
