// What the invocations of a workgroup come to together.

var<workgroup> reduced: array<f32, WIDTH>;

fn total(lane: u32, x: f32) -> f32 {
    reduced[lane] = x;
    workgroupBarrier();
    for (var step = WIDTH / 2u; step > 0u; step /= 2u) {
        if (lane < step) {
            reduced[lane] += reduced[lane + step];
        }
        workgroupBarrier();
    }
    let all = reduced[0];
    workgroupBarrier();
    return all;
}

fn greatest(lane: u32, x: f32) -> f32 {
    reduced[lane] = x;
    workgroupBarrier();
    for (var step = WIDTH / 2u; step > 0u; step /= 2u) {
        if (lane < step) {
            reduced[lane] = max(reduced[lane], reduced[lane + step]);
        }
        workgroupBarrier();
    }
    let all = reduced[0];
    workgroupBarrier();
    return all;
}
