// Tokens in 8 bits: one workgroup per token. a = 127 / max(|x|, 1e-5), q = round(a x), halves to even; then 1/a and the sum of q.

@group(0) @binding(4) var<storage, read_write> x: array<f32>;
var<workgroup> sums: array<i32, WIDTH>;

@compute @workgroup_size(WIDTH)
fn quantize(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let place = group.x + group.y * groups.x;
    let inside = place < batch.tokens;
    // Workgroups beyond the last token do its work once more, and write nothing.
    let token = min(place, batch.tokens - 1u);
    let first = token * shape.columns;
    prepare(first, lane);
    var most = 0.0;
    for (var i = lane; i < shape.columns; i += WIDTH) {
        most = max(most, abs(value(first, i)));
    }
    let factor = 127.0 / max(greatest(lane, most), 1e-5);
    var sum = 0;
    for (var word = lane; word < shape.words * 4u; word += WIDTH) {
        var packed = 0u;
        for (var i = 0u; i < 4u; i++) {
            let column = word * 4u + i;
            if (column < shape.columns) {
                let q = i32(clamp(round(value(first, column) * factor), -128.0, 127.0));
                sum += q;
                packed |= (u32(q) & 0xFFu) << (8u * i);
            }
        }
        if (inside) {
            values[token * shape.words * 4u + word] = packed;
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
