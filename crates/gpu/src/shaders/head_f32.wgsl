// Floats: four to a chunk.

fn product(first: u32, chunk: u32, used: u32) -> f32 {
    return dot(bitcast<vec4<f32>>(weights[first + chunk]), token[chunk]);
}
