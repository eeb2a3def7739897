// Many tokens times a chunk of rows: a workgroup computes a tile of 32 rows and 32 tokens, block by block of 128 columns.

// Rows and tokens of a tile; each invocation computes 4 x 4 of it.
const TILE = 32u;
const SIDE = 8u;
const EACH = 4u;
// Words of a block: codes of a row, values of a token. One word more than they are, so that columns of lanes read different banks.
const CODES = 9u;
const VALUES = 33u;
var<workgroup> tile_codes: array<u32, TILE * CODES>;
var<workgroup> tile_values: array<u32, TILE * VALUES>;

@compute @workgroup_size(SIDE, SIDE)
fn many(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) place: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.x * TILE;
    let token = group.y * TILE;
    var sums: array<array<i32, EACH>, EACH>;
    for (var block = 0u; block < shape.words / 8u; block++) {
        for (var i = lane; i < TILE * 8u; i += SIDE * SIDE) {
            let r = min(row + i / 8u, shape.rows - 1u);
            tile_codes[(i / 8u) * CODES + i % 8u] = codes[r * shape.words + block * 8u + i % 8u];
        }
        for (var i = lane; i < TILE * 32u; i += SIDE * SIDE) {
            let t = min(token + i / 32u, batch.tokens - 1u);
            tile_values[(i / 32u) * VALUES + i % 32u] = values[t * shape.words * 4u + block * 32u + i % 32u];
        }
        workgroupBarrier();
        for (var j = 0u; j < 8u; j++) {
            var code: array<u32, EACH>;
            for (var r = 0u; r < EACH; r++) {
                code[r] = tile_codes[(place.x + r * SIDE) * CODES + j];
            }
            for (var t = 0u; t < EACH; t++) {
                let at = (place.y + t * SIDE) * VALUES + j;
                let v0 = tile_values[at];
                let v1 = tile_values[at + 8u];
                let v2 = tile_values[at + 16u];
                let v3 = tile_values[at + 24u];
                for (var r = 0u; r < EACH; r++) {
                    sums[t][r] += dot4I8Packed((code[r] >> 6u) & 0x03030303u, v0) + dot4I8Packed((code[r] >> 4u) & 0x03030303u, v1)
                        + dot4I8Packed((code[r] >> 2u) & 0x03030303u, v2) + dot4I8Packed(code[r] & 0x03030303u, v3);
                }
            }
        }
        workgroupBarrier();
    }
    for (var t = 0u; t < EACH; t++) {
        let at = token + place.y + t * SIDE;
        if (at < batch.tokens) {
            for (var r = 0u; r < EACH; r++) {
                let to = row + place.x + r * SIDE;
                if (to < shape.rows) {
                    put(at, to, sums[t][r]);
                }
            }
        }
    }
}
