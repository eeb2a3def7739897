// Rotary positions in halves, of queries in place and of keys on their way into the cache, where values go as they are: one workgroup per
// head and token, query heads first.

@group(0) @binding(4) var<storage, read_write> keys: array<f32>;
@group(0) @binding(5) var<storage, read_write> fresh: array<f32>;
// Per position: cosines, then sines, of half a head each. The built-in functions are too coarse for large angles.
@group(0) @binding(6) var<storage, read> angles: array<f32>;

// An element of the key head that begins at `first`, turned by the angles from `angle` on.
fn turned(first: u32, element: u32, angle: u32) -> f32 {
    let half = HEAD / 2u;
    let j = element % half;
    let a = keys[first + j];
    let b = keys[first + half + j];
    let cosine = angles[angle + j];
    let sine = angles[angle + half + j];
    return select(b * cosine + a * sine, a * cosine - b * sine, element < half);
}

@compute @workgroup_size(WIDTH)
fn turn(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let half = HEAD / 2u;
    let token = group.y;
    let position = batch.start + token;
    let angle = position * HEAD;
    if (group.x < HEADS) {
        let first = (token * HEADS + group.x) * HEAD;
        for (var j = lane; j < half; j += WIDTH) {
            let a = queries[first + j];
            let b = queries[first + half + j];
            let cosine = angles[angle + j];
            let sine = angles[angle + half + j];
            queries[first + j] = a * cosine - b * sine;
            queries[first + half + j] = b * cosine + a * sine;
        }
    } else {
        let head = group.x - HEADS;
        let first = (token * KEY_HEADS + head) * HEAD;
        let at = kept_at(position, head);
        for (var i = lane; i < half; i += WIDTH) {
            kept_keys[at + i] = kept(vec2<f32>(turned(first, 2u * i, angle), turned(first, 2u * i + 1u, angle)));
            kept_values[at + i] = kept(vec2<f32>(fresh[first + 2u * i], fresh[first + 2u * i + 1u]));
        }
    }
}
