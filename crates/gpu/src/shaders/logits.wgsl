// Rows of the output head times one token: each workgroup computes ROWS rows, the invocations of a row share its chunks of 16 bytes. Put behind
// what says how weights are kept.

struct Piece {
    // Rows of this piece, where it begins, chunks per row, chunks of weights in it (the others of a row are scales).
    rows: u32,
    first: u32,
    chunks: u32,
    used: u32,
    unused: vec4<u32>,
}

const ROWS = 4u;
const LANES = WIDTH / ROWS;

@group(0) @binding(0) var<uniform> piece: Piece;
@group(0) @binding(3) var<storage, read_write> logits: array<f32>;
var<workgroup> sums: array<f32, WIDTH>;

@compute @workgroup_size(WIDTH)
fn logits_of(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = (group.x + group.y * groups.x) * ROWS + lane / LANES;
    var sum = 0.0;
    if (row < piece.rows) {
        let first = row * piece.chunks;
        for (var chunk = lane % LANES; chunk < piece.used; chunk += LANES) {
            sum += product(first, chunk, piece.used);
        }
    }
    sums[lane] = sum;
    workgroupBarrier();
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        if (lane % LANES < step) {
            sums[lane] += sums[lane + step];
        }
        workgroupBarrier();
    }
    if (lane % LANES == 0u && row < piece.rows) {
        logits[piece.first + row] = sums[lane];
    }
}
