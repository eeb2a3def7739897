// gate = activation(gate) * up: ReLU^2, or SiLU in models of 2024.

override SILU: bool;
// Width of both.
override FF: u32;
@group(0) @binding(0) var<storage, read_write> gate: array<f32>;
@group(0) @binding(1) var<storage, read_write> up: array<f32>;

@compute @workgroup_size(WIDTH)
fn gated(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = group.x * WIDTH + lane;
    if (column < FF) {
        let at = group.y * FF + column;
        let x = gate[at];
        let relu = max(x, 0.0);
        let y = select(relu * relu, x / (1.0 + exponential(-x)), SILU);
        gate[at] = y * up[at];
    }
}
