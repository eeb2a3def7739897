// One token times a chunk of rows: each workgroup computes ROWS rows, its invocations share the columns.

const ROWS = 4u;
var<workgroup> sums: array<array<i32, ROWS>, WIDTH>;

@compute @workgroup_size(WIDTH)
fn one(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = (group.x + group.y * groups.x) * ROWS;
    var part: array<i32, ROWS>;
    for (var word = lane; word < shape.words; word += WIDTH) {
        let at = (word / 8u) * 32u + word % 8u;
        let v0 = values[at];
        let v1 = values[at + 8u];
        let v2 = values[at + 16u];
        let v3 = values[at + 24u];
        for (var r = 0u; r < ROWS; r++) {
            if (row + r < shape.rows) {
                let code = codes[(row + r) * shape.words + word];
                part[r] += dot4I8Packed((code >> 6u) & 0x03030303u, v0) + dot4I8Packed((code >> 4u) & 0x03030303u, v1)
                    + dot4I8Packed((code >> 2u) & 0x03030303u, v2) + dot4I8Packed(code & 0x03030303u, v3);
            }
        }
    }
    sums[lane] = part;
    workgroupBarrier();
    for (var step = WIDTH / 2u; step > 0u; step /= 2u) {
        if (lane < step) {
            for (var r = 0u; r < ROWS; r++) {
                sums[lane][r] += sums[lane + step][r];
            }
        }
        workgroupBarrier();
    }
    if (lane < ROWS && row + lane < shape.rows) {
        put(0u, row + lane, sums[0][lane]);
    }
}
