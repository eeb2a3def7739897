// Tokens in 8 bits: one workgroup per token. a = 127 / max(|x|, 1e-5), q = round(a x), halves to even; then 1/a and the sum of q.

struct Shape {
    // Values of a token, and those it is filled up to, a multiple of 128.
    columns: u32,
    stride: u32,
    tokens: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
// Input and the rest are parts of one buffer, so that all of them are writable to WebGPU.
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
// Four values to a word.
@group(0) @binding(2) var<storage, read_write> values: array<u32>;
// Per token: the scale's bits and the sum's.
@group(0) @binding(3) var<storage, read_write> scales: array<vec2<u32>>;

const WIDTH = 64u;
var<workgroup> largest: array<f32, WIDTH>;
var<workgroup> sums: array<i32, WIDTH>;

@compute @workgroup_size(WIDTH)
fn quantize(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let token = group.x + group.y * groups.x;
    let inside = token < shape.tokens;
    let first = token * shape.columns;
    var most = 0.0;
    if (inside) {
        for (var i = lane; i < shape.columns; i += WIDTH) {
            most = max(most, abs(x[first + i]));
        }
    }
    largest[lane] = most;
    workgroupBarrier();
    for (var step = WIDTH / 2u; step > 0u; step /= 2u) {
        if (lane < step) {
            largest[lane] = max(largest[lane], largest[lane + step]);
        }
        workgroupBarrier();
    }
    let factor = 127.0 / max(largest[0], 1e-5);
    var sum = 0;
    if (inside) {
        for (var word = lane; word < shape.stride / 4u; word += WIDTH) {
            var packed = 0u;
            for (var i = 0u; i < 4u; i++) {
                let column = word * 4u + i;
                if (column < shape.columns) {
                    let q = i32(clamp(round(x[first + column] * factor), -128.0, 127.0));
                    sum += q;
                    packed |= (u32(q) & 0xFFu) << (8u * i);
                }
            }
            values[token * (shape.stride / 4u) + word] = packed;
        }
    }
    sums[lane] = sum;
    workgroupBarrier();
    for (var step = WIDTH / 2u; step > 0u; step /= 2u) {
        if (lane < step) {
            sums[lane] += sums[lane + step];
        }
        workgroupBarrier();
    }
    if (lane == 0u && inside) {
        scales[token] = vec2<u32>(bitcast<u32>(1.0 / factor), bitcast<u32>(sums[0]));
    }
}
