// Softmax attention over the cache without a table of scores: one workgroup per query head and token. Keys are taken some at a time, and
// what was summed before is scaled down when a larger score turns up (Milakov and Gimelshein, arXiv 1805.02867).

@group(0) @binding(4) var<storage, read_write> mixed: array<f32>;

// Below any score.
const LOWEST = -3.4e38;
// Pairs of elements of the widest head that an invocation sums.
const EACH = 2u;
var<workgroup> query: array<vec2<f32>, WIDTH * EACH>;
var<workgroup> shares: array<f32, WIDTH>;
var<workgroup> positions: u32;

@compute @workgroup_size(WIDTH)
fn attend(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let half = HEAD / 2u;
    let first = (group.y * HEADS + group.x) * HEAD;
    let key_head = group.x / (HEADS / KEY_HEADS);
    for (var i = lane; i < half; i += WIDTH) {
        query[i] = vec2<f32>(queries[first + 2u * i], queries[first + 2u * i + 1u]);
    }
    if (lane == 0u) {
        positions = batch.start + group.y + 1u;
    }
    // All up to the token's own; the same for the whole workgroup, which the barriers below need.
    let seen = workgroupUniformLoad(&positions);
    var largest = LOWEST;
    var sum = 0.0;
    var out: array<vec2<f32>, EACH>;
    for (var begin = 0u; begin < seen; begin += WIDTH) {
        let count = min(WIDTH, seen - begin);
        var score = LOWEST;
        if (lane < count) {
            let at = kept_at(begin + lane, key_head);
            var products = 0.0;
            for (var i = 0u; i < half; i++) {
                products += dot(query[i], held(kept_keys[at + i]));
            }
            score = (1.0 / sqrt(f32(HEAD))) * products;
        }
        let before = largest;
        largest = max(before, greatest(lane, score));
        let share = select(0.0, exponential(score - largest), lane < count);
        let shrink = exponential(before - largest);
        shares[lane] = share;
        sum = sum * shrink + total(lane, share);
        for (var part = 0u; part < EACH; part++) {
            let i = lane + part * WIDTH;
            if (i < half) {
                var pair = out[part] * shrink;
                for (var key = 0u; key < count; key++) {
                    pair += shares[key] * held(kept_values[kept_at(begin + key, key_head) + i]);
                }
                out[part] = pair;
            }
        }
    }
    for (var part = 0u; part < EACH; part++) {
        let i = lane + part * WIDTH;
        if (i < half) {
            mixed[first + 2u * i] = out[part].x / sum;
            mixed[first + 2u * i + 1u] = out[part].y / sum;
        }
    }
}
