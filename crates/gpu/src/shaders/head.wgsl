// Weights of the output head and the token that they are multiplied with: put before what says how weights are kept.

@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> token: array<vec4<f32>>;
